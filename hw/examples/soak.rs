//! The soak at length: `cargo run --release -p hotset-hw --example soak -- [FOLDER] [TRANSITIONS]`. First tiny blocks, then
//! blocks of 2 MiB whose memory is looked at from outside: what the process has resident is held against the tiers' caps.

#[path = "../tests/soak/walk.rs"]
mod walk;

use hw::faults::Fault;
use policy::model::Matrix;
use std::path::PathBuf;
use walk::{CODED, Size, Walk};

const PLAN: &[(Fault, u64)] = &[
    (Fault::Allocation, 500),
    (Fault::Read, 1000),
    (Fault::Write, 1000),
    (Fault::Flip, 500),
    (Fault::Short, 100),
];

/// Kilobytes that lanes work in: bounce buffers of 16 MiB for each of the five that may use the file at once, a block or
/// two in plain numbers, the program itself.
const WORKING: u64 = 128 << 10;

/// Kilobytes of a line of `/proc/self/status`.
fn status(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let transitions = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(10_000_000);

    let matrix = Matrix { rows: 7, columns: 43 };
    let quarters = [14, 40, 80];
    let tiny = Size { blocks: 8, formats: CODED, matrix, quarters, file_granularity: 512 };
    println!("{:#?}", Walk::new(tiny, 1, PLAN, &folder).run(transitions));

    // In their native format only: changing it takes working memory of the lanes, beside the tiers.
    let matrix = Matrix { rows: 1024, columns: 1024 };
    let quarters = [4 * 64, 4 * 128, 4 * 600];
    let large = Size { blocks: 300, formats: &CODED[..1], matrix, quarters, file_granularity: 4096 };
    let before = status("VmRSS");
    println!("{:#?}", Walk::new(large, 2, PLAN, &folder).run(transitions / 500));
    let (peak, caps) = (status("VmHWM") - before, (64 + 128) * matrix.elements() * 2 / 1024);
    println!("resident at most {peak} KB more than before; the memory tiers have {caps} KB");
    assert!(peak < caps + WORKING, "memory beyond the caps");
}
