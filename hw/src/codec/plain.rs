//! The formats without scales: fp32, bf16, fp16. Every other coder reads its source through them, tile by tile.

use super::element::{self, CHUNK, Element};
use super::{Codec, CodecError, Sharing, Tiles, Write};
use crate::compute::Kernel;
use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, dispatch, f32x16, u16x32};
use policy::model::Matrix;
use std::marker::PhantomData;

/// Elements coded at a time: 16 KiB of f32, inside the first-level cache, and a whole number of the small groups that
/// share a scale.
pub(crate) const TILE: usize = 4096;

/// The elements of a block, as bytes of a format without scales.
#[derive(Clone, Copy)]
pub(crate) enum Plain<'a> {
    Fp32(&'a [u8]),
    Bf16(&'a [u8]),
    Fp16(&'a [u8]),
}

impl<'a> Plain<'a> {
    /// `bytes` as a source, if the format called `name` has no scales and is read as it is.
    pub(super) fn of(name: &str, bytes: &'a [u8]) -> Option<Plain<'a>> {
        match name {
            "fp32" => Some(Plain::Fp32(bytes)),
            "bf16" => Some(Plain::Bf16(bytes)),
            "fp16" => Some(Plain::Fp16(bytes)),
            _ => None,
        }
    }

    /// How many elements there are.
    pub(super) fn elements(self) -> usize {
        match self {
            Plain::Fp32(bytes) => bytes.len() / 4,
            Plain::Bf16(bytes) | Plain::Fp16(bytes) => bytes.len() / 2,
        }
    }

    /// Reads elements `first .. first + out.len()`.
    #[inline(always)]
    pub(super) fn load<S: Simd>(self, simd: S, first: usize, out: &mut [f32]) {
        match self {
            Plain::Fp32(bytes) => element::read::<S, Fp32>(simd, bytes, first, 1.0, out),
            Plain::Bf16(bytes) => element::read::<S, Bf16>(simd, bytes, first, 1.0, out),
            Plain::Fp16(bytes) => element::read::<S, Fp16>(simd, bytes, first, 1.0, out),
        }
    }
}

/// The bits of `value` in bf16, to the nearest, ties to even. NaN keeps the part of its payload that fits, so that a
/// bf16 value that went through f32 comes back bit for bit; a finite value beyond the range becomes the largest one.
#[inline(always)]
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16;
    let truncated = bits >> 16;
    let finite = if magnitude >= 0x7f7f_8000 { truncated & 0x8000 | 0x7f7f } else { rounded };
    // A NaN whose payload is all in the lower half would turn into an infinity.
    let quiet = (magnitude & 0xffff != 0) as u32 * 0x40;
    (if magnitude < 0x7f80_0000 { finite } else { truncated | quiet }) as u16
}

/// The number an f16 stands for; NaN keeps its payload. Without a branch, so that the compiler converts several at once.
#[inline(always)]
pub(super) fn fp16_value(bits: u16) -> f32 {
    const SMALLEST_NORMAL: f32 = 1.0 / 16384.0;
    let magnitude = (bits & 0x7fff) as u32;
    // Exponents begin at 2^-14 here and at 2^-126 in an f32, and end in a pattern of their own.
    let normal = (magnitude << 13) + ((127 - 15) << 23);
    let subnormal = (f32::from_bits((magnitude << 13) + ((127 - 14) << 23)) - SMALLEST_NORMAL).to_bits();
    let special = (magnitude << 13) | 0x7f80_0000;
    let finite = if magnitude < 0x0400 { subnormal } else { normal };
    let value = if magnitude < 0x7c00 { finite } else { special };
    f32::from_bits(value | ((bits & 0x8000) as u32) << 16)
}

/// The largest finite f16.
pub(super) const FP16_MAX: f32 = 65504.0;

/// The bits of `value` in f16, to the nearest, ties to even; a finite value beyond the range becomes the largest one.
/// NaN keeps the part of its payload that fits, and is quiet.
#[inline(always)]
pub(super) fn fp16_bits(value: f32) -> u16 {
    /// Adding this leaves multiples of 2^-24, the smallest step, in the low bits of the mantissa.
    const TO_STEPS: f32 = 0.5;
    let magnitude = value.to_bits() & 0x7fff_ffff;
    let nearest = magnitude.wrapping_add(0xfff + (magnitude >> 13 & 1));
    let normal = (nearest >> 13).wrapping_sub((127 - 15) << 10).min(0x7bff);
    let subnormal = (f32::from_bits(magnitude) + TO_STEPS).to_bits() & 0x7fff;
    let nan = 0x7e00 | magnitude >> 13 & 0x3ff;
    let finite = if magnitude < 0x3880_0000 { subnormal } else { normal };
    let special = if magnitude == 0x7f80_0000 { 0x7c00 } else { nan };
    let bits = if magnitude < 0x7f80_0000 { finite } else { special };
    (bits | value.to_bits() >> 16 & 0x8000) as u16
}

pub(crate) struct Fp32;
pub(crate) struct Bf16;
pub(crate) struct Fp16;

/// A format whose elements are stored each by itself.
pub(super) trait Unscaled: Element {
    fn store(values: &[f32], out: &mut [u8]);
}

impl Element for Fp32 {
    const BITS: usize = 32;
    const SCALE: usize = 0;

    #[inline(always)]
    fn chunk<S: Simd>(simd: S, bytes: &[u8]) -> [f32x16<S>; 2] {
        let mut values = [0.0f32; CHUNK];
        bytemuck::bytes_of_mut(&mut values).copy_from_slice(bytes);
        [f32x16::from_slice(simd, &values[..16]), f32x16::from_slice(simd, &values[16..])]
    }

    #[inline(always)]
    fn one(bytes: &[u8], index: usize) -> f32 {
        f32::from_le_bytes(bytes.as_chunks().0[index])
    }

    fn scale(_: &[u8]) -> f32 {
        1.0
    }
}

impl Unscaled for Fp32 {
    #[inline(always)]
    fn store(values: &[f32], out: &mut [u8]) {
        out.copy_from_slice(bytemuck::cast_slice(values));
    }
}

impl Element for Bf16 {
    const BITS: usize = 16;
    const SCALE: usize = 0;

    #[inline(always)]
    fn chunk<S: Simd>(simd: S, bytes: &[u8]) -> [f32x16<S>; 2] {
        let mut bits = [0u16; CHUNK];
        bytemuck::bytes_of_mut(&mut bits).copy_from_slice(bytes);
        let (low, high) = u16x32::from_slice(simd, &bits).widen();
        [(low << 16).bitcast(), (high << 16).bitcast()]
    }

    #[inline(always)]
    fn one(bytes: &[u8], index: usize) -> f32 {
        f32::from_bits((u16::from_le_bytes(bytes.as_chunks().0[index]) as u32) << 16)
    }

    fn scale(_: &[u8]) -> f32 {
        1.0
    }
}

impl Unscaled for Bf16 {
    #[inline(always)]
    fn store(values: &[f32], out: &mut [u8]) {
        for (pair, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
            *pair = bf16_bits(*value).to_le_bytes();
        }
    }
}

impl Element for Fp16 {
    const BITS: usize = 16;
    const SCALE: usize = 0;

    #[inline(always)]
    fn chunk<S: Simd>(simd: S, bytes: &[u8]) -> [f32x16<S>; 2] {
        let mut values = [0.0; CHUNK];
        for (value, pair) in values.iter_mut().zip(bytes.as_chunks().0) {
            *value = fp16_value(u16::from_le_bytes(*pair));
        }
        [f32x16::from_slice(simd, &values[..16]), f32x16::from_slice(simd, &values[16..])]
    }

    #[inline(always)]
    fn one(bytes: &[u8], index: usize) -> f32 {
        fp16_value(u16::from_le_bytes(bytes.as_chunks().0[index]))
    }

    fn scale(_: &[u8]) -> f32 {
        1.0
    }
}

impl Unscaled for Fp16 {
    #[inline(always)]
    fn store(values: &[f32], out: &mut [u8]) {
        for (pair, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
            *pair = fp16_bits(*value).to_le_bytes();
        }
    }
}

/// A coder of elements `E` without scales.
pub(super) struct Alone<E>(PhantomData<E>);

impl<E> Alone<E> {
    pub(super) const fn new() -> Self {
        Alone(PhantomData)
    }
}

impl<E: Unscaled> Codec for Alone<E> {
    fn encode(
        &self,
        level: Level,
        source: Plain<'_>,
        _: &[Matrix],
        out: &mut [u8],
    ) -> Result<(), CodecError> {
        dispatch!(level, simd => encode::<_, E>(simd, source, out));
        Ok(())
    }

    fn decode(&self, level: Level, bytes: &[u8], _: &[Matrix], tiles: Tiles<'_>) -> Result<(), CodecError> {
        dispatch!(level, simd => decode::<_, E>(simd, bytes, tiles));
        Ok(())
    }

    fn writer(&self) -> Option<Write> {
        Some(|level, first, values, out| {
            let bytes = E::BITS / 8;
            let out = &mut out[first * bytes..][..values.len() * bytes];
            dispatch!(level, _simd => E::store(values, out));
        })
    }

    fn kernel(&self) -> Option<Kernel> {
        // Nothing is shared; a row is as good as any.
        Some(Kernel::of::<E>(Sharing::Row))
    }
}

#[inline(always)]
fn encode<S: Simd, E: Unscaled>(simd: S, source: Plain<'_>, out: &mut [u8]) {
    let mut tile = [0.0f32; TILE];
    for (index, out) in out.chunks_mut(TILE * E::BITS / 8).enumerate() {
        let values = &mut tile[..out.len() * 8 / E::BITS];
        source.load(simd, index * TILE, values);
        E::store(values, out);
    }
}

#[inline(always)]
fn decode<S: Simd, E: Unscaled>(simd: S, bytes: &[u8], tiles: Tiles<'_>) {
    let mut tile = [0.0f32; TILE];
    for (index, bytes) in bytes.chunks(TILE * E::BITS / 8).enumerate() {
        let values = &mut tile[..bytes.len() * 8 / E::BITS];
        element::read::<S, E>(simd, bytes, 0, 1.0, values);
        tiles(index * TILE, values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use proptest::prelude::*;

    /// What the half crate stores, but for its overflow.
    fn expected(value: f32) -> u16 {
        let fitting = if value.is_finite() { value.clamp(-FP16_MAX, FP16_MAX) } else { value };
        f16::from_f32_const(fitting).to_bits()
    }

    #[test]
    fn every_f16_is_what_the_half_crate_says() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (fp16_value(bits), f16::from_bits(bits).to_f32_const());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:#x}");
        }
    }

    #[test]
    fn every_f16_and_every_tie_is_stored_as_the_half_crate_does() {
        for bits in 0..0x7c00 {
            let (value, next) = (fp16_value(bits), fp16_value(bits + 1));
            let tie = (value + next.min(65536.0)) / 2.0;
            for near in [value, tie.next_down(), tie, tie.next_up()] {
                assert_eq!(fp16_bits(near), expected(near), "{near}");
                assert_eq!(fp16_bits(-near), expected(-near), "{near}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_f32_is_stored_as_the_half_crate_does(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assert_eq!(fp16_bits(value), expected(value));
        }
    }
}
