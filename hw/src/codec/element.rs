//! One element of a format, as the coders and the matrix kernels read it: 32 at a time where they lie on a byte, one by
//! one elsewhere. Both ways give the same numbers.

use fearless_simd::prelude::*;
use fearless_simd::{Simd, f32x16, u32x16};

/// Elements read at a time: the smallest group that shares a scale.
pub(crate) const CHUNK: usize = 32;

/// How one element and its scale are stored.
pub(crate) trait Element: Sync {
    /// Bits of an element.
    const BITS: usize;
    /// Bytes of a scale; 0 if there is none.
    const SCALE: usize;
    /// Bytes of a chunk.
    const CHUNK_BYTES: usize = CHUNK * Self::BITS / 8;

    /// The elements of a chunk before they are scaled; `bytes` is `CHUNK_BYTES` long.
    fn chunk<S: Simd>(simd: S, bytes: &[u8]) -> [f32x16<S>; 2];

    /// Element `index` before it is scaled.
    fn one(bytes: &[u8], index: usize) -> f32;

    /// The number a stored scale stands for.
    fn scale(bytes: &[u8]) -> f32;
}

/// Reads the elements `first .. first + out.len()`, which share a scale.
#[inline(always)]
pub(crate) fn read<S: Simd, E: Element>(simd: S, payload: &[u8], first: usize, scale: f32, out: &mut [f32]) {
    let mut done = 0;
    if (first * E::BITS).is_multiple_of(8) {
        let stored = payload[first * E::BITS / 8..].chunks_exact(E::CHUNK_BYTES);
        let (chunks, _) = out.as_chunks_mut::<CHUNK>();
        done = chunks.len() * CHUNK;
        for (values, bytes) in chunks.iter_mut().zip(stored) {
            let [low, high] = scaled::<S, E>(E::chunk(simd, bytes), scale);
            low.store_slice(&mut values[..16]);
            high.store_slice(&mut values[16..]);
        }
    }
    for (index, value) in out.iter_mut().enumerate().skip(done) {
        let element = E::one(payload, first + index);
        *value = if E::SCALE == 0 { element } else { element * scale };
    }
}

/// The elements of a chunk times their scale.
#[inline(always)]
pub(crate) fn scaled<S: Simd, E: Element>(chunk: [f32x16<S>; 2], scale: f32) -> [f32x16<S>; 2] {
    if E::SCALE == 0 { chunk } else { [chunk[0] * scale, chunk[1] * scale] }
}

/// Stores values whose codes are bytes.
#[inline(always)]
pub(super) fn store_bytes(values: &[f32], elements: &mut [u8], code: impl Fn(f32) -> u8) {
    let (chunks, rest) = values.as_chunks::<CHUNK>();
    let (stored, last) = elements.as_chunks_mut::<CHUNK>();
    // Loops of a known length: the compiler writes them without a branch.
    for (stored, values) in stored.iter_mut().zip(chunks) {
        for lane in 0..CHUNK {
            stored[lane] = code(values[lane]);
        }
    }
    for (stored, value) in last.iter_mut().zip(rest) {
        *stored = code(*value);
    }
}

/// The largest magnitude among `values`; not finite if one of them is not.
#[inline(always)]
pub(super) fn magnitude<S: Simd>(simd: S, values: &[f32]) -> f32 {
    // Magnitudes order as their bits do, and integers have no NaN.
    const MAGNITUDE: u32 = 0x7fff_ffff;
    let (lanes, rest) = values.as_chunks::<16>();
    let mut most = u32x16::splat(simd, 0);
    for values in lanes {
        let bits: u32x16<S> = f32x16::load_array_ref(simd, values).bitcast();
        most = most.max(bits & MAGNITUDE);
    }
    let mut most = most.reduce_max();
    for value in rest {
        most = most.max(value.to_bits() & MAGNITUDE);
    }
    f32::from_bits(most)
}
