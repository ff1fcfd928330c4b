//! Gated delta nets (Qwen3-Next): a state that forgets, and takes in of a token only what it does not say already.
//!
//! A head has a state `S` with a row for each value channel and a column for each key channel. At a token with the key `k`, the query `q`,
//! the value `v`, a gate whose logarithm is `g`, and `beta` between 0 and 1,
//!
//! `S = exp(g) S`, then `S = S + beta (v - S k) k'`, and `y = S q`.
//!
//! Dimensions are a [`Shape`]'s: `heads` value heads of `head_dim` channels, `groups` key heads of `state_dim`, each shared by as many
//! value heads as any. Inputs are [`Inputs`]: `x` is `v`, `dt` is `beta`, `b` is `k`, `c` is `q`. Convolutions and norms are not computed here.

use super::inputs::Inputs;
use super::lanes;
use super::number::{Number, expanded};
use super::shape::Shape;
use super::{RecurrentError, check};
use fearless_simd::{Level, Simd, dispatch};
use rayon::prelude::*;

/// Qwen3-Next-80B's recurrent layers (its config.json: `linear_num_value_heads`, `linear_value_head_dim`, `linear_key_head_dim`,
/// `linear_num_key_heads`).
pub fn qwen3_next() -> Result<Shape, RecurrentError> {
    Shape::new(32, 128, 128, 16)
}

/// What one head takes at one token, in f32.
#[derive(Clone, Copy)]
struct Head<'a> {
    decay: f32,
    beta: f32,
    value: &'a [f32],
    key: &'a [f32],
    query: &'a [f32],
}

/// Takes as many sequences as `inputs` has tokens one token further: `gates` has the logarithm of each head's gate, `[sequences][heads]`;
/// `states` is `[sequences][heads][head_dim][state_dim]`, kept as `T`; `y` is `[sequences][heads][head_dim]`.
pub fn step<T: Number, U: Number>(
    shape: Shape,
    inputs: Inputs<'_, U>,
    gates: &[f32],
    states: &mut [T],
    y: &mut [f32],
) -> Result<(), RecurrentError> {
    let (level, sequences) = (Level::new(), inputs.tokens(shape)?);
    check("gates", sequences * shape.heads(), gates.len())?;
    check("states", sequences * shape.state(), states.len())?;
    check("y", sequences * shape.width(), y.len())?;
    let (values, keys, queries) = (expanded(inputs.x), expanded(inputs.b), expanded(inputs.c));
    let head = |at: usize| {
        let (token, head) = (at / shape.heads(), at % shape.heads());
        let shared = (token * shape.groups() + shape.group(head)) * shape.state_dim();
        Head {
            decay: libm::expf(gates[at]),
            beta: inputs.dt[at],
            value: &values[at * shape.head_dim()..][..shape.head_dim()],
            key: &keys[shared..][..shape.state_dim()],
            query: &queries[shared..][..shape.state_dim()],
        }
    };
    let heads = states.par_chunks_exact_mut(shape.tile()).zip(y.par_chunks_exact_mut(shape.head_dim()));
    heads.enumerate().with_min_len(8).for_each_init(
        || vec![0.0f32; shape.state_dim()],
        |row, (at, (state, y))| dispatch!(level, simd => advance(simd, head(at), state, row, y)),
    );
    Ok(())
}

/// One head at one token; `row` is room for one row.
#[inline(always)]
fn advance<S: Simd, T: Number>(simd: S, head: Head<'_>, state: &mut [T], row: &mut [f32], y: &mut [f32]) {
    let Head { decay, beta, value, key, query } = head;
    for (stored, (value, y)) in state.chunks_exact_mut(key.len()).zip(value.iter().zip(y)) {
        T::expand(stored, row);
        let missing = beta * (value - decay * lanes::dot(simd, row, key));
        *y = lanes::advance(simd, row, decay, missing, key, query);
        T::narrow(row, stored);
    }
}
