//! Popularity by layer, and how much likelier an expert is after another one, counted in a trace.

use crate::error::Problem;
use crate::routing::{RoutingTrace, Shape};
use std::ops::Range;

/// Where the other expert was chosen: by the previous token at this layer, or by this token one or two layers before.
const SOURCES: usize = 3;
/// The most pairs of experts in all layers together: 64 MiB a table.
const MOST_PAIRS: u64 = 1 << 24;
/// Choices that the popularity counts for where few were seen.
const PRIOR: f32 = 20.0;
/// Tokens that the popularity of the whole trace counts for in a request's own.
const PRIOR_TOKENS: f32 = 8.0;
/// The most favourites that are kept, over all requests: 64 MiB.
const MOST_FAVOURITES: usize = 1 << 24;

/// Counted once, read by every step.
pub(super) struct Tables {
    pub(super) shape: Shape,
    /// Share of each block in its layer's choices. None is 0.
    pub(super) popularity: Vec<f32>,
    /// `[source][layer][from][to]`: log of the likelihood of `to` after `from`, over its popularity.
    lifts: [Vec<f32>; SOURCES],
    /// `[request][block]`: log of the popularity in a request over that in the whole trace.
    favourites: Vec<f32>,
}

impl Tables {
    /// Counts the decoded tokens in `requests`, each a range of rows.
    pub(super) fn count(trace: &RoutingTrace, requests: &[Range<usize>]) -> Result<Tables, Problem> {
        let shape = trace.shape();
        let experts = shape.experts as usize;
        let pairs = shape.blocks() as u64 * experts as u64;
        if pairs > MOST_PAIRS {
            return Err(Problem::TooLarge { what: "pairs of experts", size: pairs, limit: MOST_PAIRS });
        }
        let mut tables = Tables {
            shape,
            popularity: vec![0.5; shape.blocks() as usize],
            lifts: std::array::from_fn(|_| vec![0.0; pairs as usize]),
            favourites: Vec::new(),
        };
        for rows in requests {
            for row in rows.clone() {
                for layer in 0..shape.layers as usize {
                    tables.count_step(trace, row, layer, row > rows.start);
                }
            }
        }
        for layer in tables.popularity.chunks_exact_mut(experts) {
            let sum: f32 = layer.iter().sum();
            layer.iter_mut().for_each(|count| *count /= sum);
        }
        let Tables { popularity, lifts, .. } = &mut tables;
        for table in lifts {
            for (index, row) in table.chunks_exact_mut(experts).enumerate() {
                let layer = index / experts;
                let popularity = &popularity[layer * experts..][..experts];
                let sum: f32 = row.iter().sum();
                for (count, share) in row.iter_mut().zip(popularity) {
                    *count = libm::logf((*count + PRIOR * share) / ((sum + PRIOR) * share));
                }
            }
        }
        let most = (MOST_FAVOURITES / shape.blocks() as usize).max(1);
        requests.iter().take(most).for_each(|rows| tables.add_favourites(trace, rows.clone()));
        Ok(tables)
    }

    fn add_favourites(&mut self, trace: &RoutingTrace, rows: Range<usize>) {
        let experts = self.shape.experts as usize;
        let weight = 1.0 / (rows.len() as f32 + PRIOR_TOKENS);
        let from = self.favourites.len();
        self.favourites.resize(from + self.popularity.len(), 0.0);
        let favourites = &mut self.favourites[from..];
        for row in rows {
            for layer in 0..self.shape.layers as usize {
                let chosen = trace.selection(row, layer);
                let share = 1.0 / chosen.len() as f32;
                chosen.iter().for_each(|&expert| favourites[layer * experts + expert as usize] += share);
            }
        }
        for (favourite, &popularity) in favourites.iter_mut().zip(&self.popularity) {
            *favourite = libm::logf((*favourite / popularity + PRIOR_TOKENS) * weight);
        }
    }

    /// How many recorded requests have their favourites here.
    pub(super) fn requests(&self) -> usize {
        self.favourites.len() / self.popularity.len()
    }

    /// The favourites of a recorded request among the experts of a layer.
    #[inline]
    pub(super) fn favourites(&self, request: usize, layer: usize) -> &[f32] {
        let experts = self.shape.experts as usize;
        &self.favourites[request * self.popularity.len() + layer * experts..][..experts]
    }

    fn count_step(&mut self, trace: &RoutingTrace, row: usize, layer: usize, has_previous: bool) {
        let experts = self.shape.experts as usize;
        let chosen = trace.selection(row, layer);
        for &expert in chosen {
            self.popularity[layer * experts + expert as usize] += 1.0;
        }
        let above = |distance: usize| layer.checked_sub(distance).map(|layer| trace.selection(row, layer));
        let previous = has_previous.then(|| trace.selection(row - 1, layer));
        for (table, from) in self.lifts.iter_mut().zip([previous, above(1), above(2)]) {
            for &from in from.unwrap_or_default() {
                let first = (layer * experts + from as usize) * experts;
                chosen.iter().for_each(|&to| table[first + to as usize] += 1.0);
            }
        }
    }

    /// How every expert of a layer fares after a choice of `from`.
    #[inline]
    pub(super) fn lifts(&self, source: usize, layer: usize, from: u16) -> &[f32] {
        let experts = self.shape.experts as usize;
        &self.lifts[source][(layer * experts + from as usize) * experts..][..experts]
    }
}
