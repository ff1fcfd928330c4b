//! Recurrent layers on the host, held to their definition in float64.

mod attention;
mod coded;
mod delta;
mod gated;
mod scan;
mod sequence;

use half::f16;
use hw::recurrent::inputs::Owned;
use hw::recurrent::made;
use hw::recurrent::number::{Number, narrowed};
use hw::recurrent::reference::relative_error;
use hw::recurrent::shape::Shape;
use proptest::prelude::*;

/// What is promised of kernels that store activations in fp32, and in fp16.
const FP32: f64 = 1e-5;
const FP16: f64 = 2e-3;

/// Small layers, their dimensions no multiples of anything.
fn shapes() -> impl Strategy<Value = Shape> {
    (1usize..4, 1usize..4, 1usize..20, 1usize..70)
        .prop_map(|(groups, heads, rows, columns)| Shape::new(groups * heads, rows, columns, groups).unwrap())
}

/// A layer whose heads forget over from less than one token to ten thousand, and inputs of some tokens.
fn layer<T: Number>(shape: Shape, tokens: usize, seed: u64) -> (Vec<f32>, Owned<T>) {
    let made = made::layer::<T>(shape, tokens, seed);
    let mut inputs = made.inputs;
    let lives = [1e4, 0.3, 30.0];
    for (at, dt) in inputs.dt.iter_mut().enumerate() {
        let head = at % shape.heads();
        *dt *= -1.0 / (0.03 * lives[head % lives.len()] * made.a[head]);
    }
    (made.a, inputs)
}

/// A state whose numbers are of about unit size.
fn begin(shape: Shape) -> Vec<f32> {
    (0..shape.state()).map(|at| (at as f32).sin()).collect()
}

fn as_f64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// The distance of `got` from `exact` over the length of `exact`, or over what numbers of a half would have: where numbers cancel, or
/// are beyond what fp16 reaches down to, there is no small error relative to what is left.
fn error(got: &[f32], exact: &[f64]) -> f64 {
    let length = exact.iter().map(|exact| exact * exact).sum::<f64>().sqrt();
    relative_error(got, exact) * (length / length.max(0.5 * (exact.len() as f64).sqrt()))
}

/// The distance of `got` from `exact` over the length of `size`: `exact` with nothing negative in what it adds up, so that nothing
/// cancels. What rounding does is a share of that, however little is left of `exact`.
fn rounding(got: &[f32], exact: &[f64], size: &[f64]) -> f64 {
    let squares = |of: &mut dyn Iterator<Item = f64>| of.map(|number| number * number).sum::<f64>();
    let distance = squares(&mut got.iter().zip(exact).map(|(got, exact)| f64::from(*got) - exact));
    (distance / squares(&mut size.iter().copied())).sqrt()
}

fn without_signs(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| value.abs()).collect()
}

/// The largest error of any head of a state.
fn worst_head(shape: Shape, got: &[f32], exact: &[f64]) -> f64 {
    let heads = got.chunks(shape.tile()).zip(exact.chunks(shape.tile()));
    heads.map(|(got, exact)| error(got, exact)).fold(0.0, f64::max)
}

/// The largest error of any head of outputs, over all tokens.
fn worst_output(shape: Shape, got: &[f32], exact: &[f64]) -> f64 {
    let of = |head: usize| {
        let part = head * shape.head_dim()..(head + 1) * shape.head_dim();
        let got: Vec<f32> = got.chunks(shape.width()).flat_map(|y| y[part.clone()].to_vec()).collect();
        let exact: Vec<f64> = exact.chunks(shape.width()).flat_map(|y| y[part.clone()].to_vec()).collect();
        error(&got, &exact)
    };
    (0..shape.heads()).map(of).fold(0.0, f64::max)
}

fn as_f16(values: &[f32]) -> Vec<f16> {
    narrowed(values)
}
