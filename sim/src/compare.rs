//! Policies side by side on one scenario: means over seeds with confidence intervals, ranks, regret, and the bound.

use crate::bound::stall_bound;
use crate::report::Summary;
use crate::simulate::{Case, Keep, Outcome, RunFailure};
use indexmap::IndexMap;
use policy::registry::Entry;
use rayon::prelude::*;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// A policy to compare, with its parameters.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its registry entry.
    pub entry: &'static Entry,
    /// The values of its parameters.
    pub params: Vec<f64>,
}

/// A mean over seeds. With one seed the interval is the mean itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Lower end of its 95 % confidence interval (Student's t).
    pub ci95_low: f64,
    /// Upper end.
    pub ci95_high: f64,
}

/// How much a policy can matter here, by the stall share of the best one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Regime {
    /// Under 1 % of the time is stall: every policy will do.
    Slack,
    /// In between: policies differ.
    Contended,
    /// Over half of the time is stall: the link decides; fewer bytes or more memory help more than a better order.
    LinkBound,
}

/// One policy's result.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The scenario.
    pub scenario: String,
    /// The policy.
    pub policy: &'static str,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The scenario's regime.
    pub regime: Regime,
    /// Each metric over the seeds.
    #[serde(flatten)]
    pub metrics: IndexMap<&'static str, Estimate>,
    /// No policy has a smaller mean stall than this, in seconds.
    pub stall_bound_s: f64,
    /// Mean stall beyond the best policy's, as a share of it; null for a policy that knows the future.
    pub regret: Option<f64>,
    /// Rank by mean stall, 1 is best; null for a policy that knows the future.
    pub rank: Option<usize>,
    /// Whether its stall cannot be told from the best one's: the intervals overlap.
    pub tie: bool,
}

/// A column of the comparison: its key, and where its value stands in a summary.
type Metric = (&'static str, fn(&Summary) -> f64);

const METRICS: [Metric; 8] = [
    ("stall_s", Summary::stall_s),
    ("stall_fraction", |s| s.stall_fraction),
    ("hit_rate", |s| s.hit_rate),
    ("output_throughput_tok_s", |s| s.output_throughput_tok_s),
    ("p50_tpot_ms", |s| latency(s, "p50_tpot_ms")),
    ("p99_itl_ms", |s| latency(s, "p99_itl_ms")),
    ("drift_max", |s| s.drift_max),
    ("link_bytes", |s| s.links.iter().map(|link| link.bytes as f64).sum()),
];

fn latency(summary: &Summary, key: &str) -> f64 {
    summary.latencies.get(key).copied().flatten().unwrap_or(0.0)
}

/// Runs every contender on every case (one case a seed) in parallel and compares them. The result does not depend on
/// the number of threads. `done` is called once a run, from any thread.
///
/// # Errors
/// The first run, in the order of contenders and seeds, that fails.
pub fn compare(
    scenario: &str,
    cases: &[Case],
    contenders: &[Contender],
    done: impl Fn() + Sync,
) -> Result<Vec<Compared>, RunFailure> {
    let bound_of = |case: &Case| stall_bound(case).map(|bound| bound.unwrap_or_default().stall_s);
    let jobs: Vec<(usize, usize)> =
        (0..=contenders.len()).flat_map(|c| (0..cases.len()).map(move |s| (c, s))).collect();
    let results: Vec<Result<Run, RunFailure>> = jobs
        .into_par_iter()
        .map(|(contender, seed)| {
            let case = &cases[seed];
            let result = match contenders.get(contender) {
                None => bound_of(case).map(Run::Bound),
                Some(Contender { entry, params }) => {
                    case.run(entry, params, Keep::default(), |_| {}).map(|outcome: Outcome| {
                        Run::Policy(Box::new(Summary::new(case, &outcome, entry.name, 0.0)))
                    })
                }
            };
            done();
            result
        })
        .collect();
    let mut summaries: Vec<Vec<Summary>> = vec![Vec::new(); contenders.len()];
    let mut bounds = Vec::new();
    for (index, result) in results.into_iter().enumerate() {
        match result? {
            Run::Policy(summary) => summaries[index / cases.len()].push(*summary),
            Run::Bound(bound) => bounds.push(bound),
        }
    }
    let bound = estimate(&bounds).mean;
    let seeds: Vec<u64> = cases.iter().map(|case| case.seed).collect();
    Ok(rank(scenario, &seeds, contenders, &summaries, bound))
}

enum Run {
    Policy(Box<Summary>),
    Bound(f64),
}

fn rank(
    scenario: &str,
    seeds: &[u64],
    contenders: &[Contender],
    summaries: &[Vec<Summary>],
    stall_bound_s: f64,
) -> Vec<Compared> {
    let metrics: Vec<IndexMap<&'static str, Estimate>> = summaries
        .iter()
        .map(|runs| {
            METRICS
                .iter()
                .map(|(name, of)| (*name, estimate(&runs.iter().map(of).collect::<Vec<_>>())))
                .collect()
        })
        .collect();
    let stall = |index: usize| metrics[index]["stall_s"];
    let mut order: Vec<usize> = (0..contenders.len()).filter(|&i| !contenders[i].entry.clairvoyant).collect();
    order.sort_by(|&a, &b| stall(a).mean.total_cmp(&stall(b).mean).then(a.cmp(&b)));
    let best = order.first().copied();
    let regime = best.map_or(Regime::Slack, |best| match metrics[best]["stall_fraction"].mean {
        share if share < 0.01 => Regime::Slack,
        share if share <= 0.5 => Regime::Contended,
        _ => Regime::LinkBound,
    });
    let compared = contenders.iter().enumerate().map(|(index, contender)| {
        let place = order.iter().position(|&other| other == index);
        Compared {
            scenario: scenario.to_owned(),
            policy: contender.entry.name,
            seeds: seeds.to_vec(),
            regime,
            metrics: metrics[index].clone(),
            stall_bound_s,
            regret: place.and(best).map(|best| beyond(stall(index).mean, stall(best).mean)),
            rank: place.map(|place| place + 1),
            tie: place.and(best).is_some_and(|best| stall(index).ci95_low <= stall(best).ci95_high),
        }
    });
    compared.collect()
}

fn beyond(value: f64, best: f64) -> f64 {
    if best > 0.0 { value / best - 1.0 } else { value }
}

/// Mean and 95 % confidence interval of a sample.
fn estimate(sample: &[f64]) -> Estimate {
    let n = sample.len() as f64;
    let mean = sample.iter().sum::<f64>() / n.max(1.0);
    let half = match StudentsT::new(0.0, 1.0, n - 1.0) {
        Ok(t) if sample.len() > 1 => {
            let variance = sample.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
            t.inverse_cdf(0.975) * (variance / n).sqrt()
        }
        _ => 0.0,
    };
    Estimate { mean, ci95_low: mean - half, ci95_high: mean + half }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_students() {
        let three = estimate(&[1.0, 2.0, 3.0]);
        assert!((three.mean - 2.0).abs() < 1e-12);
        // t(0.975, 2) = 4.302653; s = 1.
        assert!((three.ci95_high - (2.0 + 4.302653 / 3f64.sqrt())).abs() < 1e-5);
        let one = estimate(&[7.0]);
        assert_eq!((one.ci95_low, one.ci95_high), (7.0, 7.0));
    }
}
