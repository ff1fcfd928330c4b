//! Two four-bit codes to a byte, the earlier element in the low half; an odd last one leaves the high half zero.

use super::element::CHUNK;
use fearless_simd::prelude::*;
use fearless_simd::{Simd, f32x16, u8x16, u8x32, u16x16, u16x32};

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

/// Stores two codes to a byte.
#[inline(always)]
pub(super) fn pair<S: Simd>(simd: S, codes: &[u8], elements: &mut [u8]) {
    let (chunks, rest) = codes.as_chunks::<CHUNK>();
    let (pairs, last) = elements.split_at_mut(chunks.len() * (CHUNK / 2));
    for (pairs, codes) in pairs.as_chunks_mut::<{ CHUNK / 2 }>().0.iter_mut().zip(chunks) {
        let words: u16x16<S> = u8x32::load_array_ref(simd, codes).bitcast();
        let (low, high) = ((words | words >> 4) & 0xff).split();
        low.narrow(high).store_array(pairs);
    }
    for (pair, codes) in last.iter_mut().zip(rest.chunks(2)) {
        *pair = codes[0] | codes.get(1).copied().unwrap_or(0) << 4;
    }
}
