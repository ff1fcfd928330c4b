//! One chunk of Mamba-2's recurrence as products of matrices, for a group of heads, which share `b` and `c`.

use super::inputs::Inputs;
use super::lanes;
use super::number::{Number, expanded};
use super::product::{Out, multiply, rows, transposed};
use super::shape::Shape;
use fearless_simd::{Level, Simd, dispatch};
use std::ops::Range;

/// The logarithms of what has decayed since the chunk began, `[heads][tokens]`. Each is a number and what it lost in rounding: in one
/// number, a head that forgets within a few tokens would lose the digits by which neighbours differ.
pub(super) struct Decays {
    tokens: usize,
    high: Vec<f32>,
    low: Vec<f32>,
}

impl Decays {
    /// Adds up steps, `[tokens][heads]`, times the rates.
    pub(super) fn new(dt: &[f32], a: &[f32]) -> Decays {
        let tokens = dt.len() / a.len();
        let (mut high, mut low) = (vec![0.0; dt.len()], vec![0.0; dt.len()]);
        for (head, rate) in a.iter().enumerate() {
            let mut sum = 0.0f64;
            for token in 0..tokens {
                sum += f64::from(dt[token * a.len() + head]) * f64::from(*rate);
                let at = head * tokens + token;
                high[at] = sum as f32;
                low[at] = (sum - f64::from(sum as f32)) as f32;
            }
        }
        Decays { tokens, high, low }
    }

    /// What a head's state decays by over the whole chunk, as a logarithm.
    pub(super) fn whole(&self, head: usize) -> f32 {
        self.high[(head + 1) * self.tokens - 1]
    }

    fn head(&self, head: usize) -> (&[f32], &[f32]) {
        let tokens = head * self.tokens..(head + 1) * self.tokens;
        (&self.high[tokens.clone()], &self.low[tokens])
    }
}

/// A group of heads over the tokens of a chunk, in f32.
pub(super) struct Group<'c> {
    shape: Shape,
    heads: Range<usize>,
    decays: &'c Decays,
    /// `[heads of the group][tokens]`.
    dt: Vec<f32>,
    /// `[tokens][heads of the group][head_dim]`.
    x: Vec<f32>,
    /// `[tokens][state_dim]`.
    b: Vec<f32>,
    /// `[tokens][state_dim]`.
    c: Vec<f32>,
}

impl<'c> Group<'c> {
    pub(super) fn new<T: Number>(
        shape: Shape,
        group: usize,
        inputs: Inputs<'_, T>,
        decays: &'c Decays,
    ) -> Group<'c> {
        let count = shape.heads() / shape.groups();
        let heads = group * count..(group + 1) * count;
        let of = |numbers: &[T], size: usize, part: Range<usize>| -> Vec<f32> {
            numbers.chunks_exact(size).flat_map(|token| expanded(&token[part.clone()])).collect()
        };
        let shared = group * shape.state_dim()..(group + 1) * shape.state_dim();
        let width = heads.start * shape.head_dim()..heads.end * shape.head_dim();
        let steps = inputs.dt.chunks_exact(shape.heads());
        Group {
            shape,
            decays,
            dt: heads.clone().flat_map(|head| steps.clone().map(move |token| token[head])).collect(),
            x: of(inputs.x, shape.width(), width),
            b: of(inputs.b, shape.shared(), shared.clone()),
            c: of(inputs.c, shape.shared(), shared),
            heads,
        }
    }

    /// Where the group's states are within the layer's.
    pub(super) fn states(&self) -> Range<usize> {
        self.heads.start * self.shape.tile()..self.heads.end * self.shape.tile()
    }

    /// What the chunk adds to the group's states, as it is when the chunk ends: `added = (weighted x)' b`.
    pub(super) fn add_to_state(&self, level: Level, added: &mut [f32]) {
        let (tokens, width, depth) = (self.decays.tokens, self.width(), self.shape.state_dim());
        let mut weighted = self.x.clone();
        for (at, head) in self.heads.clone().enumerate() {
            let (high, low) = self.decays.head(head);
            let mut weights: Vec<f32> =
                high.iter().zip(low).map(|(h, l)| (high[tokens - 1] - h) + (low[tokens - 1] - l)).collect();
            dispatch!(level, simd => lanes::exp(simd, &mut weights));
            for (token, weight) in weights.iter().enumerate() {
                let by = weight * self.dt[at * tokens + token];
                let first = token * width + at * self.shape.head_dim();
                weighted[first..][..self.shape.head_dim()].iter_mut().for_each(|x| *x *= by);
            }
        }
        let sizes = [width, tokens, depth];
        multiply(
            sizes,
            transposed(&weighted, width),
            rows(&self.b, depth),
            0.0,
            Out { numbers: added, stride: depth },
        );
    }

    /// The outputs: what the states before the chunk give, and what its own tokens do. `y` is all heads'.
    pub(super) fn read<T: Number>(&self, level: Level, states: &[f32], y: &mut [T]) {
        let (tokens, width, depth) = (self.decays.tokens, self.width(), self.shape.state_dim());
        let mut sums = vec![0.0; tokens * width];
        let from_states = [tokens, depth, width];
        let out = Out { numbers: &mut sums, stride: width };
        multiply(from_states, rows(&self.c, depth), transposed(states, depth), 0.0, out);
        let mut pairs = vec![0.0; tokens * tokens];
        let out = Out { numbers: &mut pairs, stride: tokens };
        multiply([tokens, depth, tokens], rows(&self.c, depth), transposed(&self.b, depth), 0.0, out);
        let mut masked = vec![0.0; tokens * tokens];
        for at in 0..self.heads.len() {
            dispatch!(level, simd => self.decay(simd, at, &pairs, &mut masked, &mut sums));
            let columns = at * self.shape.head_dim();
            let out = Out { numbers: &mut sums[columns..], stride: width };
            let sizes = [tokens, tokens, self.shape.head_dim()];
            multiply(sizes, rows(&masked, tokens), rows(&self.x[columns..], width), 1.0, out);
        }
        let first = self.heads.start * self.shape.head_dim();
        for (sums, y) in sums.chunks_exact(width).zip(y.chunks_exact_mut(self.shape.width())) {
            T::narrow(sums, &mut y[first..first + width]);
        }
    }

    /// Gives each pair of tokens what has decayed between them and the step of the earlier one, and what the states before the
    /// chunk give what has decayed since; of one head, the group's `at`-th.
    #[inline(always)]
    fn decay<S: Simd>(&self, simd: S, at: usize, pairs: &[f32], masked: &mut [f32], sums: &mut [f32]) {
        let (high, low) = self.decays.head(self.heads.start + at);
        let (tokens, width) = (high.len(), self.width());
        let dt = &self.dt[at * tokens..][..tokens];
        let mut since = high.to_vec();
        lanes::exp(simd, &mut since);
        for token in 0..tokens {
            let (row, later) = masked[token * tokens..][..tokens].split_at_mut(token + 1);
            for (number, (h, l)) in row.iter_mut().zip(high.iter().zip(low)) {
                *number = (high[token] - h) + (low[token] - l);
            }
            lanes::exp(simd, row);
            for (number, (pair, dt)) in row.iter_mut().zip(pairs[token * tokens..].iter().zip(dt)) {
                *number *= pair * dt;
            }
            later.fill(0.0);
            let first = token * width + at * self.shape.head_dim();
            sums[first..][..self.shape.head_dim()].iter_mut().for_each(|y| *y *= since[token]);
        }
    }

    /// Numbers of a token.
    fn width(&self) -> usize {
        self.heads.len() * self.shape.head_dim()
    }
}
