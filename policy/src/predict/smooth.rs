//! The two transcendentals that predictors need, over whole rows, in plain multiplications and additions.
//!
//! A library call an element would cost more than the rest of a prediction. These loops vectorise, and because every
//! lane does the same operations in the same order, their result does not depend on the width of the machine.

/// Adding and subtracting this rounds a small float to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// `1 / (1 + exp(-x))` for every element; at most 2e-7 off.
pub fn logistic(row: &mut [f32]) {
    for value in row {
        *value = 1.0 / (1.0 + exp(-*value));
    }
}

#[inline(always)]
fn exp(x: f32) -> f32 {
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

/// `ln(p / (1 - p))` of a probability, kept a thousandth away from 0 and 1.
#[inline(always)]
pub fn log_odds(p: f32) -> f32 {
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
            let mut row = [x];
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
