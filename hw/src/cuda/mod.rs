//! A CUDA device as an engine: its memory behind the tiers that are its own, its copy engines and kernels for the jobs.
//!
//! The driver is loaded at run time; without one, opening a device is an error that says so. `gpu` is the driver's side,
//! `memory` what it allocates, `launch` and `products` plan launches of the kernels in `hw/kernels`, and do nothing else,
//! so that tests can hand the same launches to kernels built for the CPU. `coder`, `copies` and `compute` carry jobs out.

mod blas;
mod coder;
mod compute;
mod copies;
pub mod error;
pub mod gpu;
pub mod launch;
pub mod memory;
pub mod products;

use self::compute::ComputeWorker;
use self::copies::CopyWorker;
use self::error::CudaError;
use self::gpu::Gpu;
use self::memory::Slab;
use crate::arena::{Arena, ArenaError};
use crate::content::Contents;
use crate::engine::{Engine, JobError, LaneKind, Worker};
use crate::host::{Host, HostWorker, available, enough};
use crate::refusal::DeviceError;
use crate::store::{Memory, Store};
use policy::machine::{Backing, Tier};
use policy::units::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An accelerator, and the host it sits in.
pub struct Cuda {
    ordinal: u32,
    gpu: Arc<Gpu>,
    folder: PathBuf,
}

impl Cuda {
    /// Opens device number `ordinal`. Tiers of files are in `folder`.
    pub fn open(ordinal: u32, folder: &Path) -> Result<Cuda, CudaError> {
        Ok(Cuda { ordinal, gpu: Gpu::open(ordinal)?, folder: folder.to_owned() })
    }

    /// The device itself.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
}

impl Engine for Cuda {
    fn name(&self) -> String {
        format!("cuda:{} ({})", self.ordinal, self.gpu.name())
    }

    /// Of the device's memory what is free, less a sixteenth for what the driver and launches take.
    fn capacity(&self) -> [Bytes; 3] {
        let [_, host, disk] = Host::new(&self.folder).capacity();
        let free = self.gpu.free_memory().unwrap_or(0);
        [Bytes((free - free / 16) >> 20 << 20), host, disk]
    }

    fn room(&self, fast: Bytes, host: Bytes) -> Result<(), DeviceError> {
        let there = self.gpu.free_memory().map_err(JobError::from)?;
        enough("fast", fast, Bytes(there))?;
        enough("main", host, available())
    }

    fn arena(&self, tier: &Tier, capacity: Bytes) -> Result<Arena, ArenaError> {
        let tier = Tier { capacity, ..tier.clone() };
        let failed = |error: CudaError| io::Error::other(error);
        match tier.backing {
            Backing::Device => Arena::with_store(&tier, |capacity, _, _| {
                Slab::new(&self.gpu, capacity).map(Store::Device).map_err(failed)
            }),
            Backing::Pinned => Arena::with_store(&tier, |capacity, _, notes| {
                let mut memory = Memory::new(capacity, tier.backing, tier.node, notes)?;
                memory.register(&self.gpu).map_err(failed)?;
                Ok(Store::Memory(memory))
            }),
            Backing::Pageable | Backing::Numa | Backing::File => Arena::new(&tier, &self.folder),
        }
    }

    fn worker(&self, lane: LaneKind, contents: &Arc<Contents>) -> Result<Box<dyn Worker>, DeviceError> {
        let contents = contents.clone();
        let worker: Result<Box<dyn Worker>, CudaError> = match lane {
            LaneKind::Copy { .. } => CopyWorker::new(&self.gpu, contents).map(|worker| Box::new(worker) as _),
            LaneKind::Compute => ComputeWorker::new(&self.gpu, contents).map(|worker| Box::new(worker) as _),
            LaneKind::HostCompute => Ok(Box::new(HostWorker::new(contents))),
        };
        worker.map_err(|error| JobError::from(error).into())
    }
}
