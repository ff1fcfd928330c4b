//! The figures by which runs are compared, searched and written out.

use crate::report::Summary;

/// A figure of a run.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its key.
    pub name: &'static str,
    /// Its value in a summary; NaN where the run has no sample of it.
    pub of: fn(&Summary) -> f64,
}

/// The figures that every comparison holds, the stall first: it is what policies are ranked by.
pub static METRICS: [Metric; 14] = [
    Metric { name: "stall_s", of: Summary::stall_s },
    Metric { name: "stall_fraction", of: |s| s.stall_fraction },
    Metric { name: "hit_rate", of: |s| s.hit_rate },
    Metric { name: "output_throughput_tok_s", of: |s| s.output_throughput_tok_s },
    Metric { name: "p50_ttft_ms", of: |s| latency(s, "p50_ttft_ms") },
    Metric { name: "p50_tpot_ms", of: |s| latency(s, "p50_tpot_ms") },
    Metric { name: "p99_itl_ms", of: |s| latency(s, "p99_itl_ms") },
    Metric { name: "drift_mean", of: |s| s.drift_mean },
    Metric { name: "drift_max", of: |s| s.drift_max },
    Metric { name: "link_bytes", of: |s| s.links.iter().map(|link| link.bytes as f64).sum() },
    Metric { name: "link_utilization", of: busiest },
    Metric { name: "speculations", of: |s| s.speculations as f64 },
    Metric { name: "compute_s", of: |s| s.compute_s },
    Metric { name: "simulated_s", of: |s| s.simulated_s },
];

/// The values of [`METRICS`], in their order.
pub type Values = [f64; METRICS.len()];

/// The place of the stall in [`Values`].
pub const STALL: usize = 0;

/// The figures of a run.
pub fn values(summary: &Summary) -> Values {
    METRICS.map(|metric| (metric.of)(summary))
}

/// The place of a figure in [`Values`].
pub fn place(name: &str) -> Option<usize> {
    METRICS.iter().position(|metric| metric.name == name)
}

fn latency(summary: &Summary, key: &str) -> f64 {
    summary.latencies.get(key).copied().flatten().unwrap_or(f64::NAN)
}

/// The share of the run in which the busiest direction of a link was busy.
fn busiest(summary: &Summary) -> f64 {
    summary.links.iter().map(|link| link.utilization).fold(0.0, f64::max)
}
