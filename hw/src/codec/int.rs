//! Symmetric integers of eight and four bits with an f16 scale.

use super::element::Element;
use super::nibble::Table;
use super::plain::{FP16_MAX, fp16_bits, fp16_value};
use super::scaled::Quantised;
use fearless_simd::prelude::*;
use fearless_simd::{Simd, f32x16, i8x32, i32x16};

/// Adding this to a number below 2^22 leaves its nearest integer, ties to even, in the low bits of the mantissa, in
/// two's complement. Unlike a conversion it costs one instruction on every processor.
const TO_INTEGER: f32 = 12_582_912.0;

/// Stores the scales for values up to `peaks` in steps up to `largest`, and leaves in `peaks` what to multiply values by.
#[inline(always)]
fn store_scales(peaks: &mut [f32], largest: f32, scales: &mut [u8]) {
    for (peak, scale) in peaks.iter_mut().zip(scales.as_chunks_mut().0) {
        let exact = (*peak / largest).min(FP16_MAX);
        let stored = fp16_bits(exact);
        *scale = stored.to_le_bytes();
        // As in GGUF, values are divided by the scale before it was rounded.
        *peak = if stored == 0 { 0.0 } else { 1.0 / exact };
    }
}

#[inline(always)]
fn load_scale(scale: &[u8]) -> f32 {
    fp16_value(u16::from_le_bytes([scale[0], scale[1]]))
}

/// The low eight bits of the integer nearest to `value`, which is clamped to `largest`.
#[inline(always)]
fn nearest(value: f32, largest: f32) -> u8 {
    (value.clamp(-largest, largest) + TO_INTEGER).to_bits() as u8
}

/// -127 ..= 127.
pub(crate) struct Int8;

impl Element for Int8 {
    const BITS: usize = 8;
    const SCALE: usize = 2;

    #[inline(always)]
    fn chunk<S: Simd>(simd: S, bytes: &[u8]) -> [f32x16<S>; 2] {
        let (low, high) = i8x32::from_slice(simd, bytemuck::cast_slice(bytes)).widen();
        let floats = |half: fearless_simd::i16x16<S>| -> f32x16<S> {
            let (low, high) = half.widen();
            let integers: i32x16<S> = low.combine(high);
            integers.to_float()
        };
        [floats(low), floats(high)]
    }

    #[inline(always)]
    fn one(bytes: &[u8], index: usize) -> f32 {
        bytes[index] as i8 as f32
    }

    #[inline(always)]
    fn scale(bytes: &[u8]) -> f32 {
        load_scale(bytes)
    }
}

impl Quantised for Int8 {
    #[inline(always)]
    fn store_scales(peaks: &mut [f32], scales: &mut [u8]) {
        store_scales(peaks, 127.0, scales);
    }

    #[inline(always)]
    fn code(value: f32, inverse: f32) -> u8 {
        nearest(value * inverse, 127.0)
    }
}

/// -7 ..= 7, stored plus 8.
pub(crate) struct Int4;

static INT4: Table =
    Table::new([-8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);

impl Element for Int4 {
    const BITS: usize = 4;
    const SCALE: usize = 2;

    #[inline(always)]
    fn chunk<S: Simd>(simd: S, bytes: &[u8]) -> [f32x16<S>; 2] {
        INT4.chunk(simd, bytes)
    }

    #[inline(always)]
    fn one(bytes: &[u8], index: usize) -> f32 {
        INT4.one(bytes, index)
    }

    #[inline(always)]
    fn scale(bytes: &[u8]) -> f32 {
        load_scale(bytes)
    }
}

impl Quantised for Int4 {
    #[inline(always)]
    fn store_scales(peaks: &mut [f32], scales: &mut [u8]) {
        store_scales(peaks, 7.0, scales);
    }

    #[inline(always)]
    fn code(value: f32, inverse: f32) -> u8 {
        nearest(value * inverse, 7.0).wrapping_add(8)
    }
}
