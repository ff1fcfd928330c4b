//! No policy stalls less than the bound says, whatever it foresees and in whatever formats; and where nothing but the
//! number of loads matters, the bound is Belady's.

use crate::small::{Small, fast, policies};
use policy::homes::Homes;
use policy::model::Matrix;
use policy::registry::lookup;
use policy::{Bytes, Machine, Nanos, Paths, TierId};
use scenarios::Length;
use sim::bound::{StallBound, stall_bound};
use sim::{Case, Keep, Outcome};

fn run(case: &Case, policy: &str) -> Outcome {
    let entry = lookup(policy).unwrap();
    let params = entry.resolve(&Default::default()).unwrap();
    case.run(entry, &params, Keep::default(), |_| {}).unwrap()
}

fn bound(case: &Case) -> StallBound {
    stall_bound(case).unwrap().expect("the clients are closed")
}

/// Holds every policy against the bound; the largest share of a stall that it accounts for.
fn check(case: &Case, what: &str) -> f64 {
    let StallBound { stall_s, cold_s } = bound(case);
    assert!(0.0 <= cold_s && cold_s <= stall_s, "{what}: {cold_s} s, {stall_s} s");
    let mut tightest = 0f64;
    for entry in policies(true) {
        let stall = run(case, entry.name).orchestrator.tally().stall_total().as_secs_f64();
        assert!(
            stall_s <= stall + 1e-12,
            "{what}: {} stalls {stall} s, the bound is {stall_s} s",
            entry.name
        );
        tightest = tightest.max(stall_s / stall);
    }
    tightest
}

#[test]
fn no_policy_stalls_less_than_the_bound() {
    for batch in [1, 4] {
        for (encoded, drift_budget) in [
            (&[][..], 0.0),
            (&["bf16_packed"], 0.0),
            (&["int8", "bf16_packed"], 1.0),
            (&["int8", "int4_g32"], 9.0),
        ] {
            for link in [0.2, 2.0, 20.0] {
                let requests = format!("{{ closed: {{ batch: {batch} }} }}");
                let small = Small { encoded, drift_budget, link, requests, traces: 6, ..Small::default() };
                for slots in [6, 12, 24] {
                    let tightest =
                        check(&Small { slots, ..small.clone() }.case(), &format!("{small:?}, {slots} slots"));
                    // Where the link is slow there is little else to wait for.
                    assert!(link > 1.0 || tightest > 0.1, "{small:?}, {slots} slots: {tightest}");
                }
            }
        }
    }
}

#[test]
fn it_holds_with_prompts_with_several_engines_and_for_dear_allocations() {
    let small = Small { requests: "{ closed: { batch: 2 } }".to_owned(), ..Small::default() };
    for (engines, granularity) in [(1, 32 << 10), (4, 512)] {
        let mut case =
            Small { engines, granularity, encoded: &["int8"], drift_budget: 2.0, ..small.clone() }.case();
        (case.prompt_tokens, case.prefill_chunk) = (Length::Fixed(50), Some(16));
        check(&case, "prompts");
        case.load_from = Some(
            case.machine
                .tiers
                .iter()
                .position(|tier| tier.name == "disk")
                .map(|at| policy::TierId(at as u8))
                .unwrap(),
        );
        check(&case, "loading");
    }
}

#[test]
fn it_holds_where_copies_come_over_several_links() {
    for (nvlink, link) in [(0.5, 2.0), (1.0, 0.2), (4.0, 0.2)] {
        let requests = "{ closed: { batch: 2 } }".to_owned();
        let small = Small { nvlink, link, peer: 24, requests, traces: 6, ..Small::default() };
        for slots in [6, 12, 24] {
            let tightest =
                check(&Small { slots, ..small.clone() }.case(), &format!("{small:?}, {slots} slots"));
            assert!(link > 1.0 || slots > 12 || tightest > 0.1, "{small:?}, {slots} slots: {tightest}");
        }
    }
}

#[test]
fn it_holds_where_homes_are_apart_and_copies_share_the_last_link() {
    for engines in [1, 4] {
        let requests = "{ closed: { batch: 4 } }".to_owned();
        let mut case = Small { engines, slots: 10, link: 2.0, requests, ..Small::default() }.case();
        let mut machine = Machine::clone(&case.machine);
        machine.links.iter_mut().for_each(|link| link.latency = Nanos::ZERO);
        let disk = machine.tiers.iter().position(|tier| tier.name == "disk").unwrap();
        let mut room: Vec<Bytes> = machine.tiers.iter().map(|tier| tier.capacity).collect();
        room[case.home.first().index()] = Bytes(case.model.largest_block().0 * 16);
        let tiers = [case.home.first(), TierId(disk as u8)];
        case.home = Homes::spread(&tiers, &case.model, &machine, &[], &room).unwrap();
        case.machine = machine.into();
        check(&case, &format!("{engines} engines"));
    }
}

#[test]
fn it_holds_for_blocks_of_several_sizes() {
    let mut case =
        Small { requests: "{ closed: { batch: 4 } }".to_owned(), traces: 6, slots: 14, ..Small::default() }
            .case();
    let mut model = policy::Model::clone(&case.model);
    for (index, block) in model.blocks.iter_mut().enumerate() {
        let less =
            |matrix: &Matrix| Matrix { rows: matrix.rows - matrix.rows / 8 * (index as u64 % 5), ..*matrix };
        block.matrices = block.matrices.iter().map(less).collect();
    }
    case.model = model.into();
    assert!(check(&case, "sizes") > 0.1, "the bound says next to nothing");
}

#[test]
fn where_the_link_is_always_waited_for_the_bound_is_beladys_loads_less_the_compute() {
    let case = Small { link: 0.05, tokens: 400, traces: 1, ..Small::default() }.case();
    let outcome = run(&case, "belady");
    let tally = outcome.orchestrator.tally();
    let path = Paths::new(&case.machine).between(case.home.first(), fast(&case.machine)).unwrap().clone();
    let loads = tally.demanded - tally.hits();
    let loading = Nanos(loads * path.busy(case.model.largest_block()).0).as_secs_f64();
    let expected = loading - outcome.world.compute_time().as_secs_f64();
    let StallBound { stall_s, .. } = bound(&case);
    // The last kernel hides no load, and times in nanoseconds are rounded.
    assert!((stall_s / expected - 1.0).abs() < 1e-3, "{stall_s} s, {expected} s");
}

#[test]
fn requests_that_come_at_their_own_time_have_no_bound() {
    let case =
        Small { requests: "{ poisson: { rate: 100 /s, batch: 2 } }".to_owned(), ..Small::default() }.case();
    assert_eq!(stall_bound(&case).unwrap(), None);
}
