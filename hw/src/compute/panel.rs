//! The activations of some tokens, in the order in which they are multiplied.

use crate::codec::CHUNK;
use std::ops::Range;

/// Tokens multiplied at a time.
pub(super) const TOKENS: usize = 4;

/// Tokens in groups of [`TOKENS`], then of two and of one; in a group, for each chunk of columns, the token's lanes; zeros
/// beyond the last column.
#[derive(Default)]
pub(super) struct Panel {
    lanes: Vec<[f32; CHUNK]>,
    tokens: usize,
    chunks: usize,
}

impl Panel {
    /// Takes `x`, `tokens` times `columns`.
    pub(super) fn fill(&mut self, x: &[f32], tokens: usize, columns: usize) {
        (self.tokens, self.chunks) = (tokens, columns.div_ceil(CHUNK));
        self.lanes.resize(tokens * self.chunks, [0.0; CHUNK]);
        for (first, width) in groups(tokens) {
            for token in first..first + width {
                let x = x[token * columns..(token + 1) * columns].chunks(CHUNK);
                let lanes = self.lanes[first * self.chunks..].iter_mut().skip(token - first).step_by(width);
                for (lanes, x) in lanes.zip(x) {
                    lanes[..x.len()].copy_from_slice(x);
                    lanes[x.len()..].fill(0.0);
                }
            }
        }
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Chunks of columns.
    pub(super) fn chunks(&self) -> usize {
        self.chunks
    }

    /// All lanes; of a single token, chunk by chunk.
    pub(super) fn lanes(&self) -> &[[f32; CHUNK]] {
        &self.lanes
    }

    /// The first token and the width of each group.
    pub(super) fn groups(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        groups(self.tokens)
    }

    /// Some chunks of a group.
    pub(super) fn group(&self, first: usize, width: usize, chunks: Range<usize>) -> &[[f32; CHUNK]] {
        let start = first * self.chunks;
        &self.lanes[start + chunks.start * width..start + chunks.end * width]
    }
}

fn groups(tokens: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let left = tokens - first;
        let width = [TOKENS, 2, 1].into_iter().find(|width| *width <= left)?;
        first += width;
        Some((first - width, width))
    })
}
