//! The number formats of [`policy::format::FORMATS`] as real bytes, but for those of ggml, see [`has_coder`].
//!
//! A copy of a block is two planes: the elements, in order and little-endian, then the scales, in order. Four-bit
//! elements are packed two to a byte, the earlier one in the low half. Together they take exactly
//! [`FormatId::bytes`]. A block is known by its elements and rows only, so row `r` of `n` elements in `rows` rows is
//! the range `r * n / rows .. (r + 1) * n / rows`.
//!
//! | format | element | scale |
//! |---|---|---|
//! | `fp32`, `bf16`, `fp16` | IEEE, nearest even | none |
//! | `fp8_e4m3` | OCP E4M3, nearest even, 448 at most | row, f32: largest magnitude / 448 |
//! | `fp8_e4m3_b128` | the same | 16,384 elements in order, f32; the release it is named for has tiles of 128 by 128 |
//! | `int8` | -127 ..= 127, nearest even | row, f16: largest magnitude / 127 |
//! | `int8_g32` | the same; the numbers of GGUF's Q8_0 | 32 elements, f16 |
//! | `mxfp4` | OCP E2M1, nearest even | 32 elements, E8M0: floor(log2(largest magnitude)) - 2 |
//! | `int4_g32`, `int4_g128` | -7 ..= 7, stored plus 8 | 32 or 128 elements, f16: largest magnitude / 7 |
//! | `bf16_packed` | lossless, see [`packed`] | none |
//!
//! Values that do not fit: `bf16` and `fp16` store a finite value beyond their range as their largest one; infinities
//! and NaN stay what they are. The scaled formats have no place for infinities and NaN and refuse them. A group whose
//! scale underflows is stored as zeros; a scale beyond its own range saturates, and its values with it.

mod fp8;
mod int;
mod mx;
mod nibble;
pub mod packed;
mod plain;
mod scaled;

use policy::format::{FORMATS, FormatId};
use thiserror::Error;

pub(crate) use plain::Plain;

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
    /// A format with a scale for each row was given elements and no rows.
    #[error("{format} keeps a scale for each row, and the block has no rows")]
    NoRows {
        /// The format.
        format: &'static str,
    },
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
    #[error("{format}: the bytes name {needed} exponents without a code, {room} are there")]
    Corrupt {
        /// The format.
        format: &'static str,
        /// Exponents the codes ask for.
        needed: u64,
        /// How many there are.
        room: u64,
    },
}

/// One coder. Sizes have been checked before it is called.
trait Codec: Sync {
    /// Writes `source`, in `rows` rows, to `out`.
    fn encode(&self, source: Plain<'_>, rows: usize, out: &mut [u8]) -> Result<(), CodecError>;

    /// Reads the elements back.
    fn decode(&self, bytes: &[u8], rows: usize, out: &mut [f32]) -> Result<(), CodecError>;
}

/// The coders, by the name of their format.
const CODECS: &[(&str, &dyn Codec)] = &[
    ("fp32", &plain::Fp32),
    ("bf16", &plain::Bf16),
    ("fp16", &plain::Fp16),
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

/// Writes `values`, in `rows` rows, to `out` in `format`. `out` is exactly [`FormatId::bytes`] long.
pub fn encode(format: FormatId, values: &[f32], rows: u64, out: &mut [u8]) -> Result<(), CodecError> {
    let coder = coder(format, values.len(), rows, out.len())?;
    coder.encode(Plain::Fp32(bytemuck::cast_slice(values)), rows as usize, out)
}

/// Reads the elements of a copy in `format` into `out`, whose length is the number of elements.
pub fn decode(format: FormatId, bytes: &[u8], rows: u64, out: &mut [f32]) -> Result<(), CodecError> {
    coder(format, out.len(), rows, bytes.len())?.decode(bytes, rows as usize, out)
}

/// Writes a copy in format `from` to `out` in format `to`. Plain sources are read tile by tile; from a coded source
/// all elements are expanded first.
pub fn transcode(
    from: FormatId,
    bytes: &[u8],
    to: FormatId,
    elements: u64,
    rows: u64,
    out: &mut [u8],
) -> Result<(), CodecError> {
    let (elements, row_count) = (elements as usize, rows as usize);
    let reader = coder(from, elements, rows, bytes.len())?;
    let writer = coder(to, elements, rows, out.len())?;
    if from == to {
        out.copy_from_slice(bytes);
        return Ok(());
    }
    if let Some(source) = Plain::of(from.name(), bytes) {
        return writer.encode(source, row_count, out);
    }
    let mut values = vec![0.0f32; elements];
    reader.decode(bytes, row_count, &mut values)?;
    writer.encode(Plain::Fp32(bytemuck::cast_slice(&values)), row_count, out)
}

/// The coder of a format, once the size of the coded buffer has been found right.
fn coder(format: FormatId, elements: usize, rows: u64, got: usize) -> Result<&'static dyn Codec, CodecError> {
    let row = FORMATS.get(format.0 as usize).ok_or(CodecError::UnknownFormat(format.0))?;
    let found = CODECS.iter().find(|(name, _)| *name == row.name).ok_or(CodecError::NoCoder(row.name))?;
    let expected = format.bytes(elements as u64, rows).0;
    if expected != got as u64 {
        return Err(CodecError::WrongSize { format: row.name, expected, got: got as u64 });
    }
    Ok(found.1)
}
