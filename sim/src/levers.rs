//! What would remove the stall that is left: the same case with one thing changed, run again under the same policy.

use crate::Summary;
use crate::bound::{StallBound, stall_bound};
use crate::simulate::{Case, Keep, RunFailure};
use policy::format::FORMATS;
use policy::guard::Guard;
use policy::homes::Homes;
use policy::machine::Class;
use policy::registry::Entry;
use policy::verdict::StallVerdict;
use policy::{BlockId, Bytes, FormatId, Machine, Model, TierId};
use rayon::prelude::*;
use serde::Serialize;

/// Something to change in a case.
#[derive(Clone, Copy, Debug)]
pub struct Lever {
    /// Its name in reports.
    pub name: &'static str,
    /// The case with the change, and the change in words; or why there is nothing to change.
    pub change: fn(&Case) -> Result<(Case, String), &'static str>,
}

/// The levers, in the order they are printed. Adding one is adding a row.
pub static LEVERS: &[Lever] = &[
    Lever { name: "more slots", change: more_slots },
    Lever { name: "fewer bits", change: fewer_bits },
    Lever { name: "look-ahead", change: look_ahead },
    Lever { name: "perfect look-ahead", change: perfect_look_ahead },
    Lever { name: "CPU compute", change: cpu_compute },
];

/// A quarter more memory for blocks.
const MORE_SLOTS: u64 = 4;
/// A format has fewer bits than another where its copies take at most this share of the bytes.
const FEWER_BITS: f64 = 0.8;
/// The share of what routers say one, two and three layers ahead that comes true: about 85 % of slots one layer back, and 3.5 to
/// 4 points less for each further layer, measured on Qwen3 models (Helldez/BigMoeOnEdge, docs/route-ahead.md).
const LOOK_AHEAD: [f64; 3] = [0.85, 0.81, 0.77];
/// A budget that rounding does not push a drift over.
const ROUNDING: f64 = 1.0 + 1e-6;

/// A run of the case, as it is or with a lever pulled.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The lever; null for the case as it is.
    pub lever: Option<&'static str>,
    /// What it changes, in words.
    pub change: String,
    /// The stall, in seconds.
    pub stall_s: f64,
    /// Stall over step time.
    pub stall_fraction: f64,
    /// Stall that is gone, as a share of that of the case as it is; negative where there is more of it.
    pub removes: f64,
    /// Largest drift of a step, at the upper confidence bound.
    pub drift_max: f64,
    /// No policy stalls less, in seconds; null where there is no bound.
    pub stall_bound_s: Option<f64>,
}

/// A lever that changes nothing in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stuck {
    /// The lever.
    pub lever: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// What the levers would make of a case.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The policy.
    pub policy: &'static str,
    /// The case as it is, then with each lever that can be pulled.
    pub rows: Vec<Row>,
    /// The levers that cannot be pulled, and why.
    pub stuck: Vec<Stuck>,
    /// The stall of the case as it is, taken apart; `None` where there is no bound.
    #[serde(skip)]
    pub verdict: Option<StallVerdict>,
}

/// Runs a case as it is and with every lever pulled.
///
/// # Errors
/// The first run that fails, in the order of the rows.
pub fn report(case: &Case, entry: &'static Entry, params: &[f64]) -> Result<Report, RunFailure> {
    let (mut cases, mut stuck) = (vec![(None, case.clone(), String::new())], Vec::new());
    for &Lever { name: lever, change } in LEVERS {
        match change(case) {
            Ok((case, change)) => cases.push((Some(lever), case, change)),
            Err(reason) => stuck.push(Stuck { lever, reason }),
        }
    }
    let runs: Vec<_> =
        cases.into_par_iter().map(|(lever, case, change)| run(lever, &case, change, entry, params)).collect();
    let runs = runs.into_iter().collect::<Result<Vec<_>, _>>()?;
    let verdict = runs.first().and_then(|(_, verdict)| verdict.clone());
    let mut rows: Vec<Row> = runs.into_iter().map(|(row, _)| row).collect();
    let own = rows.first().map_or(0.0, |row| row.stall_s);
    for row in rows.iter_mut().filter(|row| row.lever.is_some() && own > 0.0) {
        row.removes = 1.0 - row.stall_s / own;
    }
    Ok(Report { policy: entry.name, rows, stuck, verdict })
}

fn run(
    lever: Option<&'static str>,
    case: &Case,
    change: String,
    entry: &'static Entry,
    params: &[f64],
) -> Result<(Row, Option<StallVerdict>), RunFailure> {
    let outcome = case.run(entry, params, Keep::default(), |_| {})?;
    let summary = Summary::new(case, &outcome, entry.name, 0.0);
    let bound = stall_bound(case)?;
    let step_s = outcome.orchestrator.tally().step_time.as_secs_f64();
    let verdict = bound.map(|StallBound { stall_s, cold_s }| {
        StallVerdict::new(entry.name, summary.stall_s(), step_s, stall_s, cold_s)
    });
    let row = Row {
        lever,
        change,
        stall_s: summary.stall_s(),
        stall_fraction: summary.stall_fraction,
        removes: 0.0,
        drift_max: summary.drift_max,
        stall_bound_s: bound.map(|bound| bound.stall_s),
    };
    Ok((row, verdict))
}

/// A quarter more memory for blocks, and at least one slot.
fn more_slots(case: &Case) -> Result<(Case, String), &'static str> {
    let before = case.capacity();
    let fast = case.machine.tiers_of(Class::Fast).next().filter(|_| before < case.model.blocks.len());
    let fast = fast.ok_or("there is a slot for every block")?;
    let slot = case.model.largest_block().round_up(case.machine.tier(fast).granularity);
    let case = grown(case, fast, Bytes((case.budgets[fast.index()].0 / MORE_SLOTS).max(slot.0)));
    let change = format!("{} slots instead of {before}", case.capacity());
    Ok((case, change))
}

/// The next format with fewer bits than all blocks may be read in now, and a drift budget that lets them. One that is kept
/// already comes first; another is kept in host memory from now on.
fn fewer_bits(case: &Case) -> Result<(Case, String), &'static str> {
    let blocks = &case.model.blocks;
    let budget = case.guard.drift_budget;
    let total = |format: FormatId| blocks.iter().map(|block| block.bytes(format).0).sum::<u64>();
    let native = blocks.iter().map(|block| block.bytes(block.native).0).sum();
    let kept = || case.encoded.iter().chain(&case.recode).copied();
    let drifts = (0..FORMATS.len() as u8)
        .map(FormatId)
        .filter_map(|format| Some((format, worst_drift(case, format)?)));
    let drifts: Vec<(FormatId, f64)> = drifts.collect();
    let usable =
        drifts.iter().filter(|&&(format, drift)| drift <= budget && kept().any(|other| other == format));
    let now: u64 = usable.map(|&(format, _)| total(format)).chain([native]).min().unwrap_or(native);
    let fewer = drifts.iter().filter(|&&(format, _)| total(format) as f64 <= FEWER_BITS * now as f64);
    let next = fewer.max_by_key(|&&(format, _)| (kept().any(|other| other == format), total(format)));
    let &(format, drift) = next.ok_or("no format with fewer bits has a known error")?;
    let mut case = case.clone();
    if !kept().any(|other| other == format) {
        for &tier in case.clone().home.tiers() {
            let granularity = case.machine.tier(tier).granularity;
            let room = |(model, home): (&Model, &Homes)| -> Bytes {
                let there = (0..).zip(&model.blocks).filter(|(id, _)| home.of(BlockId(*id)) == tier);
                there.map(|(_, block)| block.bytes(format).round_up(granularity)).sum()
            };
            let later = case.later.iter().map(|stage| (&*stage.model, &stage.home));
            let most = std::iter::once((&*case.model, &case.home)).chain(later).map(room).max();
            case = grown(&case, tier, most.unwrap_or_default());
        }
        case.encoded.push(format);
    }
    case.guard.drift_budget = budget.max(drift * ROUNDING);
    let change = format!("{} for all, drift budget {:.2} %", format.name(), 100.0 * case.guard.drift_budget);
    Ok((case, change))
}

/// Routers asked three layers ahead, as often right as was measured elsewhere.
fn look_ahead(case: &Case) -> Result<(Case, String), &'static str> {
    let shares: Vec<String> = LOOK_AHEAD.iter().map(|share| format!("{:.0}", 100.0 * share)).collect();
    let change = format!("routers asked 1, 2, 3 layers ahead, right in {} %", shares.join(", "));
    Ok((foreseen(case, LOOK_AHEAD)?, change))
}

/// The same with routers that are never wrong: what better look-ahead gates could win at most.
fn perfect_look_ahead(case: &Case) -> Result<(Case, String), &'static str> {
    Ok((foreseen(case, [1.0; LOOK_AHEAD.len()])?, "the same, never wrong".to_owned()))
}

fn foreseen(case: &Case, shares: [f64; LOOK_AHEAD.len()]) -> Result<Case, &'static str> {
    if case.model.routed_layers().next().is_none() {
        return Err("the model has no routers to ask");
    }
    let known = |ahead: usize| case.lookahead.get(ahead).copied().unwrap_or(0.0);
    let better = |(ahead, share): (usize, &f64)| known(ahead) < *share;
    if !shares.iter().enumerate().any(better) {
        return Err("routers are asked as far ahead already, and as often right");
    }
    let farthest = shares.len().max(case.lookahead.len());
    let lookahead = (0..farthest).map(|ahead| known(ahead).max(shares.get(ahead).copied().unwrap_or(0.0)));
    Ok(Case { lookahead: lookahead.collect(), ..case.clone() })
}

/// Misses that may be computed where they are.
fn cpu_compute(case: &Case) -> Result<(Case, String), &'static str> {
    if case.host_compute {
        return Err("the host computes already");
    }
    let host = case.machine.host_compute().ok_or("the machine file does not say how its host computes")?;
    let change = format!("the host may compute, reading {:.0} GB/s", host.processor.read.0 as f64 / 1e9);
    Ok((Case { host_compute: true, ..case.clone() }, change))
}

/// The drift of a step that reads every block in a format that kernels read as it is, at the upper confidence bound; `None`
/// where a floor or a missing figure forbids it for some block.
fn worst_drift(case: &Case, format: FormatId) -> Option<f64> {
    let guard = Guard::new(case.guard.clone(), &case.model);
    let ids = 0..case.model.blocks.len() as u32;
    let errors = ids.map(|id| guard.error(BlockId(id), format).map(|error| error.upper));
    let worst =
        errors.reduce(|worst, error| Some(worst?.max(error?))).flatten().filter(|_| format.get().direct)?;
    // The squared gate weights of a token add up to 1 at most; a layer without a router reads all its blocks in full.
    let read = |layer: &policy::model::Layer| if case.model.is_routed(layer) { 1 } else { layer.blocks };
    let most = case.model.layers.iter().map(read).max().unwrap_or(1);
    Some(worst * f64::from(most).sqrt())
}

/// The case with so much more of a tier for blocks, on a machine that has so much more of it.
fn grown(case: &Case, tier: TierId, more: Bytes) -> Case {
    let mut case = case.with_budgets(|budgets, _| budgets[tier.index()] += more);
    let mut machine = Machine::clone(&case.machine);
    machine.tiers[tier.index()].capacity += more;
    case.machine = machine.into();
    case
}
