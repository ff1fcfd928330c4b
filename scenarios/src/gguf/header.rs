//! The header of a GGUF file, versions 2 and 3: its metadata and where its tensors lie. The tensors are not read.
//!
//! Counts and lengths of the file are never believed: nothing is allocated for them, what they promise is read item by
//! item, and no more than [`LONGEST`] bytes of it.

use super::types::TensorType;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use thiserror::Error;

/// The longest header that is read; those of the largest vocabularies are near 20 MB.
const LONGEST: u64 = 256 << 20;
/// Keys and tensors a header may have.
const MOST_KEYS: u64 = 1 << 16;
const MOST_TENSORS: u64 = 1 << 17;
/// Bytes of a name: 65,535 in the specification for a key, 64 in ggml for a tensor.
const LONGEST_NAME: u64 = 65_535;
/// Items of an array that are kept: one for each layer of a model.
const MOST_KEPT: u64 = 4096;
/// Dimensions of a tensor in ggml.
const MOST_DIMENSIONS: u32 = 4;

/// Why a header could not be read.
#[derive(Debug, Error)]
pub(crate) enum HeaderError {
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the file does not begin with `GGUF`")]
    Magic,
    #[error("version {0} of GGUF; 2 and 3 can be read")]
    Version(u32),
    #[error("the file is big-endian; only little-endian GGUF can be read")]
    BigEndian,
    #[error("byte {at}: the file ends within its header, in {within}")]
    Truncated { at: u64, within: &'static str },
    #[error("byte {at}: the header is longer than {LONGEST} bytes")]
    TooLong { at: u64 },
    #[error("byte {at}: {count} {what}, more than {most}")]
    TooMany { at: u64, what: &'static str, count: u64, most: u64 },
    #[error("byte {at}: {what} is not UTF-8")]
    Utf8 { at: u64, what: &'static str },
    #[error("byte {at}: metadata value of unknown type {kind}")]
    ValueType { at: u64, kind: u32 },
    #[error("byte {at}: `{name}` is there twice")]
    Twice { at: u64, name: String },
    #[error("byte {at}: tensor `{name}` is of unknown type {kind}")]
    TensorKind { at: u64, name: String, kind: u32 },
    #[error("byte {at}: tensor `{name}`: {problem}")]
    Shape { at: u64, name: String, problem: &'static str },
    #[error("`general.alignment` is {0}, which is no power of two from 8 to 65536")]
    Alignment(u64),
}

/// A metadata value that was kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kept {
    Text(String),
    Whole(u64),
    /// An array of whole numbers or truth values.
    List(Vec<u64>),
    /// Something the reader has no use for: it is there.
    Other,
}

/// A tensor, as its header describes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    /// Fastest first: columns, rows, experts.
    pub(crate) sides: Vec<u64>,
    pub(crate) kind: &'static TensorType,
    pub(crate) elements: u64,
    pub(crate) bytes: u64,
}

/// A header.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Header {
    pub(crate) keys: BTreeMap<String, Kept>,
    /// By name.
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

impl Header {
    /// Reads a header.
    pub(crate) fn read(input: impl BufRead) -> Result<Header, HeaderError> {
        let mut cursor = Cursor { input, at: 0 };
        if cursor.bytes::<4>("the magic number")? != *b"GGUF" {
            return Err(HeaderError::Magic);
        }
        match cursor.u32("the version")? {
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 1..=3) => return Err(HeaderError::BigEndian),
            version => return Err(HeaderError::Version(version)),
        }
        let tensors = cursor.count("tensors", MOST_TENSORS)?;
        let keys = cursor.count("keys", MOST_KEYS)?;
        let mut header = Header::default();
        for _ in 0..keys {
            let (at, name) = (cursor.at, cursor.text("a key", LONGEST_NAME)?);
            let value = cursor.value()?;
            if header.keys.contains_key(&name) {
                return Err(HeaderError::Twice { at, name });
            }
            header.keys.insert(name, value);
        }
        let alignment = header.alignment()?;
        for _ in 0..tensors {
            let (at, tensor) = (cursor.at, cursor.tensor(alignment)?);
            header.insert(at, tensor)?;
        }
        Ok(header)
    }

    /// Adds the tensors of another part of the model.
    pub(crate) fn add(&mut self, part: Header) -> Result<(), HeaderError> {
        part.tensors.into_iter().try_for_each(|(name, tensor)| self.insert(0, (name, tensor)))
    }

    fn insert(&mut self, at: u64, (name, tensor): (String, Tensor)) -> Result<(), HeaderError> {
        if self.tensors.contains_key(&name) {
            return Err(HeaderError::Twice { at, name });
        }
        let count = self.tensors.len() as u64 + 1;
        if count > MOST_TENSORS {
            return Err(HeaderError::TooMany { at, what: "tensors", count, most: MOST_TENSORS });
        }
        self.tensors.insert(name, tensor);
        Ok(())
    }

    /// A whole number of the metadata.
    pub(crate) fn whole(&self, key: &str) -> Option<u64> {
        match self.keys.get(key)? {
            Kept::Whole(value) => Some(*value),
            _ => None,
        }
    }

    /// A text of the metadata.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.keys.get(key)? {
            Kept::Text(value) => Some(value),
            _ => None,
        }
    }

    /// A whole number that may be given for each layer.
    pub(crate) fn of_layer(&self, key: &str, layer: usize) -> Option<u64> {
        match self.keys.get(key)? {
            Kept::Whole(value) => Some(*value),
            Kept::List(values) => values.get(layer).copied(),
            _ => None,
        }
    }

    fn alignment(&self) -> Result<u64, HeaderError> {
        match self.whole("general.alignment") {
            None => Ok(32),
            Some(given) if given.is_power_of_two() && (8..=65_536).contains(&given) => Ok(given),
            Some(given) => Err(HeaderError::Alignment(given)),
        }
    }
}

/// Bytes of a value of a fixed size, by its type's number: from u8, i8 ... to f64; 8 is text and 9 an array.
const SIZES: [u64; 13] = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
const FLOATS: [u32; 2] = [6, 12];
const SIGNED: [u32; 4] = [1, 3, 5, 11];
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// A place in the header.
struct Cursor<R> {
    input: R,
    at: u64,
}

impl<R: BufRead> Cursor<R> {
    fn bytes<const N: usize>(&mut self, within: &'static str) -> Result<[u8; N], HeaderError> {
        let mut bytes = [0; N];
        self.advance(N as u64)?;
        self.input.read_exact(&mut bytes).map_err(|error| self.ended(error, within))?;
        Ok(bytes)
    }

    fn u32(&mut self, within: &'static str) -> Result<u32, HeaderError> {
        self.bytes(within).map(u32::from_le_bytes)
    }

    fn u64(&mut self, within: &'static str) -> Result<u64, HeaderError> {
        self.bytes(within).map(u64::from_le_bytes)
    }

    fn count(&mut self, what: &'static str, most: u64) -> Result<u64, HeaderError> {
        let (at, count) = (self.at, self.u64(what)?);
        if count > most {
            return Err(HeaderError::TooMany { at, what, count, most });
        }
        Ok(count)
    }

    /// Counts bytes that are about to be read.
    fn advance(&mut self, bytes: u64) -> Result<(), HeaderError> {
        let at = self.at;
        self.at = at.checked_add(bytes).filter(|&end| end <= LONGEST).ok_or(HeaderError::TooLong { at })?;
        Ok(())
    }

    fn ended(&self, error: io::Error, within: &'static str) -> HeaderError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => HeaderError::Truncated { at: self.at, within },
            _ => HeaderError::Io(error),
        }
    }

    fn skip(&mut self, bytes: u64, within: &'static str) -> Result<(), HeaderError> {
        self.advance(bytes)?;
        let skipped = io::copy(&mut self.input.by_ref().take(bytes), &mut io::sink())?;
        if skipped < bytes {
            return Err(HeaderError::Truncated { at: self.at - (bytes - skipped), within });
        }
        Ok(())
    }

    /// A text of at most `most` bytes.
    fn text(&mut self, what: &'static str, most: u64) -> Result<String, HeaderError> {
        let length = self.count(what, most)?;
        let at = self.at;
        self.advance(length)?;
        // Grows as bytes come, whatever the length says.
        let mut bytes = Vec::new();
        self.input.by_ref().take(length).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < length {
            return Err(HeaderError::Truncated { at: at + bytes.len() as u64, within: what });
        }
        String::from_utf8(bytes).map_err(|_| HeaderError::Utf8 { at, what })
    }

    fn value(&mut self) -> Result<Kept, HeaderError> {
        let (at, kind) = (self.at, self.u32("a value's type")?);
        match kind {
            TEXT => self.long_text(),
            ARRAY => self.array(),
            _ => self.number(at, kind).map(|number| number.map_or(Kept::Other, Kept::Whole)),
        }
    }

    /// Chat templates are long; only what could be a name is kept.
    fn long_text(&mut self) -> Result<Kept, HeaderError> {
        let (at, length) = (self.at, self.u64("a text's length")?);
        if length > LONGEST_NAME {
            self.skip(length, "a text")?;
            return Ok(Kept::Other);
        }
        let mut bytes = vec![0; length as usize];
        self.advance(length)?;
        self.input.read_exact(&mut bytes).map_err(|error| self.ended(error, "a text"))?;
        String::from_utf8(bytes).map(Kept::Text).map_err(|_| HeaderError::Utf8 { at, what: "a text" })
    }

    /// A number of a type; `None` if it is a fraction or below zero.
    fn number(&mut self, at: u64, kind: u32) -> Result<Option<u64>, HeaderError> {
        let size = SIZES.get(kind as usize).copied().filter(|&size| size > 0);
        let size = size.ok_or(HeaderError::ValueType { at, kind })?;
        let mut word = [0; 8];
        let (used, _) = word.split_at_mut(size as usize);
        self.advance(size)?;
        self.input.read_exact(used).map_err(|error| self.ended(error, "a value"))?;
        let negative = SIGNED.contains(&kind) && used.last().is_some_and(|&top| top >= 0x80);
        let whole = !FLOATS.contains(&kind) && !negative;
        Ok(whole.then_some(u64::from_le_bytes(word)))
    }

    fn array(&mut self) -> Result<Kept, HeaderError> {
        let (at, kind) = (self.at, self.u32("an array's type")?);
        let count = self.u64("an array's length")?;
        if kind == TEXT {
            for _ in 0..count {
                let length = self.u64("a text of an array")?;
                self.skip(length, "a text of an array")?;
            }
            return Ok(Kept::Other);
        }
        let size = SIZES.get(kind as usize).copied().filter(|&size| size > 0);
        let size = size.ok_or(HeaderError::ValueType { at, kind })?;
        if count > MOST_KEPT {
            self.skip(count.saturating_mul(size), "an array")?;
            return Ok(Kept::Other);
        }
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.number(at, kind)?);
        }
        Ok(values.into_iter().collect::<Option<Vec<u64>>>().map_or(Kept::Other, Kept::List))
    }

    fn tensor(&mut self, alignment: u64) -> Result<(String, Tensor), HeaderError> {
        let at = self.at;
        let name = self.text("a tensor's name", LONGEST_NAME)?;
        let wrong = |problem| HeaderError::Shape { at, name: name.clone(), problem };
        let dimensions = self.u32("a tensor's dimensions")?;
        if dimensions > MOST_DIMENSIONS {
            return Err(wrong("more than 4 dimensions"));
        }
        let mut sides = Vec::new();
        for _ in 0..dimensions {
            sides.push(self.u64("a tensor's dimensions")?);
        }
        let number = self.u32("a tensor's type")?;
        let offset = self.u64("a tensor's offset")?;
        let Some(kind) = TensorType::numbered(number) else {
            return Err(HeaderError::TensorKind { at, name, kind: number });
        };
        let product = sides.iter().try_fold(1u64, |product, &side| product.checked_mul(side));
        let elements = product.filter(|&elements| elements <= 1 << 40).ok_or(wrong("too many elements"))?;
        if elements == 0 {
            return Err(wrong("a dimension of zero"));
        }
        if !sides.first().copied().unwrap_or(1).is_multiple_of(kind.block) {
            return Err(wrong("a row is no whole number of its type's blocks"));
        }
        let bytes = elements / kind.block * kind.bytes;
        if !offset.is_multiple_of(alignment) {
            return Err(wrong("its offset is not aligned"));
        }
        offset.checked_add(bytes).ok_or(wrong("its end is beyond any file"))?;
        Ok((name, Tensor { sides, kind, elements, bytes }))
    }
}
