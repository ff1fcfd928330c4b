//! How soon blocks come back, and how many slots that takes.

use crate::likeness::hit_rate;
use crate::routing::RoutingTrace;
use policy::Demands;
use policy::registry::{Entry, lookup, registry};
use serde::Serialize;

/// Tokens from one use of a block to the next, over all requests one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reuse {
    /// Share of the accesses that are the first to their block.
    pub first_uses: f64,
    /// Tokens within which half of all accesses follow the one before to the same block. 1 is the previous token; `None`
    /// where first uses are too many.
    pub p50_tokens: Option<usize>,
    /// The same for 75 %.
    pub p75_tokens: Option<usize>,
    /// The same for 90 %.
    pub p90_tokens: Option<usize>,
    /// The same for 99 %.
    pub p99_tokens: Option<usize>,
}

/// Slots that a share of hits takes, from cold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SlotsFor {
    /// The share of hits.
    pub hit_rate: f64,
    /// Slots under least recently used. `None` where not even all blocks together reach it.
    pub lru: Option<usize>,
    /// Slots under the clairvoyant bound: no policy does with fewer.
    pub bound: Option<usize>,
}

/// Measures the distances of the kept traces.
pub(crate) fn reuse(trace: &RoutingTrace, kept: &[usize]) -> Reuse {
    let experts = trace.shape().experts as usize;
    let mut last = vec![None; trace.shape().blocks() as usize];
    let mut counts: Vec<u64> = Vec::new();
    let (mut first_uses, mut accesses) = (0_u64, 0_u64);
    let rows = kept.iter().flat_map(|&index| trace.trace(index).rows.clone());
    for (now, row) in rows.enumerate() {
        counts.push(0);
        for layer in 0..trace.shape().layers as usize {
            for &expert in trace.selection(row, layer) {
                accesses += 1;
                match last[layer * experts + expert as usize].replace(now) {
                    Some(before) => counts[now - before] += 1,
                    None => first_uses += 1,
                }
            }
        }
    }
    let within = |share: f64| {
        let enough = libm::ceil(share * accesses as f64) as u64;
        let mut sum = 0;
        counts.iter().position(|count| {
            sum += count;
            sum >= enough
        })
    };
    Reuse {
        first_uses: first_uses as f64 / accesses as f64,
        p50_tokens: within(0.5),
        p75_tokens: within(0.75),
        p90_tokens: within(0.9),
        p99_tokens: within(0.99),
    }
}

/// Slots for half, three quarters and nine tenths of the accesses.
pub(crate) fn slots_for(demands: &Demands) -> Vec<SlotsFor> {
    let lru = lookup("lru").ok();
    let bound = registry().iter().find(|entry| entry.clairvoyant && entry.replay.is_some());
    let slots = |hit_rate| SlotsFor {
        hit_rate,
        lru: lru.and_then(|entry| least(entry, demands, hit_rate)),
        bound: bound.and_then(|entry| least(entry, demands, hit_rate)),
    };
    [0.5, 0.75, 0.9].map(slots).into()
}

/// The fewest slots with which a policy reaches a hit rate; `None` where it never does, or cannot be replayed.
fn least(entry: &Entry, demands: &Demands, wanted: f64) -> Option<usize> {
    let reaches = |slots| hit_rate(entry, demands, slots).ok().map(|rate| rate >= wanted);
    let (mut low, mut high) = (0, demands.universe() as usize);
    if !reaches(high)? {
        return None;
    }
    while high - low > 1 {
        let middle = low.midpoint(high);
        if reaches(middle)? { high = middle } else { low = middle }
    }
    Some(high)
}
