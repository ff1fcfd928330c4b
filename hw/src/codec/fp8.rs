//! OCP E4M3 with an f32 scale. Conversions are written out so that the compiler handles several values at once; the
//! `float8` crate, which they are tested against, goes value by value.

use super::element::{CHUNK, Element, store_bytes};
use super::scaled::Quantised;
use fearless_simd::prelude::*;
use fearless_simd::{Simd, f32x16};

const MAX: f32 = 448.0;
/// The smallest normal value: 2^-6.
const MIN_NORMAL: f32 = 0.015625;
/// Adding this leaves multiples of 2^-9, the smallest step, in the low bits of the mantissa.
const TO_STEPS: f32 = 24_576.0;
/// The smallest step.
const STEP: f32 = 1.0 / 512.0;

/// The code nearest to `value`, ties to even; beyond 448 it is the one of 448.
#[inline(always)]
fn code(value: f32) -> u8 {
    let magnitude = value.abs().min(MAX);
    let bits = magnitude.to_bits();
    let nearest = bits + 0x7_ffff + (bits >> 20 & 1);
    let normal = (nearest >> 20).wrapping_sub((127 - 7) << 3);
    let subnormal = (magnitude + TO_STEPS).to_bits();
    let code = if magnitude < MIN_NORMAL { subnormal } else { normal };
    (code & 0x7f | value.to_bits() >> 24 & 0x80) as u8
}

/// What a code stands for.
#[inline(always)]
fn value(code: u8) -> f32 {
    let magnitude = (code & 0x7f) as u32;
    let normal = (magnitude << 20) + ((127 - 7) << 23);
    let subnormal = (magnitude as f32 * STEP).to_bits();
    let finite = if magnitude < 8 { subnormal } else { normal };
    let bits = if magnitude == 0x7f { f32::NAN.to_bits() } else { finite };
    f32::from_bits(bits | ((code & 0x80) as u32) << 24)
}

/// Writes values as codes without a scale. False, with the codes of what fits, where a value is beyond 448 or is not a number.
pub(crate) fn encode_unscaled(values: &[f32], codes: &mut [u8]) -> bool {
    store_bytes(values, codes, code);
    values.iter().all(|value| value.abs() <= MAX)
}

/// Reads codes without a scale.
pub(crate) fn decode_unscaled(codes: &[u8], values: &mut [f32]) {
    for (to, code) in values.iter_mut().zip(codes) {
        *to = value(*code);
    }
}

pub(crate) struct E4m3;

impl Element for E4m3 {
    const BITS: usize = 8;
    const SCALE: usize = 4;

    #[inline(always)]
    fn chunk<S: Simd>(simd: S, bytes: &[u8]) -> [f32x16<S>; 2] {
        let mut values = [0.0; CHUNK];
        for (to, code) in values.iter_mut().zip(bytes) {
            *to = value(*code);
        }
        [f32x16::from_slice(simd, &values[..16]), f32x16::from_slice(simd, &values[16..])]
    }

    #[inline(always)]
    fn one(bytes: &[u8], index: usize) -> f32 {
        value(bytes[index])
    }

    #[inline(always)]
    fn scale(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

impl Quantised for E4m3 {
    #[inline(always)]
    fn store_scales(peaks: &mut [f32], scales: &mut [u8]) {
        for (peak, scale) in peaks.iter_mut().zip(scales.as_chunks_mut::<4>().0) {
            *peak /= MAX;
            *scale = peak.to_le_bytes();
        }
    }

    #[inline(always)]
    fn code(value: f32, step: f32) -> u8 {
        code(value / step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use float8::F8E4M3;
    use half::f16;

    #[test]
    fn codes_are_those_of_the_float8_crate_for_every_f16_and_around_every_tie() {
        let halves =
            (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32()).filter(|value| value.is_finite());
        let middles = (0..0x7e).map(|code| (value(code) + value(code + 1)) / 2.0);
        let around =
            middles.flat_map(|tie| [tie.next_down(), tie, tie.next_up()]).flat_map(|value| [value, -value]);
        for value in halves.chain(around) {
            assert_eq!(code(value), F8E4M3::from_f32(value).to_bits(), "{value}");
        }
    }

    #[test]
    fn values_are_those_of_the_float8_crate() {
        for code in 0..=u8::MAX {
            let (ours, theirs) = (value(code), F8E4M3::from_bits(code).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{code:#x}");
        }
    }
}
