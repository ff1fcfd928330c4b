//! Layers and inputs that are made up, where no model's are at hand: drawn as the Mamba-2 reference code begins its training
//! (rates uniform in 1 to 16, steps log-uniform in 0.001 to 0.1 a head), activations and shared vectors as they leave SiLU.

use super::inputs::Owned;
use super::number::{Number, expanded, narrowed};
use super::shape::Shape;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64;

/// A layer's rates, and the inputs of some tokens of some sequences.
#[derive(Clone, Debug)]
pub struct Made<T> {
    /// The rate of each head, negative.
    pub a: Vec<f32>,
    /// The inputs.
    pub inputs: Owned<T>,
}

/// A standard deviation of a step's logit from token to token: what opens and closes a head's gate.
const STEP_SPREAD: f32 = 1.0;

/// Makes up a layer of this shape and the inputs of `tokens` tokens.
pub fn layer<T: Number>(shape: Shape, tokens: usize, seed: u64) -> Made<T> {
    let mut rng = Pcg64::seed_from_u64(seed);
    let a: Vec<f32> = (0..shape.heads()).map(|_| -rng.random_range(1.0f32..16.0)).collect();
    // The inverse of softplus, so that without noise the step is the one drawn.
    let steps = (0..shape.heads()).map(|_| libm::expf(rng.random_range(libm::logf(1e-3)..libm::logf(0.1))));
    let logits: Vec<f32> = steps.map(|step| libm::logf(libm::expm1f(step))).collect();
    let mut normal = || -> f32 { StandardNormal.sample(&mut rng) };
    let noisy = |at: usize, noise: f32| softplus(logits[at % shape.heads()] + STEP_SPREAD * noise);
    let dt = (0..tokens * shape.heads()).map(|at| noisy(at, normal())).collect();
    let mut numbers =
        |count: usize| -> Vec<T> { narrowed(&(0..count).map(|_| silu(normal())).collect::<Vec<f32>>()) };
    let (x, b) = (numbers(tokens * shape.width()), numbers(tokens * shape.shared()));
    Made { a, inputs: Owned { x, dt, b, c: numbers(tokens * shape.shared()) } }
}

/// Makes up the inputs of a gated delta net at so many tokens, and the logarithms of its gates: keys and queries of unit length, as its
/// norms leave them, `beta` as a sigmoid leaves it.
pub fn delta<T: Number>(shape: Shape, tokens: usize, seed: u64) -> (Owned<T>, Vec<f32>) {
    let Made { a, inputs: Owned { x, dt, b, c } } = layer::<T>(shape, tokens, seed);
    let unit = |numbers: Vec<T>| -> Vec<T> {
        let mut all = expanded(&numbers);
        for vector in all.chunks_exact_mut(shape.state_dim()) {
            let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt().max(1e-6);
            vector.iter_mut().for_each(|number| *number /= length);
        }
        narrowed(&all)
    };
    let gates = dt.iter().enumerate().map(|(at, dt)| dt * a[at % shape.heads()]).collect();
    let beta = dt.iter().map(|dt| 1.0 / (1.0 + dt)).collect();
    (Owned { x, dt: beta, b: unit(b), c: unit(c) }, gates)
}

fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { libm::log1pf(libm::expf(x)) }
}

fn silu(x: f32) -> f32 {
    x / (1.0 + libm::expf(-x))
}
