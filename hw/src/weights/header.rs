//! The header of a safetensors file: which tensors it has, of which type and shape, and where they lie.
//!
//! Nothing of the file is believed. The header is no longer than the file, and than [`LONGEST`]; every tensor's range
//! holds exactly what its type and shape take, and the ranges are the file's data without gap or overlap, as the format
//! asks. The `safetensors` crate wants the whole file in one buffer, does not name the tensor that is wrong, and takes
//! the last of two tensors of one name; so the header is read here, and the crate is what the tests compare it with.

use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use thiserror::Error;

/// The longest header that is read; the format's own limit.
const LONGEST: u64 = 100_000_000;
/// Bytes that say how long the header is.
const LENGTH: u64 = 8;
/// The key that is no tensor.
const METADATA: &str = "__metadata__";

/// Why a header could not be read.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// The system cannot read the file.
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Too short for the length of a header.
    #[error("the file has {len} bytes; a safetensors file begins with the length of its header in 8")]
    NoLength {
        /// Bytes of the file.
        len: u64,
    },
    /// The header is said to go beyond the end, or beyond all measure.
    #[error(
        "byte 0: the header is said to have {said} bytes; the file has {left} more, and {LONGEST} are the most"
    )]
    Length {
        /// What the file says.
        said: u64,
        /// Bytes after the length.
        left: u64,
    },
    /// The header is not what the format says.
    #[error("byte {LENGTH} and on: {0}")]
    Json(#[from] serde_json::Error),
    /// A type that the format does not have.
    #[error("tensor `{tensor}`: there is no type `{dtype}`")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// What the file says.
        dtype: String,
    },
    /// The range of a tensor is not as long as its type and shape ask.
    #[error("tensor `{tensor}`: {dtype} {shape:?} is not what bytes {begin} to {end} of the data hold")]
    Size {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: &'static str,
        /// Its shape.
        shape: Vec<u64>,
        /// Where its range begins, in the data.
        begin: u64,
        /// Where it ends.
        end: u64,
    },
    /// Tensors overlap, or leave a gap.
    #[error(
        "tensor `{tensor}` begins at byte {begin} of the data, where the tensors before it end at {before}"
    )]
    Gap {
        /// The tensor.
        tensor: String,
        /// Where its range begins.
        begin: u64,
        /// Where it should.
        before: u64,
    },
    /// The data is shorter or longer than the tensors.
    #[error(
        "the tensors have {tensors} bytes, the file has {data} after its header; it was cut off or added to"
    )]
    End {
        /// Bytes of all tensors.
        tensors: u64,
        /// Bytes there are.
        data: u64,
    },
}

/// A row of [`DTYPES`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dtype {
    pub(super) name: &'static str,
    bits: u64,
}

/// The format's types.
const DTYPES: &[Dtype] = &[
    Dtype { name: "BOOL", bits: 8 },
    Dtype { name: "F4", bits: 4 },
    Dtype { name: "F6_E2M3", bits: 6 },
    Dtype { name: "F6_E3M2", bits: 6 },
    Dtype { name: "U8", bits: 8 },
    Dtype { name: "I8", bits: 8 },
    Dtype { name: "F8_E5M2", bits: 8 },
    Dtype { name: "F8_E4M3", bits: 8 },
    Dtype { name: "F8_E8M0", bits: 8 },
    Dtype { name: "F8_E4M3FNUZ", bits: 8 },
    Dtype { name: "F8_E5M2FNUZ", bits: 8 },
    Dtype { name: "I16", bits: 16 },
    Dtype { name: "U16", bits: 16 },
    Dtype { name: "F16", bits: 16 },
    Dtype { name: "BF16", bits: 16 },
    Dtype { name: "I32", bits: 32 },
    Dtype { name: "U32", bits: 32 },
    Dtype { name: "F32", bits: 32 },
    Dtype { name: "C64", bits: 64 },
    Dtype { name: "F64", bits: 64 },
    Dtype { name: "I64", bits: 64 },
    Dtype { name: "U64", bits: 64 },
];

/// A tensor of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) dtype: &'static Dtype,
    pub(super) shape: Vec<u64>,
    /// Its first byte in the file.
    pub(super) at: u64,
    pub(super) bytes: u64,
}

/// What the header says of a tensor.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The entries of a header, by name.
struct Entries(BTreeMap<String, Entry>);

/// The tensors of a file, by name.
pub(super) fn read(file: &File) -> Result<BTreeMap<String, Tensor>, HeaderError> {
    let len = file.metadata()?.len();
    let left = len.checked_sub(LENGTH).ok_or(HeaderError::NoLength { len })?;
    let mut length = [0; LENGTH as usize];
    file.read_exact_at(&mut length, 0)?;
    let said = u64::from_le_bytes(length);
    if said > left || said > LONGEST {
        return Err(HeaderError::Length { said, left });
    }
    let mut header = vec![0; said as usize];
    file.read_exact_at(&mut header, LENGTH)?;
    let Entries(entries) = serde_json::from_slice(&header)?;
    place(entries, LENGTH + said, left - said)
}

/// Checks every entry and finds its tensor's place, the data being `data` bytes from byte `first` of the file on.
fn place(
    entries: BTreeMap<String, Entry>,
    first: u64,
    data: u64,
) -> Result<BTreeMap<String, Tensor>, HeaderError> {
    let mut entries: Vec<(String, Entry)> = entries.into_iter().collect();
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut before = 0;
    let mut tensors = BTreeMap::new();
    for (name, Entry { dtype, shape, data_offsets: [begin, end] }) in entries {
        if begin != before {
            return Err(HeaderError::Gap { tensor: name, begin, before });
        }
        let Some(dtype) = DTYPES.iter().find(|row| row.name == dtype) else {
            return Err(HeaderError::Dtype { tensor: name, dtype });
        };
        let elements = shape.iter().try_fold(1u64, |product, side| product.checked_mul(*side));
        let bits = elements.and_then(|elements| elements.checked_mul(dtype.bits));
        let bytes = end.checked_sub(begin);
        let bytes = bytes.filter(|bytes| bits.is_some() && bits == bytes.checked_mul(8));
        let Some(bytes) = bytes else {
            return Err(HeaderError::Size { tensor: name, dtype: dtype.name, shape, begin, end });
        };
        before = end;
        // Beyond the end of the file is found below; until then the sum must only not wrap.
        tensors.insert(name, Tensor { dtype, shape, at: first.saturating_add(begin), bytes });
    }
    if before != data {
        return Err(HeaderError::End { tensors: before, data });
    }
    Ok(tensors)
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                map.next_value::<IgnoredAny>()?;
            } else if entries.insert(name.clone(), map.next_value()?).is_some() {
                return Err(A::Error::custom(format_args!("tensor `{name}` is there twice")));
            }
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
mod tests;
