//! How much the choice at one layer tells of the choice some layers later.
//!
//! A table of transitions is counted on the first half of the tokens: how often expert j is chosen at a layer, and how
//! often where expert i was chosen d layers before (in the previous token, where the layer has no d layers before it).
//! On the second half, the experts of a layer are ranked by the sum of the logarithms of the likelihood ratios over
//! the experts chosen d layers before, and of the popularity (naive Bayes), and the foremost are compared with what was
//! chosen. It knows one layer's choice and learns nothing on the way: a predictor that sees more does better.

use crate::routing::RoutingTrace;
use serde::Serialize;
use std::ops::Range;

/// Layers ahead that are measured, where the model has as many; and one token ahead.
const DISTANCES: [usize; 4] = [1, 2, 4, 8];
/// The most pairs of experts, over all layers, that are counted: 64 MiB.
const MOST_PAIRS: u64 = 1 << 24;
/// Choices that the popularity counts for where few were seen.
const PRIOR: f32 = 150.0;
/// Tokens that are tested, at most, spread over the second half.
const TESTED_TOKENS: usize = 4_000;

/// Shares of the chosen experts that were foreseen when as many were named as were chosen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Predictability {
    /// By popularity at the layer alone.
    pub by_popularity: f64,
    /// By the choice some layers before, nearest first. The last is one token ahead: the same layer.
    pub by_layers_ahead: Vec<Ahead>,
}

/// One distance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ahead {
    /// Layers from the known choice to the foreseen one.
    pub layers: usize,
    /// Share foreseen.
    pub recall: f64,
}

/// Measures the kept traces. `None` where there are too few tokens to test on, or too many experts for a table.
pub(crate) fn predictability(trace: &RoutingTrace, kept: &[usize]) -> Option<Predictability> {
    let shape = trace.shape();
    if shape.blocks() as u64 * shape.experts as u64 > MOST_PAIRS {
        return None;
    }
    let (train, test) = halves(trace, kept);
    let layers = shape.layers as usize;
    let mut distances: Vec<usize> = DISTANCES.into_iter().filter(|&distance| distance < layers).collect();
    distances.push(layers);
    let mut by_popularity = None;
    let mut by_layers_ahead = Vec::new();
    for distance in distances {
        let table = Transitions::count(trace, &train, distance);
        let (popular, foreseen) = table.recalls(trace, &test)?;
        // Popularity is compared where most steps have a choice before them: at the shortest distance.
        by_popularity.get_or_insert(popular);
        by_layers_ahead.push(Ahead { layers: distance, recall: foreseen });
    }
    Some(Predictability { by_popularity: by_popularity?, by_layers_ahead })
}

/// The rows of each request, those of the first half of all tokens and the others.
fn halves(trace: &RoutingTrace, kept: &[usize]) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let tokens: usize = kept.iter().map(|&index| trace.trace(index).rows.len()).sum();
    let mut left = tokens / 2;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for rows in kept.iter().map(|&index| trace.trace(index).rows.clone()) {
        let middle = rows.start + left.min(rows.len());
        left -= middle - rows.start;
        first.push(rows.start..middle);
        second.push(middle..rows.end);
    }
    (first, second)
}

struct Transitions {
    distance: usize,
    experts: usize,
    /// `[layer][expert]`: log of the share of a layer's choices.
    popularity: Vec<f32>,
    /// `[layer][from][to]`: log of how much likelier `to` is after `from`.
    lifts: Vec<f32>,
}

impl Transitions {
    fn count(trace: &RoutingTrace, parts: &[Range<usize>], distance: usize) -> Transitions {
        let shape = trace.shape();
        let experts = shape.experts as usize;
        let mut popularity = vec![0.5; shape.blocks() as usize];
        let mut lifts = vec![0.0; shape.blocks() as usize * experts];
        for (row, rows) in parts.iter().flat_map(|rows| rows.clone().map(move |row| (row, rows))) {
            for layer in 0..shape.layers as usize {
                let chosen = trace.selection(row, layer);
                chosen.iter().for_each(|&expert| popularity[layer * experts + expert as usize] += 1.0);
                for &from in before(trace, rows, row, layer, distance).unwrap_or_default() {
                    let first = (layer * experts + from as usize) * experts;
                    chosen.iter().for_each(|&to| lifts[first + to as usize] += 1.0);
                }
            }
        }
        for layer in popularity.chunks_exact_mut(experts) {
            let sum: f32 = layer.iter().sum();
            layer.iter_mut().for_each(|count| *count /= sum);
        }
        for (index, row) in lifts.chunks_exact_mut(experts).enumerate() {
            let popularity = &popularity[index / experts * experts..][..experts];
            let sum: f32 = row.iter().sum();
            for (count, share) in row.iter_mut().zip(popularity) {
                *count = libm::logf((*count + PRIOR * share) / ((sum + PRIOR) * share));
            }
        }
        popularity.iter_mut().for_each(|share| *share = libm::logf(*share));
        Transitions { distance, experts, popularity, lifts }
    }

    /// Shares foreseen by popularity and by transitions; `None` without a step to test.
    fn recalls(&self, trace: &RoutingTrace, parts: &[Range<usize>]) -> Option<(f64, f64)> {
        let tokens: usize = parts.iter().map(ExactSizeIterator::len).sum();
        let stride = tokens.div_ceil(TESTED_TOKENS).max(1);
        let (mut popular, mut foreseen, mut chosen_in_all) = (0, 0, 0);
        let mut scores = Vec::new();
        let mut order = Vec::new();
        let rows = parts.iter().flat_map(|rows| rows.clone().map(move |row| (row, rows)));
        for (row, rows) in rows.step_by(stride) {
            for layer in 0..trace.shape().layers as usize {
                let Some(known) = before(trace, rows, row, layer, self.distance) else { continue };
                let chosen = trace.selection(row, layer);
                scores.clear();
                scores.extend_from_slice(&self.popularity[layer * self.experts..][..self.experts]);
                popular += hits(&scores, chosen, &mut order);
                for &from in known {
                    let lifts = &self.lifts[(layer * self.experts + from as usize) * self.experts..];
                    scores.iter_mut().zip(lifts).for_each(|(score, lift)| *score += lift);
                }
                foreseen += hits(&scores, chosen, &mut order);
                chosen_in_all += chosen.len();
            }
        }
        let share = |hits: usize| hits as f64 / chosen_in_all as f64;
        (chosen_in_all > 0).then(|| (share(popular), share(foreseen)))
    }
}

/// The choice `distance` layers before a step, in the same request.
fn before<'a>(
    trace: &'a RoutingTrace,
    rows: &Range<usize>,
    row: usize,
    layer: usize,
    distance: usize,
) -> Option<&'a [u16]> {
    match layer.checked_sub(distance) {
        Some(layer) => Some(trace.selection(row, layer)),
        None if row > rows.start => {
            Some(trace.selection(row - 1, layer + trace.shape().layers as usize - distance))
        }
        None => None,
    }
}

/// How many of the chosen are among as many with the highest scores; the lower expert of equals is the higher.
fn hits(scores: &[f32], chosen: &[u16], order: &mut Vec<u16>) -> usize {
    order.clear();
    order.extend(0..scores.len() as u16);
    if chosen.len() < order.len() {
        order.select_nth_unstable_by(chosen.len(), |&a, &b| {
            scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b))
        });
    }
    chosen.iter().filter(|expert| order[..chosen.len()].contains(expert)).count()
}
