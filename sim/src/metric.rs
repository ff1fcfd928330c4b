//! The figures by which runs are compared, searched and written out.

use crate::report::{LATENCIES, PERCENTILES, Summary};
use thiserror::Error;

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

/// Figures that a search may ask for beside [`METRICS`] and the latencies.
static OTHERS: [Metric; 5] = [
    Metric { name: "goodput_rps", of: |s| s.goodput_rps },
    Metric { name: "request_throughput_rps", of: |s| s.request_throughput_rps },
    Metric { name: "speculations_used", of: |s| s.speculations_used as f64 },
    Metric { name: "extra_waves", of: |s| s.extra_waves as f64 },
    Metric { name: "load_s", of: |s| s.load_s },
];

/// A figure by its name: one of [`METRICS`] or of a few others, or any latency of a summary.
#[derive(Clone, Debug)]
pub struct Figure {
    name: String,
    metric: Option<&'static Metric>,
}

impl Figure {
    /// The figure called `name`; `stall` is `stall_s`.
    ///
    /// # Errors
    /// Where there is none, with those that there are.
    pub fn named(name: &str) -> Result<Figure, UnknownFigure> {
        let name = if name == "stall" { METRICS[STALL].name } else { name };
        let metric = METRICS.iter().chain(&OTHERS).find(|metric| metric.name == name);
        let latencies = || {
            LATENCIES
                .iter()
                .flat_map(|what| PERCENTILES.iter().map(move |point| format!("{point}_{what}_ms")))
        };
        if metric.is_none() && !latencies().any(|latency| latency == name) {
            return Err(UnknownFigure { name: name.to_owned() });
        }
        Ok(Figure { name: name.to_owned(), metric })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value in a summary; NaN where the run has no sample of it.
    pub fn of(&self, summary: &Summary) -> f64 {
        match self.metric {
            Some(metric) => (metric.of)(summary),
            None => latency(summary, &self.name),
        }
    }
}

/// A name that is no figure of a run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{name}` is no figure of a run; there are {}", known())]
pub struct UnknownFigure {
    /// What was asked for.
    pub name: String,
}

fn known() -> String {
    let names = METRICS.iter().chain(&OTHERS).map(|metric| metric.name).collect::<Vec<_>>().join(", ");
    let (points, latencies) = (PERCENTILES.join(", "), LATENCIES.join(", "));
    format!("{names}, and latencies such as p99_tpot_ms: {points} of {latencies}")
}

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
