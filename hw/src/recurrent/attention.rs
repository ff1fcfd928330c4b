//! Causal attention on the host, as strong as the recurrence beside it: blocks of queries against blocks of keys with an online softmax
//! (Dao 2022), so that no score is kept; the same products of matrices, the same exponential, the same threads. While decoding, the
//! cache of a sequence is read once for each head.

use super::lanes;
use super::number::{Number, expanded};
use super::product::{Out, multiply, rows, transposed};
use super::{RecurrentError, check};
use fearless_simd::{Level, Simd, dispatch};
use rayon::prelude::*;

/// A layer of `heads` heads of `head_dim` numbers each, all with keys and values of their own.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    level: Level,
    heads: usize,
    head_dim: usize,
}

/// Queries of a block, and keys of one: their scores stay in the second-level cache.
const QUERIES: usize = 128;
const KEYS: usize = 256;

/// Queries, keys and values, each `[tokens][heads][head_dim]`; of one sequence. Keys are of as many tokens or more: the queries are the
/// last ones.
#[derive(Clone, Copy, Debug)]
pub struct Qkv<'a, T> {
    /// Queries.
    pub q: &'a [T],
    /// Keys.
    pub k: &'a [T],
    /// Values.
    pub v: &'a [T],
}

/// What a block of queries has seen so far.
struct Seen {
    /// The largest score of each query.
    largest: Vec<f32>,
    /// The sum of the exponentials, relative to it.
    sum: Vec<f32>,
    /// The values so weighed, `[queries][head_dim]`.
    values: Vec<f32>,
}

impl Attention {
    /// A layer.
    pub fn new(heads: usize, head_dim: usize) -> Result<Attention, RecurrentError> {
        if heads == 0 || head_dim == 0 {
            return Err(RecurrentError::Shape("attention has heads of some numbers"));
        }
        Ok(Attention { level: Level::new(), heads, head_dim })
    }

    /// The causal attention of the queries of one sequence, to `y`, `[queries][heads][head_dim]`.
    pub fn prefill<T: Number>(&self, qkv: Qkv<'_, T>, y: &mut [T]) -> Result<(), RecurrentError> {
        let (queries, keys) = self.tokens(qkv)?;
        check("y", qkv.q.len(), y.len())?;
        let width = self.heads * self.head_dim;
        // A block of queries of all heads is a contiguous part of `y`: threads share nothing.
        y.par_chunks_mut(QUERIES * width).enumerate().rev().for_each(|(block, y)| {
            let first = block * QUERIES;
            let count = QUERIES.min(queries - first);
            for head in 0..self.heads {
                let seen = self.block(qkv, head, first, count, keys - queries);
                for (query, y) in y.chunks_exact_mut(width).enumerate() {
                    let values = &seen.values[query * self.head_dim..][..self.head_dim];
                    let by = 1.0 / seen.sum[query];
                    let scaled: Vec<f32> = values.iter().map(|value| value * by).collect();
                    T::narrow(&scaled, &mut y[head * self.head_dim..][..self.head_dim]);
                }
            }
        });
        Ok(())
    }

    /// How many queries and keys there are; an error where the lengths do not agree.
    fn tokens<T>(&self, qkv: Qkv<'_, T>) -> Result<(usize, usize), RecurrentError> {
        let width = self.heads * self.head_dim;
        let (queries, keys) = (qkv.q.len() / width, qkv.k.len() / width);
        check("queries", queries * width, qkv.q.len())?;
        check("keys", keys.max(queries) * width, qkv.k.len())?;
        check("values", qkv.k.len(), qkv.v.len())?;
        Ok((queries, keys))
    }

    /// `count` queries from `first` on of one head; query `i` sees the keys up to `before + i`.
    fn block<T: Number>(
        &self,
        qkv: Qkv<'_, T>,
        head: usize,
        first: usize,
        count: usize,
        before: usize,
    ) -> Seen {
        let depth = self.head_dim;
        let mut q = self.gather(qkv.q, head, first..first + count);
        let scale = 1.0 / (depth as f32).sqrt();
        q.iter_mut().for_each(|q| *q *= scale);
        let mut seen =
            Seen { largest: vec![f32::MIN; count], sum: vec![0.0; count], values: vec![0.0; count * depth] };
        let mut scores = vec![0.0; count * KEYS];
        let end = before + first + count;
        for start in (0..end).step_by(KEYS) {
            let keys = KEYS.min(end - start);
            let k = self.gather(qkv.k, head, start..start + keys);
            let v = self.gather(qkv.v, head, start..start + keys);
            let out = Out { numbers: &mut scores, stride: KEYS };
            multiply([count, depth, keys], rows(&q, depth), transposed(&k, depth), 0.0, out);
            for (query, scores) in scores.chunks_exact_mut(KEYS).enumerate() {
                let visible = (before + first + query + 1).saturating_sub(start).min(keys);
                dispatch!(self.level, simd => seen.weigh(simd, query, depth, &mut scores[..keys], visible));
            }
            let out = Out { numbers: &mut seen.values, stride: depth };
            multiply([count, keys, depth], rows(&scores, KEYS), rows(&v, depth), 1.0, out);
        }
        seen
    }

    fn gather<T: Number>(&self, of: &[T], head: usize, tokens: std::ops::Range<usize>) -> Vec<f32> {
        let width = self.heads * self.head_dim;
        let mut to = vec![0.0; tokens.len() * self.head_dim];
        for (token, to) in tokens.zip(to.chunks_exact_mut(self.head_dim)) {
            T::expand(&of[token * width + head * self.head_dim..][..self.head_dim], to);
        }
        to
    }

    /// One more token of as many sequences as `q` has: sequence `s` has `keys` tokens of cache, its own last one included, in
    /// `[sequences][heads][tokens][head_dim]`; `y` is `[sequences][heads][head_dim]`.
    pub fn decode<T: Number>(&self, qkv: Qkv<'_, T>, y: &mut [f32]) -> Result<(), RecurrentError> {
        let sequences = qkv.q.len() / (self.heads * self.head_dim);
        check("queries", sequences * self.heads * self.head_dim, qkv.q.len())?;
        check("y", qkv.q.len(), y.len())?;
        let of_head = qkv.k.len() / (sequences * self.heads).max(1);
        check("keys", of_head * sequences * self.heads, qkv.k.len())?;
        check("values", qkv.k.len(), qkv.v.len())?;
        check("keys", of_head.max(1).next_multiple_of(self.head_dim), of_head)?;
        let caches = qkv.k.par_chunks_exact(of_head).zip(qkv.v.par_chunks_exact(of_head));
        let queries = qkv.q.par_chunks_exact(self.head_dim).zip(y.par_chunks_exact_mut(self.head_dim));
        queries.zip(caches).for_each(|((q, y), (k, v))| self.read_cache(q, k, v, y));
        Ok(())
    }

    /// One query against the cache of one head.
    fn read_cache<T: Number>(&self, q: &[T], k: &[T], v: &[T], y: &mut [f32]) {
        let depth = self.head_dim;
        let mut q = expanded(q);
        let scale = 1.0 / (depth as f32).sqrt();
        q.iter_mut().for_each(|q| *q *= scale);
        let mut seen = Seen { largest: vec![f32::MIN], sum: vec![0.0], values: vec![0.0; depth] };
        let (mut numbers, mut scores) = (vec![0.0; KEYS * depth], [0.0; KEYS]);
        for (k, v) in k.chunks(KEYS * depth).zip(v.chunks(KEYS * depth)) {
            let (numbers, scores) = (&mut numbers[..k.len()], &mut scores[..k.len() / depth]);
            T::expand(k, numbers);
            dispatch!(self.level, simd => score(simd, &q, numbers, scores));
            let visible = scores.len();
            dispatch!(self.level, simd => seen.weigh(simd, 0, depth, scores, visible));
            T::expand(v, numbers);
            dispatch!(self.level, simd => add_values(simd, scores, numbers, &mut seen.values));
        }
        y.iter_mut().zip(&seen.values).for_each(|(y, value)| *y = value / seen.sum[0]);
    }
}

/// `q` times each key.
#[inline(always)]
fn score<S: Simd>(simd: S, q: &[f32], keys: &[f32], scores: &mut [f32]) {
    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(q.len())) {
        *score = lanes::dot(simd, q, key);
    }
}

/// Adds each value times its weight.
#[inline(always)]
fn add_values<S: Simd>(simd: S, weights: &[f32], values: &[f32], sums: &mut [f32]) {
    let depth = sums.len();
    simd.vectorize(
        #[inline(always)]
        || {
            for (weight, value) in weights.iter().zip(values.chunks_exact(depth)) {
                sums.iter_mut().zip(value).for_each(|(sum, value)| *sum += weight * value);
            }
        },
    );
}

impl Seen {
    /// Turns the scores of one query into weights, of which the first `visible` count, and what it has seen before into the same unit.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, simd: S, query: usize, depth: usize, scores: &mut [f32], visible: usize) {
        let (seen, hidden) = scores.split_at_mut(visible);
        hidden.fill(0.0);
        let before = self.largest[query];
        let largest = lanes::largest(simd, seen).max(before);
        seen.iter_mut().for_each(|score| *score -= largest);
        lanes::exp(simd, seen);
        let by = if largest > before { libm::expf(before - largest) } else { 1.0 };
        self.sum[query] = self.sum[query] * by + lanes::sum(simd, seen);
        self.largest[query] = largest;
        if by != 1.0 {
            self.values[query * depth..][..depth].iter_mut().for_each(|value| *value *= by);
        }
    }
}
