//! What is packed: any format without scales, read as bf16.

use super::Bits;
use crate::codec::CodecError;
use crate::codec::plain::{Plain, TILE};
use fearless_simd::Simd;

/// The elements of a block as bf16, tile by tile.
pub(super) struct Source<'a> {
    plain: Plain<'a>,
    values: [f32; TILE],
    bits: Bits,
}

impl<'a> Source<'a> {
    pub(super) fn new(plain: Plain<'a>) -> Self {
        Source { plain, values: [0.0; TILE], bits: [0; TILE * 2] }
    }

    /// Calls `each` with the first element of every tile and its bits; elements of the exponent `beyond` follow the last.
    #[inline(always)]
    pub(super) fn tiles<S: Simd>(
        &mut self,
        simd: S,
        beyond: u8,
        mut each: impl FnMut(usize, &Bits),
    ) -> Result<(), CodecError> {
        let elements = self.plain.elements();
        for first in (0..elements).step_by(TILE) {
            let length = TILE.min(elements - first);
            if let Plain::Bf16(bytes) = self.plain {
                let own = &bytes[first * 2..][..length * 2];
                if let Ok(whole) = own.try_into() {
                    each(first, whole);
                    continue;
                }
                self.bits[..own.len()].copy_from_slice(own);
            } else {
                self.narrow(simd, first, length)?;
            }
            let filler = (u16::from(beyond) << 7).to_le_bytes();
            self.bits.as_chunks_mut().0[length..].fill(filler);
            each(first, &self.bits);
        }
        Ok(())
    }

    /// Reads a tile of a wider format.
    #[inline(always)]
    fn narrow<S: Simd>(&mut self, simd: S, first: usize, length: usize) -> Result<(), CodecError> {
        let values = &mut self.values[..length];
        self.plain.load(simd, first, values);
        let lost = |value: &f32| value.to_bits() & 0xffff != 0;
        if values.iter().fold(false, |any, value| any | lost(value)) {
            let at = values.iter().position(lost).unwrap_or(0);
            return Err(CodecError::NotBf16 { element: (first + at) as u64, value: values[at] });
        }
        for (bits, value) in self.bits.as_chunks_mut().0.iter_mut().zip(values) {
            *bits = ((value.to_bits() >> 16) as u16).to_le_bytes();
        }
        Ok(())
    }
}
