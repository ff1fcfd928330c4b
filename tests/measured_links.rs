//! Measured transfers against the simulated fabric: a link is fitted to every other point of a group and has to predict
//! the points between.

use crate::data;
use policy::fit::{Fit, Sample, fit};
use policy::machine::{Backing, Class, Link, Processor, Tier};
use policy::{Bandwidth, Bytes, FlopRate, Machine, MoveId, Nanos, TierId, Time};
use sim::fabric::Fabric;
use std::collections::BTreeMap;
use std::path::Path;

/// Largest errors allowed to a machine: the median over its held-out points, and the worst.
const MEDIAN: f64 = 0.05;
const WORST: f64 = 0.15;

/// Machine, then what sets the group apart: direction and memory, or method.
type Groups = BTreeMap<(String, String), Vec<Sample>>;

fn rows(path: &Path) -> Vec<csv::StringRecord> {
    csv::Reader::from_path(path).unwrap().records().map(Result::unwrap).collect()
}

fn sample(bytes: u64, copies: u32, us: f64) -> Sample {
    Sample { bytes: Bytes(bytes), copies, time: Nanos((us * 1e3).round() as u64) }
}

/// Single copies of growing size. The smallest have no time in the file, only their rate.
fn size_sweeps(folder: &Path, groups: &mut Groups) {
    for row in rows(&folder.join("hardware/pcie_size_sweeps.csv")) {
        let bytes: u64 = row[4].parse().unwrap();
        let us = row[6].parse().unwrap_or_else(|_| bytes as f64 / row[5].parse::<f64>().unwrap() / 1e3);
        let group = (row[0].to_owned(), format!("{} {}", &row[2], &row[3]));
        groups.entry(group).or_default().push(sample(bytes, 1, us));
    }
}

/// Slabs in one copy, in a copy each, in one call for all, or read by a kernel. A contiguous copy and a gathering kernel
/// are one flow of all bytes; the others carry slab by slab.
fn slab_transfers(folder: &Path, groups: &mut Groups) {
    for row in rows(&folder.join("hardware/expert_slab_transfers.csv")) {
        let (bytes, slabs): (u64, u32) = (row[2].parse().unwrap(), row[3].parse().unwrap());
        let us = row[5].parse().unwrap();
        let one_flow = match &row[4] {
            "contiguous" | "gather kernel" => true,
            "memcpy per slab" | "batched memcpy" => false,
            method => panic!("unknown method {method}"),
        };
        let (bytes, copies) = if one_flow { (bytes * u64::from(slabs), 1) } else { (bytes, slabs) };
        groups.entry((row[0].to_owned(), row[4].to_owned())).or_default().push(sample(bytes, copies, us));
    }
}

/// Two memories and the fitted link between them, one engine.
fn machine(fit: &Fit) -> Machine {
    let tier = |class| Tier {
        name: "memory".into(),
        capacity: Bytes(1 << 40),
        class,
        backing: Backing::Pinned,
        node: None,
        device: None,
        transient: false,
        endurance: None,
        granularity: Bytes(1),
        read: Bandwidth(fit.rate.peak().0.saturating_mul(4)),
        write: Bandwidth(fit.rate.peak().0.saturating_mul(4)),
    };
    let link = Link {
        name: "fitted".into(),
        from: TierId(1),
        to: TierId(0),
        latency: fit.latency,
        submit: fit.submit,
        duplex: fit.rate.peak(),
        rate: fit.rate.clone(),
        engines: 1,
        opposite: None,
    };
    Machine {
        name: "fitted".into(),
        tiers: vec![tier(Class::Fast), tier(Class::Staged)],
        links: vec![link],
        accelerator: Processor { flops: FlopRate(1), read: Bandwidth(1), launch: Nanos(0) },
        codecs: vec![],
        host_codecs: vec![],
        near: vec![],
        kernels: vec![],
        peak: None,
        times: vec![],
        peers: None,
        merge: None,
    }
}

/// The time of a sample's copies through the fabric.
fn simulated(fit: &Fit, sample: &Sample) -> Nanos {
    let mut fabric = Fabric::new(&machine(fit));
    for id in 0..sample.copies {
        fabric.submit(Time(0), MoveId(id.into()), TierId(1), TierId(0), sample.bytes).unwrap();
    }
    let (mut last, mut delivered) = (Time(0), Vec::new());
    while let Some(at) = fabric.next_due() {
        fabric.collect(at, &mut delivered);
        last = at;
    }
    assert_eq!(delivered.len(), sample.copies as usize);
    (last + fit.latency).since(Time(0))
}

/// Errors at every other point of a fit to the points between, in growing order.
fn held_out_errors(samples: &[Sample]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by_key(|sample| (sample.bytes, sample.copies));
    let fitted = fit(&sorted.iter().step_by(2).copied().collect::<Vec<_>>()).unwrap();
    let error = |sample: &Sample| simulated(&fitted, sample).0 as f64 / sample.time.0 as f64 - 1.0;
    let mut errors: Vec<f64> = sorted.iter().skip(1).step_by(2).map(|sample| error(sample).abs()).collect();
    errors.sort_by(f64::total_cmp);
    errors
}

/// The middle of sorted errors, the upper one of two, and the last.
fn median_and_worst(errors: &[f64]) -> (f64, f64) {
    (errors[errors.len() / 2], errors[errors.len() - 1])
}

#[test]
fn fitted_links_predict_the_measured_points_between() {
    let Some(folder) = data() else { return };
    let mut groups = Groups::new();
    size_sweeps(&folder, &mut groups);
    slab_transfers(&folder, &mut groups);
    let mut machines: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    println!(
        "{:<18} {:<50} {:>6} {:>8} {:>8} {:>8}",
        "machine", "what", "points", "held out", "median", "worst"
    );
    for ((machine, what), samples) in groups {
        let points = samples.len();
        if points < 3 {
            println!("{machine:<18} {what:<50} {points:>6} too few to hold any out");
            continue;
        }
        let errors = held_out_errors(&samples);
        let (median, worst) = median_and_worst(&errors);
        let held = errors.len();
        println!(
            "{machine:<18} {what:<50} {points:>6} {held:>8} {:>7.2}% {:>7.2}%",
            median * 1e2,
            worst * 1e2
        );
        machines.entry(machine).or_default().extend(errors);
    }
    assert_eq!(machines.len(), 3, "machines with enough points");
    for (machine, mut errors) in machines {
        errors.sort_by(f64::total_cmp);
        let (median, worst) = median_and_worst(&errors);
        let (held, all) = (errors.len(), "all");
        println!("{machine:<18} {all:<50} {:>6} {held:>8} {:>7.2}% {:>7.2}%", "", median * 1e2, worst * 1e2);
        assert!(median <= MEDIAN && worst <= WORST, "{machine}: median {median}, worst {worst}");
    }
}
