//! A calibration as a machine file: every number with how it was measured.

use super::recipes::RANK;
use super::{Calibration, CodecRates, Direction, Kernels, Plan, TIERS};
use policy::units::{Bandwidth, Bytes, Nanos};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// A value as the language names it.
struct Word<T>(T);

impl<T: Serialize> Display for Word<T> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        self.0.serialize(out)
    }
}

/// Slots are rounded up to this.
const GRANULARITY: &str = "4 KiB";

pub(super) fn write(calibration: &Calibration) -> String {
    let Calibration { plan, device, contention, kernels, host_kernels, codecs, host_codecs, merge, .. } =
        calibration;
    let mut lines = vec![
        format!("# {}, measured by `hotset calibrate` on {}, device {device}.", plan.name, plan.date),
        "# Each time is the median of repeated measurements; a spread is the distance between the quartiles over the".into(),
        "# median. Memory is cold: copies and products go through more bytes than caches hold before any is used again.".into(),
        format!("name: {}", plan.name),
        "tiers:".into(),
    ];
    let there = |index: &usize| plan.capacity[*index] > Bytes::ZERO;
    lines.extend((0..TIERS.len()).filter(there).flat_map(|index| tier(calibration, index)));
    lines.push("links:".into());
    for pair in calibration.directions.chunks(2) {
        if let [there, back] = pair {
            lines.extend(link(plan, there, back));
        }
    }
    lines.push("accelerator:".into());
    lines.extend(processor(plan, kernels, memory(calibration, 0).0, "  "));
    lines.push(format!(
        "merge: {:.3} GFLOP/s      # measured: blocks of {} by recipes of rank {RANK}",
        merge.0 as f64 / 1e9,
        plan.large
    ));
    lines.push(format!(
        "codecs:                 # measured over native bytes: blocks of {}, coded within a tier. A format",
        plan.large
    ));
    lines.push("                        # that loses bits is read as it is, never expanded: its `decode` is its `encode`".into());
    lines.extend(coders(codecs, "  "));
    lines.extend(["host:".into(), "  codecs:               # measured, likewise".into()]);
    lines.extend(coders(host_codecs, "    "));
    lines.push("  compute:".into());
    lines.extend(processor(plan, host_kernels, memory(calibration, 1).0, "    "));
    lines.push(format!(
        "# Copies {} alone and {} beside products; products {} alone and {} beside copies.",
        bandwidth(contention.copy),
        bandwidth(contention.copy_beside),
        bandwidth(contention.product),
        bandwidth(contention.product_beside)
    ));
    lines.push(String::new());
    lines.join("\n")
}

fn tier(calibration: &Calibration, index: usize) -> [String; 7] {
    let (name, class, backing) = TIERS[index];
    let (rate, how) = memory(calibration, index);
    [
        format!("  {name}:"),
        format!("    class: {}", Word(class)),
        format!("    backing: {}", Word(backing)),
        format!(
            "    capacity: {} B  # choice: what calibrate found free, or a part of it",
            calibration.plan.capacity[index].0
        ),
        format!("    granularity: {GRANULARITY}     # choice: a page"),
        format!("    read: {}        # {how}", bandwidth(rate)),
        format!("    write: {}       # derived: as read, which writes share", bandwidth(rate)),
    ]
}

/// What a memory carries: no less than any of its links. Of fast memory, what leaves products as much beside copies as was
/// seen to be left, since flows share it: a copy of rate c takes c from a product that could have it all. No more than
/// both alone, where neither slows the other.
fn memory(calibration: &Calibration, tier: usize) -> (Bandwidth, &'static str) {
    let Calibration { contention, directions, host_kernels, .. } = calibration;
    let touching = || directions.iter().filter(|direction| direction.touches(tier));
    let rates =
        touching().flat_map(|direction| direction.times.iter().map(|(size, _)| direction.rate_at(*size)));
    let fastest = rates.max().unwrap_or(Bandwidth(1));
    let both_ways = Bandwidth(touching().map(|direction| direction.duplex.0).sum());
    match tier {
        0 => (
            contention.shared().max(fastest),
            "measured: what products lose beside copies, or the fastest copy",
        ),
        1 => {
            (both_ways.max(host_kernels.read).max(fastest), "measured: copies all ways, or the fastest alone")
        }
        _ => (both_ways.max(fastest), "measured: copies both ways, or the fastest alone"),
    }
}

fn link(plan: &Plan, there: &Direction, back: &Direction) -> Vec<String> {
    let (from, to) = (there.from_name(), there.to_name());
    let disk = from == TIERS[2].0;
    let submit = Nanos(there.fit.submit.0.midpoint(back.fit.submit.0));
    let mut lines = vec![format!("  {}:", if disk { "disk" } else { "copy" })];
    if disk {
        lines.push("    # A copy goes in pieces of 1 MiB, 16 of them at once: one of 16 MiB has a queue depth of 16.".into());
    }
    lines.push(format!("    between: [{from}, {to}]"));
    for (side, direction) in [("forward", there), ("backward", back)] {
        lines.push(format!("    {side}:             # measured"));
        lines.extend(direction.times.iter().map(|(size, time)| {
            let (rate, micros) = (bandwidth(direction.rate_at(*size)), time.median().0 as f64 / 1e3);
            format!(
                "      {} B: {rate}  # {micros:.1} us a copy, spread {:.0} %",
                size.0,
                time.spread() * 100.0
            )
        }));
    }
    lines.push("    latency: 0 ns        # derived: a copy's time is all its own".into());
    lines.push(format!(
        "    submit: {} ns       # derived: fitted, what every copy costs beside its bytes",
        submit.0
    ));
    lines.push("    engines: 1           # choice: one lane a direction".into());
    lines.push(format!("    duplex:              # measured: copies of {} both ways", plan.large));
    lines.push(format!("      forward: {}", bandwidth(there.duplex)));
    lines.push(format!("      backward: {}", bandwidth(back.duplex)));
    lines
}

/// A processor that reads from a memory of a rate, and so no faster.
fn processor(plan: &Plan, kernels: &Kernels, memory: Bandwidth, indent: &str) -> Vec<String> {
    let [hidden, width] = plan.expert;
    let mut lines = vec![
        format!(
            "flops: {:.3} GFLOP/s    # measured: bf16, where it is highest",
            kernels.flops.0 as f64 / 1e9
        ),
        format!(
            "read: {}      # measured: bf16, one token; no more than the memory",
            bandwidth(kernels.read.min(memory))
        ),
        format!(
            "launch: {} ns         # measured: the first of several experts, beside its bytes",
            kernels.launch.0
        ),
        "kernels:               # measured: bytes of weights a second by tokens, what each further".into(),
        format!("                       # expert of {hidden} x {width} costs"),
    ];
    lines.extend(kernels.rates.iter().map(|kernel| {
        let points = kernel.points().iter().map(|(tokens, rate)| format!("{tokens}: {}", bandwidth(*rate)));
        format!("  {}: {{ {} }}", kernel.format().name(), points.collect::<Vec<_>>().join(", "))
    }));
    lines.iter().map(|line| format!("{indent}{line}")).collect()
}

fn coders(codecs: &[CodecRates], indent: &str) -> Vec<String> {
    let row = |codec: &CodecRates| {
        let (encode, decode) = (bandwidth(codec.encode), bandwidth(codec.decode));
        format!("{indent}{}: {{ encode: {encode}, decode: {decode} }}", codec.format.name())
    };
    codecs.iter().map(row).collect()
}

fn bandwidth(rate: Bandwidth) -> String {
    format!("{:.4} GB/s", rate.0 as f64 / 1e9)
}
