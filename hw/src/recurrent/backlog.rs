//! What waits in a ring for one head's state: the decay of the state since, and the weight of each kept token.

use super::number::{Number, expanded};
use super::product::{Out, multiply, rows, transposed};
use super::ring::Ring;
use super::shape::Shape;
use half::f16;
use std::ops::Range;

/// One head's part of some tokens of a ring.
pub(super) struct Backlog<'r> {
    ring: &'r Ring<f16>,
    head: usize,
    tokens: Range<usize>,
    /// The decay of the state before the first of them: what its scale is multiplied by when it is read.
    fold: f32,
    /// For each of them, its step times what has decayed since.
    weights: Vec<f32>,
}

impl<'r> Backlog<'r> {
    /// Of `tokens` of the ring, for a head of the rate `a`.
    pub(super) fn new(ring: &'r Ring<f16>, head: usize, a: f32, tokens: Range<usize>) -> Backlog<'r> {
        let (steps, heads) = (ring.inputs().dt, ring.shape().heads());
        let mut since = 0.0;
        let weigh = |kept: usize| {
            let dt = steps[kept * heads + head];
            let weight = dt * libm::expf(a * since);
            since += dt;
            weight
        };
        let mut weights: Vec<f32> = tokens.clone().rev().map(weigh).collect();
        weights.reverse();
        Backlog { ring, head, tokens, fold: libm::expf(a * since), weights }
    }

    /// Turns the head's state before these tokens into that after them.
    pub(super) fn add_to(&self, state: &mut [f32]) {
        let shape = self.ring.shape();
        let (rows_there, depth) = (shape.head_dim(), shape.state_dim());
        let (mut x, mut b) = (Vec::new(), Vec::new());
        for (kept, weight) in self.kept() {
            x.extend(self.x(shape, kept).into_iter().map(|x| x * weight));
            b.extend(expanded(&self.ring.inputs().b[self.shared(shape, kept)]));
        }
        state.iter_mut().for_each(|number| *number *= self.fold);
        let out = Out { numbers: state, stride: depth };
        let sizes = [rows_there, self.tokens.len(), depth];
        multiply(sizes, transposed(&x, rows_there), rows(&b, depth), 1.0, out);
    }

    /// Turns what the state before these tokens gives into what the state after them gives. `products` is `b c` of each token of
    /// the ring, of this head's group.
    pub(super) fn read_to(&self, products: &[f32], y: &mut [f32]) {
        y.iter_mut().for_each(|y| *y *= self.fold);
        for (kept, weight) in self.kept() {
            let by = weight * products[kept];
            y.iter_mut().zip(self.x(self.ring.shape(), kept)).for_each(|(y, x)| *y += by * x);
        }
    }

    /// What the state before these tokens has decayed to.
    pub(super) fn fold(&self) -> f32 {
        self.fold
    }

    /// Bytes of the ring that only this head reads: all of its tokens but the last, which has just come.
    pub(super) fn bytes(&self) -> usize {
        (self.tokens.len() - 1) * entry_bytes(self.ring.shape())
    }

    fn kept(&self) -> impl Iterator<Item = (usize, f32)> + '_ {
        self.tokens.clone().zip(self.weights.iter().copied())
    }

    fn x(&self, shape: Shape, kept: usize) -> Vec<f32> {
        expanded(
            &self.ring.inputs().x[kept * shape.width() + self.head * shape.head_dim()..][..shape.head_dim()],
        )
    }

    fn shared(&self, shape: Shape, kept: usize) -> Range<usize> {
        let first = (kept * shape.groups() + shape.group(self.head)) * shape.state_dim();
        first..first + shape.state_dim()
    }
}

/// Bytes that a token keeps in the ring for one head alone: its part of `x`, and its step.
pub(super) fn entry_bytes(shape: Shape) -> usize {
    f16::BYTES * shape.head_dim() + f32::BYTES
}
