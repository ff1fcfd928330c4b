//! `bf16_packed`: bf16 without loss in 45/4 bits an element.
//!
//! For `n` elements, in this order:
//!
//! 1. `n` bytes: the sign, in the highest bit, and the seven bits of the mantissa;
//! 2. `ceil(3 n / 8)` bytes: the codes of the exponents, three bits each, the first element in the lowest bits. Codes 0
//!    to 6 are places in the table, 7 says that the exponent has no code;
//! 3. eight bytes: the table, the seven most frequent exponents of the block, equally frequent ones in ascending order,
//!    and a zero;
//! 4. for each tile of 4096 elements a u32, little-endian: how many exponents without a code come before the tile, so
//!    that tiles are decoded in parallel;
//! 5. the exponents without a code, a byte each, in the order of their elements;
//! 6. zeros up to `ceil(45 n / 32)` bytes in all.
//!
//! A block with more exponents without a code than there is room for is refused. Below 357 elements not even the table
//! and an offset fit.

use super::plain::{Plain, TILE};
use super::{Codec, CodecError, Fault, Tiles, elements};
use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, dispatch, u8x16, u8x64};
use policy::model::Matrix;
use std::ops::Range;

/// Exponents with a code.
const CODED: usize = 7;
const ESCAPE: u8 = 7;
/// Bytes of the table.
const TABLE: usize = 8;
/// Elements whose codes fill whole bytes.
const EIGHT: usize = 8;
/// The lowest bit of each of eight bytes.
const LOWEST: u64 = 0x0101_0101_0101_0101;

pub(super) struct Packed;

/// Where the parts of a copy lie; the exponents without a code reach from `escapes` to the end.
struct Layout {
    codes: usize,
    table: usize,
    offsets: usize,
    escapes: usize,
}

impl Layout {
    fn of(elements: usize) -> Layout {
        let codes = elements;
        let table = codes + (elements * 3).div_ceil(8);
        let offsets = table + TABLE;
        Layout { codes, table, offsets, escapes: offsets + elements.div_ceil(TILE) * 4 }
    }

    /// Bytes of the codes of elements `first .. first + length`, among all codes; tiles begin at a byte.
    fn codes(first: usize, length: usize) -> Range<usize> {
        first * 3 / 8..((first + length) * 3).div_ceil(8)
    }

    /// How many exponents without a code a buffer of `bytes` has room for, and an offset can count; `None` if what comes
    /// before them does not fit.
    fn room(&self, bytes: usize) -> Option<usize> {
        bytes.checked_sub(self.escapes).map(|room| room.min(u32::MAX as usize))
    }
}

/// A tile in parts, each element a byte.
struct Split {
    signs: [u8; TILE],
    exponents: [u8; TILE],
    /// Codes of the exponents; when encoding, 0 beyond the last element.
    codes: [u8; TILE],
    /// The codes as they are stored, three bits each.
    stored: [u8; TILE * 3 / 8],
}

impl Split {
    fn new() -> Split {
        Split { signs: [0; TILE], exponents: [0; TILE], codes: [0; TILE], stored: [0; TILE * 3 / 8] }
    }

    /// Reads the signs, mantissas and exponents of `values`, or the index of one that bf16 cannot hold.
    #[inline(always)]
    fn read(&mut self, values: &[f32]) -> Result<(), usize> {
        let inexact = values.iter().fold(0, |bits, value| bits | value.to_bits() & 0xffff);
        if inexact != 0 {
            return Err(values.iter().position(|value| value.to_bits() & 0xffff != 0).unwrap_or(0));
        }
        let parts = self.signs.iter_mut().zip(&mut self.exponents);
        for (value, (sign, exponent)) in values.iter().zip(parts) {
            let bits = value.to_bits();
            *sign = (bits >> 24 & 0x80 | bits >> 16 & 0x7f) as u8;
            *exponent = (bits >> 23) as u8;
        }
        Ok(())
    }

    /// Finds the codes of the exponents.
    #[inline(always)]
    fn code<S: Simd>(&mut self, simd: S, table: &[u8; CODED], length: usize) {
        for (codes, exponents) in
            self.codes.as_chunks_mut::<64>().0.iter_mut().zip(self.exponents.as_chunks().0)
        {
            let exponents = u8x64::load_array_ref(simd, exponents);
            let mut found = u8x64::splat(simd, ESCAPE);
            for (code, exponent) in table.iter().enumerate() {
                found = exponents.simd_eq(*exponent).select(u8x64::splat(simd, code as u8), found);
            }
            found.store_array(codes);
        }
        self.codes[length..].fill(0);
    }

    /// Puts signs, exponents and mantissas together.
    #[inline(always)]
    fn write(&self, values: &mut [f32]) {
        let parts = self.signs.iter().zip(&self.exponents);
        for (value, (sign, exponent)) in values.iter_mut().zip(parts) {
            let (sign, exponent) = (*sign as u32, *exponent as u32);
            *value = f32::from_bits((sign & 0x80) << 24 | exponent << 23 | (sign & 0x7f) << 16);
        }
    }
}

/// Eight codes, a byte each, as three bytes.
#[inline(always)]
fn squeeze(codes: u64) -> [u8; 3] {
    let pairs = (codes | codes >> 5) & 0x003f_003f_003f_003f;
    let fours = (pairs | pairs >> 10) & 0x0000_0fff_0000_0fff;
    let [first, second, third, ..] = (fours | fours >> 20).to_le_bytes();
    [first, second, third]
}

/// Three bytes as eight codes, a byte each.
#[inline(always)]
fn spread(bytes: [u8; 3]) -> u64 {
    let codes = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]) as u64;
    let fours = (codes | codes << 20) & 0x0000_0fff_0000_0fff;
    let pairs = (fours | fours << 10) & 0x003f_003f_003f_003f;
    (pairs | pairs << 5) & 0x0707_0707_0707_0707
}

/// The places of the escapes among eight codes.
#[inline(always)]
fn escapes(codes: u64) -> impl Iterator<Item = usize> {
    let mut left = codes & codes >> 1 & codes >> 2 & LOWEST;
    std::iter::from_fn(move || {
        let place = (left != 0).then(|| left.trailing_zeros() as usize / 8);
        left &= left.wrapping_sub(1);
        place
    })
}

/// How often each exponent comes.
struct Census([usize; 256]);

impl Census {
    /// Exponents counted by comparing: trained weights lie within these below the largest, and comparing many at a time
    /// is faster than counting one by one.
    const NEAR: u8 = 16;

    #[inline(always)]
    fn count(&mut self, exponents: &[u8]) {
        let most = exponents.iter().copied().fold(0, u8::max);
        let least = most.saturating_sub(Self::NEAR - 1);
        let (chunks, rest) = exponents.as_chunks::<64>();
        for exponent in least..=most {
            // A tile has 64 chunks: a byte counts them.
            let mut counts = [0u8; 64];
            for chunk in chunks {
                for lane in 0..64 {
                    counts[lane] += (chunk[lane] == exponent) as u8;
                }
            }
            self.0[exponent as usize] += counts.iter().map(|count| *count as usize).sum::<usize>();
        }
        for chunk in chunks {
            if chunk.iter().fold(u8::MAX, |low, exponent| low.min(*exponent)) < least {
                let rare = chunk.iter().filter(|exponent| **exponent < least);
                rare.for_each(|exponent| self.0[*exponent as usize] += 1);
            }
        }
        rest.iter().for_each(|exponent| self.0[*exponent as usize] += 1);
    }

    /// The most frequent exponents.
    fn table(&self) -> [u8; CODED] {
        let mut order: [u8; 256] = std::array::from_fn(|exponent| exponent as u8);
        order.sort_by_key(|&exponent| std::cmp::Reverse(self.0[exponent as usize]));
        std::array::from_fn(|place| order[place])
    }
}

/// Calls `each` with the index, the first element and the parts of every tile.
#[inline(always)]
fn tiles<S: Simd>(
    simd: S,
    source: Plain<'_>,
    split: &mut Split,
    mut each: impl FnMut(usize, usize, usize, &mut Split),
) -> Result<(), CodecError> {
    let mut values = [0.0f32; TILE];
    let elements = source.elements();
    for (index, first) in (0..elements).step_by(TILE).enumerate() {
        let values = &mut values[..TILE.min(elements - first)];
        source.load(simd, first, values);
        split
            .read(values)
            .map_err(|at| CodecError::NotBf16 { element: (first + at) as u64, value: values[at] })?;
        each(index, first, values.len(), split);
    }
    Ok(())
}

#[inline(always)]
fn encode<S: Simd>(simd: S, source: Plain<'_>, out: &mut [u8]) -> Result<(), CodecError> {
    let elements = source.elements();
    let layout = Layout::of(elements);
    let (mut split, mut census) = (Split::new(), Census([0; 256]));
    tiles(
        simd,
        source,
        &mut split,
        #[inline(always)]
        |_, _, length, split| census.count(&split.exponents[..length]),
    )?;
    let table = census.table();
    let needed = elements - table.iter().map(|exponent| census.0[*exponent as usize]).sum::<usize>();
    let room = layout.room(out.len());
    if room.is_none_or(|room| needed > room) {
        return Err(CodecError::DoesNotPack { escapes: needed as u64, room: room.unwrap_or(0) as u64 });
    }
    let (signs, rest) = out.split_at_mut(layout.codes);
    let (codes, rest) = rest.split_at_mut(layout.table - layout.codes);
    let (header, unused) = rest.split_at_mut(layout.escapes - layout.table);
    header[..CODED].copy_from_slice(&table);
    header[CODED] = 0;
    let offsets = header[TABLE..].as_chunks_mut::<4>().0;
    unused.fill(0);
    let mut taken = 0;
    tiles(
        simd,
        source,
        &mut split,
        #[inline(always)]
        |index, first, length, split| {
            offsets[index] = (taken as u32).to_le_bytes();
            signs[first..first + length].copy_from_slice(&split.signs[..length]);
            split.code(simd, &table, length);
            let eights = split.codes.as_chunks::<EIGHT>().0.iter().zip(split.stored.as_chunks_mut::<3>().0);
            for (eight, (coded, stored)) in eights.enumerate() {
                let coded = u64::from_le_bytes(*coded);
                *stored = squeeze(coded);
                for place in escapes(coded) {
                    unused[taken] = split.exponents[eight * EIGHT + place];
                    taken += 1;
                }
            }
            let stored = Layout::codes(first, length);
            codes[stored.clone()].copy_from_slice(&split.stored[..stored.len()]);
        },
    )
}

#[inline(always)]
fn decode<S: Simd>(simd: S, elements: usize, bytes: &[u8], tiles: Tiles<'_>) -> Result<(), CodecError> {
    let layout = Layout::of(elements);
    let corrupt = |fault| CodecError::Corrupt { format: "bf16_packed", fault };
    let room = layout.room(bytes.len()).ok_or(corrupt(Fault::Room { needed: 0, room: 0 }))?;
    let (signs, codes) = (&bytes[..layout.codes], &bytes[layout.codes..layout.table]);
    let offsets = bytes[layout.offsets..layout.escapes].as_chunks::<4>().0;
    let unused = &bytes[layout.escapes..];
    let table = u8x16::from_fn(simd, |place| if place < CODED { bytes[layout.table + place] } else { 0 });
    let (mut split, mut values, mut escaped) = (Split::new(), [0.0f32; TILE], [0u16; TILE]);
    let mut taken = 0;
    for (tile, offset) in offsets.iter().enumerate() {
        let (stored, counted) = (u32::from_le_bytes(*offset) as u64, taken as u64);
        if stored != counted {
            return Err(corrupt(Fault::Offset { tile: tile as u64, stored, counted }));
        }
        let first = tile * TILE;
        let length = TILE.min(elements - first);
        split.signs[..length].copy_from_slice(&signs[first..first + length]);
        let stored = Layout::codes(first, length);
        split.stored[..stored.len()].copy_from_slice(&codes[stored]);
        let mut bare = 0;
        let eights = split.codes.as_chunks_mut::<EIGHT>().0.iter_mut().zip(split.stored.as_chunks::<3>().0);
        for (eight, (eight_codes, stored)) in eights.enumerate() {
            let coded = spread(*stored);
            *eight_codes = coded.to_le_bytes();
            for place in escapes(coded).map(|place| eight * EIGHT + place).filter(|place| *place < length) {
                escaped[bare] = place as u16;
                bare += 1;
            }
        }
        let parts = split.exponents.as_chunks_mut::<16>().0.iter_mut().zip(split.codes.as_chunks::<16>().0);
        for (exponents, codes) in parts {
            table.swizzle_dyn_within_blocks(u8x16::load_array_ref(simd, codes)).store_array(exponents);
        }
        if taken + bare > room {
            return Err(corrupt(Fault::Room { needed: (taken + bare) as u64, room: room as u64 }));
        }
        for (place, exponent) in escaped[..bare].iter().zip(&unused[taken..]) {
            split.exponents[*place as usize] = *exponent;
        }
        taken += bare;
        split.write(&mut values[..length]);
        tiles(first, &values[..length]);
    }
    Ok(())
}

impl Codec for Packed {
    fn encode(
        &self,
        level: Level,
        source: Plain<'_>,
        _: &[Matrix],
        out: &mut [u8],
    ) -> Result<(), CodecError> {
        if source.elements() == 0 {
            return Ok(());
        }
        dispatch!(level, simd => encode(simd, source, out))
    }

    fn decode(
        &self,
        level: Level,
        bytes: &[u8],
        matrices: &[Matrix],
        tiles: Tiles<'_>,
    ) -> Result<(), CodecError> {
        let elements = elements(matrices);
        if elements == 0 {
            return Ok(());
        }
        dispatch!(level, simd => decode(simd, elements, bytes, tiles))
    }
}
