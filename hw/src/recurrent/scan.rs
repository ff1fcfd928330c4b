//! Mamba-1's selective scan: a row of state a channel, a decay for each of its numbers at each token.

use super::lanes;
use super::reference::Channels;
use super::{RecurrentError, check};
use fearless_simd::{Level, Simd, dispatch};
use rayon::prelude::*;

/// Runs the layer over the tokens of `inputs`, from `state` on, which is left as it is after the last. `a` and `state` are
/// `[channels][state_dim]`; the result is `[channels][tokens]`, since each channel runs by itself.
pub fn selective_scan(
    state_dim: usize,
    a: &[f32],
    inputs: Channels<'_>,
    state: &mut [f32],
) -> Result<Vec<f32>, RecurrentError> {
    let tokens = tokens(state_dim, a, inputs)?;
    check("state", a.len(), state.len())?;
    let mut y = vec![0.0; inputs.x.len()];
    if y.is_empty() {
        return Ok(y);
    }
    let level = Level::new();
    let rows = state.par_chunks_exact_mut(state_dim).zip(y.par_chunks_exact_mut(tokens));
    rows.enumerate().for_each_init(
        || vec![0.0; state_dim],
        |decays, (channel, (row, y))| {
            let rates = &a[channel * state_dim..][..state_dim];
            dispatch!(level, simd => scan(simd, inputs, channel, rates, row, decays, y));
        },
    );
    Ok(y)
}

/// How many tokens there are; an error where the lengths do not agree.
fn tokens(state_dim: usize, a: &[f32], inputs: Channels<'_>) -> Result<usize, RecurrentError> {
    if state_dim == 0 || a.is_empty() || !a.len().is_multiple_of(state_dim) {
        return Err(RecurrentError::Shape("a layer has channels, each of which has a row of some numbers"));
    }
    let channels = a.len() / state_dim;
    let tokens = inputs.x.len() / channels;
    check("x", tokens * channels, inputs.x.len())?;
    check("dt", tokens * channels, inputs.dt.len())?;
    check("b", tokens * state_dim, inputs.b.len())?;
    check("c", tokens * state_dim, inputs.c.len())?;
    Ok(tokens)
}

/// One channel over all tokens; `decays` is room for one row.
#[inline(always)]
fn scan<S: Simd>(
    simd: S,
    inputs: Channels<'_>,
    channel: usize,
    rates: &[f32],
    row: &mut [f32],
    decays: &mut [f32],
    y: &mut [f32],
) {
    let channels = inputs.x.len() / y.len();
    for (token, y) in y.iter_mut().enumerate() {
        let at = token * channels + channel;
        let (dt, shared) = (inputs.dt[at], token * row.len()..(token + 1) * row.len());
        decays.iter_mut().zip(rates).for_each(|(decay, rate)| *decay = dt * rate);
        lanes::exp(simd, decays);
        let (b, c) = (&inputs.b[shared.clone()], &inputs.c[shared]);
        *y = lanes::advance_each(simd, row, decays, dt * inputs.x[at], b, c);
    }
}
