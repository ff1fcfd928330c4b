//! The soak at length: `cargo run --release -p hotset-hw --example soak -- [FOLDER] [TRANSITIONS]`. First tiny blocks, then
//! blocks of 8 MB whose memory is looked at from outside: what the process has resident is held against the tiers' caps.

#[path = "../tests/soak/walk.rs"]
mod walk;

use hw::faults::Fault;
use policy::model::Matrix;
use std::path::PathBuf;
use walk::{Size, Walk};

const PLAN: &[(Fault, u64)] = &[
    (Fault::Allocation, 500),
    (Fault::Read, 1000),
    (Fault::Write, 1000),
    (Fault::Flip, 500),
    (Fault::Short, 100),
];

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
    let tiny = Size { matrix, quarters: [14, 40, 80], file_granularity: 512 };
    println!("{:#?}", Walk::new(tiny, 1, PLAN, &folder).run(transitions));
    println!("resident after tiny blocks: {} KB", status("VmRSS"));

    let matrix = Matrix { rows: 2048, columns: 2048 };
    let large = Size { matrix, quarters: [14, 40, 80], file_granularity: 4096 };
    let (before, block) = (status("VmRSS"), matrix.elements() * 2 / 1024);
    println!("{:#?}", Walk::new(large, 2, PLAN, &folder).run(transitions / 5000));
    println!(
        "resident at most: {} KB; before: {before} KB; caps of the memory tiers: {} KB, a block: {block} KB",
        status("VmHWM"),
        block * (14 + 40) / 4,
    );
}
