//! One case in both worlds.

use super::Args;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::simulate::policy_of;
use hw::arena::ArenaError;
use hw::content::Contents;
use hw::device::{Device, Setup, StateRoom};
use hw::engine::Engine;
use hw::live::{Arrival, Live, Load};
use hw::lockstep::{Lockstep, LockstepReport};
use hw::refusal::DeviceError;
use policy::checkpoints::CheckpointUse;
use policy::drive::RunError;
use policy::event::{EventKind, Form, Routed, Slice};
use policy::machine::Class;
use policy::record::{Decision, LogDifference, compare_logs};
use policy::registry::Entry;
use policy::state_format::StateFormat;
use policy::tally::Tally;
use policy::{BlockId, Bytes, FormatId, LayerId, Orchestrator};
use rayon::prelude::*;
use scenarios::Scenario;
use sim::workload::Workload;
use sim::{Case, Keep, Outcome, World};
use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;

/// What came of a case in both worlds.
pub(super) struct Worlds {
    pub(super) device: String,
    pub(super) policy: String,
    pub(super) simulated: Outcome,
    pub(super) decisions: usize,
    pub(super) difference: Option<LogDifference>,
    pub(super) lockstep: LockstepReport,
    pub(super) controller: Orchestrator,
    pub(super) contents: Arc<Contents>,
    pub(super) live: Option<LiveRun>,
    /// What checkpoints were used for in both worlds, where there are any.
    pub(super) checkpoints: Option<[CheckpointUse; 2]>,
}

/// A run in which real times fed the controller.
pub(super) struct LiveRun {
    pub(super) tally: Tally,
    /// Blocks of the fast tier that both this run and the one in lockstep ended with, over those that either did.
    pub(super) residency_jaccard: f64,
}

pub(super) fn run(
    scenario: &Scenario,
    case: &Case,
    engine: &dyn Engine,
    args: &Args,
) -> Result<Worlds, Failure> {
    let spans = args.out.is_some();
    let (entry, params) = policy_of(scenario)?;
    let contents = contents(case, args.weights.as_deref())?;
    // What is too much is refused before anything is computed that takes minutes.
    setup(case, &contents, &Copies::of(case)).fits(engine).map_err(unfit)?;
    let mut decisions = Vec::new();
    let keep = Keep { decisions: true, timeline: spans, ..Keep::default() };
    let progress = Progress::spinner("simulating");
    let simulated = case.run(entry, &params, keep, |decision| decisions.push(decision))?;
    drop(progress);
    warn_of_work(case, &simulated);
    let progress = Progress::spinner("setting the device up");
    learn(case, &contents)?;
    let kept = simulated.orchestrator.serving().checkpoint_use();
    let device = with_checkpoints(case, engine, device(case, engine, &contents)?, kept.as_ref())?;
    drop(progress);
    device.notes().for_each(|note| eprintln!("note: {note}"));
    let progress = Progress::spinner("running in lockstep");
    let mut platform = Lockstep::new(case.world(false)?, device);
    if spans {
        platform.keep_spans();
    }
    let mut controller = case.orchestrator(entry, &params, true)?;
    let mut followed: Vec<Decision> = Vec::new();
    policy::run(&mut controller, &mut platform, |decision| followed.push(decision)).map_err(stopped)?;
    let lockstep = platform.finish().map_err(Failure::failed)?;
    drop(progress);
    let difference = compare_logs(&decisions, &followed);
    let live =
        args.live.then(|| run_live(case, engine, &contents, (entry, &params), &controller)).transpose()?;
    let device = engine.name();
    let (decisions, policy) = (decisions.len(), entry.name.to_owned());
    let checkpoints =
        kept.zip(controller.serving().checkpoint_use()).map(|(simulated, real)| [simulated, real]);
    Ok(Worlds {
        device,
        policy,
        simulated,
        decisions,
        difference,
        lockstep,
        controller,
        contents,
        live,
        checkpoints,
    })
}

/// Operations from which on a run takes minutes on a processor of few cores.
const MUCH: f64 = 1e13;

/// Every token goes through all resident weights, and a host multiplies them at a thousandth of an accelerator's pace.
fn warn_of_work(case: &Case, simulated: &Outcome) {
    let tally = simulated.orchestrator.tally();
    let tokens = tally.prompt_tokens + tally.recomputed_tokens + tally.output_tokens;
    // Two operations for each weight of two bytes.
    let operations = case.model.resident_bytes().0 as f64 * tokens as f64;
    if operations > MUCH {
        eprintln!(
            "note: {tokens} tokens through {} of weights are {:.0} thousand billion operations, which this device really does: set fewer or shorter requests if it takes too long",
            case.model.resident_bytes(),
            operations / 1e12
        );
    }
}

/// What the blocks contain.
fn contents(case: &Case, weights: Option<&Path>) -> Result<Arc<Contents>, Failure> {
    let contents = match weights {
        None => Contents::new(&case.model, case.seed),
        Some(path) => Contents::published(&case.model, path, case.seed).map_err(Failure::refused)?,
    };
    Ok(Arc::new(contents))
}

/// The checksums of every copy that may come up: found before a run, they cost it nothing.
fn learn(case: &Case, contents: &Contents) -> Result<(), Failure> {
    let blocks: Vec<BlockId> = (0..case.model.blocks.len() as u32).map(BlockId).collect();
    let formats: Vec<FormatId> = case.encoded.iter().chain(&case.recode).copied().collect();
    blocks.par_iter().try_for_each(|block| contents.learn(*block, &formats)).map_err(Failure::refused)
}

/// The copies that a device begins with, and what each tier has to hold at most.
struct Copies {
    home: Vec<(BlockId, Form)>,
    budgets: Vec<Bytes>,
}

impl Copies {
    fn of(case: &Case) -> Copies {
        let home = case.home_copies();
        Copies { budgets: budgets(case, &home), home }
    }
}

/// The case's machine and model, as a device is to hold them.
fn setup<'a>(case: &'a Case, contents: &Arc<Contents>, copies: &'a Copies) -> Setup<'a> {
    Setup {
        machine: &case.machine,
        contents: contents.clone(),
        budgets: &copies.budgets,
        copies: &copies.home,
        cache: case.reserved.saturating_sub(case.model.resident_bytes() + pool_in_fast_memory(case)),
        tokens: case.step_tokens(),
        check_reads: false,
    }
}

/// What checkpoints may take of the fast tier: memory of their own, beside the cache.
fn pool_in_fast_memory(case: &Case) -> Bytes {
    let fast = case.machine.tiers_of(Class::Fast).next().unwrap_or_default();
    let pools = case.checkpoints.iter().flat_map(|spec| &spec.pools);
    pools.filter(|pool| pool.tier == fast).map(|pool| pool.room).sum()
}

fn device(case: &Case, engine: &dyn Engine, contents: &Arc<Contents>) -> Result<Device, Failure> {
    Device::new(engine, setup(case, contents, &Copies::of(case))).map_err(unfit)
}

/// Sets memory aside for checkpoints: as much as they took in simulation, since in lockstep they take no more.
fn with_checkpoints(
    case: &Case,
    engine: &dyn Engine,
    device: Device,
    kept: Option<&CheckpointUse>,
) -> Result<Device, Failure> {
    let Some((kept, spec)) = kept.zip(case.checkpoints.as_ref()) else { return Ok(device) };
    let served = case.model.state_bytes(StateFormat::SERVED);
    let pools = spec.pools.iter().zip(&kept.pools).map(|(pool, kept)| (pool.tier, kept.peak)).collect();
    let room = StateRoom { pools, staged: kept.staged.0.div_ceil(served.0.max(1)) };
    device.keeping(engine, &case.machine, &room).map_err(unfit)
}

fn unfit(error: DeviceError) -> Failure {
    match error {
        DeviceError::NoRoom { .. } | DeviceError::Arena(ArenaError::NoAccelerator { .. }) => {
            Failure::refused(error)
        }
        error => Failure::failed(error),
    }
}

/// What each tier has to hold at most: a cold tier that begins empty stays so, and no tier holds more than every block in
/// every format that may come up.
fn budgets(case: &Case, copies: &[(BlockId, Form)]) -> Vec<Bytes> {
    let formats: BTreeSet<_> = case.encoded.iter().chain(&case.recode).copied().collect();
    let all = case.model.blocks.iter().map(|block| {
        let others = formats.iter().filter(|format| **format != block.native);
        block.bytes(block.native) + others.map(|format| block.bytes(*format)).sum()
    });
    let all: Bytes = all.sum();
    let tiers = case.machine.tiers.iter().zip(0u8..).zip(&case.budgets);
    let of_tier = |((tier, index), budget): ((&policy::machine::Tier, u8), &Bytes)| {
        let used = copies.iter().any(|(_, form)| form.tier.0 == index);
        let slack = Bytes(tier.granularity.0.saturating_mul(2 * case.model.blocks.len() as u64));
        match tier.class {
            Class::Cold if !used => Bytes::ZERO,
            _ => (*budget).min(all + slack),
        }
    };
    tiers.map(of_tier).collect()
}

/// The workload of the simulator, served by a device.
struct Served(Workload);

impl Load for Served {
    fn request(&self, number: usize) -> Option<Arrival> {
        let request = self.0.requests().get(number)?;
        Some(Arrival { at: request.at, context: request.context, tokens: request.tokens })
    }

    fn route(&mut self, batch: &[Slice], layer: LayerId) -> Vec<Routed> {
        self.0.route(batch, layer)
    }

    fn foresee(&mut self, batch: &[Slice], layer: LayerId) -> Vec<EventKind> {
        self.0.foresee(batch, layer)
    }
}

fn run_live(
    case: &Case,
    engine: &dyn Engine,
    contents: &Arc<Contents>,
    (entry, params): (&Entry, &[f64]),
    lockstep: &Orchestrator,
) -> Result<LiveRun, Failure> {
    let progress = Progress::spinner("running live");
    let mut platform = Live::new(device(case, engine, contents)?, Served(case.workload()?));
    let mut controller = case.orchestrator(entry, params, false)?;
    policy::run(&mut controller, &mut platform, |_| {}).map_err(stopped)?;
    platform.device().audit().map_err(Failure::failed)?;
    drop(progress);
    let (ours, theirs) = (resident(case, &controller), resident(case, lockstep));
    let either = ours.union(&theirs).count();
    let residency_jaccard =
        if either == 0 { 1.0 } else { ours.intersection(&theirs).count() as f64 / either as f64 };
    Ok(LiveRun { tally: controller.tally().clone(), residency_jaccard })
}

fn resident(case: &Case, controller: &Orchestrator) -> BTreeSet<(BlockId, Form)> {
    let ledger = &controller.context().ledger;
    let blocks = (0..case.model.blocks.len() as u32).map(BlockId);
    let copies = blocks.flat_map(|block| ledger.copies(block).map(move |form| (block, form)));
    copies.filter(|(_, form)| case.machine.tier(form.tier).class == Class::Fast).collect()
}

fn stopped<E: StdError + Send + Sync + 'static>(error: RunError<E>) -> Failure {
    match error {
        RunError::Control(error) => sim::RunFailure::Control(error).into(),
        RunError::Platform(error) => Failure::failed(error),
    }
}

/// Bytes that each link direction carried in simulation.
pub(super) fn delivered(world: &World) -> Vec<Bytes> {
    world.links().map(|(_, count)| Bytes(count.bytes)).collect()
}
