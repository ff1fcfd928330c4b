//! What a trace is like: popularity, repetition, reuse, predictability, working set, gate weights.

use crate::error::{Problem, TraceError};
use crate::gates;
use crate::predictability::{Predictability, predictability};
use crate::reading::reading;
use crate::reuse::{Reuse, SlotsFor, reuse, slots_for};
use crate::routing::{GateOrigin, RoutingTrace};
use serde::Serialize;

/// Window lengths of [`Info::working_set`], in tokens.
pub const WINDOWS: [usize; 6] = [1, 4, 16, 64, 256, 1024];

/// Statistics of a trace. All but the first six fields are over the traces that were asked for: see [`info`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Info {
    /// Routed layers.
    pub layers: u32,
    /// Experts of each layer.
    pub experts: u32,
    /// Most experts of a selection.
    pub top_k: u32,
    /// Traces in the file.
    pub traces: usize,
    /// Of these, traces marked as repetition.
    pub repetition_traces: usize,
    /// Whether those are in what follows.
    pub includes_repetition: bool,
    /// Decoded tokens.
    pub tokens: usize,
    /// Prompt tokens that are recorded beside them; no statistic counts these.
    pub prompt_rows: usize,
    /// Selected experts over all tokens and layers.
    pub accesses: u64,
    /// Blocks, (layer, expert), that are used at least once.
    pub distinct_blocks: usize,
    /// Share of the accesses that goes to the most used blocks of the model.
    pub popularity: Popularity,
    /// Zipf exponent of the popularity inside a layer: the maximum-likelihood s for counts n_r over ranks r with
    /// p_r proportional to r^-s, ranks by count in each layer, all layers pooled. 0 is uniform. The top-k choice is without
    /// replacement, so a router that draws k experts by weights r^-s shows less than s. Ranks are by the same counts, so
    /// that noise passes for skew: 625 uniform accesses a block show 0.04.
    pub zipf_exponent: f64,
    /// Mean number of distinct blocks a token needs.
    pub blocks_per_token: f64,
    /// Mean share of a selection that the previous token selected at the same layer. `None` without a second token.
    pub overlap_with_previous_token: Option<f64>,
    /// Mean distinct blocks in windows of consecutive tokens.
    pub working_set: Vec<WorkingSet>,
    /// Tokens until a block comes back.
    pub reuse: Reuse,
    /// Slots that 50, 75 and 90 % of hits take.
    pub slots_for: Vec<SlotsFor>,
    /// What a choice tells of later ones. `None` where there is too little to test on, or a table would be too large.
    pub predictability: Option<Predictability>,
    /// Where gate weights come from; `None` if there are none.
    pub gates: Option<GateOrigin>,
    /// Mean gate weights by order, highest first, each selection normalised to 1.
    pub mean_sorted_gates: Option<Vec<f64>>,
    /// All that in plain words, a sentence each.
    pub reading: Vec<String>,
}

/// Shares of the accesses, 0 to 1. A number of blocks that is not whole is rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Popularity {
    /// Of the most used 10 % of all blocks.
    pub top_10_percent: f64,
    /// Of the most used 25 %.
    pub top_25_percent: f64,
    /// Of the most used 50 %.
    pub top_50_percent: f64,
}

/// How many blocks a window of tokens needs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WorkingSet {
    /// Length of the window.
    pub tokens: usize,
    /// Windows counted: whole, inside one trace, not overlapping.
    pub windows: usize,
    /// Mean distinct blocks in one. `None` if no trace is that long.
    pub blocks: Option<f64>,
    /// What it would be if every token chose each block with its share in the whole trace, whatever came before.
    pub independent_blocks: f64,
}

/// Measures a trace, without the traces marked as repetition unless asked for. An error if none is left.
pub fn info(trace: &RoutingTrace, include_repetition: bool) -> Result<Info, TraceError> {
    let shape = trace.shape();
    let kept: Vec<usize> = trace.kept(include_repetition).collect();
    if kept.is_empty() {
        return Err(Problem::OnlyRepetition.into());
    }
    let tokens = kept.iter().map(|&index| trace.trace(index).rows.len()).sum();
    let counts = block_counts(trace, &kept);
    let accesses: u64 = counts.iter().sum();
    let mut info = Info {
        layers: shape.layers,
        experts: shape.experts,
        top_k: shape.top_k,
        traces: trace.trace_count(),
        repetition_traces: trace.traces().iter().filter(|info| info.repetition).count(),
        includes_repetition: include_repetition,
        tokens,
        prompt_rows: kept.iter().map(|&index| trace.trace(index).prompt_rows).sum(),
        accesses,
        distinct_blocks: counts.iter().filter(|&&count| count > 0).count(),
        popularity: popularity(&counts),
        zipf_exponent: zipf_exponent(&counts, shape.experts as usize),
        blocks_per_token: accesses as f64 / tokens as f64,
        overlap_with_previous_token: overlap(trace, &kept),
        working_set: WINDOWS.iter().map(|&window| working_set(trace, &kept, &counts, window)).collect(),
        reuse: reuse(trace, &kept),
        slots_for: slots_for(&trace.demands(include_repetition)),
        predictability: predictability(trace, &kept),
        gates: trace.gate_origin(),
        mean_sorted_gates: mean_sorted_gates(trace, &kept),
        reading: Vec::new(),
    };
    info.reading = reading(&info);
    Ok(info)
}

/// The kept token rows and the layers of each.
fn steps<'a>(trace: &'a RoutingTrace, kept: &'a [usize]) -> impl Iterator<Item = (usize, usize)> + 'a {
    let rows = kept.iter().flat_map(|&index| trace.trace(index).rows.clone());
    rows.flat_map(|row| (0..trace.shape().layers as usize).map(move |layer| (row, layer)))
}

/// Accesses by block id.
fn block_counts(trace: &RoutingTrace, kept: &[usize]) -> Vec<u64> {
    let mut counts = vec![0; trace.shape().blocks() as usize];
    for (row, layer) in steps(trace, kept) {
        let first = layer * trace.shape().experts as usize;
        for &expert in trace.selection(row, layer) {
            counts[first + expert as usize] += 1;
        }
    }
    counts
}

fn popularity(counts: &[u64]) -> Popularity {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let total: u64 = sorted.iter().sum();
    let share = |percent: usize| {
        let top = (sorted.len() * percent).div_ceil(100);
        sorted[..top].iter().sum::<u64>() as f64 / total as f64
    };
    Popularity { top_10_percent: share(10), top_25_percent: share(25), top_50_percent: share(50) }
}

/// At the maximum of the likelihood the expected log rank equals the observed one; it falls with the exponent.
fn zipf_exponent(counts: &[u64], experts: usize) -> f64 {
    let mut by_rank = vec![0_u64; experts];
    for layer in counts.chunks_exact(experts) {
        let mut sorted = layer.to_vec();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        by_rank.iter_mut().zip(sorted).for_each(|(sum, count)| *sum += count);
    }
    let log_ranks: Vec<f64> = (1..=experts).map(|rank| libm::log(rank as f64)).collect();
    let mean_log_rank = |weight: &dyn Fn(usize) -> f64| {
        let (sum, total) = (0..experts).fold((0.0, 0.0), |(sum, total), index| {
            (sum + weight(index) * log_ranks[index], total + weight(index))
        });
        sum / total
    };
    let observed = mean_log_rank(&|index| by_rank[index] as f64);
    let (mut low, mut high) = (0.0, 20.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        let expected = mean_log_rank(&|index| libm::exp(-middle * log_ranks[index]));
        if expected > observed { low = middle } else { high = middle }
    }
    low
}

fn overlap(trace: &RoutingTrace, kept: &[usize]) -> Option<f64> {
    let starts: Vec<usize> = kept.iter().map(|&index| trace.trace(index).rows.start).collect();
    let (mut sum, mut count) = (0.0, 0_u64);
    for (row, layer) in steps(trace, kept) {
        if starts.binary_search(&row).is_ok() {
            continue;
        }
        let (before, now) = (trace.selection(row - 1, layer), trace.selection(row, layer));
        let again = now.iter().filter(|expert| before.contains(expert)).count();
        sum += again as f64 / now.len() as f64;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

fn working_set(trace: &RoutingTrace, kept: &[usize], counts: &[u64], tokens: usize) -> WorkingSet {
    let experts = trace.shape().experts as usize;
    let mut last_window = vec![0_usize; trace.shape().blocks() as usize];
    let (mut windows, mut blocks) = (0, 0_u64);
    for &index in kept {
        let rows = trace.trace(index).rows.clone();
        for first in rows.clone().step_by(tokens).filter(|first| first + tokens <= rows.end) {
            windows += 1;
            for row in first..first + tokens {
                for layer in 0..trace.shape().layers as usize {
                    for &expert in trace.selection(row, layer) {
                        let seen = &mut last_window[layer * experts + expert as usize];
                        blocks += (*seen != windows) as u64;
                        *seen = windows;
                    }
                }
            }
        }
    }
    let in_all: usize = kept.iter().map(|&index| trace.trace(index).rows.len()).sum();
    let touched = |&count: &u64| 1.0 - libm::pow(1.0 - count as f64 / in_all as f64, tokens as f64);
    let independent_blocks = counts.iter().map(touched).sum();
    let blocks = (windows > 0).then(|| blocks as f64 / windows as f64);
    WorkingSet { tokens, windows, blocks, independent_blocks }
}

fn mean_sorted_gates(trace: &RoutingTrace, kept: &[usize]) -> Option<Vec<f64>> {
    trace.gate_origin()?;
    let mut sums = vec![0.0; trace.shape().top_k as usize];
    let mut weights = vec![0.0; sums.len()];
    let mut count = 0_u64;
    for (row, layer) in steps(trace, kept) {
        let len = gates::gate_weights_or_synthetic(trace, 0, row, layer, &mut weights);
        weights[..len].sort_unstable_by(|a, b| b.total_cmp(a));
        sums.iter_mut().zip(&weights[..len]).for_each(|(sum, &weight)| *sum += weight as f64);
        count += 1;
    }
    Some(sums.into_iter().map(|sum| sum / count as f64).collect())
}
