//! Two four-bit codes to a byte, the earlier element in the low half; an odd last one leaves the high half zero.

use super::element::CHUNK;
use fearless_simd::prelude::*;
use fearless_simd::{Simd, f32x16, u8x16, u16x32};

/// What each of the sixteen codes stands for: numbers that bf16 holds, so that a chunk is looked up byte by byte.
pub(super) struct Table {
    values: [f32; 16],
    low: [u8; 16],
    high: [u8; 16],
}

impl Table {
    pub(super) const fn new(values: [f32; 16]) -> Table {
        let (mut low, mut high) = ([0; 16], [0; 16]);
        let mut code = 0;
        while code < 16 {
            let bits = values[code].to_bits();
            assert!(bits & 0xffff == 0, "bf16 holds the values");
            (low[code], high[code]) = ((bits >> 16) as u8, (bits >> 24) as u8);
            code += 1;
        }
        Table { values, low, high }
    }

    /// The values of a chunk's codes.
    #[inline(always)]
    pub(super) fn chunk<S: Simd>(&self, simd: S, bytes: &[u8]) -> [f32x16<S>; 2] {
        let pairs = u8x16::from_slice(simd, bytes);
        let (first, second) = (pairs & 15).interleave(pairs >> 4);
        let (low, high) = (u8x16::from_slice(simd, &self.low), u8x16::from_slice(simd, &self.high));
        let halves = |codes: u8x16<S>| {
            low.swizzle_dyn_within_blocks(codes).interleave(high.swizzle_dyn_within_blocks(codes))
        };
        let ((a, b), (c, d)) = (halves(first), halves(second));
        let bf16: u16x32<S> = a.combine(b).combine(c.combine(d)).bitcast();
        let (first, second) = bf16.widen();
        [(first << 16).bitcast(), (second << 16).bitcast()]
    }

    /// The value of element `index`.
    #[inline(always)]
    pub(super) fn one(&self, bytes: &[u8], index: usize) -> f32 {
        let code = bytes[index / 2] >> (index % 2 * 4) & 15;
        self.values[code as usize]
    }
}

/// Stores the code of every value.
#[inline(always)]
pub(super) fn pack(values: &[f32], elements: &mut [u8], code: impl Fn(f32) -> u8) {
    let (chunks, rest) = values.as_chunks::<CHUNK>();
    let (stored, last) = elements.split_at_mut(chunks.len() * (CHUNK / 2));
    for (stored, values) in stored.as_chunks_mut::<{ CHUNK / 2 }>().0.iter_mut().zip(chunks) {
        *stored = pairs(values, &code);
    }
    if let Some(byte) = last.len().checked_sub(1) {
        let mut padded = [0.0; CHUNK];
        padded[..rest.len()].copy_from_slice(rest);
        last.copy_from_slice(&pairs(&padded, &code)[..=byte]);
        last[byte] &= if rest.len().is_multiple_of(2) { 0xff } else { 0x0f };
    }
}

/// The codes of a chunk, two to a byte.
#[inline(always)]
fn pairs(values: &[f32; CHUNK], code: impl Fn(f32) -> u8) -> [u8; CHUNK / 2] {
    let mut codes = [0u8; CHUNK];
    for lane in 0..CHUNK {
        codes[lane] = code(values[lane]);
    }
    let words: [u16; CHUNK / 2] = bytemuck::cast(codes);
    let mut pairs = [0u8; CHUNK / 2];
    for lane in 0..CHUNK / 2 {
        pairs[lane] = (words[lane] | words[lane] >> 4) as u8;
    }
    pairs
}
