//! `bf16_packed`: bf16 without loss in 45/4 bits an element.
//!
//! For `n` elements, in this order:
//!
//! 1. `n` bytes: the sign, in the highest bit, and the seven bits of the mantissa;
//! 2. `ceil(3 n / 8)` bytes: the codes of the exponents, three bits each, the first element in the lowest bits. Codes 0
//!    to 6 are places in the table, 7 says that the exponent has no code;
//! 3. seven bytes: the table, the most frequent exponents of the block, equally frequent ones in ascending order;
//! 4. the exponents without a code, a byte each, in the order of their elements;
//! 5. zeros up to `ceil(45 n / 32)` bytes in all.
//!
//! A block with more exponents without a code than there is room for is refused. Below 197 elements not even the table
//! fits.

use super::plain::{Plain, TILE};
use super::{Codec, CodecError};

const CODED: usize = 7;
const ESCAPE: u8 = 7;

pub(super) struct Packed;

/// Bytes of signs and mantissas, and of codes.
fn planes(elements: usize) -> (usize, usize) {
    (elements, (elements * 3).div_ceil(8))
}

/// How many exponents without a code a buffer of `bytes` has room for; `None` if the table does not fit.
fn room(elements: usize, bytes: usize) -> Option<usize> {
    let (signs, codes) = planes(elements);
    bytes.checked_sub(signs + codes + CODED)
}

fn exponent(bits: u16) -> u8 {
    (bits >> 7) as u8
}

/// Calls `each` with the first element and the bf16 bits of every tile.
fn tiles(source: Plain<'_>, mut each: impl FnMut(usize, &[u16])) -> Result<(), CodecError> {
    let (mut values, mut bits) = ([0.0f32; TILE], [0u16; TILE]);
    let elements = source.elements();
    for first in (0..elements).step_by(TILE) {
        let length = TILE.min(elements - first);
        source.load(first, &mut values[..length]);
        if let Some(at) = values[..length].iter().position(|value| value.to_bits() & 0xffff != 0) {
            return Err(CodecError::NotBf16 { element: (first + at) as u64, value: values[at] });
        }
        for (bits, value) in bits.iter_mut().zip(&values[..length]) {
            *bits = (value.to_bits() >> 16) as u16;
        }
        each(first, &bits[..length]);
    }
    Ok(())
}

/// The seven most frequent exponents, and how many elements have another.
fn table(source: Plain<'_>) -> Result<([u8; CODED], usize), CodecError> {
    let mut counts = [0usize; 256];
    tiles(source, |_, tile| tile.iter().for_each(|&bits| counts[exponent(bits) as usize] += 1))?;
    let mut order: Vec<u8> = (0..=255).collect();
    order.sort_by_key(|&exponent| std::cmp::Reverse(counts[exponent as usize]));
    let mut table = [0; CODED];
    table.copy_from_slice(&order[..CODED]);
    let coded: usize = table.iter().map(|&exponent| counts[exponent as usize]).sum();
    Ok((table, source.elements() - coded))
}

impl Codec for Packed {
    fn encode(&self, source: Plain<'_>, _rows: usize, out: &mut [u8]) -> Result<(), CodecError> {
        let elements = source.elements();
        if elements == 0 {
            return Ok(());
        }
        let (table, escapes) = table(source)?;
        let fitting = room(elements, out.len());
        if fitting.is_none_or(|room| escapes > room) {
            return Err(CodecError::DoesNotPack {
                escapes: escapes as u64,
                room: fitting.unwrap_or(0) as u64,
            });
        }
        let mut code_of = [ESCAPE; 256];
        for (code, exponent) in table.iter().enumerate() {
            code_of[*exponent as usize] = code as u8;
        }
        let (sign_bytes, code_bytes) = planes(elements);
        let (signs, rest) = out.split_at_mut(sign_bytes);
        let (codes, rest) = rest.split_at_mut(code_bytes);
        let (stored_table, unused) = rest.split_at_mut(CODED);
        stored_table.copy_from_slice(&table);
        unused.fill(0);
        let mut unused = unused.iter_mut();
        tiles(source, |first, tile| {
            for (sign, bits) in signs[first..].iter_mut().zip(tile) {
                *sign = (bits >> 8 & 0x80 | bits & 0x7f) as u8;
            }
            // Tiles are multiples of eight elements, so each begins at a byte.
            for (stored, eight) in codes[first / 8 * 3..].chunks_mut(3).zip(tile.chunks(8)) {
                let mut word = 0u32;
                for (place, &bits) in eight.iter().enumerate() {
                    let code = code_of[exponent(bits) as usize];
                    word |= (code as u32) << (3 * place);
                    if code == ESCAPE
                        && let Some(byte) = unused.next()
                    {
                        *byte = exponent(bits);
                    }
                }
                stored.copy_from_slice(&word.to_le_bytes()[..stored.len()]);
            }
        })
    }

    fn decode(&self, bytes: &[u8], _rows: usize, out: &mut [f32]) -> Result<(), CodecError> {
        let elements = out.len();
        if elements == 0 {
            return Ok(());
        }
        let corrupt = |needed: usize, room: usize| CodecError::Corrupt {
            format: "bf16_packed",
            needed: needed as u64,
            room: room as u64,
        };
        let room = room(elements, bytes.len()).ok_or_else(|| corrupt(0, 0))?;
        let (sign_bytes, code_bytes) = planes(elements);
        let (signs, rest) = bytes.split_at(sign_bytes);
        let (codes, rest) = rest.split_at(code_bytes);
        let (table, escapes) = rest.split_at(CODED);
        let mut taken = 0;
        let eights = out.chunks_mut(8).zip(signs.chunks(8)).zip(codes.chunks(3));
        for ((values, signs), stored) in eights {
            let mut word = [0; 4];
            word[..stored.len()].copy_from_slice(stored);
            let word = u32::from_le_bytes(word);
            for (place, (value, sign)) in values.iter_mut().zip(signs).enumerate() {
                let code = (word >> (3 * place) & 7) as usize;
                let exponent = match table.get(code) {
                    Some(exponent) => *exponent,
                    None => {
                        taken += 1;
                        escapes.get(taken - 1).copied().unwrap_or(0)
                    }
                };
                let bits = (*sign as u32 & 0x80) << 8 | (exponent as u32) << 7 | *sign as u32 & 0x7f;
                *value = f32::from_bits(bits << 16);
            }
        }
        if taken > room { Err(corrupt(taken, room)) } else { Ok(()) }
    }
}
