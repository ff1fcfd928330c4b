//! What a request trace is like.

use super::RequestTrace;
use serde::Serialize;
use std::collections::BTreeSet;

/// Statistics of a request trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RequestInfo {
    /// Requests.
    pub requests: usize,
    /// Requests of the file that failed, and are not counted.
    pub failed: u64,
    /// From the first arrival to the last, in seconds.
    pub duration_s: f64,
    /// Gaps between arrivals over that time; `None` where it is 0.
    pub rate_per_s: Option<f64>,
    /// Coefficient of variation of the gaps between arrivals: 1 for a Poisson process, more where requests come in bursts.
    /// `None` where they all come at once.
    pub gap_cv: Option<f64>,
    /// Quantiles of the gaps, in seconds: 50, 90 and 99 %.
    pub gap_s: Option<[f64; 3]>,
    /// Prompts.
    pub prompt_tokens: Lengths,
    /// Outputs.
    pub output_tokens: Lengths,
    /// Share of the prompt tokens that an unlimited cache of earlier prompts would have; `None` where prompts are not hashed.
    pub reusable_prefix: Option<f64>,
}

/// How long prompts or outputs are, in tokens. A quantile is the least length that is no shorter than its share of all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// All together.
    pub total: u64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: u64,
    /// 90 % are no longer.
    pub p90: u64,
    /// 99 % are no longer.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

/// Measures a request trace.
pub fn request_info(trace: &RequestTrace) -> RequestInfo {
    let requests = trace.requests();
    let mut gaps: Vec<u64> = requests.windows(2).map(|pair| pair[1].at.0 - pair[0].at.0).collect();
    gaps.sort_unstable();
    let mean = gaps.iter().sum::<u64>() as f64 / gaps.len() as f64;
    let variance =
        gaps.iter().map(|&gap| (gap as f64 - mean) * (gap as f64 - mean)).sum::<f64>() / gaps.len() as f64;
    let spread = mean > 0.0;
    RequestInfo {
        requests: requests.len(),
        failed: trace.failed(),
        duration_s: gaps.iter().sum::<u64>() as f64 * 1e-9,
        rate_per_s: spread.then(|| 1e9 / mean),
        gap_cv: spread.then(|| variance.sqrt() / mean),
        gap_s: spread.then(|| [50, 90, 99].map(|percent| quantile(&gaps, percent) as f64 * 1e-9)),
        prompt_tokens: lengths(requests.iter().map(|request| request.prompt_tokens)),
        output_tokens: lengths(requests.iter().map(|request| request.output_tokens)),
        reusable_prefix: reusable_prefix(trace),
    }
}

fn lengths(lengths: impl Iterator<Item = u32>) -> Lengths {
    let mut sorted: Vec<u64> = lengths.map(u64::from).collect();
    sorted.sort_unstable();
    let total: u64 = sorted.iter().sum();
    Lengths {
        total,
        mean: total as f64 / sorted.len() as f64,
        p50: quantile(&sorted, 50),
        p90: quantile(&sorted, 90),
        p99: quantile(&sorted, 99),
        max: quantile(&sorted, 100),
    }
}

fn quantile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn reusable_prefix(trace: &RequestTrace) -> Option<f64> {
    let block_tokens = u64::from(trace.block_tokens()?.get());
    let mut seen: BTreeSet<u64> = BTreeSet::new();
    let (mut reusable, mut all) = (0, 0);
    for (index, request) in trace.requests().iter().enumerate() {
        let prefix = trace.prefix(index);
        let known = prefix.iter().take_while(|block| seen.contains(*block)).count() as u64;
        let prompt = u64::from(request.prompt_tokens);
        reusable += (known * block_tokens).min(prompt);
        all += prompt;
        seen.extend(prefix);
    }
    Some(reusable as f64 / all as f64)
}
