//! Simulation and replay are two drivers of one rule: on the same demands, one request at a time and in full precision,
//! they count the same hits.

use policy::replay::{Order, ReplayInput, Reset};
use policy::{Demands, registry};
use sim::{Case, Keep};
use std::collections::BTreeMap;

/// Rules of which a replay in atomic order and the controller must agree to the hit. `static` keeps slots free for
/// guests when it serves, because a step cannot run without its blocks; `predictive` cannot be replayed.
const AGREE: [&str; 14] = [
    "fifo",
    "lru",
    "lru_layer",
    "lfu",
    "moe_infinity_released",
    "lfu_decayed",
    "lfru",
    "sieve",
    "s3_fifo",
    "arc",
    "w_tiny_lfu",
    "gdsf",
    "least_stale",
    "belady",
];

fn case(trace: &str, slots: usize) -> Case {
    let overrides = [
        ("workload.routing".to_owned(), format!("{{ trace: {trace:?} }}")),
        ("memory.hbm".to_owned(), format!("{slots} slots")),
    ];
    let scenario = scenarios::load("quickstart", &overrides, &sim::resolve::check_policy);
    Case::from_scenario(&scenario.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)))).unwrap()
}

fn sample(slots: usize) -> Case {
    case(concat!(env!("CARGO_MANIFEST_DIR"), "/traces/sample.hrt"), slots)
}

/// (demanded, hits) in simulation.
fn simulated(case: &Case, policy: &str) -> (u64, u64) {
    let entry = registry::lookup(policy).unwrap();
    let params = entry.resolve(&BTreeMap::new()).unwrap();
    let outcome = case.run(entry, &params, Keep::default(), |_| {}).unwrap();
    let tally = outcome.orchestrator.tally();
    (tally.demanded, tally.hits())
}

/// (demanded, hits) in a replay.
fn replayed(demands: &Demands, fit: Option<&Demands>, policy: &str, capacity: usize) -> (u64, u64) {
    let entry = registry::lookup(policy).unwrap();
    let params = entry.resolve(&BTreeMap::new()).unwrap();
    let (order, reset) = (Order::Atomic, Reset::Never);
    let result = entry.run(&ReplayInput { demands, fit, capacity, order, reset, params: &params }).unwrap();
    (result.accesses, result.hits)
}

fn assert_agreement(case: &Case, demands: &Demands, slots: usize) {
    for policy in AGREE {
        let (simulated, replayed) = (simulated(case, policy), replayed(demands, None, policy, slots));
        assert_eq!(simulated, replayed, "{policy} with {slots} slots: simulated, replayed");
    }
}

#[test]
fn simulation_and_replay_count_the_same_hits() {
    for slots in [4, 8, 12, 24, 96, 192, 384, 767] {
        let case = sample(slots);
        assert_agreement(&case, &case.routing().unwrap().demands(false), slots);
    }
}

#[test]
fn simulation_and_replay_count_the_same_hits_on_recorded_routing() {
    const TOKENS: usize = 1500;
    let Some(data) = crate::data() else { return };
    let trace = data.join("moe_routing/gpt-oss-20b/mmlu_dev.npz");
    let mut case = case(&trace.display().to_string(), 288);
    case.limit_tokens = Some(TOKENS as u64);
    let whole = case.routing().unwrap().demands(false);
    let mut demands = Demands::of_layers(whole.layers(), whole.universe() / whole.layers());
    let steps = TOKENS * case.model.layers.len();
    (0..steps).for_each(|step| demands.push_step(whole.step(step).iter().copied()));
    assert_agreement(&case, &demands, 288);
}

#[test]
fn static_serves_with_the_set_that_leaves_room_for_a_step_and_counts_its_guests() {
    let mut case = sample(96);
    case.fit = case.routing().cloned();
    let demands = case.routing().unwrap().demands(false);
    let (demanded, hits) = simulated(&case, "static");
    let members = 96 - case.largest_demand();
    let (accesses, from_the_start) = replayed(&demands, Some(&demands), "static", members);
    assert_eq!(demanded, accesses);
    // In a replay the set is there from the start and there are no guests. The controller loads each member once; a
    // guest that is still there when it is asked for again is a hit too, but no rule passes the clairvoyant one.
    let fewest = from_the_start - members as u64;
    let (_, most) = replayed(&demands, None, "belady", 96);
    assert!((fewest..=most).contains(&hits), "{hits} hits, not within {fewest} to {most}");
}
