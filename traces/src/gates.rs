//! Gate weights: those of a trace, or seeded draws where it has none.
//!
//! # The fit
//!
//! Fitted to the router probabilities of gpt-oss-20b in `sample_mmlu_pro_test_0.csv` and `_1.csv` (24,528 selections of
//! 4 experts; AmanPriyanshu/GPT-OSS-MoE-ExpertFingerprinting @72b368f). With the weights of a selection sorted, the logarithms of the
//! ratios of neighbours are close to exponential (their standard deviation equals their mean within 7 %) with
//! means 0.271, 0.218 and 0.174: each 0.80 of the one before. The model is therefore
//!
//! ```text
//! w[0] = 1,   w[j] = w[j-1] * u_j ^ (0.271 * 0.80^(j-1)),   u_j uniform on (0, 1],   then divided by their sum
//! ```
//!
//! | | w0 | w1 | w2 | w3 | sum of squares |
//! |---|---|---|---|---|---|
//! | measured mean | .3459 | .2624 | .2120 | .1797 | .2731 |
//! | a million draws | .3463 | .2619 | .2120 | .1799 | .2742 |
//!
//! For other `k` the same ratios are continued geometrically: an extrapolation, measured for 4 experts of one model only.

use crate::routing::{GateOrigin, RoutingTrace};
use rand::RngExt;
use rand_pcg::Pcg64Dxsm;

const FIRST_GAP: f32 = 0.271;
const GAP_RATIO: f32 = 0.80;

/// Fills `weights` with a draw: descending, summing to 1. It depends on its arguments alone, so that any (row, layer)
/// can be asked for in any order: the generator's state is (seed, row) and its stream is the layer.
pub fn synthetic(seed: u64, row: u64, layer: u32, weights: &mut [f32]) {
    let state = (seed as u128) << 64 | row as u128;
    let mut rng = Pcg64Dxsm::new(state, layer as u128);
    let mut weight = 1.0_f32;
    let mut gap = FIRST_GAP;
    let mut sum = 0.0;
    for (place, slot) in weights.iter_mut().enumerate() {
        if place > 0 {
            // 1 - [0, 1): never 0, whose logarithm is infinite. exp(gap ln u) is u^gap, in less than half of powf's time.
            weight *= libm::expf(gap * libm::logf(1.0 - rng.random::<f32>()));
            gap *= GAP_RATIO;
        }
        *slot = weight;
        sum += weight;
    }
    weights.iter_mut().for_each(|slot| *slot /= sum);
}

/// Writes the gate weights of a token's selection at a layer to the front of `out`, normalised to sum to 1, and
/// returns how many there are. They are the trace's own, or [`synthetic`] draws (highest first, in stored order) if
/// it has none: [`origin`] says which.
///
/// # Panics
/// If the row or the layer is out of range, or `out` is shorter than `top_k`.
#[inline]
pub fn gate_weights_or_synthetic(
    trace: &RoutingTrace,
    seed: u64,
    row: usize,
    layer: usize,
    out: &mut [f32],
) -> usize {
    match trace.gates(row, layer) {
        Some(weights) => {
            // In f64 the sum of finite f32 weights is finite.
            let sum: f64 = weights.iter().map(|&weight| weight as f64).sum();
            out.iter_mut().zip(weights).for_each(|(slot, &weight)| *slot = (weight as f64 / sum) as f32);
            weights.len()
        }
        None => {
            let len = trace.selection(row, layer).len();
            synthetic(seed, row as u64, layer as u32, &mut out[..len]);
            len
        }
    }
}

/// Where the weights of [`gate_weights_or_synthetic`] come from: what reports print as `gates`.
pub fn origin(trace: &RoutingTrace) -> GateOrigin {
    trace.gate_origin().unwrap_or(GateOrigin::Synthetic)
}
