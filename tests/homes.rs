//! Home copies in several tiers: each gets what it has room for, evenly over the layers, and a step waits for each block as long
//! as the way from its own home takes.

use crate::small::fast;
use policy::homes::Homes;
use policy::record::Action;
use policy::registry::lookup;
use policy::{Bytes, LayerId, Nanos, Paths, TierId};
use proptest::prelude::*;
use sim::{Case, Keep};

/// A shipped scenario with changes.
pub(crate) fn shipped(name: &str, changes: &[(&str, &str)]) -> Case {
    let path = format!("{}/scenarios/{name}.yaml", crate::ROOT);
    let changes: Vec<_> = changes.iter().map(|(path, value)| (path.to_string(), value.to_string())).collect();
    let scenario = scenarios::load(&path, &changes, &sim::resolve::check_policy);
    Case::from_scenario(&scenario.unwrap_or_else(|wrong| panic!("{wrong}"))).unwrap()
}

/// What was fetched from each tier, and for how long the steps waited.
fn fetched(case: &Case) -> (Vec<u64>, Nanos) {
    let mut fetched = vec![0; case.machine.tiers.len()];
    let keep = Keep { decisions: true, ..Keep::default() };
    let outcome = case.run(lookup("lru").unwrap(), &[], keep, |decision| {
        if decision.action == Action::Fetch {
            fetched[decision.from.unwrap().tier.index()] += 1;
        }
    });
    (fetched, outcome.unwrap().orchestrator.tally().stall_total())
}

#[test]
fn an_expander_moves_the_stall_as_two_tiers_in_closed_form_do() {
    let mut stalls = Vec::new();
    for dram in ["252 GiB", "222 GiB", "192 GiB", "174 GiB"] {
        // As few slots as a layer step has demands: nothing stays until it is asked for again.
        let routing = "{ zipf_markov: { tokens: 40, traces: 2, skew: 0.8, stickiness: 0.3, coupling: 0.3 } }";
        let changes = [
            ("memory.dram", dram),
            ("memory.hbm", "2 slots"),
            ("workload.routing", routing),
            ("policy", "lru"),
        ];
        let case = shipped("mixtral-8x22b-cxl", &changes);
        let (fetched, stall) = fetched(&case);
        let (paths, bytes) = (Paths::new(&case.machine), case.model.largest_block());
        // Copies follow each other on the accelerator's link; each layer step ends with the latency of its last one.
        let busy = |(tier, &copies): (u8, &u64)| {
            let path = paths.between(TierId(tier), fast(&case.machine));
            path.map_or(0.0, |path| copies as f64 * path.busy(bytes).as_secs_f64())
        };
        let expected: f64 = (0..).zip(&fetched).map(busy).sum();
        assert!(
            (stall.as_secs_f64() / expected - 1.0).abs() < 1e-3,
            "{dram}: {stall:?}, expected {expected} s"
        );
        assert_eq!(fetched.iter().sum::<u64>(), 40 * 2 * 56, "nothing was resident");
        stalls.push((case.home.tiers().len(), stall));
    }
    assert!(stalls.is_sorted_by(|(_, less), (_, more)| less < more), "{stalls:?}");
}

#[test]
fn what_is_on_drives_comes_at_their_rate() {
    let routing = "{ zipf_markov: { tokens: 20, traces: 1, skew: 0, stickiness: 0, coupling: 0 } }";
    let changes = [("memory.hbm", "8 slots"), ("workload.routing", routing), ("policy", "lru")];
    let case = shipped("deepseek-v3-nvme", &changes);
    let (fetched, stall) = fetched(&case);
    let bytes = case.model.largest_block().0 as f64;
    let rates = |tier: &str| {
        let id = case.machine.tiers.iter().position(|other| other.name == tier).unwrap();
        let path = Paths::new(&case.machine).between(TierId(id as u8), fast(&case.machine)).unwrap().peak;
        fetched[id] as f64 * bytes / path.0 as f64
    };
    let expected = rates("dram") + rates("nvme");
    assert!((stall.as_secs_f64() / expected - 1.0).abs() < 0.05, "{stall:?}, at the bandwidths {expected} s");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    #[test]
    fn home_copies_fit_and_are_spread_evenly(share in 0.05f64..0.95, spare in 1.02f64..3.0) {
        let case = shipped("mixtral-8x22b-cxl", &[]);
        let (model, machine, below) = (&case.model, &case.machine, case.home.tiers());
        let whole: u64 = model.blocks.iter().map(|block| block.bytes(block.native).0).sum();
        let mut room = vec![Bytes::ZERO; machine.tiers.len()];
        room[below[0].index()] = Bytes((whole as f64 * share) as u64);
        room[below[1].index()] = Bytes((whole as f64 * (1.0 - share) * spare) as u64 + (1 << 20));
        let homes = Homes::spread(below, model, machine, &[], &room).unwrap();
        let of = |tier: TierId| {
            let blocks = homes_of(&homes, model, tier);
            blocks.map(|block| block.bytes(block.native).0).sum::<u64>()
        };
        prop_assert!(of(below[0]) <= room[below[0].index()].0);
        prop_assert_eq!(of(below[0]) + of(below[1]), whole);
        let largest = model.largest_block().0;
        prop_assert!(of(below[0]) + 2 * largest > room[below[0].index()].0, "the first is filled");
        // No layer has more of the first tier than its part and a block.
        for layer in 0..model.layers.len() {
            let there = homes_of(&homes, model, below[0]).filter(|block| block.layer == LayerId(layer as u16)).count();
            let part = share * f64::from(model.layers[layer].blocks);
            prop_assert!((there as f64 - part).abs() <= 2.0, "layer {layer}: {there}, its part {part}");
        }
    }
}

fn homes_of<'a>(
    homes: &'a Homes,
    model: &'a policy::Model,
    tier: TierId,
) -> impl Iterator<Item = &'a policy::model::Block> {
    (0..)
        .zip(&model.blocks)
        .filter(move |(id, _)| homes.of(policy::BlockId(*id)) == tier)
        .map(|(_, block)| block)
}
