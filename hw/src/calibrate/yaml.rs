//! A calibration as a machine file: every number with how it was measured.

use super::{Calibration, CodecRates, Direction, Kernels, TIERS};
use policy::units::{Bandwidth, Bytes, Nanos};
use std::fmt::Write;

/// Names of classes and backings, as the language has them.
const CLASSES: [(&str, &str); 3] = [("fast", "device"), ("staged", "pinned"), ("cold", "file")];
/// Slots are rounded up to this.
const GRANULARITY: &str = "4 KiB";

pub(super) fn write(calibration: &Calibration) -> String {
    let Calibration { plan, device, contention, kernels, host_kernels, codecs, host_codecs, .. } =
        calibration;
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    line(&format!("# {}, measured by `hotset calibrate` on {}, device {device}.", plan.name, plan.date));
    line(
        "# Each time is the median of repeated measurements; a spread is the distance between the quartiles over the",
    );
    line(
        "# median. Memory is cold: copies and products go through more bytes than caches hold before any is used again.",
    );
    line(&format!("name: {}", plan.name));
    line("tiers:");
    for (index, (name, ..)) in
        TIERS.iter().enumerate().filter(|(index, _)| plan.capacity[*index] > Bytes::ZERO)
    {
        let (class, backing) = CLASSES[index];
        line(&format!("  {name}:"));
        line(&format!("    class: {class}"));
        line(&format!("    backing: {backing}"));
        line(&format!("    capacity: {} B", plan.capacity[index].0));
        line(&format!("    granularity: {GRANULARITY}"));
        let (rates, how) = memory(calibration, index);
        line(&format!("    read: {}        # {how}", bandwidth(rates)));
        line(&format!("    write: {}       # as read: reads and writes share the memory", bandwidth(rates)));
    }
    line("links:");
    for pair in calibration.directions.chunks(2) {
        if let [there, back] = pair {
            line(&link(there, back));
        }
    }
    line("accelerator:");
    line(&processor(kernels, "  "));
    line(&format!(
        "codecs:                 # rates over native bytes; blocks of 4 MiB, coded within a tier. A format that loses bits is read\n                        # as it is and never expanded: its `decode` is its `encode`\n{}",
        coders(codecs, "  ")
    ));
    line("host:");
    line(&format!("  codecs:\n{}", coders(host_codecs, "    ")));
    line("  compute:");
    line(&processor(host_kernels, "    "));
    line(&format!(
        "# Products and copies at once: copies {} alone and {} beside products, products {} alone and {} beside copies.",
        bandwidth(contention.copy),
        bandwidth(contention.copy_beside),
        bandwidth(contention.product),
        bandwidth(contention.product_beside)
    ));
    out
}

/// What a memory carries. For fast memory it is the sum of copies and products at once, where that is less than the sum
/// of each alone: then memory is what they share.
fn memory(calibration: &Calibration, tier: usize) -> (Bandwidth, &'static str) {
    let Calibration { contention, directions, kernels, .. } = calibration;
    let both = contention.copy_beside.0.saturating_add(contention.product_beside.0);
    let sum = |of: &dyn Fn(&Direction) -> Bandwidth| {
        directions
            .iter()
            .filter(|direction| direction.touches(tier))
            .map(|direction| of(direction).0)
            .sum::<u64>()
    };
    let copies = sum(&|direction| direction.fit.rate.peak());
    match tier {
        0 => {
            let read = Bandwidth(both.max(kernels.read.0));
            (read, "measured: products and copies at once")
        }
        1 => (
            Bandwidth(copies.max(calibration.host_kernels.read.0)),
            "derived: the sum of its links and of the host's products is no more",
        ),
        _ => (Bandwidth(copies), "derived: the sum of its links"),
    }
}

fn link(there: &Direction, back: &Direction) -> String {
    let rates = |direction: &Direction| {
        let points = direction.times.iter().map(|(size, steady)| {
            let spread = steady.spread() * 100.0;
            let time = direction.fit.rate.time_for(*size);
            let rate = super::links::rate(*size, time);
            format!(
                "      {} B: {}  # {:.1} us a copy, spread {spread:.0} %",
                size.0,
                bandwidth(rate),
                steady.median().0 as f64 / 1e3
            )
        });
        points.collect::<Vec<_>>().join("\n")
    };
    let (from, to) = (there.from_name(), there.to_name());
    let name = if from == TIERS[2].0 { "disk" } else { "copy" };
    let submit = Nanos(there.fit.submit.0.midpoint(back.fit.submit.0));
    let depth = match from == TIERS[2].0 {
        true => {
            "    # A copy goes in pieces of 1 MiB, 16 of them under way at once: one of 16 MiB has a queue depth of 16.\n"
        }
        false => "",
    };
    format!(
        "  {name}:\n{depth}    between: [{from}, {to}]\n    forward:\n{}\n    backward:\n{}\n    latency: 0 ns        # a copy's time is all its own\n    submit: {} ns       # fitted: what every copy costs beside its bytes\n    engines: 1           # one lane a direction\n    duplex: {{ forward: {}, backward: {} }}  # measured with copies of 4 MiB both ways",
        rates(there),
        rates(back),
        submit.0,
        bandwidth(there.duplex),
        bandwidth(back.duplex)
    )
}

fn processor(kernels: &Kernels, indent: &str) -> String {
    let mut out = format!(
        "{indent}flops: {:.3} GFLOP/s    # measured: bf16, the most tokens below\n{indent}read: {}      # measured: bf16, one token\n{indent}launch: {} ns         # measured: the first of several experts, beside its bytes\n{indent}kernels:               # measured: bytes of weights a second by tokens; what each further expert of 1024 x 2048 costs",
        kernels.flops.0 as f64 / 1e9,
        bandwidth(kernels.read),
        kernels.launch.0
    );
    for kernel in &kernels.rates {
        let points = kernel.points().iter().map(|(tokens, rate)| format!("{tokens}: {}", bandwidth(*rate)));
        let points = points.collect::<Vec<_>>().join(", ");
        // Writing to a string cannot fail.
        let _ = write!(out, "\n{indent}  {}: {{ {points} }}", kernel.format().name());
    }
    out
}

fn coders(codecs: &[CodecRates], indent: &str) -> String {
    let row = |codec: &CodecRates| {
        let (encode, decode) = (bandwidth(codec.encode), bandwidth(codec.decode));
        format!("{indent}{}: {{ encode: {encode}, decode: {decode} }}", codec.format.name())
    };
    codecs.iter().map(row).collect::<Vec<_>>().join("\n")
}

fn bandwidth(rate: Bandwidth) -> String {
    format!("{:.4} GB/s", rate.0 as f64 / 1e9)
}
