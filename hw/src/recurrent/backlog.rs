//! What waits in a ring for one head's state: the decay of the state since, and the weight of each kept token.

use super::number::Number;
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
        let (height, depth) = (shape.head_dim(), shape.state_dim());
        let mut x = vec![0.0; height * self.tokens.len()];
        let mut b = vec![0.0; depth * self.tokens.len()];
        let room = x.chunks_exact_mut(height).zip(b.chunks_exact_mut(depth));
        for ((kept, weight), (x, b)) in self.kept().zip(room) {
            f16::expand(self.x(shape, kept), x);
            x.iter_mut().for_each(|x| *x *= weight);
            f16::expand(self.b(shape, kept), b);
        }
        state.iter_mut().for_each(|number| *number *= self.fold);
        let out = Out { numbers: state, stride: depth };
        let sizes = [height, self.tokens.len(), depth];
        multiply(sizes, transposed(&x, height), rows(&b, depth), 1.0, out);
    }

    /// Turns what the state before these tokens gives into what the state after them gives. `products` is `b c` of each token of
    /// the ring, of this head's group.
    pub(super) fn read_to(&self, products: &[f32], y: &mut [f32]) {
        y.iter_mut().for_each(|y| *y *= self.fold);
        let mut x = vec![0.0; y.len()];
        for (kept, weight) in self.kept() {
            let by = weight * products[kept];
            f16::expand(self.x(self.ring.shape(), kept), &mut x);
            y.iter_mut().zip(&x).for_each(|(y, x)| *y += by * x);
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

    fn x(&self, shape: Shape, kept: usize) -> &'r [f16] {
        &self.ring.inputs().x[kept * shape.width() + self.head * shape.head_dim()..][..shape.head_dim()]
    }

    fn b(&self, shape: Shape, kept: usize) -> &'r [f16] {
        let first = (kept * shape.groups() + shape.group(self.head)) * shape.state_dim();
        &self.ring.inputs().b[first..first + shape.state_dim()]
    }
}

/// Bytes that a token keeps in the ring for one head alone: its part of `x`, and its step.
pub(super) fn entry_bytes(shape: Shape) -> usize {
    f16::BYTES * shape.head_dim() + f32::BYTES
}
