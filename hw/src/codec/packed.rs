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
use fearless_simd::{Level, Simd, dispatch, f32x16, u8x16, u8x64, u16x32, u32x16, u64x8};
use policy::model::Matrix;
use std::ops::Range;

/// Exponents with a code.
const CODED: usize = 7;
const ESCAPE: u8 = 7;
/// Bytes of the table.
const TABLE: usize = 8;
/// Elements handled at a time.
const LANES: usize = 64;

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
    /// The codes of the exponents as they are stored, three bits each, and what a whole vector reads beyond them.
    stored: [u8; TILE * 3 / 8 + 16],
}

impl Split {
    fn new() -> Split {
        Split { signs: [0; TILE], exponents: [0; TILE], stored: [0; TILE * 3 / 8 + 16] }
    }

    /// Reads the signs, mantissas and exponents of `values`; whether bf16 holds them all.
    #[inline(always)]
    fn read<S: Simd>(&mut self, simd: S, values: &[f32; TILE]) -> bool {
        let mut all = u32x16::splat(simd, 0);
        let parts = self.signs.as_chunks_mut::<LANES>().0.iter_mut().zip(self.exponents.as_chunks_mut().0);
        for (values, (signs, exponents)) in values.as_chunks::<LANES>().0.iter().zip(parts) {
            let mut halves = [all; 4];
            for (half, values) in halves.iter_mut().zip(values.as_chunks().0) {
                let bits: u32x16<S> = f32x16::load_array_ref(simd, values).bitcast();
                all |= bits;
                *half = bits >> 16;
            }
            let (low, high) = (halves[0].narrow(halves[1]), halves[2].narrow(halves[3]));
            (low >> 7).narrow(high >> 7).store_array(exponents);
            let (low, high) = (low >> 8 & 0x80 | low & 0x7f, high >> 8 & 0x80 | high & 0x7f);
            low.narrow(high).store_array(signs);
        }
        (all & 0xffff).reduce_max() == 0
    }

    /// Stores the codes of the exponents, and calls `escaped` with each exponent that has none.
    #[inline(always)]
    fn code<S: Simd>(&mut self, simd: S, table: &[u8; CODED], mut escaped: impl FnMut(u8)) {
        let gather =
            u8x64::block_splat(u8x16::load_array(simd, [0, 1, 2, 8, 9, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        let exponents = self.exponents.as_chunks::<LANES>().0;
        for (stored, exponents) in
            self.stored.as_chunks_mut::<{ LANES * 3 / 8 }>().0.iter_mut().zip(exponents)
        {
            let vector = u8x64::load_array_ref(simd, exponents);
            let mut codes = u8x64::splat(simd, ESCAPE);
            for (code, exponent) in table.iter().enumerate() {
                codes = vector.simd_eq(*exponent).select(u8x64::splat(simd, code as u8), codes);
            }
            let mut escapes = codes.simd_eq(ESCAPE).to_bitmask();
            while escapes != 0 {
                escaped(exponents[escapes.trailing_zeros() as usize]);
                escapes &= escapes - 1;
            }
            // Eight codes of three bits from the eight bytes of a lane.
            let eights: u64x8<S> = codes.bitcast();
            let pairs = (eights | eights >> 5) & 0x003f_003f_003f_003f;
            let fours = (pairs | pairs >> 10) & 0x0000_0fff_0000_0fff;
            let bytes: u8x64<S> = (fours | fours >> 20).bitcast();
            let blocks = bytes.swizzle_dyn_within_blocks(gather).to_array();
            for (stored, block) in stored.as_chunks_mut::<6>().0.iter_mut().zip(blocks.as_chunks::<16>().0) {
                stored.copy_from_slice(&block[..6]);
            }
        }
    }

    /// Reads the exponents of the codes, and calls `escaped` with the place of each that has none.
    #[inline(always)]
    fn decode<S: Simd>(&mut self, simd: S, table: u8x16<S>, mut escaped: impl FnMut(usize)) {
        let (table, gather) = (
            u8x64::block_splat(table),
            u8x16::load_array(simd, [0, 1, 2, 0, 0, 0, 0, 0, 3, 4, 5, 0, 0, 0, 0, 0]),
        );
        for (chunk, exponents) in self.exponents.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let block = |number: usize| {
                let first = chunk * LANES * 3 / 8 + number * 6;
                u8x16::from_slice(simd, &self.stored[first..first + 16]).swizzle_dyn_within_blocks(gather)
            };
            let bytes = block(0).combine(block(1)).combine(block(2).combine(block(3)));
            let eights = bytes.bitcast::<u64x8<S>>() & 0x00ff_ffff;
            let fours = (eights | eights << 20) & 0x0000_0fff_0000_0fff;
            let pairs = (fours | fours << 10) & 0x003f_003f_003f_003f;
            let codes: u8x64<S> = ((pairs | pairs << 5) & 0x0707_0707_0707_0707).bitcast();
            table.swizzle_dyn_within_blocks(codes).store_array(exponents);
            let mut escapes = codes.simd_eq(ESCAPE).to_bitmask();
            while escapes != 0 {
                escaped(chunk * LANES + escapes.trailing_zeros() as usize);
                escapes &= escapes - 1;
            }
        }
    }

    /// Puts signs, exponents and mantissas together.
    #[inline(always)]
    fn write<S: Simd>(&self, simd: S, values: &mut [f32; TILE]) {
        let parts = self.signs.as_chunks::<LANES>().0.iter().zip(self.exponents.as_chunks().0);
        for (values, (signs, exponents)) in values.as_chunks_mut::<LANES>().0.iter_mut().zip(parts) {
            let (signs, exponents) =
                (u8x64::load_array_ref(simd, signs).widen(), u8x64::load_array_ref(simd, exponents).widen());
            let join = |sign: u16x32<S>, exponent: u16x32<S>| {
                ((sign & 0x80) << 8 | exponent << 7 | sign & 0x7f).widen()
            };
            let ((a, b), (c, d)) = (join(signs.0, exponents.0), join(signs.1, exponents.1));
            for (values, bits) in values.as_chunks_mut().0.iter_mut().zip([a, b, c, d]) {
                (bits << 16).bitcast::<f32x16<S>>().store_array(values);
            }
        }
    }
}

/// How often each exponent comes.
struct Census([usize; 256]);

impl Census {
    /// Exponents counted by comparing: trained weights lie within these below the largest, and comparing many at a time
    /// is faster than counting one by one.
    const NEAR: u8 = 16;

    #[inline(always)]
    fn count<S: Simd>(&mut self, simd: S, exponents: &[u8]) {
        let (chunks, rest) = exponents.as_chunks::<LANES>();
        let mut most = u8x64::splat(simd, 0);
        for chunk in chunks {
            most = most.max(u8x64::load_array_ref(simd, chunk));
        }
        let most = most.reduce_max();
        let least = most.saturating_sub(Self::NEAR - 1);
        let (zero, one) = (u8x64::splat(simd, 0), u8x64::splat(simd, 1));
        for exponent in least..=most {
            // A tile has 64 chunks: a byte counts them.
            let mut counts = zero;
            for chunk in chunks {
                let found = u8x64::load_array_ref(simd, chunk).simd_eq(exponent);
                counts += found.select(one, zero);
            }
            self.0[exponent as usize] += counts.to_array().iter().map(|count| *count as usize).sum::<usize>();
        }
        for chunk in chunks {
            if u8x64::load_array_ref(simd, chunk).reduce_min() < least {
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

/// Calls `each` with the number and the length of every tile, and with its parts; zeros follow the last element.
#[inline(always)]
fn tiles<S: Simd>(
    simd: S,
    source: Plain<'_>,
    split: &mut Split,
    mut each: impl FnMut(usize, usize, &mut Split),
) -> Result<(), CodecError> {
    let mut values = [0.0f32; TILE];
    let elements = source.elements();
    for (tile, first) in (0..elements).step_by(TILE).enumerate() {
        let length = TILE.min(elements - first);
        source.load(simd, first, &mut values[..length]);
        values[length..].fill(0.0);
        if !split.read(simd, &values) {
            let at = values.iter().position(|value| value.to_bits() & 0xffff != 0).unwrap_or(0);
            return Err(CodecError::NotBf16 { element: (first + at) as u64, value: values[at] });
        }
        each(tile, length, split);
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
        |_, length, split| census.count(simd, &split.exponents[..length]),
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
        |tile, length, split| {
            let first = tile * TILE;
            offsets[tile] = (taken as u32).to_le_bytes();
            signs[first..first + length].copy_from_slice(&split.signs[..length]);
            // What follows the last element has the first code: zero.
            split.exponents[length..].fill(table[0]);
            split.code(
                simd,
                &table,
                #[inline(always)]
                |exponent| {
                    unused[taken] = exponent;
                    taken += 1;
                },
            );
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
        split.decode(
            simd,
            table,
            #[inline(always)]
            |place| {
                escaped[bare] = place as u16;
                // Bytes no encoder wrote may have codes beyond the last element.
                bare += (place < length) as usize;
            },
        );
        if taken + bare > room {
            return Err(corrupt(Fault::Room { needed: (taken + bare) as u64, room: room as u64 }));
        }
        for (place, exponent) in escaped[..bare].iter().zip(&unused[taken..]) {
            split.exponents[*place as usize] = *exponent;
        }
        taken += bare;
        split.write(simd, &mut values);
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
