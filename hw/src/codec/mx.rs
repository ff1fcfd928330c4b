//! OCP Microscaling v1.0: E2M1 elements that share an E8M0 scale.

use super::element::Element;
use super::nibble::Table;
use super::scaled::Quantised;
use fearless_simd::{Simd, f32x16};

/// What each code stands for.
const VALUES: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

static E2M1: Table = Table::new(VALUES);

/// Adding this leaves multiples of 0.5, the smallest step, in the low bits of the mantissa.
const TO_STEPS: f32 = 6_291_456.0;

/// The code nearest to `value`, ties to even; beyond 6 it is the one of 6.
#[inline(always)]
fn code(value: f32) -> u8 {
    let magnitude = value.abs().min(6.0);
    let bits = magnitude.to_bits();
    let nearest = bits + 0x1f_ffff + (bits >> 22 & 1);
    let normal = (nearest >> 22).wrapping_sub((127 - 1) << 1);
    let subnormal = (magnitude + TO_STEPS).to_bits();
    let code = if magnitude < 1.0 { subnormal } else { normal };
    (code & 7 | value.to_bits() >> 28 & 8) as u8
}

/// 2 to the power of `scale - 127`; NaN for 255.
#[inline(always)]
fn power(scale: u8) -> f32 {
    let bits = match scale {
        0 => 0x0040_0000,
        255 => 0x7fc0_0000,
        exponent => (exponent as u32) << 23,
    };
    f32::from_bits(bits)
}

pub(crate) struct E2m1;

impl Element for E2m1 {
    const BITS: usize = 4;
    const SCALE: usize = 1;

    #[inline(always)]
    fn chunk<S: Simd>(simd: S, bytes: &[u8]) -> [f32x16<S>; 2] {
        E2M1.chunk(simd, bytes)
    }

    #[inline(always)]
    fn one(bytes: &[u8], index: usize) -> f32 {
        E2M1.one(bytes, index)
    }

    #[inline(always)]
    fn scale(bytes: &[u8]) -> f32 {
        power(bytes[0])
    }
}

impl Quantised for E2m1 {
    #[inline(always)]
    fn store_scales(peaks: &mut [f32], scales: &mut [u8]) {
        for (peak, scale) in peaks.iter_mut().zip(scales) {
            // The exponent of the largest magnitude less that of the largest element, 4 = 2^2.
            *scale = (peak.to_bits() >> 23).saturating_sub(2) as u8;
            *peak = power(254 - *scale);
        }
    }

    #[inline(always)]
    fn code(value: f32, inverse: f32) -> u8 {
        code(value * inverse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use float4::F4E2M1;

    #[test]
    fn codes_are_those_of_the_float4_crate_around_every_tie() {
        let middles = (0..7).map(|code| (VALUES[code] + VALUES[code + 1]) / 2.0);
        let around =
            middles.flat_map(|tie| [tie.next_down(), tie, tie.next_up()]).flat_map(|value| [value, -value]);
        for value in around.chain(VALUES).chain([100.0, -7.0]) {
            assert_eq!(code(value), F4E2M1::from_f64(value as f64).to_bits(), "{value}");
        }
    }
}
