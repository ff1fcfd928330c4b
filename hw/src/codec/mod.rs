//! The number formats of [`policy::format::FORMATS`] as real bytes, but for those of ggml, see [`has_coder`].
//!
//! A copy of a block is two planes: the elements, in order and little-endian, then the scales, in order. Four-bit
//! elements are packed two to a byte, the earlier one in the low half. Together they take exactly
//! [`FormatId::bytes`]. A block's matrices follow each other, each row by row; a group may reach from one row, or matrix,
//! into the next. Coders use the widest vectors the processor has; the bytes are the same on all of them.
//!
//! | format | element | scale |
//! |---|---|---|
//! | `fp32`, `bf16`, `fp16` | IEEE, nearest even | none |
//! | `fp8_e4m3` | OCP E4M3, nearest even, 448 at most | matrix row, f32: largest magnitude / 448 |
//! | `fp8_e4m3_b128` | the same | 16,384 elements in order, f32; the release it is named for has tiles of 128 by 128 |
//! | `int8` | -127 ..= 127, nearest even | matrix row, f16: largest magnitude / 127 |
//! | `int8_g32` | the same; the numbers of GGUF's Q8_0 | 32 elements, f16 |
//! | `mxfp4` | OCP E2M1, nearest even | 32 elements, E8M0: floor(log2(largest magnitude)) - 2 |
//! | `int4_g32`, `int4_g128` | -7 ..= 7, stored plus 8 | 32 or 128 elements, f16: largest magnitude / 7 |
//! | `bf16_packed` | lossless, see [`packed`] | none |
//!
//! Values that do not fit: `bf16` and `fp16` store a finite value beyond their range as their largest one; infinities
//! and NaN stay what they are. The scaled formats have no place for infinities and NaN and refuse them. A group whose
//! scale underflows is stored as zeros; a scale beyond its own range saturates, and its values with it.

mod element;
pub(crate) mod fp8;
mod int;
mod mx;
mod nibble;
pub mod packed;
mod plain;
mod scaled;

use crate::compute::Kernel;
pub(crate) use element::{CHUNK, Element, read, scaled};
use fearless_simd::Level;
use plain::Plain;
use policy::format::{FORMATS, FormatId};
use policy::model::Matrix;
pub(crate) use scaled::Sharing;
use thiserror::Error;

/// Why bytes could not be coded.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum CodecError {
    /// The format is not in the table.
    #[error("format number {0} is not in the table of formats")]
    UnknownFormat(u8),
    /// A row of the table has no coder.
    #[error("{0} has no coder in this build")]
    NoCoder(&'static str),
    /// A buffer is not of the size the format takes.
    #[error("{format} takes {expected} bytes here, the buffer has {got}")]
    WrongSize {
        /// The format.
        format: &'static str,
        /// Bytes it takes.
        expected: u64,
        /// Bytes there are.
        got: u64,
    },
    /// There are not as many values as the matrices have elements.
    #[error("the matrices have {elements} elements, {values} values were given")]
    WrongCount {
        /// Elements of the matrices.
        elements: u64,
        /// Values given.
        values: u64,
    },
    /// Matrices larger than any memory.
    #[error("the matrices have more elements than this machine can address")]
    TooLarge,
    /// An infinity or a NaN for a format that has no place for it.
    #[error(
        "element {element} is {value}: {format} stores finite values only; keep the block in its native format"
    )]
    NotFinite {
        /// The format.
        format: &'static str,
        /// The element.
        element: u64,
        /// Its value.
        value: f32,
    },
    /// The exponents of a block are too many for the lossless packing.
    #[error(
        "bf16_packed has room for {room} exponents without a code, the block has {escapes}; keep it in bf16"
    )]
    DoesNotPack {
        /// Exponents without a code.
        escapes: u64,
        /// How many fit.
        room: u64,
    },
    /// A value that the lossless packing would have to round.
    #[error("element {element} is {value}, which bf16 cannot hold; bf16_packed codes without loss")]
    NotBf16 {
        /// The element.
        element: u64,
        /// Its value.
        value: f32,
    },
    /// Bytes no encoder wrote.
    #[error("{format}: {fault}")]
    Corrupt {
        /// The format.
        format: &'static str,
        /// What is wrong with them.
        fault: Fault,
    },
}

/// What a decoder found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The codes ask for more exponents than the buffer has room for.
    #[error("the codes name {needed} exponents without a code, {room} are there")]
    Room {
        /// Exponents the codes ask for.
        needed: u64,
        /// How many there are at most.
        room: u64,
    },
    /// The offset of a tile is not the number of exponents without a code before it.
    #[error(
        "tile {tile} says that {stored} exponents without a code come before it, the codes have {counted}"
    )]
    Offset {
        /// The tile of 4096 elements.
        tile: u64,
        /// What its offset says.
        stored: u64,
        /// What the codes say.
        counted: u64,
    },
}

/// Takes the elements of a copy in turn: the first one's number, and a tile of values.
type Tiles<'a> = &'a mut dyn FnMut(usize, &[f32]);

/// Writes values from an element on to a buffer of the whole copy.
type Write = fn(Level, usize, &[f32], &mut [u8]);

/// Writes a copy in the native format that a lossless one was made from.
type Expand = fn(Level, &[u8], &mut [u8]) -> Result<(), CodecError>;

/// One coder. Sizes have been checked before it is called.
trait Codec: Sync {
    /// Writes `source` to `out`.
    fn encode(
        &self,
        level: Level,
        source: Plain<'_>,
        matrices: &[Matrix],
        out: &mut [u8],
    ) -> Result<(), CodecError>;

    /// Reads the elements back.
    fn decode(
        &self,
        level: Level,
        bytes: &[u8],
        matrices: &[Matrix],
        tiles: Tiles<'_>,
    ) -> Result<(), CodecError>;

    /// How to write a part of a copy, for formats whose elements do not depend on each other.
    fn writer(&self) -> Option<Write> {
        None
    }

    /// How to expand a copy to the format that this one codes without loss.
    fn expander(&self) -> Option<Expand> {
        None
    }

    /// How matrices in this format are multiplied, if they are read as they are.
    fn kernel(&self) -> Option<Kernel> {
        None
    }
}

/// The coders, by the name of their format.
const CODECS: &[(&str, &dyn Codec)] = &[
    ("fp32", &plain::Alone::<plain::Fp32>::new()),
    ("bf16", &plain::Alone::<plain::Bf16>::new()),
    ("fp16", &plain::Alone::<plain::Fp16>::new()),
    ("fp8_e4m3", &scaled::Scaled::<fp8::E4m3>::by_row("fp8_e4m3")),
    ("fp8_e4m3_b128", &scaled::Scaled::<fp8::E4m3>::by_group("fp8_e4m3_b128", 128 * 128)),
    ("int8", &scaled::Scaled::<int::Int8>::by_row("int8")),
    ("int8_g32", &scaled::Scaled::<int::Int8>::by_group("int8_g32", 32)),
    ("mxfp4", &scaled::Scaled::<mx::E2m1>::by_group("mxfp4", 32)),
    ("int4_g32", &scaled::Scaled::<int::Int4>::by_group("int4_g32", 32)),
    ("int4_g128", &scaled::Scaled::<int::Int4>::by_group("int4_g128", 128)),
    ("bf16_packed", &packed::Packed),
];

/// Whether this build codes a format. Those of ggml are read from model files and have no coder yet.
pub fn has_coder(format: FormatId) -> bool {
    FORMATS.get(format.0 as usize).is_some_and(|row| CODECS.iter().any(|(name, _)| *name == row.name))
}

/// The formats that this build codes, in the order of their table.
pub fn coded() -> impl Iterator<Item = FormatId> {
    (0..FORMATS.len() as u8).map(FormatId).filter(|&format| has_coder(format))
}

/// Writes `values`, the elements of `matrices` one after another, to `out` in `format`. `out` is exactly
/// [`FormatId::bytes`] long.
pub fn encode(
    format: FormatId,
    values: &[f32],
    matrices: &[Matrix],
    out: &mut [u8],
) -> Result<(), CodecError> {
    let coder = coder(format, matrices, out.len())?;
    check_count(matrices, values.len())?;
    coder.encode(Level::new(), Plain::Fp32(bytemuck::cast_slice(values)), matrices, out)
}

/// Reads the elements of a copy in `format` into `out`, which has as many elements as the matrices.
pub fn decode(
    format: FormatId,
    bytes: &[u8],
    matrices: &[Matrix],
    out: &mut [f32],
) -> Result<(), CodecError> {
    let coder = coder(format, matrices, bytes.len())?;
    check_count(matrices, out.len())?;
    coder.decode(Level::new(), bytes, matrices, &mut |first, values| {
        out[first..first + values.len()].copy_from_slice(values);
    })
}

/// Writes a copy in format `from` to `out` in format `to`, tile by tile where one of them has no scales; else all
/// elements are expanded first.
pub fn transcode(
    from: FormatId,
    bytes: &[u8],
    to: FormatId,
    matrices: &[Matrix],
    out: &mut [u8],
) -> Result<(), CodecError> {
    let level = Level::new();
    let reader = coder(from, matrices, bytes.len())?;
    let writer = coder(to, matrices, out.len())?;
    if from == to {
        out.copy_from_slice(bytes);
        return Ok(());
    }
    if let Some(source) = Plain::of(from.name(), bytes) {
        return writer.encode(level, source, matrices, out);
    }
    if let Some(expand) = reader.expander().filter(|_| from.get().lossless_of == Some(to.name())) {
        return expand(level, bytes, out);
    }
    if let Some(write) = writer.writer() {
        return reader.decode(level, bytes, matrices, &mut |first, values| write(level, first, values, out));
    }
    let mut values = vec![0.0f32; elements(matrices)];
    decode(from, bytes, matrices, &mut values)?;
    writer.encode(level, Plain::Fp32(bytemuck::cast_slice(&values)), matrices, out)
}

/// How the copy `bytes` is multiplied; `None` if it must be expanded first.
pub(crate) fn kernel(
    format: FormatId,
    bytes: &[u8],
    matrices: &[Matrix],
) -> Result<Option<Kernel>, CodecError> {
    Ok(coder(format, matrices, bytes.len())?.kernel())
}

/// The coder of a format, once the size of the coded buffer has been found right.
fn coder(format: FormatId, matrices: &[Matrix], got: usize) -> Result<&'static dyn Codec, CodecError> {
    let row = FORMATS.get(format.0 as usize).ok_or(CodecError::UnknownFormat(format.0))?;
    let found = CODECS.iter().find(|(name, _)| *name == row.name).ok_or(CodecError::NoCoder(row.name))?;
    let total = |of: fn(&Matrix) -> Option<u64>| {
        matrices.iter().try_fold(0u64, |sum, matrix| sum.checked_add(of(matrix)?)).ok_or(CodecError::TooLarge)
    };
    let elements = total(|matrix| matrix.rows.checked_mul(matrix.columns))?;
    let expected = format.bytes(elements, total(|matrix| Some(matrix.rows))?).0;
    if expected != got as u64 {
        return Err(CodecError::WrongSize { format: row.name, expected, got: got as u64 });
    }
    Ok(found.1)
}

/// The elements of matrices that [`coder`] has found to fit in memory.
pub(crate) fn elements(matrices: &[Matrix]) -> usize {
    matrices.iter().map(|matrix| matrix.elements() as usize).sum()
}

fn check_count(matrices: &[Matrix], values: usize) -> Result<(), CodecError> {
    let elements = elements(matrices);
    if elements == values {
        Ok(())
    } else {
        Err(CodecError::WrongCount { elements: elements as u64, values: values as u64 })
    }
}

/// Every set of vectors that this processor has, the widest first.
#[cfg(test)]
pub(crate) fn levels() -> impl Iterator<Item = Level> {
    let widest = Level::new();
    #[cfg(target_arch = "x86_64")]
    let narrower = [
        widest.as_avx2().map(Level::Avx2),
        widest.as_sse4_2().map(Level::Sse4_2),
        widest.as_sse2().map(Level::Sse2),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let narrower = [None];
    std::iter::once(widest).chain(narrower.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_writes_and_reads_the_same_bytes() {
        // Rows of odd widths, several tiles, magnitudes from the smallest to the largest.
        let matrices = [Matrix { rows: 3, columns: 4321 }, Matrix { rows: 2, columns: 77 }];
        let bits = |at: u32| at.wrapping_mul(2_654_435_761) & 0xffff_0000;
        let finite = |at| Some(f32::from_bits(bits(at))).filter(|value| value.abs() < 1e30).unwrap_or(0.5);
        let wild: Vec<f32> = (0..13_117).map(finite).collect();
        // For the lossless packing: few exponents.
        let tame: Vec<f32> =
            wild.iter().map(|value| f32::from_bits(value.to_bits() & 0x81ff_ffff | 0x3c00_0000)).collect();
        let bytes = vec![0; 13_117 * 4];
        for (name, coder) in CODECS {
            let format = FormatId::named(name).unwrap();
            let coded = &bytes[..format.bytes(13_117, 5).0 as usize];
            for values in [&wild, &tame] {
                let mut results = levels().map(|level| {
                    let (mut coded, mut back) = (coded.to_vec(), Vec::new());
                    let source = Plain::Fp32(bytemuck::cast_slice(values));
                    coder.encode(level, source, &matrices, &mut coded)?;
                    coder.decode(level, &coded, &matrices, &mut |_, tile| back.extend_from_slice(tile))?;
                    Ok((coded, back))
                });
                let widest: Result<(Vec<u8>, Vec<f32>), CodecError> = results.next().unwrap();
                assert!(results.all(|result| result == widest), "{name}");
                assert!(widest.is_ok() || *name == "bf16_packed" && values == &wild, "{name}");
            }
        }
    }
}
