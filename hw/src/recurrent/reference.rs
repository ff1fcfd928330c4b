//! The recurrences as they are defined, in float64: what every kernel is held to.

use super::inputs::Inputs;
use super::number::{Number, expanded};
use super::shape::Shape;

/// Runs a Mamba-2 layer over the tokens of `inputs`, from `state` on, which is left as it is after the last; `y` is
/// `[tokens][heads][head_dim]`. `a` is the rate of each head.
pub fn ssd<T: Number>(shape: Shape, a: &[f32], inputs: Inputs<'_, T>, state: &mut [f64]) -> Vec<f64> {
    let (x, b, c) = (expanded(inputs.x), expanded(inputs.b), expanded(inputs.c));
    let mut y = vec![0.0; x.len()];
    for (at, dt) in inputs.dt.iter().enumerate() {
        let (token, head) = (at / shape.heads(), at % shape.heads());
        let shared = (token * shape.groups() + shape.group(head)) * shape.state_dim();
        let (b, c) = (&b[shared..][..shape.state_dim()], &c[shared..][..shape.state_dim()]);
        let decay = libm::exp(f64::from(*dt) * f64::from(a[head]));
        let rows = state[head * shape.tile()..][..shape.tile()].chunks_exact_mut(shape.state_dim());
        let first = at * shape.head_dim();
        for (row, (x, y)) in rows.zip(x[first..].iter().zip(&mut y[first..])) {
            *y = advance(row, &mut |_| decay, f64::from(*dt) * f64::from(*x), b, c);
        }
    }
    y
}

/// Runs a gated delta net over the tokens of `inputs`, named as [`delta`](super::delta) has them, likewise; `gates` has the logarithm of
/// each head's gate at each token.
pub fn delta<T: Number>(shape: Shape, inputs: Inputs<'_, T>, gates: &[f32], state: &mut [f64]) -> Vec<f64> {
    let (values, keys, queries) = (expanded(inputs.x), expanded(inputs.b), expanded(inputs.c));
    let mut y = vec![0.0; values.len()];
    for (at, (beta, gate)) in inputs.dt.iter().zip(gates).enumerate() {
        let (token, head) = (at / shape.heads(), at % shape.heads());
        let shared = (token * shape.groups() + shape.group(head)) * shape.state_dim();
        let (key, query) = (&keys[shared..][..shape.state_dim()], &queries[shared..][..shape.state_dim()]);
        let decay = libm::exp(f64::from(*gate));
        let rows = state[head * shape.tile()..][..shape.tile()].chunks_exact_mut(shape.state_dim());
        let first = at * shape.head_dim();
        for (row, (value, y)) in rows.zip(values[first..].iter().zip(&mut y[first..])) {
            let known: f64 = row.iter().zip(key).map(|(number, key)| decay * number * f64::from(*key)).sum();
            *y = advance(row, &mut |_| decay, f64::from(*beta) * (f64::from(*value) - known), key, query);
        }
    }
    y
}

/// The inputs of a Mamba-1 layer: `[tokens][channels]` steps and activations, `[tokens][state_dim]` shared vectors.
#[derive(Clone, Copy, Debug)]
pub struct Channels<'a> {
    /// Activations.
    pub x: &'a [f32],
    /// Steps, positive.
    pub dt: &'a [f32],
    /// What an activation adds to each number of a row.
    pub b: &'a [f32],
    /// How a row is read.
    pub c: &'a [f32],
}

/// Runs a Mamba-1 layer: `a` and `state` are `[channels][state_dim]`, the result is `[tokens][channels]`.
pub fn selective_scan(state_dim: usize, a: &[f32], inputs: Channels<'_>, state: &mut [f64]) -> Vec<f64> {
    let channels = a.len() / state_dim;
    let token = |at: usize| at / channels * state_dim..(at / channels + 1) * state_dim;
    let step = |(at, (x, dt)): (usize, (&f32, &f32))| {
        let (channel, dt) = (at % channels, f64::from(*dt));
        let rates = &a[channel * state_dim..][..state_dim];
        let row = &mut state[channel * state_dim..][..state_dim];
        let decay = &mut |n: usize| libm::exp(dt * f64::from(rates[n]));
        advance(row, decay, dt * f64::from(*x), &inputs.b[token(at)], &inputs.c[token(at)])
    };
    inputs.x.iter().zip(inputs.dt).enumerate().map(step).collect()
}

/// One row of a state at one token; what is read of it.
fn advance(row: &mut [f64], decay: &mut dyn FnMut(usize) -> f64, injected: f64, b: &[f32], c: &[f32]) -> f64 {
    let mut sum = 0.0;
    for (n, (number, (b, c))) in row.iter_mut().zip(b.iter().zip(c)).enumerate() {
        *number = decay(n) * *number + injected * f64::from(*b);
        sum += *number * f64::from(*c);
    }
    sum
}

/// The distance of `got` from `exact` over the length of `exact`; zero where both are.
pub fn relative_error(got: &[f32], exact: &[f64]) -> f64 {
    let (mut distance, mut length) = (0.0, 0.0);
    for (got, exact) in got.iter().zip(exact) {
        distance += (f64::from(*got) - exact).powi(2);
        length += exact.powi(2);
    }
    if distance == 0.0 { 0.0 } else { (distance / length).sqrt() }
}
