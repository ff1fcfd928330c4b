//! The formats without scales: fp32, bf16, fp16. Every other coder reads its source through them, tile by tile.

use super::{Codec, CodecError};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Elements read at a time where a coder does not need a whole row: 16 KiB of f32, inside the first-level cache.
pub(super) const TILE: usize = 4096;

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
    pub(super) fn load(self, first: usize, out: &mut [f32]) {
        let end = first + out.len();
        match self {
            Plain::Fp32(bytes) => {
                bytemuck::cast_slice_mut(out).copy_from_slice(&bytes[first * 4..end * 4]);
            }
            Plain::Bf16(bytes) => {
                for (value, pair) in out.iter_mut().zip(bytes[first * 2..end * 2].as_chunks().0) {
                    *value = f32::from_bits((u16::from_le_bytes(*pair) as u32) << 16);
                }
            }
            Plain::Fp16(bytes) => load_fp16(&bytes[first * 2..end * 2], out),
        }
    }

    /// Calls `each` with every element in turn, a tile at a time.
    fn tiles(self, mut each: impl FnMut(usize, &[f32])) {
        let mut tile = [0.0f32; TILE];
        let elements = self.elements();
        for first in (0..elements).step_by(TILE) {
            let values = &mut tile[..TILE.min(elements - first)];
            self.load(first, values);
            each(first, values);
        }
    }
}

fn load_fp16(bytes: &[u8], out: &mut [f32]) {
    // The slice conversion uses the processor's instructions; a copy at an odd address goes one by one.
    match bytemuck::try_cast_slice::<u8, f16>(bytes) {
        Ok(halves) => halves.convert_to_f32_slice(out),
        Err(_) => {
            for (value, pair) in out.iter_mut().zip(bytes.as_chunks().0) {
                *value = f16::from_le_bytes(*pair).to_f32();
            }
        }
    }
}

/// The bits of `value` in bf16, to the nearest, ties to even. NaN keeps the part of its payload that fits, so that a
/// bf16 value that went through f32 comes back bit for bit; a finite value beyond the range becomes the largest one.
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

/// The largest finite f16.
const FP16_MAX: f32 = 65504.0;

fn fp16_saturated(value: f32) -> f32 {
    if value.is_finite() { value.clamp(-FP16_MAX, FP16_MAX) } else { value }
}

pub(super) struct Fp32;
pub(super) struct Bf16;
pub(super) struct Fp16;

impl Codec for Fp32 {
    fn encode(&self, source: Plain<'_>, _rows: usize, out: &mut [u8]) -> Result<(), CodecError> {
        source.tiles(|first, values| {
            let bytes: &[u8] = bytemuck::cast_slice(values);
            out[first * 4..first * 4 + bytes.len()].copy_from_slice(bytes);
        });
        Ok(())
    }

    fn decode(&self, bytes: &[u8], _rows: usize, out: &mut [f32]) -> Result<(), CodecError> {
        Plain::Fp32(bytes).load(0, out);
        Ok(())
    }
}

impl Codec for Bf16 {
    fn encode(&self, source: Plain<'_>, _rows: usize, out: &mut [u8]) -> Result<(), CodecError> {
        source.tiles(|first, values| {
            let bytes = &mut out[first * 2..(first + values.len()) * 2];
            for (pair, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *pair = bf16_bits(*value).to_le_bytes();
            }
        });
        Ok(())
    }

    fn decode(&self, bytes: &[u8], _rows: usize, out: &mut [f32]) -> Result<(), CodecError> {
        Plain::Bf16(bytes).load(0, out);
        Ok(())
    }
}

impl Codec for Fp16 {
    fn encode(&self, source: Plain<'_>, _rows: usize, out: &mut [u8]) -> Result<(), CodecError> {
        let mut halves = [f16::ZERO; TILE];
        let mut fitting = [0.0f32; TILE];
        source.tiles(|first, values| {
            let (halves, fitting) = (&mut halves[..values.len()], &mut fitting[..values.len()]);
            for (to, from) in fitting.iter_mut().zip(values) {
                *to = fp16_saturated(*from);
            }
            halves.convert_from_f32_slice(fitting);
            out[first * 2..(first + values.len()) * 2].copy_from_slice(bytemuck::cast_slice(halves));
        });
        Ok(())
    }

    fn decode(&self, bytes: &[u8], _rows: usize, out: &mut [f32]) -> Result<(), CodecError> {
        Plain::Fp16(bytes).load(0, out);
        Ok(())
    }
}
