//! Rows of numbers, one an expert, cut into lanes that are worked on together; and the two transcendentals that
//! predictors need, in plain multiplications and additions.
//!
//! A library call an element would cost more than the rest of a prediction. These loops vectorise, and because every
//! lane does the same operations in the same order, their result does not depend on the width of the machine. What is
//! in the lanes beyond the last expert means nothing.

/// Neighbouring experts of one row, worked on together: enough that sums over rows overlap in the pipeline.
pub(super) const LANES: usize = 32;
/// See [`LANES`].
pub(super) type Lanes = [f32; LANES];

/// `sums += left * right`, lane by lane.
#[inline(always)]
pub(super) fn add_products(sums: &mut Lanes, left: &Lanes, right: &Lanes) {
    for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
        *sum += left * right;
    }
}

/// `sums += scale * row`, lane by lane.
#[inline(always)]
pub(super) fn add_scaled(sums: &mut Lanes, scale: f32, row: &Lanes) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum += scale * value;
    }
}

/// The sum of `left * right` over a row, always in the same order.
#[inline]
pub(super) fn dot(left: &[Lanes], right: &[Lanes]) -> f32 {
    let mut sums = [0.0; LANES];
    for (left, right) in left.iter().zip(right) {
        add_products(&mut sums, left, right);
    }
    let mut lanes = LANES;
    while lanes > 1 {
        lanes /= 2;
        let (low, high) = sums.split_at_mut(lanes);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
    }
    sums[0]
}

/// `sums += left * right`, expert by expert.
#[inline]
pub(super) fn add_row_products(sums: &mut [Lanes], left: &[Lanes], right: &[Lanes]) {
    for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
        add_products(sum, left, right);
    }
}

/// `weights += rate * errors * inputs`, expert by expert.
#[inline]
pub(super) fn teach_row(weights: &mut [Lanes], rate: f32, errors: &[Lanes], inputs: &[Lanes]) {
    for ((weights, errors), inputs) in weights.iter_mut().zip(errors).zip(inputs) {
        add_products(weights, &errors.map(|error| rate * error), inputs);
    }
}

/// Adds the rows of the chosen experts to `sums`, each times `scale`.
#[inline(never)] // As arguments, rows are known not to overlap: sums stay in vector registers.
pub(super) fn add_rows(table: &[Lanes], (chosen, scale): (&[u32], f32), sums: &mut [Lanes]) {
    let width = sums.len();
    for (lane, sum) in sums.iter_mut().enumerate() {
        let mut total = *sum;
        for &expert in chosen {
            add_scaled(&mut total, scale, &table[expert as usize * width + lane]);
        }
        *sum = total;
    }
}

/// Adds `rate * error` to the rows of the chosen experts, each times `scale`.
#[inline(never)]
pub(super) fn teach_rows(table: &mut [Lanes], (chosen, scale): (&[u32], f32), rate: f32, errors: &[Lanes]) {
    let width = errors.len();
    for (lane, error) in errors.iter().enumerate() {
        for &expert in chosen {
            add_scaled(&mut table[expert as usize * width + lane], scale * rate, error);
        }
    }
}

/// `errors = chosen - predicted`.
#[inline]
pub(super) fn set_errors(errors: &mut [Lanes], chosen: &[Lanes], predicted: &[Lanes]) {
    for ((errors, chosen), predicted) in errors.iter_mut().zip(chosen).zip(predicted) {
        for ((error, chosen), predicted) in errors.iter_mut().zip(chosen).zip(predicted) {
            *error = chosen - predicted;
        }
    }
}

/// Adding and subtracting this rounds a small float to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// `1 / (1 + exp(-x))` for every element; at most 2e-7 off.
pub(super) fn logistic(row: &mut Lanes) {
    for value in row {
        *value = 1.0 / (1.0 + exp(-*value));
    }
}

/// `e^x`, for `x` within 30 of 0 and clamped to it.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let scaled = x.clamp(-30.0, 30.0) * std::f32::consts::LOG2_E;
    let rounded = scaled + ROUND;
    let whole = rounded - ROUND;
    // 2^f on [-1/2, 1/2], Taylor in f ln 2.
    let f = (scaled - whole) * std::f32::consts::LN_2;
    let series = 1.0
        + f * (1.0 + f * (0.5 + f * (1.0 / 6.0 + f * (1.0 / 24.0 + f * (1.0 / 120.0 + f * (1.0 / 720.0))))));
    // The lowest bits of `rounded` are the integer: with the bias, and moved to the exponent's place, a power of two.
    series * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23)
}

/// [`log_odds`] of every lane.
pub(super) fn log_odds_of(row: &mut Lanes) {
    for value in row {
        *value = log_odds(*value);
    }
}

/// `ln(p / (1 - p))` of a probability, kept a thousandth away from 0 and 1.
#[inline(always)]
pub(super) fn log_odds(p: f32) -> f32 {
    ln((p + 1e-3) / (1.001 - p))
}

/// Natural logarithm of a positive normal float; at most 2e-6 off in the range of odds.
#[inline(always)]
fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    // Mantissa into [sqrt(1/2), sqrt(2)), so that the series below is short.
    let shifted = bits.wrapping_add(0x3f80_0000 - 0x3f35_04f3);
    let exponent = (shifted >> 23) as i32 - 127;
    let mantissa = f32::from_bits(bits.wrapping_sub((exponent << 23) as u32));
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let series =
        2.0 * t * (1.0 + square * (1.0 / 3.0 + square * (0.2 + square * (1.0 / 7.0 + square * (1.0 / 9.0)))));
    exponent as f32 * std::f32::consts::LN_2 + series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_agree_with_the_library() {
        for step in -2000..=2000 {
            let x = step as f32 * 0.01;
            let mut row = [x; LANES];
            logistic(&mut row);
            let exact = 1.0 / (1.0 + libm::exp(-f64::from(x)));
            assert!((f64::from(row[0]) - exact).abs() < 5e-7, "{x}");
        }
        for step in 0..=1000 {
            let p = step as f32 / 1000.0;
            let odds = (f64::from(p) + 1e-3) / (1.001 - f64::from(p));
            assert!((f64::from(log_odds(p)) - libm::log(odds)).abs() < 2e-4, "{p}");
        }
    }
}
