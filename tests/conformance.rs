//! One run, two worlds: the simulator alone, and a device of real memory that follows it in lockstep. The controller
//! must not be able to tell them apart, and what it believes of the copies must be true of the bytes.

use crate::invariants::smalls;
use crate::small::{self, Seen, Small};
use hw::content::Contents;
use hw::device::{Device, Setup};
use hw::lockstep::Lockstep;
use policy::event::Form;
use policy::record::{Action, compare_logs};
use policy::registry::Entry;
use policy::registry::lookup;
use policy::veto::Verdict;
use policy::{BlockId, Bytes, Nanos, Paths, TierId};
use proptest::prelude::*;
use scenarios::{Pressure, Taken};
use sim::{Case, World};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The copies that a run's ledger knows.
fn ledger_copies<P>(case: &Case, run: &Seen<P>) -> BTreeSet<(BlockId, Form)> {
    let ledger = &run.orchestrator.context().ledger;
    let blocks = (0..case.model.blocks.len() as u32).map(BlockId);
    blocks.flat_map(|block| ledger.copies(block).map(move |form| (block, form))).collect()
}

/// Bytes that the simulator's links delivered, by direction.
fn delivered(world: &World) -> BTreeMap<(TierId, TierId), Bytes> {
    let links = world.links().filter(|(_, count)| count.bytes > 0);
    links.map(|(link, count)| ((link.from, link.to), Bytes(count.bytes))).collect()
}

/// What was handed over, on every link of its way.
fn over_links(case: &Case, moved: &BTreeMap<(TierId, TierId), Bytes>) -> BTreeMap<(TierId, TierId), Bytes> {
    let (paths, mut carried) = (Paths::new(&case.machine), BTreeMap::new());
    for (&(from, to), &bytes) in
        moved.iter().filter(|((from, to), bytes)| from != to && **bytes > Bytes::ZERO)
    {
        for link in paths.between(from, to).unwrap().links.iter().map(|&link| case.machine.link(link)) {
            *carried.entry((link.from, link.to)).or_default() += bytes;
        }
    }
    carried
}

/// A device that holds what the case begins with: the host, or the one that `HOTSET_TEST_DEVICE` names, such as `cuda:0`.
fn device(case: &Case, folder: &Path) -> Device {
    let name = std::env::var("HOTSET_TEST_DEVICE").unwrap_or("host".into());
    let engine = hw::open::open(&name, folder).unwrap_or_else(|error| panic!("{error}"));
    let setup = Setup {
        machine: &case.machine,
        contents: Contents::new(&case.model, case.seed).into(),
        copies: &case.home_copies(),
        budgets: &case.budgets,
        cache: Bytes::ZERO,
        tokens: case.step_tokens(),
        check_reads: true,
    };
    Device::new(&*engine, setup).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs `entry` in both worlds and compares them; returns the formats that came up.
pub(crate) fn conforms(case: &Case, entry: &Entry) -> BTreeSet<&'static str> {
    let name = entry.name;
    let simulated = small::run(case, entry, case.world(false).unwrap())
        .unwrap_or_else(|error| panic!("{name}, simulated: {error}"));
    let folder = tempfile::tempdir().unwrap();
    let real =
        small::run(case, entry, Lockstep::new(case.world(false).unwrap(), device(case, folder.path())))
            .unwrap_or_else(|error| panic!("{name}, on the device: {error}"));

    assert_eq!(compare_logs(&simulated.decisions, &real.decisions), None, "{name}");
    assert_eq!(simulated.orchestrator.tally(), real.orchestrator.tally(), "{name}");

    assert_eq!(ledger_copies(case, &simulated), ledger_copies(case, &real), "{name}");
    assert_eq!(real.witness.copies, ledger_copies(case, &real), "{name}: seen from outside, believed");
    let moved = real.witness.moved();
    assert_eq!(moved, simulated.witness.moved(), "{name}");
    assert_eq!(
        over_links(case, &moved),
        delivered(&simulated.witness.world),
        "{name}: handed over, delivered"
    );
    assert_eq!(over_links(case, &moved), delivered(real.witness.world.timeline()), "{name}");

    let live = real.witness.copies.len() as u64;
    let moves = real.witness.moves.values().filter(|told| told.complete).count() as u64;
    let report = real.witness.world.finish().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(report.totals.bytes_moved, moved, "{name}: bytes really moved");
    assert_eq!(report.totals.mismatches, 0, "{name}");
    assert_eq!(report.live_copies, live, "{name}");
    assert_eq!(
        report.totals.verified_copies,
        moves + live,
        "{name}: each when published, and each at the end"
    );
    let published = real.decisions.iter().filter(|decision| decision.verdict == Verdict::Pass);
    published.filter_map(|decision| decision.to).map(|form| form.format.name()).collect()
}

/// Every policy on one case; the formats that any of them used.
fn all_conform(small: &Small) -> BTreeSet<&'static str> {
    let case = small.case();
    small::policies(true).flat_map(|entry| conforms(&case, entry)).collect()
}

#[test]
fn a_drift_budget_in_bf16_int8_and_packed_bf16_is_spent_alike_in_both_worlds() {
    let used =
        all_conform(&Small { encoded: &["int8", "bf16_packed"], drift_budget: 1.0, ..Small::default() });
    assert!(used.contains("int8") && used.contains("bf16"), "{used:?}");
}

#[test]
fn formats_made_on_the_way_are_made_alike_in_both_worlds() {
    // On a slow link the host encodes before it; on a fast one it would be done by the accelerator after it.
    let on = |link| all_conform(&Small { recode: &["int8"], drift_budget: 1.0, link, ..Small::default() });
    assert!(on(0.5).contains("int8"));
    on(50.0);
}

#[test]
fn an_mxfp4_model_is_served_alike_in_both_worlds() {
    let small =
        Small { family: "gpt_oss", experts: 16, selected: 4, slots: 24, link: 0.5, ..Small::default() };
    assert_eq!(all_conform(&small), BTreeSet::from(["mxfp4"]));
}

#[test]
fn blocks_made_by_recipes_are_made_alike_in_both_worlds() {
    let small = Small { rank: 4, recode: &["int8"], drift_budget: 1.0, ..Small::default() };
    assert!(all_conform(&small).is_superset(&BTreeSet::from(["bf16", "int8"])));
}

#[test]
fn staged_copies_are_made_given_back_and_lost_alike_in_both_worlds() {
    let tier = |case: &Case, name: &str| {
        TierId(case.machine.tiers.iter().position(|tier| tier.name == name).unwrap() as u8)
    };
    let pressed = |mut case: Case, tier: TierId| {
        let at = |micros: u64, taken| Pressure { at: Nanos(micros * 1_000), taken };
        let some = Bytes(case.model.largest_block().0 * 3);
        case.pressure = vec![
            at(900, Taken::Tier(tier)),
            at(1_500, Taken::Memory(tier, Bytes::ZERO)),
            at(3_000, Taken::Memory(tier, Bytes(case.budgets[tier.index()].0 - some.0))),
        ];
        case
    };
    // Written to a peer from fast memory, and read from there in half chunks.
    let peer = Small { peer: 12, chunk: 8 << 10, tokens: 30, ..Small::default() }.case();
    let written = pressed(peer.clone(), tier(&peer, "peer"));
    // Kept in host memory on its way from the disk.
    let small = Small { layers: 2, slots: 6, chunk: 8 << 10, tokens: 30, ..Small::default() }.case();
    let (home, staging) = (tier(&small, "disk").into(), vec![tier(&small, "dram")]);
    let kept = Case { home, staging, ..small };
    let kept = pressed(kept.clone(), tier(&kept, "dram"));
    for case in [written, kept] {
        for policy in ["lru", "predictive"] {
            let entry = lookup(policy).unwrap();
            let seen = small::run(&case, entry, case.world(false).unwrap()).unwrap();
            assert!(seen.decisions.iter().filter(|decision| decision.action == Action::Stage).count() > 8);
            conforms(&case, entry);
        }
    }
}

#[test]
fn waves_batches_and_two_engines_are_served_alike_in_both_worlds() {
    let requests = "{ closed: { batch: 3 } }".to_owned();
    all_conform(&Small { slots: 2, engines: 2, requests, traces: 5, ..Small::default() });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]
    #[test]
    fn any_case_is_served_alike_in_both_worlds((small, closed) in smalls()) {
        let case = small.case();
        small::policies(closed).for_each(|entry| drop(conforms(&case, entry)));
    }
}
