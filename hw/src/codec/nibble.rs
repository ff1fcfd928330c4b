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

/// Stores the code of every value. The codes of a chunk are made first: they depend on nothing but their value, so the
/// compiler makes several at once.
#[inline(always)]
pub(super) fn pack(values: &[f32], elements: &mut [u8], code: impl Fn(f32) -> u8) {
    for (elements, values) in elements.chunks_mut(CHUNK / 2).zip(values.chunks(CHUNK)) {
        let mut codes = [0u8; CHUNK];
        for (code_of, value) in codes.iter_mut().zip(values) {
            *code_of = code(*value);
        }
        for (element, [low, high]) in elements.iter_mut().zip(codes.as_chunks::<2>().0) {
            *element = low | high << 4;
        }
    }
}
