//! Fast memory that others take during a run, and give back: within a layer step nothing more is held than there is room for, no
//! block is lost, every request is served, and what was taken is filled again.

use crate::small::{Small, fast, policies};
use policy::orchestrator::Orchestrator;
use policy::registry::{Entry, lookup};
use policy::{Bytes, Nanos, Time, Watch};
use proptest::prelude::*;
use scenarios::{Pressure, Taken};
use sim::world::World;
use sim::{Case, Keep, Outcome};

/// Looks at memory after every event.
#[derive(Default)]
struct Witness {
    /// The room there was, and the layer step in which it fell last.
    room: Option<Bytes>,
    fell_in: u64,
    /// How much was held beyond the room after the end of that layer step.
    beyond: Bytes,
    shed: u64,
}

impl Watch<World> for Witness {
    fn event(&mut self, _: Time, orchestrator: &mut Orchestrator, _: &World) {
        let context = orchestrator.context();
        let usage = context.ledger.usage(context.costs.fast);
        let step = context.signals.layer_step;
        if self.room.is_some_and(|room| usage.capacity < room) {
            (self.fell_in, self.shed) = (step, self.shed + 1);
        }
        self.room = Some(usage.capacity);
        if step > self.fell_in {
            self.beyond = self.beyond.max(usage.used.saturating_sub(usage.capacity));
        }
    }
}

fn run(case: &Case, entry: &'static Entry) -> (Witness, Outcome) {
    let mut witness = Witness::default();
    let params = entry.resolve(&Default::default()).unwrap();
    let outcome = case.watch(entry, &params, Keep::default(), &mut witness);
    let outcome = outcome.unwrap_or_else(|failure| panic!("{}: {failure}", entry.name));
    (witness, outcome)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]
    #[test]
    fn a_run_keeps_to_what_is_left(
        pressure in prop::collection::vec((1u64..4_000, 0u32..=100), 1..8), batch in 1u32..4, seed: u64,
    ) {
        let requests = format!("{{ closed: {{ batch: {batch} }} }}");
        let small = Small { slots: 24, traces: 4, seed, requests, ..Small::default() };
        let mut case = small.case();
        let (budget, block) = (case.budgets[fast(&case.machine).index()], case.model.largest_block());
        let spare = budget.saturating_sub(block).0;
        let mut at = Nanos::ZERO;
        case.pressure = pressure.iter().map(|&(after, percent)| {
            at += Nanos(after * 1_000);
            Pressure { at, taken: Taken::Memory(fast(&case.machine), Bytes(spare * u64::from(percent) / 100)) }
        }).collect();
        for entry in policies(true) {
            let (witness, outcome) = run(&case, entry);
            let tally = outcome.orchestrator.tally();
            prop_assert_eq!(witness.beyond, Bytes::ZERO, "{} holds more than there is", entry.name);
            prop_assert_eq!(tally.completed, tally.arrived, "{}", entry.name);
            let ledger = &outcome.orchestrator.context().ledger;
            for (block, form) in case.home_copies() {
                prop_assert!(ledger.has(block, form), "{} lost {block:?}", entry.name);
            }
        }
    }
}

#[test]
fn what_is_given_back_is_filled_again() {
    let case = |pressure: &[(u64, u64)]| {
        let mut case = Small { slots: 24, traces: 8, ..Small::default() }.case();
        let block = case.model.largest_block();
        let taken = |blocks| Taken::Memory(fast(&case.machine), Bytes(block.0 * blocks));
        let entry = |&(at, blocks): &(u64, u64)| Pressure { at: Nanos(at), taken: taken(blocks) };
        case.pressure = pressure.iter().map(entry).collect();
        case
    };
    let lru = lookup("lru").unwrap();
    let (_, alone) = run(&case(&[]), lru);
    let half = alone.world.now().0 / 2;
    let (witness, pressed) = run(&case(&[(half / 2, 12), (half, 0)]), lru);
    assert_eq!(witness.shed, 1);
    let held = |outcome: &Outcome| {
        let context = outcome.orchestrator.context();
        context.ledger.usage(context.costs.fast).used
    };
    assert_eq!(held(&pressed), held(&alone), "the run ends with all of the memory in use");
    assert!(pressed.orchestrator.tally().hits() < alone.orchestrator.tally().hits());
    // What comes after the last request changes nothing.
    let (_, later) = run(&case(&[(4 * half, 12)]), lru);
    assert_eq!(later.world.now(), alone.world.now());
}
