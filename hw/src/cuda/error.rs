//! What keeps an accelerator from being used, or from going on.

use super::launch::LaunchError;
use cudarc::cublaslt::result::CublasError;
use cudarc::driver::DriverError;
use std::path::PathBuf;
use thiserror::Error;

/// The first error of a device is its last: CUDA leaves a context that failed unusable.
#[derive(Debug, Error)]
pub enum CudaError {
    /// The library is not there.
    #[error("there is no CUDA driver here: libcuda.so.1 is not on the library path; use the device `host`")]
    NoDriver,
    /// The library lacks calls we make.
    #[error("the CUDA driver is of version {found}, {needed} or later is needed; update it")]
    OldDriver {
        /// Its version: 13000 is 13.0.
        found: i32,
        /// The least that serves.
        needed: i32,
    },
    /// The number is not that of a device.
    #[error("there is no device cuda:{asked}; the driver knows {there}")]
    NoDevice {
        /// The number asked for.
        asked: u32,
        /// How many there are.
        there: i32,
    },
    /// The kernels are for later ones.
    #[error("{name} has compute capability {}.{}, 8.0 or later is needed", found.0, found.1)]
    OldDevice {
        /// The device.
        name: String,
        /// Its capability.
        found: (i32, i32),
    },
    /// A call of the driver's failed.
    #[error("{call} failed: {source}")]
    Driver {
        /// What was being done.
        call: &'static str,
        /// Why not.
        source: DriverError,
    },
    /// cuBLASLt refused.
    #[error("cuBLASLt failed: {source}")]
    Blas {
        /// Why.
        source: CublasError,
    },
    /// A copy that the kernels cannot expand.
    #[error("block {block}: the bytes of its packed copy are corrupt")]
    Corrupt {
        /// The block.
        block: u32,
    },
    /// A launch that cannot be planned.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Kernels that a developer wants compiled instead of those within.
    #[error("HOTSET_KERNELS names {}: {why}", folder.display())]
    Kernels {
        /// The folder.
        folder: PathBuf,
        /// What NVRTC or the system says.
        why: String,
    },
}

/// Says what was being done when the driver refused.
pub(super) trait Doing<T> {
    /// Names the call.
    fn doing(self, call: &'static str) -> Result<T, CudaError>;
}

impl<T> Doing<T> for Result<T, DriverError> {
    fn doing(self, call: &'static str) -> Result<T, CudaError> {
        self.map_err(|source| CudaError::Driver { call, source })
    }
}
