//! What a plan looks at in a run.

use crate::report::{Summary, ratio};
use crate::simulate::{Case, Outcome};
use policy::machine::Class;
use policy::sketch::Sketch;
use policy::tally::Latencies;

/// How many figures there are.
pub const COUNT: usize = 15;

/// A figure of a run under a service objective.
struct Figure {
    name: &'static str,
    of: fn(&Run<'_>) -> f64,
}

/// A finished run.
struct Run<'r> {
    case: &'r Case,
    outcome: &'r Outcome,
    summary: &'r Summary,
    percentile: f64,
}

/// The figures, those that an objective may bound first. NaN where a run has no sample.
static FIGURES: [Figure; COUNT] = [
    Figure { name: "ttft_ms", of: |run| run.latency(|all| &all.ttft) },
    Figure { name: "tpot_ms", of: |run| run.latency(|all| &all.tpot) },
    Figure { name: "output_throughput_tok_s", of: |run| run.summary.output_throughput_tok_s },
    Figure { name: "request_throughput_rps", of: |run| run.summary.request_throughput_rps },
    Figure { name: "goodput_rps", of: |run| run.summary.goodput_rps },
    Figure { name: "queue_ms", of: |run| run.latency(|all| &all.queue) },
    Figure { name: "requests_completed", of: |run| run.summary.requests_completed as f64 },
    Figure {
        name: "requests_rejected",
        of: |run| run.summary.cache.map_or(0.0, |cache| cache.requests_rejected as f64),
    },
    Figure { name: "hit_rate", of: |run| run.summary.hit_rate },
    Figure { name: "stall_fraction", of: |run| run.summary.stall_fraction },
    Figure { name: "drift_max", of: |run| run.summary.drift_max },
    Figure {
        name: "link_utilization",
        of: |run| run.summary.links.iter().map(|link| link.utilization).fold(0.0, f64::max),
    },
    Figure { name: "compute_utilization", of: |run| ratio(run.summary.compute_s, run.summary.simulated_s) },
    Figure { name: "memory_utilization", of: |run| run.memory() },
    Figure { name: "kv_utilization", of: |run| run.cache() },
];

/// The values of the figures, in their order.
pub type Figures = [f64; COUNT];

/// The place of the time to the first token, at the objective's percentile.
pub const TTFT: usize = 0;
/// The place of the time per output token, at the objective's percentile.
pub const TPOT: usize = 1;
/// The place of the tokens put out a second.
pub const THROUGHPUT: usize = 2;
/// The place of the requests done a second, and of those within the objective.
pub const REQUESTS: [usize; 2] = [3, 4];
/// The place of the requests done.
pub const COMPLETED: usize = 6;
/// The place of the requests that were refused.
pub const REJECTED: usize = 7;

/// The names of the figures, in their order.
pub fn names() -> [&'static str; COUNT] {
    FIGURES.each_ref().map(|figure| figure.name)
}

/// The figures of a run; latencies are those that so many per cent of the requests keep below.
pub fn figures(case: &Case, outcome: &Outcome, policy: &str, percentile: f64) -> Figures {
    let summary = Summary::new(case, outcome, policy, 0.0);
    let run = Run { case, outcome, summary: &summary, percentile };
    FIGURES.each_ref().map(|figure| (figure.of)(&run))
}

impl Run<'_> {
    /// A latency at the objective's percentile, in milliseconds.
    fn latency(&self, which: impl Fn(&Latencies) -> &Sketch) -> f64 {
        let sketch = which(&self.outcome.orchestrator.tally().latencies);
        sketch.percentiles([self.percentile]).map_or(f64::NAN, |[nanos]| nanos / 1e6)
    }

    /// The share of the fast tier that was in use at most.
    fn memory(&self) -> f64 {
        let fast = self.case.machine.tiers_of(Class::Fast).next();
        let tier = fast.and_then(|fast| self.summary.tiers.get(fast.index()));
        tier.map_or(f64::NAN, |tier| ratio(tier.peak_bytes as f64, tier.capacity_bytes as f64))
    }

    /// The share of the caches' room that was in use at most.
    fn cache(&self) -> f64 {
        let used = self.case.cache.zip(self.summary.cache);
        used.map_or(f64::NAN, |(cache, used)| ratio(used.kv_peak_bytes as f64, cache.most.0 as f64))
    }
}
