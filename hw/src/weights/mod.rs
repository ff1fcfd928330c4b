//! The weights of a published model, from its safetensors files, block by block in the layout of [`crate::codec`].
//!
//! Names, types and shapes of all tensors that blocks are made of are checked when the files are opened; after that only
//! reading can fail. A model is known by its shapes: weights of another one that has the same are taken. What is not a
//! block (attention of a mixture of experts, norms, routers, embeddings) is not read.

mod blocks;
mod files;
mod header;

pub use self::header::HeaderError;

use self::blocks::Source;
use self::files::Files;
use policy::{BlockId, Model};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why weights could not be had.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// The model's blocks have recipes, whose bases and factors are not read from files.
    #[error(
        "`recipe` and `--weights` do not go together: bases and factors are made up; leave one of the two out"
    )]
    Recipe,
    /// A file or a folder cannot be opened.
    #[error("{}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder without weights.
    #[error("{}: there is no `.safetensors` file in it; download the model's weights in that format", folder.display())]
    NoFiles {
        /// The folder.
        folder: PathBuf,
    },
    /// A file is no safetensors file.
    #[error("{}: {source}; fetch the file again, or convert it with the safetensors library", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<HeaderError>,
    },
    /// The index of a sharded model.
    #[error("{}: {problem}; fetch the index and its files from one release", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Two files have the same tensor.
    #[error("tensor `{tensor}` is in {} and in {}; keep the files of one model in a folder", first.display(), second.display())]
    Twice {
        /// The tensor.
        tensor: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A tensor that the model's blocks are made of is in no file.
    #[error("{}: no tensor `{tensor}`{}; the model is {model}: are these its weights?", path.display(), example.as_ref().map_or(String::new(), |name| format!(", but `{name}` and others")))]
    Missing {
        /// The first file.
        path: PathBuf,
        /// The tensor looked for, or several by alternative names.
        tensor: String,
        /// A tensor that is there.
        example: Option<String>,
        /// The model's name.
        model: String,
    },
    /// A tensor is not as the model's blocks ask.
    #[error(transparent)]
    Wrong(Box<WrongTensor>),
    /// Blocks of a kind or format that no reader makes.
    #[error("{model}: {what} cannot be read from safetensors files; use weights from a seed")]
    NoReader {
        /// The model's name.
        model: String,
        /// The blocks.
        what: String,
    },
    /// The bytes of a tensor cannot be read.
    #[error("{}: tensor `{tensor}`, byte {at}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Where in the file.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// The file has become shorter since it was opened.
    #[error("{}: the file has shrunk, and tensor `{tensor}` is not all there; nobody may change it meanwhile", path.display())]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
}

/// A tensor that is not as the model's blocks ask.
#[derive(Debug, Error)]
#[error("{}: tensor `{tensor}` has {what} {found}, not {expected}; the model is {model}: are these its weights?", path.display())]
pub struct WrongTensor {
    /// The file.
    pub path: PathBuf,
    /// The tensor.
    pub tensor: String,
    /// `type` or `shape`.
    pub what: &'static str,
    /// What the file has.
    pub found: String,
    /// What it should have.
    pub expected: String,
    /// The model's name.
    pub model: String,
}

/// The weights of a model's blocks, in files.
#[derive(Debug)]
pub struct Weights {
    files: Files,
    blocks: Vec<Source>,
}

impl Weights {
    /// Opens the weights of `model`: a safetensors file, an index of several, or a folder with either. Everything that
    /// can be checked without reading the numbers is.
    pub fn open(path: &Path, model: &Model) -> Result<Weights, WeightsError> {
        let files = Files::open(path)?;
        let blocks = blocks::find(&files, model)?;
        Ok(Weights { files, blocks })
    }

    /// The bytes of a block in its native format. `id` is one of the model's.
    pub fn native(&self, id: BlockId) -> Result<Vec<u8>, WeightsError> {
        self.blocks[id.index()].read(&self.files)
    }
}
