//! The files of a model: one, or several with or without an index that says which tensor is where.
//!
//! Tensors are read by position when they are wanted. Nothing is mapped: a file that shrinks under a map kills the
//! process, one that shrinks under a read is an error.

use super::WeightsError;
use super::header::{self, Tensor};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The index of a sharded model, as Hugging Face names it.
const INDEX: &str = "model.safetensors.index.json";
/// The longest index that is read: as a header.
const LONGEST_INDEX: u64 = 100_000_000;

/// A tensor and where it is.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) name: String,
    pub(super) tensor: Tensor,
    file: usize,
}

/// Open files and what is in them.
#[derive(Debug)]
pub(super) struct Files {
    files: Vec<(PathBuf, File)>,
    tensors: Vec<Placed>,
    by_name: BTreeMap<String, usize>,
}

/// Bytes of a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slab {
    /// Its number.
    pub(super) tensor: usize,
    /// The first byte, from the tensor's first on.
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// What of an index is read.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Files {
    /// Opens a file, an index, or a folder with either, and reads the headers.
    pub(super) fn open(path: &Path) -> Result<Files, WeightsError> {
        if !path.is_dir() {
            let is_index = path.extension().is_some_and(|extension| extension == "json");
            return if is_index { Files::indexed(path) } else { Files::of(vec![path.to_owned()]) };
        }
        let index = path.join(INDEX);
        if index.exists() { Files::indexed(&index) } else { Files::of(files_in(path)?) }
    }

    /// Opens files no two of which may have a tensor of the same name.
    fn of(paths: Vec<PathBuf>) -> Result<Files, WeightsError> {
        let mut all = Files { files: vec![], tensors: vec![], by_name: BTreeMap::new() };
        for path in paths {
            let file = regular(&path).map_err(|source| WeightsError::Open { path: path.clone(), source })?;
            let tensors = header::read(&file)
                .map_err(|source| WeightsError::Header { path: path.clone(), source: Box::new(source) })?;
            for (name, tensor) in tensors {
                if let Some(first) = all.by_name.insert(name.clone(), all.tensors.len()) {
                    let first = all.path(first).to_owned();
                    return Err(WeightsError::Twice { tensor: name, first, second: path });
                }
                all.tensors.push(Placed { name, tensor, file: all.files.len() });
            }
            all.files.push((path, file));
        }
        Ok(all)
    }

    /// Opens the files that an index names.
    fn indexed(path: &Path) -> Result<Files, WeightsError> {
        let wrong = |problem: String| WeightsError::Index { path: path.to_owned(), problem };
        let unread = |source| WeightsError::Open { path: path.to_owned(), source };
        let mut text = Vec::new();
        let mut start = regular(path).map_err(unread)?.take(LONGEST_INDEX + 1);
        start.read_to_end(&mut text).map_err(unread)?;
        if text.len() as u64 > LONGEST_INDEX {
            return Err(wrong(format!("it has more than {LONGEST_INDEX} bytes")));
        }
        let Index { weight_map } = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let names: BTreeSet<&String> = weight_map.values().collect();
        if let Some(name) =
            names.iter().find(|name| Path::new(name.as_str()).file_name() != Some(name.as_ref()))
        {
            return Err(wrong(format!("`{name}` is not the name of a file beside it")));
        }
        let files = Files::of(names.into_iter().map(|name| folder.join(name)).collect())?;
        for (tensor, file) in &weight_map {
            let found = files.find(tensor).map(|number| files.path(number));
            if found != Some(&folder.join(file)) {
                return Err(wrong(format!("tensor `{tensor}` is not in {file}, where it should be")));
            }
        }
        Ok(files)
    }

    /// The number of the tensor of this name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// A tensor.
    pub(super) fn tensor(&self, number: usize) -> &Placed {
        &self.tensors[number]
    }

    /// The file that a tensor is in.
    pub(super) fn path(&self, number: usize) -> &Path {
        &self.files[self.tensors[number].file].0
    }

    /// The first file's path, and its first tensor, for people who look for others.
    pub(super) fn example(&self) -> (PathBuf, Option<&str>) {
        let path = self.files.first().map_or(PathBuf::new(), |(path, _)| path.clone());
        (path, self.tensors.first().map(|placed| placed.name.as_str()))
    }

    /// Reads bytes of a tensor and adds them to `out`.
    pub(super) fn read(&self, slab: Slab, out: &mut Vec<u8>) -> Result<(), WeightsError> {
        let Placed { name, tensor, file } = &self.tensors[slab.tensor];
        let (path, file) = &self.files[*file];
        let begin = out.len();
        // The range lay within the file when it was opened, so this is no more than the file had.
        out.resize(begin + slab.bytes as usize, 0);
        let at = tensor.at + slab.offset;
        file.read_exact_at(&mut out[begin..], at).map_err(|source| {
            let (path, tensor) = (path.clone(), name.clone());
            match source.kind() {
                io::ErrorKind::UnexpectedEof => WeightsError::Shrunk { path, tensor },
                _ => WeightsError::Read { path, tensor, at, source },
            }
        })
    }
}

/// Opens a file that is one: a pipe would be waited for.
fn regular(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

/// The safetensors files of a folder, by name.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let unread = |source| WeightsError::Open { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unread)? {
        let path = entry.map_err(unread)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() { Err(WeightsError::NoFiles { folder: folder.to_owned() }) } else { Ok(paths) }
}
