//! The devices there are, by name.

use crate::cuda::Cuda;
use crate::cuda::error::CudaError;
use crate::cuda::gpu::Gpu;
use crate::cuda::mixers::GpuMixers;
use crate::engine::Engine;
use crate::host::Host;
use crate::recurrent::mixers::{HostMixers, Mixers};
use policy::units::Nanos;
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

/// Opens a device for what it computes of recurrent layers and of attention: `host`, or `cuda:N`. One thing is measured for about as
/// long as `patience`.
pub fn mixers(name: &str, patience: Nanos) -> Result<Box<dyn Mixers>, OpenError> {
    if name == "host" {
        return Ok(Box::new(HostMixers::new(patience)));
    }
    let number = name.strip_prefix("cuda:").and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| OpenError::Unknown(name.to_owned()))?;
    let gpu = Gpu::open(number).map_err(|source| OpenError::Absent { device: name.to_owned(), source })?;
    Ok(Box::new(GpuMixers::new(gpu, patience)))
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
