//! Marconi's score (MLSys 2025): recency plus `alpha` times the operations that a checkpoint saves for each of its bytes, both
//! scaled to 0..1 over what may go, which is what has at most one child.
//!
//! Operations are counted as there: those of all weights for each token between the parent and the checkpoint, and of attention
//! over all pairs of tokens, not the causal half. Bytes are the checkpoint's and those of the key-value cache of
//! the same tokens.

use super::Entry;
use super::evict::{Action, Evict, View};

pub(super) struct Marconi {
    /// The weight of operations saved.
    pub(super) alpha: f64,
}

/// The two parts of the score, before they are scaled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub(super) recency: f64,
    pub(super) efficiency: f64,
}

pub(super) fn parts(view: &View<'_>, entry: &Entry, bytes: u64) -> Parts {
    let behind = view.behind(entry);
    let saved = view.costs.all_pairs_flops(entry.position) - view.costs.all_pairs_flops(behind);
    let bytes = bytes + view.costs.cache_bytes(entry.position.saturating_sub(behind));
    let idle = view.now.since(entry.last_used).0.max(1);
    Parts { recency: 1.0 / idle as f64, efficiency: saved / bytes.max(1) as f64 }
}

/// A value on the scale from the least to the largest.
fn scaled(value: f64, (least, largest): (f64, f64)) -> f64 {
    if largest > least { (value - least) / (largest - least) } else { 0.0 }
}

impl Evict for Marconi {
    fn choose(&self, view: &View<'_>) -> Option<(u64, Action)> {
        let may_go = view.candidates().filter(|(_, entry, _)| entry.children <= 1);
        let scored: Vec<(u64, &Entry, Parts)> =
            may_go.map(|(node, entry, copy)| (node, entry, parts(view, entry, copy.bytes))).collect();
        let range = |of: fn(&Parts) -> f64| {
            let start = (f64::INFINITY, f64::NEG_INFINITY);
            scored.iter().map(|(_, _, parts)| of(parts)).fold(start, |(l, h), x| (l.min(x), h.max(x)))
        };
        let (recency, efficiency) = (range(|parts| parts.recency), range(|parts| parts.efficiency));
        let score = |parts: &Parts| {
            scaled(parts.recency, recency) + self.alpha * scaled(parts.efficiency, efficiency)
        };
        let least = scored.iter().min_by(|a, b| score(&a.2).total_cmp(&score(&b.2)).then(a.0.cmp(&b.0)));
        least.map(|(node, entry, _)| (*node, view.down(entry)))
    }
}
