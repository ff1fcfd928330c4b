//! A model from the header of a GGUF file, whole or in parts. Its tensors are never read: the header alone will do.

mod header;
mod layers;
mod types;

use crate::diagnostics::{Report, Wrong};
use crate::load::existing_file;
use crate::model::Imported;
use crate::reader::Field;
use crate::tree::{Entry, Node, Value};
use header::{Header, HeaderError};
use layers::ModelError;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The key of a model that is read from a GGUF file.
pub(crate) const KEY: &str = "gguf";
/// Parts that a model may be split in.
const MOST_PARTS: u64 = 4096;
const ENDING: &str = ".gguf";

/// Why a file is no model.
#[derive(Debug, Error)]
pub(crate) enum GgufError {
    #[error("{}: {error}", path.display())]
    Header { path: PathBuf, error: HeaderError },
    #[error("{}: {error}", path.display())]
    Model { path: PathBuf, error: ModelError },
    #[error("{}: part {} of {count}", path.display(), number + 1)]
    NotTheFirst { path: PathBuf, number: u64, count: u64 },
    #[error("{}: the first of {count} parts, but its name does not end in `-00001-of-{count:05}.gguf`", path.display())]
    PartName { path: PathBuf, count: u64 },
    #[error("{}: it is not part {number} of {count}", path.display())]
    WrongPart { path: PathBuf, number: u64, count: u64 },
    #[error("{}: split in {count} parts, more than {MOST_PARTS}", path.display())]
    TooManyParts { path: PathBuf, count: u64 },
}

impl GgufError {
    fn hint(&self) -> &'static str {
        match self {
            GgufError::Header { error: HeaderError::Io(_), .. } => {
                "all parts of a split model are needed, in one folder"
            }
            GgufError::Header { .. } => {
                "take a GGUF file of version 2 or 3, as llama.cpp reads it, or the start of one"
            }
            GgufError::Model { .. } => "take a decoder-only model that llama.cpp runs",
            GgufError::NotTheFirst { .. } => "name the first part, ...-00001-of-...",
            GgufError::PartName { .. } | GgufError::WrongPart { .. } => {
                "keep the names that llama-gguf-split gives"
            }
            GgufError::TooManyParts { .. } => "merge it with llama-gguf-split",
        }
    }

    /// The error as it is reported.
    pub(crate) fn wrong(&self) -> Wrong {
        Wrong::new(self.to_string(), self.hint())
    }
}

/// Whether a path is that of a GGUF file.
pub(crate) fn is_gguf(path: &str) -> bool {
    path.ends_with(ENDING)
}

/// The map that stands for a model which is named by the path of its GGUF file.
pub(crate) fn named(node: &Node) -> Node {
    let entry = Entry { key: KEY.to_owned(), key_at: node.at, value: node.clone() };
    Node { at: node.at, value: Value::Map(vec![entry]) }
}

/// Reads the model that a field names by its path.
pub(crate) fn import(report: &mut Report, field: &Field<'_>) -> Option<Imported> {
    let path = existing_file(report, field)?;
    model(&path).map_err(|error| field.error(report, error.wrong())).ok()
}

/// Reads the model of a file and of the parts that follow it.
pub(crate) fn model(path: &Path) -> Result<Imported, GgufError> {
    let mut header = read(path)?;
    let count = header.whole("split.count").unwrap_or(1);
    if count > MOST_PARTS {
        return Err(GgufError::TooManyParts { path: path.to_owned(), count });
    }
    match header.whole("split.no").unwrap_or(0) {
        0 => {}
        number => return Err(GgufError::NotTheFirst { path: path.to_owned(), number, count }),
    }
    let mut stem = path.file_name().unwrap_or_default().to_string_lossy().trim_end_matches(ENDING).to_owned();
    if count > 1 {
        stem = add_parts(path, count, &mut header)?;
    }
    layers::build(&header, &stem).map_err(|error| GgufError::Model { path: path.to_owned(), error })
}

/// Adds the tensors of the other parts, and returns the name they have in common.
fn add_parts(path: &Path, count: u64, header: &mut Header) -> Result<String, GgufError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ending = |number| format!("-{number:05}-of-{count:05}{ENDING}");
    let Some(stem) = name.strip_suffix(&ending(1)) else {
        return Err(GgufError::PartName { path: path.to_owned(), count });
    };
    for number in 2..=count {
        let path = path.with_file_name(format!("{stem}{}", ending(number)));
        let part = read(&path)?;
        if (part.whole("split.no"), part.whole("split.count")) != (Some(number - 1), Some(count)) {
            return Err(GgufError::WrongPart { path, number, count });
        }
        header.add(part).map_err(|error| GgufError::Header { path, error })?;
    }
    Ok(stem.to_owned())
}

fn read(path: &Path) -> Result<Header, GgufError> {
    let failed = |error| GgufError::Header { path: path.to_owned(), error };
    let read = || -> Result<Header, HeaderError> {
        // Before it is opened: opening a pipe waits for its writer.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a file").into());
        }
        Header::read(BufReader::new(File::open(path)?))
    };
    read().map_err(failed)
}
