//! Many random transitions on memories that fail by plan: no block is lost, no slot leaks, no tier is overfull.

mod walk;

use hw::faults::Fault;
use policy::model::Matrix;
use walk::{CODED, Size, Tally, Walk};

const PLAN: &[(Fault, u64)] =
    &[(Fault::Allocation, 50), (Fault::Read, 100), (Fault::Write, 100), (Fault::Flip, 50), (Fault::Short, 3)];

const SMALL: Size = Size {
    blocks: 8,
    formats: CODED,
    matrix: Matrix { rows: 7, columns: 43 },
    quarters: [14, 40, 80],
    file_granularity: 512,
};

fn walk(size: Size, transitions: u64) -> Tally {
    let folder = tempfile::tempdir().unwrap();
    let tally = Walk::new(size, 3, PLAN, folder.path()).run(transitions);
    println!("{tally:?}");
    let Tally { published, failed, cancelled, dropped, refused, computes: [done, broken], .. } = tally;
    let each = [published, failed, cancelled, dropped, refused, done, broken, tally.mismatches];
    assert!(each.into_iter().all(|count| count > 0), "{tally:?}");
    tally
}

#[test]
fn a_hundred_thousand_transitions_lose_no_block_and_leak_no_slot() {
    let tally = walk(SMALL, 100_000);
    let unlikely = |(fault, struck): &(Fault, u64)| *fault != Fault::Short && *struck < 100;
    assert!(!tally.struck.iter().any(unlikely), "{tally:?}");
}

#[test]
fn transfers_past_the_page_cache_fail_and_are_cut_short_as_safely() {
    // Copies of 40 KB, so that a transfer has blocks to be cut short by.
    let matrix = Matrix { rows: 64, columns: 313 };
    let tally = walk(Size { matrix, file_granularity: 4096, ..SMALL }, 2_000);
    assert!(tally.struck.iter().all(|(_, struck)| *struck > 0), "{tally:?}");
}
