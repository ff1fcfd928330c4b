//! A CUDA device as an engine: its memory behind the tiers that are its own, its copy engines and kernels for the jobs.
//!
//! The driver is loaded at run time; without one, opening a device is an error that says so. `gpu` is the driver's side,
//! `memory` what it allocates, `storage` the way of files past the host's memory, `launch`, `products` and `recurrent` plan launches of the kernels in `hw/kernels`, and do nothing else,
//! so that tests can hand the same launches to kernels built for the CPU. `coder`, `copies` with `places` and `bounce`, and
//! `compute` carry jobs out; `mixers` times recurrent layers.

mod blas;
mod bounce;
mod coder;
mod compute;
mod copies;
pub mod error;
pub mod gpu;
pub mod launch;
pub mod memory;
pub(crate) mod mixers;
pub(crate) mod places;
pub mod products;
pub mod recurrent;
pub mod storage;

use self::compute::ComputeWorker;
use self::copies::CopyWorker;
use self::error::CudaError;
use self::gpu::Gpu;
use self::memory::Slab;
use self::storage::StorageError;
use crate::arena::{Arena, ArenaError};
use crate::content::Contents;
use crate::engine::{Engine, JobError, LaneKind, Worker};
use crate::host::{Host, HostWorker, available, enough};
use crate::refusal::DeviceError;
use crate::store::{FileStore, Memory, Note, Store};
use policy::machine::{Backing, Tier};
use policy::units::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// An accelerator, the host it sits in, and other accelerators beside it, as memory.
pub struct Cuda {
    gpu: Arc<Gpu>,
    folder: PathBuf,
    /// Other accelerators that hold a tier, and whether both reach each other's memory.
    peers: Mutex<BTreeMap<u32, (Arc<Gpu>, bool)>>,
    /// Whether files may go past the host's memory.
    direct: bool,
    /// Whether they do, since a tier of files was set aside.
    files: OnceLock<bool>,
}

impl Cuda {
    /// Opens device number `ordinal`. Tiers of files are in `folder`.
    pub fn open(ordinal: u32, folder: &Path) -> Result<Cuda, CudaError> {
        let (gpu, folder) = (Gpu::open(ordinal)?, folder.to_owned());
        Ok(Cuda { gpu, folder, peers: Mutex::default(), direct: true, files: OnceLock::new() })
    }

    /// The same with files that go through the host's memory even where GPUDirect Storage is there.
    pub fn through_host(self) -> Cuda {
        Cuda { direct: false, ..self }
    }

    /// The device itself.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The accelerator that holds a tier, and whether it and the one that computes reach each other's memory.
    fn holder(&self, tier: &Tier) -> Result<(Arc<Gpu>, bool), CudaError> {
        let Some(number) = tier.device.filter(|number| *number != self.gpu.ordinal()) else {
            return Ok((self.gpu.clone(), true));
        };
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(&number) {
            return Ok(peer.clone());
        }
        let gpu = Gpu::open(number)?;
        let reach = self.gpu.reach(&gpu)? && gpu.reach(&self.gpu)?;
        peers.insert(number, (gpu.clone(), reach));
        Ok((gpu, reach))
    }

    /// Has a file's bytes go past the host's memory, where that is wanted; why it cannot be.
    fn reach_file(&self, file: &mut FileStore) -> Option<StorageError> {
        let refused = if self.direct { file.reach_accelerators().err() } else { None };
        let _ = self.files.set(self.direct && refused.is_none());
        refused
    }
}

impl Engine for Cuda {
    fn name(&self) -> String {
        let files = match self.files.get() {
            None => "",
            Some(true) => ", files by GPUDirect Storage",
            Some(false) => ", files through pinned memory",
        };
        format!("cuda:{} ({}{files})", self.gpu.ordinal(), self.gpu.name())
    }

    /// Of the device's memory what is free, less a sixteenth for what the driver and launches take.
    fn capacity(&self) -> [Bytes; 3] {
        let [_, host, disk] = Host::new(&self.folder).capacity();
        let free = self.gpu.free_memory().unwrap_or(0);
        [Bytes((free - free / 16) >> 20 << 20), host, disk]
    }

    /// Tiers of other accelerators are taken whole before a run begins.
    fn room(&self, [fast, host, _]: [Bytes; 3]) -> Result<(), DeviceError> {
        let there = self.gpu.free_memory().map_err(JobError::from)?;
        enough("fast", fast, Bytes(there))?;
        enough("main", host, available())
    }

    fn arena(&self, tier: &Tier, capacity: Bytes) -> Result<Arena, ArenaError> {
        let tier = Tier { capacity, ..tier.clone() };
        let failed = |error: CudaError| io::Error::other(error);
        match tier.backing {
            Backing::Device => {
                let absent = |source| ArenaError::NoAccelerator { tier: tier.name.clone(), source };
                let (gpu, reach) = self.holder(&tier).map_err(absent)?;
                let (device, peer) = (self.gpu.ordinal(), gpu.ordinal());
                Arena::with_store(&tier, |capacity, _, notes| {
                    notes.extend((!reach).then_some(Note::NoPeerAccess { device, peer }));
                    Slab::new(&gpu, capacity).map(Store::Device).map_err(failed)
                })
            }
            Backing::Pinned => Arena::with_store(&tier, |capacity, _, notes| {
                let mut memory = Memory::new(capacity, tier.backing, tier.node, notes)?;
                memory.register(&self.gpu).map_err(failed)?;
                Ok(Store::Memory(memory))
            }),
            Backing::File => Arena::with_store(&tier, |capacity, granularity, notes| {
                let mut file = FileStore::new(&self.folder, capacity, granularity, notes)?;
                if capacity > 0 {
                    notes.extend(self.reach_file(&mut file).map(Note::NotDirect));
                }
                Ok(Store::File(file))
            }),
            Backing::Pageable | Backing::Numa => Arena::new(&tier, &self.folder),
        }
    }

    fn worker(&self, lane: LaneKind, contents: &Arc<Contents>) -> Result<Box<dyn Worker>, DeviceError> {
        let contents = contents.clone();
        let worker: Result<Box<dyn Worker>, CudaError> = match lane {
            LaneKind::Copy { .. } => CopyWorker::new(&self.gpu, contents).map(|worker| Box::new(worker) as _),
            LaneKind::Compute => ComputeWorker::new(&self.gpu, contents).map(|worker| Box::new(worker) as _),
            LaneKind::Near(_) => Ok(Box::new(HostWorker::new(contents))),
        };
        worker.map_err(|error| JobError::from(error).into())
    }
}
