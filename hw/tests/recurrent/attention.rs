//! The attention that recurrent layers are compared with.

use crate::{FP16, FP32, as_f16, rounding, without_signs};
use hw::recurrent::attention::{Attention, Qkv};
use hw::recurrent::made;
use hw::recurrent::number::{Number, expanded, narrowed};
use hw::recurrent::shape::Shape;
use proptest::prelude::*;

/// Numbers of about unit size.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    made::layer::<f32>(Shape::new(1, 1, 1, 1).unwrap(), count, seed).inputs.x
}

/// Softmax attention as it is defined, of the last `queries` tokens.
fn plain(heads: usize, depth: usize, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f64> {
    let width = heads * depth;
    let (queries, keys) = (q.len() / width, k.len() / width);
    let mut y = vec![0.0; q.len()];
    for (query, head) in (0..queries).flat_map(|query| (0..heads).map(move |head| (query, head))) {
        let at = |token: usize| token * width + head * depth;
        let score = |key: usize| {
            let pairs = q[at(query)..][..depth].iter().zip(&k[at(key)..][..depth]);
            pairs.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() / (depth as f64).sqrt()
        };
        let scores: Vec<f64> = (0..=keys - queries + query).map(score).collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (key, weight) in weights.iter().enumerate() {
            for (y, v) in y[at(query)..][..depth].iter_mut().zip(&v[at(key)..][..depth]) {
                *y += weight / total * f64::from(*v);
            }
        }
    }
    y
}

fn error<T: Number>(heads: usize, depth: usize, queries: usize, before: usize, seed: u64) -> f64 {
    let width = heads * depth;
    let [q, k, v] = [queries, before + queries, before + queries]
        .map(|tokens| narrowed::<T>(&numbers(tokens * width, seed ^ tokens as u64)));
    let mut y = vec![T::default(); q.len()];
    Attention::new(heads, depth).unwrap().prefill(Qkv { q: &q, k: &k, v: &v }, &mut y).unwrap();
    error_of(heads, depth, &expanded(&y), [&q, &k, &v].map(|of| expanded(of)))
}

/// How far outputs are from softmax attention's.
fn error_of(heads: usize, depth: usize, y: &[f32], [q, k, v]: [Vec<f32>; 3]) -> f64 {
    let size = plain(heads, depth, &q, &k, &without_signs(&v));
    rounding(y, &plain(heads, depth, &q, &k, &v), &size)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn blocks_give_what_softmax_does(
        heads in 1usize..3, depth in 1usize..40, queries in 1usize..300, before in 0usize..300, seed: u64,
    ) {
        let fp32 = error::<f32>(heads, depth, queries, before, seed);
        prop_assert!(fp32 <= FP32, "fp32: {fp32:e}");
        let fp16 = error::<half::f16>(heads, depth, queries, before, seed);
        prop_assert!(fp16 <= FP16, "fp16: {fp16:e}");
    }

    #[test]
    fn a_decoded_token_is_the_last_of_a_prompt(heads in 1usize..4, depth in 1usize..40, keys in 1usize..600, seed: u64) {
        let width = heads * depth;
        let [q, k, v] = [1, keys, keys].map(|tokens| numbers(tokens * width, seed ^ tokens as u64));
        // `[tokens][heads]` to `[heads][tokens]`.
        let by_head = |of: &[f32]| -> Vec<f32> {
            let head = |head: usize| of.chunks(width).flat_map(move |token| token[head * depth..][..depth].to_vec());
            (0..heads).flat_map(head).collect()
        };
        let (k16, v16) = (as_f16(&by_head(&k)), as_f16(&by_head(&v)));
        let mut y = vec![0.0; width];
        let attention = Attention::new(heads, depth).unwrap();
        attention.decode(Qkv { q: &as_f16(&q), k: &k16, v: &v16 }, &mut y).unwrap();
        let error = error_of(heads, depth, &y, [&q, &k, &v].map(|of| expanded(&as_f16(of))));
        prop_assert!(error <= FP32, "{error:e}");
    }
}
