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

mod census;
mod source;

use self::census::Census;
use self::source::Source;
use super::element;
use super::plain::{Bf16, Plain, TILE};
use super::{Codec, CodecError, Expand, Fault, Tiles, elements};
use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, dispatch, u8x16, u8x64, u64x8};
use policy::model::Matrix;

/// Exponents with a code.
const CODED: usize = 7;
const ESCAPE: u8 = 7;
/// Bytes of the table.
const TABLE: usize = 8;
/// Elements handled at a time.
const LANES: usize = 64;
/// Bytes of their codes.
const STORED: usize = LANES * 3 / 8;

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

    /// How many exponents without a code a buffer of `bytes` has room for, and an offset can count; `None` if what comes
    /// before them does not fit.
    fn room(&self, bytes: usize) -> Option<usize> {
        bytes.checked_sub(self.escapes).map(|room| room.min(u32::MAX as usize))
    }
}

/// The bits of a tile in bf16, little-endian.
type Bits = [u8; TILE * 2];

/// Exponents, and signs with mantissas, of 64 elements.
#[inline(always)]
fn parted<S: Simd>(simd: S, bits: &[u8; LANES * 2]) -> (u8x64<S>, u8x64<S>) {
    let (first, second) = bits.split_at(LANES);
    let (low, high) = u8x64::from_slice(simd, first).deinterleave(u8x64::from_slice(simd, second));
    (high << 1 | low >> 7, high & 0x80 | low & 0x7f)
}

/// The codes of exponents: by their distance below the largest with a code, which is small in trained weights, and one
/// by one where it is not.
struct Coder<S: Simd> {
    largest: u8,
    near: u8x64<S>,
    far: Vec<(u8, u8)>,
}

impl<S: Simd> Coder<S> {
    /// The distance that stands for all beyond.
    const FAR: u8 = 15;

    fn new(simd: S, table: &[u8; CODED]) -> Self {
        let largest = table.iter().copied().max().unwrap_or(0);
        let coded = || table.iter().zip(0u8..).map(|(exponent, code)| (largest - exponent, code));
        let mut near = [ESCAPE; 16];
        for (distance, code) in coded().filter(|(distance, _)| *distance < Self::FAR) {
            near[distance as usize] = code;
        }
        let far = coded().filter(|(distance, _)| *distance >= Self::FAR);
        Coder {
            largest,
            near: u8x64::block_splat(u8x16::load_array(simd, near)),
            far: far.map(|(distance, code)| (largest - distance, code)).collect(),
        }
    }

    #[inline(always)]
    fn codes(&self, simd: S, exponents: u8x64<S>) -> u8x64<S> {
        let distances = (u8x64::splat(simd, self.largest) - exponents).min(Self::FAR);
        let mut codes = self.near.swizzle_dyn_within_blocks(distances);
        for (exponent, code) in &self.far {
            codes = exponents.simd_eq(*exponent).select(u8x64::splat(simd, *code), codes);
        }
        codes
    }
}

/// Three bits of each of 64 bytes.
#[inline(always)]
fn squeeze<S: Simd>(simd: S, codes: u8x64<S>, stored: &mut [u8; STORED]) {
    let gather = [0, 1, 2, 8, 9, 10, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15];
    let gather = u8x64::block_splat(u8x16::load_array(simd, gather));
    // Eight codes of three bits from the eight bytes of a lane; the highest byte becomes zero.
    let eights: u64x8<S> = codes.bitcast();
    let pairs = (eights | eights >> 5) & 0x003f_003f_003f_003f;
    let fours = (pairs | pairs >> 10) & 0x0000_0fff_0000_0fff;
    let bytes: u8x64<S> = ((fours | fours >> 20) & 0x00ff_ffff).bitcast();
    let sixes: u64x8<S> = bytes.swizzle_dyn_within_blocks(gather).bitcast();
    let [a, _, b, _, c, _, d, _] = sixes.to_array();
    let words = [a | b << 48, b >> 16 | c << 32, c >> 32 | d << 16];
    stored.copy_from_slice(bytemuck::bytes_of(&words.map(u64::to_le)));
}

/// The codes of a tile.
type Codes = [u8; TILE * 3 / 8];

/// Codes a tile; how many exponents have no code, which are left in `escaped`.
#[inline(always)]
fn code<S: Simd>(
    simd: S,
    coder: &Coder<S>,
    bits: &Bits,
    (signs, codes): (&mut [u8; TILE], &mut Codes),
    escaped: &mut [u8; TILE + 1],
) -> usize {
    let stored = signs.as_chunks_mut().0.iter_mut().zip(codes.as_chunks_mut().0);
    let mut bare = 0;
    for (bits, (sign, code)) in bits.as_chunks().0.iter().zip(stored) {
        let (exponents, signs) = parted(simd, bits);
        signs.store_array(sign);
        let codes = coder.codes(simd, exponents);
        squeeze(simd, codes, code);
        let escapes = codes.simd_eq(ESCAPE).to_bitmask();
        let exponents = exponents.to_array();
        bare = listed(escapes, bare, |lane| (exponents[lane], true), escaped);
    }
    bare
}

/// Lists what `item` gives for each bit of a mask from place `bare` on, if it says so; where the list ends. One more place
/// is written than is listed.
#[inline(always)]
fn listed<T>(mut mask: u64, mut bare: usize, item: impl Fn(usize) -> (T, bool), list: &mut [T]) -> usize {
    // Most masks have one bit or none: that is done without a branch.
    loop {
        let (listed, counts) = item(mask.trailing_zeros() as usize % LANES);
        list[bare] = listed;
        bare += usize::from(counts && mask != 0);
        mask &= mask.wrapping_sub(1);
        if mask == 0 {
            return bare;
        }
    }
}

/// A vector reads so much beyond the last code.
const BEYOND: usize = 10;

/// Finds the exponents of a tile's codes, and the places of those without one; how many there are before `length`.
#[inline(always)]
fn exponents<S: Simd>(
    simd: S,
    table: u8x16<S>,
    codes: &[u8; TILE * 3 / 8 + BEYOND],
    length: usize,
    exponents: &mut [u8; TILE],
    places: &mut [u16; TILE + 1],
) -> usize {
    let (table, spread) = (
        u8x64::block_splat(table),
        u8x16::load_array(simd, [0, 1, 2, 15, 15, 15, 15, 15, 3, 4, 5, 15, 15, 15, 15, 15]),
    );
    let mut bare = 0;
    for (chunk, exponents) in exponents.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let block = |number: usize| {
            let first = chunk * STORED + number * 6;
            u8x16::from_slice(simd, &codes[first..first + 16]).swizzle_dyn_within_blocks(spread)
        };
        let bytes = block(0).combine(block(1)).combine(block(2).combine(block(3)));
        let eights = bytes.bitcast::<u64x8<S>>() & 0x00ff_ffff;
        let fours = (eights | eights << 20) & 0x0000_0fff_0000_0fff;
        let pairs = (fours | fours << 10) & 0x003f_003f_003f_003f;
        let codes: u8x64<S> = ((pairs | pairs << 5) & 0x0707_0707_0707_0707).bitcast();
        table.swizzle_dyn_within_blocks(codes).store_array(exponents);
        let escapes = codes.simd_eq(ESCAPE).to_bitmask();
        // Bytes no encoder wrote may have codes beyond the last element.
        let place = |lane| ((chunk * LANES + lane) as u16, chunk * LANES + lane < length);
        bare = listed(escapes, bare, place, places);
    }
    bare
}

/// Puts signs, exponents and mantissas together.
#[inline(always)]
fn join<S: Simd>(simd: S, signs: &[u8; TILE], exponents: &[u8; TILE], bits: &mut Bits) {
    let parts = signs.as_chunks::<LANES>().0.iter().zip(exponents.as_chunks().0);
    for (bits, (signs, exponents)) in bits.as_chunks_mut::<{ LANES * 2 }>().0.iter_mut().zip(parts) {
        let (signs, exponents) = (u8x64::load_array_ref(simd, signs), u8x64::load_array_ref(simd, exponents));
        let low = exponents << 7 | signs & 0x7f;
        let high = exponents >> 1 | signs & 0x80;
        let (first, second) = low.interleave(high);
        first.store_slice(&mut bits[..LANES]);
        second.store_slice(&mut bits[LANES..]);
    }
}

#[inline(always)]
fn encode<S: Simd>(simd: S, plain: Plain<'_>, out: &mut [u8]) -> Result<(), CodecError> {
    let elements = plain.elements();
    let layout = Layout::of(elements);
    let (mut source, mut census) = (Source::new(plain), Census::new());
    source.tiles(
        simd,
        0,
        #[inline(always)]
        |_, bits| census.count(simd, bits),
    )?;
    census.counts[0] -= elements.next_multiple_of(TILE) - elements;
    let table = census.table();
    let needed = elements - table.iter().map(|exponent| census.counts[*exponent as usize]).sum::<usize>();
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
    let (coder, mut escaped, mut taken) = (Coder::new(simd, &table), [0; TILE + 1], 0);
    // What follows the last element has the first code: zero.
    source.tiles(
        simd,
        table[0],
        #[inline(always)]
        |first, bits| {
            offsets[first / TILE] = (taken as u32).to_le_bytes();
            let (signs, codes) = (&mut signs[first..], &mut codes[first * 3 / 8..]);
            let bare = match (signs.first_chunk_mut(), codes.first_chunk_mut()) {
                (Some(signs), Some(codes)) => code(simd, &coder, bits, (signs, codes), &mut escaped),
                _ => {
                    let mut last = ([0; TILE], [0; TILE * 3 / 8]);
                    let bare = code(simd, &coder, bits, (&mut last.0, &mut last.1), &mut escaped);
                    signs.copy_from_slice(&last.0[..signs.len()]);
                    codes.copy_from_slice(&last.1[..codes.len()]);
                    bare
                }
            };
            unused[taken..taken + bare].copy_from_slice(&escaped[..bare]);
            taken += bare;
        },
    )?;
    unused[taken..].fill(0);
    Ok(())
}

/// Calls `each` with the first element of every tile and its elements in bf16.
#[inline(always)]
fn unpack<S: Simd>(
    simd: S,
    elements: usize,
    bytes: &[u8],
    mut each: impl FnMut(usize, &[u8]),
) -> Result<(), CodecError> {
    let layout = Layout::of(elements);
    let corrupt = |fault| CodecError::Corrupt { format: "bf16_packed", fault };
    let room = layout.room(bytes.len()).ok_or(corrupt(Fault::Room { needed: 0, room: 0 }))?;
    let offsets = bytes[layout.offsets..layout.escapes].as_chunks::<4>().0;
    let unused = &bytes[layout.escapes..];
    let table = u8x16::from_fn(simd, |place| if place < CODED { bytes[layout.table + place] } else { 0 });
    let (mut coded, mut places, mut bits) = ([0; TILE], [0; TILE + 1], [0; TILE * 2]);
    let (mut last, mut last_codes) = ([0; TILE], [0; TILE * 3 / 8 + BEYOND]);
    let mut taken = 0;
    for (number, offset) in offsets.iter().enumerate() {
        let (stored, counted) = (u32::from_le_bytes(*offset) as u64, taken as u64);
        if stored != counted {
            return Err(corrupt(Fault::Offset { tile: number as u64, stored, counted }));
        }
        let first = number * TILE;
        let length = TILE.min(elements - first);
        let (signs, codes) = (&bytes[first..layout.codes], &bytes[layout.codes + first * 3 / 8..]);
        // The table and the offsets follow the codes: a vector may read beyond these.
        let (signs, codes) = match (signs.first_chunk(), codes.first_chunk()) {
            (Some(signs), Some(codes)) => (signs, codes),
            _ => {
                let own = (length * 3).div_ceil(8);
                last[..length].copy_from_slice(&signs[..length]);
                last_codes[..own].copy_from_slice(&codes[..own]);
                (&last, &last_codes)
            }
        };
        let bare = exponents(simd, table, codes, length, &mut coded, &mut places);
        if taken + bare > room {
            return Err(corrupt(Fault::Room { needed: (taken + bare) as u64, room: room as u64 }));
        }
        for (place, exponent) in places[..bare].iter().zip(&unused[taken..]) {
            coded[*place as usize] = *exponent;
        }
        taken += bare;
        join(simd, signs, &coded, &mut bits);
        each(first, &bits[..length * 2]);
    }
    Ok(())
}

/// Calls `tiles` with the values.
#[inline(always)]
fn decode<S: Simd>(simd: S, elements: usize, bytes: &[u8], tiles: Tiles<'_>) -> Result<(), CodecError> {
    let mut values = [0.0f32; TILE];
    unpack(
        simd,
        elements,
        bytes,
        #[inline(always)]
        |first, bits| {
            let values = &mut values[..bits.len() / 2];
            element::read::<S, Bf16>(simd, bits, 0, 1.0, values);
            tiles(first, values);
        },
    )
}

/// Writes the bf16 copy.
#[inline(always)]
fn expand<S: Simd>(simd: S, bytes: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    unpack(
        simd,
        out.len() / 2,
        bytes,
        #[inline(always)]
        |first, bits| out[first * 2..][..bits.len()].copy_from_slice(bits),
    )
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

    fn expander(&self) -> Option<Expand> {
        Some(|level, bytes, out| {
            if out.is_empty() {
                return Ok(());
            }
            dispatch!(level, simd => expand(simd, bytes, out))
        })
    }
}
