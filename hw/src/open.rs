//! The devices there are, by name.

use crate::cuda::Cuda;
use crate::cuda::error::CudaError;
use crate::engine::Engine;
use crate::host::Host;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why there is no such device.
#[derive(Debug, Error)]
pub enum OpenError {
    /// No kind of device has this name.
    #[error("no device is called `{0}`: write host, or cuda:0 for the first CUDA device")]
    Unknown(String),
    /// The machine cannot give it.
    #[error("{device} cannot be opened: {source}")]
    Absent {
        /// What was asked for.
        device: String,
        /// Why.
        source: CudaError,
    },
    /// Files of tiers cannot be where there is no folder.
    #[error("{}: no such folder for the files of tiers: make it, or name another", .0.display())]
    NoFolder(PathBuf),
}

/// Opens a device: `host`, or `cuda:N`. Tiers of files are in `folder`.
pub fn open(name: &str, folder: &Path) -> Result<Box<dyn Engine>, OpenError> {
    if !folder.is_dir() {
        return Err(OpenError::NoFolder(folder.to_owned()));
    }
    if name == "host" {
        return Ok(Box::new(Host::new(folder)));
    }
    let number = name.strip_prefix("cuda:").and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| OpenError::Unknown(name.to_owned()))?;
    let cuda =
        Cuda::open(number, folder).map_err(|source| OpenError::Absent { device: name.to_owned(), source })?;
    Ok(Box::new(cuda))
}
