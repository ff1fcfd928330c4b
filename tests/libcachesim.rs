//! The eviction rules against an independent implementation: libCacheSim (PyPI `libcachesim` 0.3.5), access by access.
//!
//! `golden/libcachesim.csv` holds its hit counts. Where the package is installed for `python3`, or for the interpreter
//! that `HOTSET_PYTHON` names, the counts are taken again, and written anew with `UPDATE_GOLDEN=1`.
//!
//! Every rule counts the same hits but one. W-TinyLFU differs because libCacheSim's (WTinyLFU.c) counts demands in a
//! counting Bloom filter with collisions, not for hits in the window but once more for each id that falls out of it,
//! and halves them every 32 demands a slot, while the paper and `w_tiny_lfu` count each demand once and halve every
//! ten. Its LFU forgets what it evicts, so it is compared with `moe_infinity_released`.

use crate::ROOT;
use policy::registry::lookup;
use policy::replay::{Order, ReplayInput, Reset};
use rand::SeedableRng;
use rand::distr::Distribution;
use rand_distr::Zipf;
use rand_pcg::Pcg64;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use traces::{RoutingTrace, Shape, TraceInfo};

/// What our W-TinyLFU and theirs may differ by, as a share of all accesses: see the module.
const TINY_LFU_TOLERANCE: f64 = 0.03;

/// One of libCacheSim's counts.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    trace: String,
    rule: String,
    capacity: usize,
    hits: u64,
}

/// The traces and the capacities they are replayed at.
fn cases() -> Vec<(&'static str, RoutingTrace, &'static [usize])> {
    let recorded = traces::open(Path::new(ROOT).join("traces/sample.hrt")).unwrap();
    vec![("sample", recorded, &[115, 192, 288, 384]), ("zipf", zipf(), &[100, 250, 1000])]
}

/// Independent draws from a few thousand objects, all of one layer.
fn zipf() -> RoutingTrace {
    const OBJECTS: u16 = 4_000;
    const ACCESSES: usize = 200_000;
    let mut rng = Pcg64::seed_from_u64(1);
    let popularity = Zipf::new(f64::from(OBJECTS), 0.8).unwrap();
    let ids: Vec<u16> = (0..ACCESSES).map(|_| popularity.sample(&mut rng) as u16 - 1).collect();
    let info = TraceInfo { rows: 0..ACCESSES, ..TraceInfo::default() };
    RoutingTrace::new(Shape::new(1, u32::from(OBJECTS), 1).unwrap(), ids, None, vec![info]).unwrap()
}

fn golden_file() -> PathBuf {
    Path::new(ROOT).join("tests/golden/libcachesim.csv")
}

fn golden() -> Vec<Count> {
    let text = std::fs::read_to_string(golden_file()).unwrap();
    text.lines().skip(1).map(|line| count(line).unwrap_or_else(|| panic!("not a count: {line}"))).collect()
}

fn count(line: &str) -> Option<Count> {
    let [trace, rule, capacity, hits] = line.split(',').collect::<Vec<_>>().try_into().ok()?;
    let (capacity, hits) = (capacity.parse().ok()?, hits.parse().ok()?);
    Some(Count { trace: trace.to_owned(), rule: rule.to_owned(), capacity, hits })
}

/// (accesses, hits) of our rule.
fn replayed(trace: &RoutingTrace, rule: &str, capacity: usize) -> (u64, u64) {
    let entry = lookup(rule).unwrap();
    let demands = trace.demands(true);
    let params = entry.resolve(&BTreeMap::new()).unwrap();
    let (order, reset) = (Order::Access, Reset::Never);
    let result =
        entry.run(&ReplayInput { demands: &demands, fit: None, capacity, order, reset, params: &params });
    let result = result.unwrap();
    (result.accesses, result.hits)
}

/// libCacheSim's counts; `None`, with a line that says so, where it is not installed.
fn counted_by_libcachesim() -> Option<Vec<Count>> {
    let python = std::env::var_os("HOTSET_PYTHON").unwrap_or_else(|| "python3".into());
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for (name, trace, capacities) in cases() {
        let file = folder.path().join(name).with_extension("oracleGeneral");
        traces::write(&file, &trace).unwrap();
        let mut driver = Command::new(&python);
        driver.arg(Path::new(ROOT).join("tests/count_hits.py")).arg(&file);
        driver.args(capacities.iter().map(usize::to_string));
        let output = match driver.output() {
            Ok(output) if output.status.code() != Some(3) => output,
            _ => {
                println!("skipped: no libcachesim for {}", python.display());
                return None;
            }
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        all.extend(text.lines().map(|line| count(&format!("{name},{line}")).unwrap()));
    }
    Some(all)
}

#[test]
fn rules_count_the_hits_that_libcachesim_counts() {
    let golden = golden();
    assert_eq!(golden.len(), 9 * cases().iter().map(|(_, _, capacities)| capacities.len()).sum::<usize>());
    for (name, trace, _) in cases() {
        for Count { rule, capacity, hits, .. } in golden.iter().filter(|count| count.trace == name) {
            let (accesses, ours) = replayed(&trace, rule, *capacity);
            if rule == "w_tiny_lfu" {
                let off = ours.abs_diff(*hits) as f64 / accesses as f64;
                assert!(off < TINY_LFU_TOLERANCE, "{rule} on {name}, {capacity} slots: {ours}, not {hits}");
            } else {
                assert_eq!(ours, *hits, "{rule} on {name}, {capacity} slots");
            }
        }
    }
}

#[test]
fn the_golden_counts_are_those_of_libcachesim() {
    let Some(counts) = counted_by_libcachesim() else { return };
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let line =
            |Count { trace, rule, capacity, hits }: &Count| format!("{trace},{rule},{capacity},{hits}\n");
        let lines: String = counts.iter().map(line).collect();
        std::fs::write(golden_file(), format!("trace,rule,capacity_slots,hits\n{lines}")).unwrap();
    }
    assert_eq!(golden(), counts);
}
