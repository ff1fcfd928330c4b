//! What holds of every run, whatever the model, the machine, the load and the policy. The witness between controller
//! and world checks each command; here is what must hold at the end.

use crate::small::{self, Seen, Small};
use policy::event::{Form, MoveChunk};
use policy::record::{Action, Decision};
use policy::state::{State, edge_between};
use policy::veto::{Reason, Verdict};
use policy::{BlockId, Bytes, Nanos, TierId};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use sim::{Case, World};
use std::collections::BTreeSet;
use traces::BatchSource;

/// Cases of the whole property, under every policy, and of what the controller reaches in them.
const CASES: u32 = 80;
const REACH: u32 = 200;

type Run = Seen<World>;

pub(crate) fn smalls() -> impl Strategy<Value = (Small, bool)> {
    type Formats = &'static [&'static str];
    let formats: [(&str, Formats, u32, Formats); 6] = [
        ("mixtral", &[], 0, &[]),
        ("mixtral", &["int8", "bf16_packed"], 0, &[]),
        ("mixtral", &["bf16_packed"], 0, &[]),
        ("mixtral", &["int4_g32", "fp8_e4m3", "int8"], 0, &[]),
        ("gpt_oss", &[], 0, &[]),
        ("mixtral", &[], 3, &["int8"]),
    ];
    let model = (select(formats.to_vec()), 1u32..5, 2u32..13, 1u32..5, select(vec![16u32, 64]));
    let machine = (0.0f64..1.0, select(vec![0.2, 2.0, 20.0]), 1u32..3, select(vec![1u32, 512, 4096]));
    let load = (20u32..90, 1u32..6, 0.0f64..2.0, 0.0f64..1.0, 1u32..5, prop::option::of(100u32..20_000));
    let near = select(vec![0.0, 0.0, 1.0, 30.0]);
    let helped = (any::<bool>(), select(vec![&[] as &[u32], &[100, 50], &[70, 0, 90]]), near);
    let rest =
        (select(vec![0.0, 0.2, 1.0, 5.0, 60.0]), select(vec![512u64, 4096, 1 << 20]), any::<u16>(), helped);
    (model, machine, load, rest).prop_map(|(model, machine, load, rest)| {
        let ((family, encoded, rank, recode), layers, experts, selected, hidden) = model;
        let (share, link, engines, granularity) = machine;
        let (tokens, traces, skew, stickiness, batch, poisson) = load;
        let (drift_budget, chunk, seed, (host, lookahead, near)) = rest;
        // Of few elements a lossless copy may have more exponents without a code than there is room for.
        let hidden = if encoded.contains(&"bf16_packed") { 128 } else { hidden };
        // Blocks with recipes have no homes.
        let near = if rank > 0 { 0.0 } else { near };
        let requests = match poisson {
            Some(rate) => format!("{{ poisson: {{ rate: {rate} /s, batch: {batch} }} }}"),
            None => format!("{{ closed: {{ batch: {batch} }} }}"),
        };
        // Half of the cases have less room than one step may demand.
        let blocks = f64::from(layers * experts);
        let slots = (share * share * blocks) as u32 + 1;
        let selected = selected.min(experts);
        let small = Small {
            family,
            hidden,
            width: 64,
            layers,
            experts,
            selected,
            slots,
            encoded,
            rank,
            recode,
            ..Small::default()
        };
        let small =
            Small { drift_budget, tokens, traces, skew, stickiness, requests, link, engines, ..small };
        (Small { granularity, chunk, host, lookahead, near, seed: seed.into(), ..small }, poisson.is_none())
    })
}

/// Decisions that were carried out: they passed, and no later one says that there was no room.
fn begun(decisions: &[Decision]) -> u64 {
    let moves = |decision: &&Decision| {
        !matches!(
            decision.action,
            Action::Read | Action::InPlace | Action::Skip | Action::Evict | Action::Cancel
        )
    };
    let count = |verdict| decisions.iter().filter(moves).filter(|d| d.verdict == verdict).count() as u64;
    count(Verdict::Pass) - count(Verdict::Reject(Reason::Capacity))
}

fn decided(decisions: &[Decision], action: Action) -> u64 {
    decisions.iter().filter(|decision| decision.action == action).count() as u64
}

/// Commands, decisions, links and memory tell one story.
fn bytes_are_conserved(case: &Case, run: &Run) {
    let (witness, world) = (&run.witness, &run.witness.world);
    let mut cancelled = 0;
    for told in witness.moves.values() {
        let block = case.model.block(told.first.block);
        let MoveChunk { from, to, .. } = told.first;
        let crossing = match from.copy() {
            Some(from) if from.tier == to.tier => to.format,
            Some(from) => from.format,
            None => block.native,
        };
        assert!(told.complete != told.cancelled, "neither done nor given up: {told:?}");
        match told.complete {
            true => assert_eq!(told.sent, block.bytes(crossing), "{told:?}"),
            false => assert!(told.sent < block.bytes(crossing), "{told:?}"),
        }
        cancelled += u64::from(told.cancelled);
    }
    // A move may be given up before anything of it was handed over: then no command tells of it.
    let never_sent = decided(&run.decisions, Action::Cancel) - cancelled;
    assert_eq!(begun(&run.decisions), witness.moves.len() as u64 + never_sent);
    let moved = witness.moved();
    for (link, count) in world.links() {
        let handed = moved.get(&(link.from, link.to)).copied().unwrap_or_default();
        assert_eq!(Bytes(count.bytes), handed, "link");
    }
    let evictions: u64 =
        tiers(case).map(|tier| run.orchestrator.context().ledger.usage(tier).evictions).sum();
    assert_eq!(evictions, decided(&run.decisions, Action::Evict));
}

fn tiers(case: &Case) -> impl Iterator<Item = TierId> {
    (0..case.machine.tiers.len() as u8).map(TierId)
}

/// The ledger, the world's memory and the commands agree on what is where, and nothing was ever over its capacity.
fn memory_agrees(case: &Case, run: &Run) {
    let ledger = &run.orchestrator.context().ledger;
    assert_eq!(ledger.flights().count(), 0, "moves left");
    let blocks = (0..case.model.blocks.len() as u32).map(BlockId);
    let believed = blocks.clone().flat_map(|block| ledger.copies(block).map(move |form| (block, form)));
    let believed: BTreeSet<(BlockId, Form)> = believed.collect();
    assert_eq!(believed, run.witness.copies);
    for tier in tiers(case) {
        let usage = ledger.usage(tier);
        assert!(usage.peak <= usage.capacity && usage.capacity <= case.budgets[tier.index()], "{usage:?}");
        assert_eq!(usage.used, run.witness.world.memory().used(tier), "{tier:?}");
        let held = believed.iter().filter(|copy| copy.1.tier == tier);
        assert_eq!(usage.used, held.map(|copy| ledger.footprint(copy.0, copy.1)).sum(), "{tier:?}");
    }
    for block in blocks {
        assert!(!ledger.is_pinned(block), "{block:?} is still pinned");
    }
}

/// A step is compute and stall and nothing else; every byte is in one state at any time.
fn time_is_accounted_for(case: &Case, run: &Run) {
    let (tally, world) = (run.orchestrator.tally(), &run.witness.world);
    assert_eq!(tally.step_time, world.compute_time() + tally.stall_total());
    let model: f64 = case.model.blocks.iter().map(|block| block.bytes(block.native).0 as f64).sum();
    let whole = model * Nanos(world.now().0).as_secs_f64();
    let ledger = &run.orchestrator.context().ledger;
    let booked: f64 = ledger.states().byte_seconds(world.now()).iter().sum();
    assert!((booked - whole).abs() <= 1e-9 * whole, "{booked} byte seconds of {whole}");
}

fn transitions_are_legal(case: &Case, run: &Run) {
    let recipes = case.model.blocks.iter().any(|block| block.recipe.is_some());
    let counts = run.orchestrator.context().ledger.states().transitions();
    for (from, row) in policy::state::STATES.iter().zip(counts) {
        for (to, &count) in policy::state::STATES.iter().zip(row) {
            let legal = edge_between(*from, *to).is_some_and(|edge| recipes || !edge.needs_recipe);
            assert!(count == 0 || legal, "{from:?} to {to:?}, {count} times");
        }
    }
}

/// The drift of a step never passes the budget; without one nothing is ever reduced.
fn drift_is_within_budget(case: &Case, run: &Run) {
    let context = run.orchestrator.context();
    let (mean, most) = (context.guard.drift_mean(), context.guard.drift_max());
    // A mean of equal numbers is a sum over a count: it may round to more than each of them.
    let within = |number: f64, bound: f64| number <= bound * (1.0 + 1e-12);
    let budget = case.guard.drift_budget;
    assert!(within(mean, most) && within(most, budget), "{mean} on average, {most} at most, of {budget}");
    if budget == 0.0 {
        assert_eq!((mean, most), (0.0, 0.0));
        assert_eq!(run.orchestrator.tally().hits_by_state[State::Reduced as usize], 0);
        assert_eq!(
            context.ledger.states().byte_seconds(run.witness.world.now())[State::Reduced as usize],
            0.0
        );
    }
}

fn every_request_is_served(case: &Case, run: &Run) {
    let tally = run.orchestrator.tally();
    let source =
        BatchSource::new(case.routing().unwrap().clone(), case.include_repetition, case.seed).unwrap();
    let mut served: Vec<_> = run.requests.iter().map(|r| (r.request.index(), r.tokens as usize)).collect();
    served.sort_unstable();
    let asked: Vec<_> = (0..source.requests()).map(|index| (index, source.tokens(index))).collect();
    assert_eq!(served, asked);
    for request in &run.requests {
        let order = [request.arrived, request.admitted, request.first_token, request.finished];
        assert!(order.is_sorted() && request.admitted < request.first_token, "{request:?}");
    }
    assert_eq!(tally.output_tokens, asked.iter().map(|(_, tokens)| *tokens as u64).sum::<u64>());
    assert_eq!(tally.latencies.itl.count(), tally.output_tokens - asked.len() as u64);
    assert_eq!((tally.demanded, tally.hits()), (run.witness.demanded, run.witness.hits));
    assert_eq!(tally.skipped, run.witness.left_out + run.witness.needed.len() as u64);
    assert!(tally.skipped == 0 || case.guard.drift_budget > 0.0);
    let may = case.machine.near.iter().any(|near| case.host_compute || !near.of_host);
    assert!(tally.hosted == 0 || may);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]
    #[test]
    fn every_run_keeps_its_promises((small, closed) in smalls()) {
        let case = small.case();
        for entry in small::policies(closed) {
            let run = small::run(&case, entry, case.world(false).unwrap())
                .map_err(|error| TestCaseError::fail(format!("{}: {error}", entry.name)))?;
            bytes_are_conserved(&case, &run);
            memory_agrees(&case, &run);
            time_is_accounted_for(&case, &run);
            transitions_are_legal(&case, &run);
            drift_is_within_budget(&case, &run);
            every_request_is_served(&case, &run);
        }
    }
}

/// What runs must do for their promises to mean anything.
#[derive(Debug, Default)]
struct Reached {
    states: [u64; policy::state::STATES.len()],
    actions: BTreeSet<String>,
    vetoes: BTreeSet<Reason>,
    waves: u64,
    cancelled_under_way: u64,
    late_prefetches: u64,
}

impl Reached {
    fn add(&mut self, run: &Run) {
        let tally = run.orchestrator.tally();
        let transitions = run.orchestrator.context().ledger.states().transitions();
        for row in transitions {
            self.states.iter_mut().zip(row).for_each(|(state, count)| *state += count);
        }
        for decision in &run.decisions {
            self.actions.insert(format!("{:?}", decision.action));
            if let Verdict::Reject(reason) = decision.verdict {
                self.vetoes.insert(reason);
            }
        }
        self.waves += tally.extra_waves;
        self.cancelled_under_way += run.witness.moves.values().filter(|told| told.cancelled).count() as u64;
        self.late_prefetches += tally.speculations_used;
    }
}

#[test]
fn the_cases_reach_every_state_action_and_corner() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut reached = Reached::default();
    for _ in 0..REACH {
        let (small, _) = smalls().new_tree(&mut runner).unwrap().current();
        let entry = policy::registry::lookup("predictive").unwrap();
        let case = small.case();
        reached.add(&small::run(&case, entry, case.world(false).unwrap()).unwrap());
    }
    // There is no cold tier in use here.
    let of_state = |state: State| reached.states[state as usize];
    for state in
        [State::Full, State::Reduced, State::Compressed, State::InFlight, State::Staged, State::Recomputable]
    {
        assert!(of_state(state) > 0, "{state:?}: {reached:?}");
    }
    assert_eq!(reached.actions.len(), 9, "{reached:?}");
    for reason in [Reason::DriftBudget, Reason::Capacity, Reason::SpeculationPrice] {
        assert!(reached.vetoes.contains(&reason), "{reason:?}: {reached:?}");
    }
    let corners = [reached.waves, reached.cancelled_under_way, reached.late_prefetches];
    assert!(corners.iter().all(|&count| count > 0), "{reached:?}");
}
