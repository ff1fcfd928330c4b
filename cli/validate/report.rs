//! What a validation says.

use super::worlds::{Worlds, delivered};
use crate::failure::Failure;
use crate::output;
use crate::simulate::percent;
use hw::branch;
use hw::times::{Component, Errors};
use indexmap::IndexMap;
use policy::checkpoints::{PoolSpec, PoolUse};
use policy::event::Part;
use policy::machine::Class;
use policy::record::{Decision, LogDifference};
use policy::units::Nanos;
use policy::{BlockId, Bytes, FormatId, Paths};
use serde::Serialize;
use sim::Case;
use std::collections::BTreeMap;

/// Blocks of a format on which its error is measured, at most.
const SAMPLE: usize = 16;

/// See the module. Times are in ms.
#[derive(Serialize)]
pub(super) struct Report {
    device: String,
    machine: String,
    policy: String,
    decisions: usize,
    decisions_equal: bool,
    bytes_equal: bool,
    links: Vec<LinkBytes>,
    steps: usize,
    step_time_mape: Option<f64>,
    step_time_median_error: Option<f64>,
    step_time_p99_error: Option<f64>,
    step_time: Option<Compared>,
    components: IndexMap<String, Compared>,
    drift_measured: f64,
    drift_predicted: f64,
    format_errors: IndexMap<&'static str, FormatError>,
    /// The share of transfer time that the accelerator did not wait for.
    overlap: f64,
    transfer_ms: f64,
    exposed_ms: f64,
    lockstep_wait_ms: f64,
    peak_bytes: Bytes,
    budget_bytes: Bytes,
    copies_verified: u64,
    /// Where there are checkpoints of recurrent states.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoints: Option<Checkpoints>,
    first_difference: Option<Difference>,
    live: Option<Live>,
}

#[derive(Serialize)]
struct LinkBytes {
    name: String,
    direction: String,
    simulated: Bytes,
    real: Bytes,
}

/// Checkpoints of recurrent states in both worlds.
#[derive(Serialize)]
struct Checkpoints {
    /// Moves of them, and whether they were the same in the same order.
    moves: u64,
    equal: bool,
    made: u64,
    restores: u64,
    /// Copies on the device at the end, each found right.
    copies: u64,
    pools: Vec<Pool>,
}

#[derive(Serialize)]
struct Pool {
    tier: String,
    peak_bytes_simulated: Bytes,
    peak_bytes_real: Bytes,
}

/// Predicted against measured times of one kind.
#[derive(Serialize)]
struct Compared {
    count: usize,
    predicted_total_ms: f64,
    measured_total_ms: f64,
    predicted_p50_ms: f64,
    measured_p50_ms: f64,
    predicted_p99_ms: f64,
    measured_p99_ms: f64,
    mape: f64,
}

#[derive(Serialize)]
struct FormatError {
    blocks_read: usize,
    measured: f64,
    table: Option<f64>,
}

#[derive(Serialize)]
struct Difference {
    at: usize,
    simulated: Option<Decision>,
    real: Option<Decision>,
}

#[derive(Serialize)]
struct Live {
    hit_rate: f64,
    hit_rate_lockstep: f64,
    stall_ms: f64,
    stall_ms_lockstep: f64,
    step_time_ms: f64,
    step_time_ms_lockstep: f64,
    residency_jaccard: f64,
}

fn ms(time: Nanos) -> f64 {
    time.0 as f64 / 1e6
}

impl Compared {
    fn new(errors: &Errors) -> Compared {
        Compared {
            count: errors.count,
            predicted_total_ms: ms(errors.total.predicted),
            measured_total_ms: ms(errors.total.measured),
            predicted_p50_ms: ms(errors.median.predicted),
            measured_p50_ms: ms(errors.median.measured),
            predicted_p99_ms: ms(errors.p99.predicted),
            measured_p99_ms: ms(errors.p99.measured),
            mape: errors.mape,
        }
    }
}

impl Report {
    pub(super) fn new(case: &Case, worlds: &Worlds) -> Result<Report, Failure> {
        let lockstep = &worlds.lockstep;
        let links = links(case, worlds);
        let steps = Errors::of(&lockstep.times.steps);
        let jobs = lockstep.times.jobs.iter();
        let components = jobs.filter_map(|(component, pairs)| {
            Some((name(case, *component), Compared::new(&Errors::of(pairs)?)))
        });
        let (format_errors, errors) = format_errors(case, worlds)?;
        let (drift_measured, _) = lockstep.drift.of(case.model.layers.len(), &errors);
        let (transfer, exposed) = lockstep.transfer;
        let fast = case.machine.tiers_of(Class::Fast).next().unwrap_or_default();
        Ok(Report {
            device: worlds.device.clone(),
            machine: case.machine.name.clone(),
            policy: worlds.policy.clone(),
            decisions: worlds.decisions,
            decisions_equal: worlds.difference.is_none(),
            bytes_equal: links.iter().all(|link| link.simulated == link.real),
            links,
            steps: lockstep.times.steps.len(),
            step_time_mape: steps.map(|steps| steps.mape),
            step_time_median_error: steps.map(|steps| steps.median.error()),
            step_time_p99_error: steps.map(|steps| steps.p99.error()),
            step_time: steps.as_ref().map(Compared::new),
            components: components.collect(),
            drift_measured,
            drift_predicted: worlds.controller.context().guard.drift_mean(),
            format_errors,
            overlap: if transfer.0 == 0 { 1.0 } else { 1.0 - exposed.0 as f64 / transfer.0 as f64 },
            transfer_ms: ms(transfer),
            exposed_ms: ms(exposed),
            lockstep_wait_ms: ms(lockstep.lockstep_wait),
            peak_bytes: lockstep.totals.peak.get(fast.index()).copied().unwrap_or_default(),
            budget_bytes: case.budgets[fast.index()],
            copies_verified: lockstep.totals.verified_copies,
            checkpoints: checkpoints(case, worlds),
            first_difference: worlds.difference.as_ref().map(difference),
            live: live(worlds),
        })
    }

    /// Whether the worlds did the same.
    pub(super) fn agrees(&self) -> bool {
        let checkpoints = self.checkpoints.as_ref().is_none_or(|checkpoints| checkpoints.equal);
        self.decisions_equal && self.bytes_equal && checkpoints
    }

    pub(super) fn table(&self, scenario: &str) -> String {
        let equal = |equal| if equal { "equal" } else { "NOT EQUAL" };
        let mut rows = vec![
            ["device".into(), format!("{}, predicted as {}", self.device, self.machine)],
            ["decisions".into(), format!("{}: {}", self.decisions, equal(self.decisions_equal))],
        ];
        if let Some(Difference { at, simulated, real }) = &self.first_difference {
            rows.push([format!("  at decision {at}, simulated"), format!("{simulated:?}")]);
            rows.push([format!("  at decision {at}, real"), format!("{real:?}")]);
        }
        if let Some(checkpoints) = &self.checkpoints {
            let Checkpoints { moves, made, restores, copies, .. } = checkpoints;
            let moved =
                format!("{made} made, {restores} restored, {moves} moves: {}", equal(checkpoints.equal));
            rows.push(["checkpoints".into(), moved]);
            rows.push([String::new(), format!("{copies} copies at the end, each found right")]);
            rows.extend(checkpoints.pools.iter().map(|pool| {
                let Pool { tier, peak_bytes_simulated, peak_bytes_real } = pool;
                [format!("  {tier}"), format!("{peak_bytes_simulated} at the peak, {peak_bytes_real} real")]
            }));
        }
        rows.push(["bytes over every link".into(), equal(self.bytes_equal).into()]);
        let busy = self.links.iter().filter(|link| link.simulated.max(link.real) > Bytes::ZERO);
        rows.extend(busy.map(|link| {
            let bytes = format!("{} simulated, {} real", link.simulated, link.real);
            [format!("  {} {}", link.name, link.direction), bytes]
        }));
        rows.push(["copies found right".into(), self.copies_verified.to_string()]);
        let peak = format!("{} of {}", self.peak_bytes, self.budget_bytes);
        rows.push(["peak of fast memory".into(), peak]);
        let drift =
            format!("{} measured, {} predicted", percent(self.drift_measured), percent(self.drift_predicted));
        rows.push(["mean drift".into(), drift]);
        let transfer = format!("{} of {:.1} ms transfer time", percent(self.overlap), self.transfer_ms);
        if self.transfer_ms > 0.0 {
            rows.push(["hidden".into(), transfer]);
        }
        if let Some(live) = &self.live {
            let moved = |name: &str, live: String, lockstep: String| {
                [format!("live: {name}"), format!("{live}, {lockstep} in lockstep")]
            };
            rows.push(moved("hit rate", percent(live.hit_rate), percent(live.hit_rate_lockstep)));
            let seconds = |ms: f64| format!("{:.3} s", ms / 1e3);
            rows.push(moved("stall", seconds(live.stall_ms), seconds(live.stall_ms_lockstep)));
            rows.push(moved("step time", seconds(live.step_time_ms), seconds(live.step_time_ms_lockstep)));
            rows.push([
                "live: residency".into(),
                format!("{:.3} (Jaccard, at the end)", live.residency_jaccard),
            ]);
        }
        format!("{}\n{}", output::words([scenario.to_owned(), String::new()], rows), self.times())
    }

    fn times(&self) -> String {
        let header = [
            "ms",
            "count",
            "p50 predicted",
            "measured",
            "p99 predicted",
            "measured",
            "sum predicted",
            "measured",
            "MAPE",
        ];
        let row = |name: &str, times: &Compared| {
            let one = |ms: f64| format!("{ms:.3}");
            [
                name.to_owned(),
                times.count.to_string(),
                one(times.predicted_p50_ms),
                one(times.measured_p50_ms),
                one(times.predicted_p99_ms),
                one(times.measured_p99_ms),
                one(times.predicted_total_ms),
                one(times.measured_total_ms),
                percent(times.mape),
            ]
        };
        let step = self.step_time.iter().map(|step| row("step", step));
        let components = self.components.iter().map(|(name, times)| row(name, times));
        output::numbers(header.map(String::from), step.chain(components).collect::<Vec<_>>())
    }
}

fn checkpoints(case: &Case, worlds: &Worlds) -> Option<Checkpoints> {
    let ([simulated, real], spec) = worlds.checkpoints.as_ref().zip(case.checkpoints.as_ref())?;
    let peaks = &worlds.lockstep.checkpoint_peaks;
    let pool = |(pool, used): (&PoolSpec, &PoolUse)| Pool {
        tier: used.tier.clone(),
        peak_bytes_simulated: used.peak,
        peak_bytes_real: peaks.get(&pool.tier).copied().unwrap_or_default(),
    };
    Some(Checkpoints {
        moves: real.moves,
        equal: simulated == real,
        made: real.made,
        restores: real.restores,
        copies: worlds.lockstep.live_checkpoints,
        pools: spec.pools.iter().zip(&real.pools).map(pool).collect(),
    })
}

fn name(case: &Case, component: Component) -> String {
    let tier = |tier| &case.machine.tier(tier).name;
    match component {
        Component::Compute(Part::Mixer) => "mixer".into(),
        Component::Compute(Part::Experts) => "experts".into(),
        Component::Compute(Part::Near(by)) => format!("experts on {}", case.machine.near(by).name),
        Component::Compute(Part::Head) => "head".into(),
        Component::Copy(from, to) if from == to => format!("recoding in {}", tier(from)),
        Component::Copy(from, to) => format!("{} to {}", tier(from), tier(to)),
    }
}

/// What each link direction carried: a copy over several links counts on each.
fn links(case: &Case, worlds: &Worlds) -> Vec<LinkBytes> {
    let paths = Paths::new(&case.machine);
    let mut real = vec![Bytes::ZERO; case.machine.links.len()];
    for (&(from, to), &bytes) in &worlds.lockstep.totals.bytes_moved {
        let path = paths.iter().find(|path| (path.from, path.to) == (from, to));
        path.into_iter().flat_map(|path| path.links.iter()).for_each(|link| real[link.index()] += bytes);
    }
    let simulated = delivered(&worlds.simulated.world);
    let tier = |tier| case.machine.tier(tier).name.as_str();
    let link = |((link, simulated), real): ((&policy::machine::Link, Bytes), Bytes)| LinkBytes {
        name: link.name.clone(),
        direction: format!("{} to {}", tier(link.from), tier(link.to)),
        simulated,
        real,
    };
    case.machine.links.iter().zip(simulated).zip(real).map(link).collect()
}

type FormatErrors = (IndexMap<&'static str, FormatError>, BTreeMap<FormatId, f64>);

/// The error of every format that was read, measured on a sample of the blocks that were read in it.
fn format_errors(case: &Case, worlds: &Worlds) -> Result<FormatErrors, Failure> {
    let (mut named, mut errors) = (IndexMap::new(), BTreeMap::new());
    for (format, blocks) in worlds.lockstep.drift.formats() {
        let stride = blocks.len().div_ceil(SAMPLE);
        let sample: Vec<BlockId> = blocks.iter().copied().step_by(stride).collect();
        let of = |block: &BlockId| branch::error(&worlds.contents, *block, format);
        let all = sample.iter().map(of).collect::<Result<Vec<f64>, _>>().map_err(Failure::failed)?;
        let measured = all.iter().sum::<f64>() / all.len() as f64;
        let native = case.model.block(sample[0]).native;
        let table = case.guard.sensitivity.error(native, format).map(|bound| bound.mean);
        named.insert(format.name(), FormatError { blocks_read: blocks.len(), measured, table });
        errors.insert(format, measured);
    }
    Ok((named, errors))
}

fn difference(difference: &LogDifference) -> Difference {
    match difference {
        LogDifference::At { index, left, right } => {
            Difference { at: *index, simulated: Some((**left).clone()), real: Some((**right).clone()) }
        }
        LogDifference::Length { left, right } => {
            Difference { at: *left.min(right), simulated: None, real: None }
        }
    }
}

fn live(worlds: &Worlds) -> Option<Live> {
    let live = worlds.live.as_ref()?;
    let lockstep = worlds.controller.tally();
    let rate = |tally: &policy::tally::Tally| tally.hits() as f64 / tally.demanded.max(1) as f64;
    Some(Live {
        hit_rate: rate(&live.tally),
        hit_rate_lockstep: rate(lockstep),
        stall_ms: ms(live.tally.stall_total()),
        stall_ms_lockstep: ms(lockstep.stall_total()),
        step_time_ms: ms(live.tally.step_time),
        step_time_ms_lockstep: ms(lockstep.step_time),
        residency_jaccard: live.residency_jaccard,
    })
}
