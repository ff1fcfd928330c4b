//! The host as an engine: memories are its own and a file, copies are made by its processor, one thread a lane.

mod arithmetic;

use self::arithmetic::Arithmetic;
use crate::arena::{Arena, ArenaError};
use crate::codec;
use crate::content::{Checksum, Contents};
use crate::device::{Device, Setup};
use crate::engine::{Change, ChunkReport, Done, Engine, Haul, Job, JobError, LaneKind, Worker};
use crate::lane::{now, since};
use crate::merge::{Merge, MergeError};
use crate::refusal::DeviceError;
use crate::verify::check;
use policy::BlockId;
use policy::event::Form;
use policy::machine::Tier;
use policy::units::Bytes;
use policy::{Machine, Model};
use rustix::fs::statvfs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, MutexGuard, PoisonError, RwLock};

/// The machine this runs on.
pub struct Host {
    folder: PathBuf,
    stillness: Stillness,
}

/// Shared while products are timed, exclusive while bytes are compared: comparing takes as much of the memory as a copy does, and is no
/// part of what is measured.
type Stillness = Arc<RwLock<()>>;

impl Host {
    /// Tiers of files are in `folder`.
    pub fn new(folder: &Path) -> Host {
        Host { folder: folder.to_owned(), stillness: Stillness::default() }
    }
}

impl Engine for Host {
    fn name(&self) -> String {
        "host".into()
    }

    /// A quarter of the memory stands for fast memory, a half for the host's.
    fn capacity(&self) -> [Bytes; 3] {
        let memory = host_memory();
        let disk = statvfs(&self.folder).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        [Bytes(memory.0 / 4), Bytes(memory.0 / 2), Bytes(disk / 2)].map(|bytes| Bytes(bytes.0 >> 20 << 20))
    }

    /// All memory is the host's own here.
    fn room(&self, needed: [Bytes; 3]) -> Result<(), DeviceError> {
        enough("main", needed.into_iter().sum(), available())
    }

    fn arena(&self, tier: &Tier, capacity: Bytes) -> Result<Arena, ArenaError> {
        Arena::new(&Tier { capacity, ..tier.clone() }, &self.folder)
    }

    fn worker(&self, _lane: LaneKind, contents: &Arc<Contents>) -> Result<Box<dyn Worker>, DeviceError> {
        Ok(Box::new(HostWorker { stillness: self.stillness.clone(), ..HostWorker::new(contents.clone()) }))
    }
}

/// A host device whose tiers have their machine's capacities. `seed` decides what the blocks contain.
pub fn device(
    machine: &Machine,
    model: &Model,
    copies: &[(BlockId, Form)],
    seed: u64,
    folder: &Path,
) -> Result<Device, DeviceError> {
    let setup = Setup {
        machine,
        contents: Arc::new(Contents::new(model, seed)),
        copies,
        budgets: &[],
        cache: Bytes::ZERO,
        tokens: 1,
        check_reads: true,
    };
    Device::new(&Host::new(folder), setup)
}

/// One thread of the host.
pub(crate) struct HostWorker {
    contents: Arc<Contents>,
    arithmetic: Arithmetic,
    stillness: Stillness,
}

impl HostWorker {
    pub(crate) fn new(contents: Arc<Contents>) -> HostWorker {
        HostWorker {
            arithmetic: Arithmetic::new(contents.clone()),
            contents,
            stillness: Stillness::default(),
        }
    }
}

impl Worker for HostWorker {
    fn run(&mut self, jobs: &Receiver<Job>, report: &mut dyn FnMut(Done)) {
        for job in jobs {
            report(match job {
                Job::Chunk { haul, offset, len, last } => {
                    Done::Chunk(haul.id, self.carry(&haul, offset, len, last))
                }
                Job::Compute(work) => {
                    let _still = self.stillness.read().unwrap_or_else(PoisonError::into_inner);
                    Done::Compute(work.part, self.arithmetic.compute(&work))
                }
            });
        }
    }
}

impl HostWorker {
    /// Carries one chunk over; after the last one the copy is complete and checked.
    fn carry(&self, haul: &Haul, offset: Bytes, len: Bytes, last: bool) -> Result<ChunkReport, JobError> {
        let start = now();
        haul.copy(&self.contents, offset.0, len.0, last)?;
        let took = since(start);
        let checked: Option<Result<Checksum, JobError>> = last.then(|| {
            let _still = self.stillness.write().unwrap_or_else(PoisonError::into_inner);
            check(&self.contents, haul.block, haul.to, &haul.target)
        });
        Ok(ChunkReport { bytes: len, took, published: checked.transpose()? })
    }
}

impl Haul {
    pub(crate) fn copy(
        &self,
        contents: &Contents,
        offset: u64,
        len: u64,
        last: bool,
    ) -> Result<(), JobError> {
        self.pass(offset, len)?;
        match self.change {
            Change::Nowhere => match &self.recipe {
                None => self.target.copy_from(&self.source, offset, len)?,
                Some(merge) => {
                    self.make(merge, offset, len, |at, made| Ok(self.target.write_at(at, made)?))?
                }
            },
            Change::BeforeLink => {
                let coded = self.coded_ahead(contents, offset == 0)?;
                self.target.write_at(offset, &coded[offset as usize..][..len as usize])?;
            }
            Change::AfterLink => {
                let mut crossed = self.crossed();
                match &self.recipe {
                    None => self.source.read_at(offset, &mut crossed[offset as usize..][..len as usize])?,
                    Some(merge) => self.make(merge, offset, len, |at, made| {
                        crossed[at as usize..][..made.len()].copy_from_slice(made);
                        Ok(())
                    })?,
                }
                if last {
                    self.code_behind(contents, &crossed)?;
                }
            }
        }
        Ok(())
    }

    /// Fills the copy that is kept in passing, as far as this chunk goes.
    pub(crate) fn pass(&self, offset: u64, len: u64) -> Result<(), JobError> {
        match &self.origin {
            Some(origin) => Ok(self.source.copy_from(origin, offset, len)?),
            None => Ok(()),
        }
    }

    fn make(
        &self,
        merge: &Merge,
        offset: u64,
        len: u64,
        put: impl FnMut(u64, &[u8]) -> Result<(), MergeError>,
    ) -> Result<(), JobError> {
        merge.make(offset, len, put).map_err(|source| JobError::Merge { block: self.block.0, source })
    }

    /// All bytes of what the copy is made of.
    pub(crate) fn read_whole<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, JobError> {
        match &self.recipe {
            None => Ok(self.source.with_bytes(read)?),
            Some(merge) => {
                let mut whole = vec![0; self.source.len() as usize];
                self.make(merge, 0, self.source.len(), |at, made| {
                    whole[at as usize..][..made.len()].copy_from_slice(made);
                    Ok(())
                })?;
                Ok(read(&whole))
            }
        }
    }

    /// The bytes that cross where the host codes before the link, which it does with the first chunk.
    pub(crate) fn coded_ahead(
        &self,
        contents: &Contents,
        first: bool,
    ) -> Result<MutexGuard<'_, Vec<u8>>, JobError> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if first {
            staging.resize(self.target.len() as usize, 0);
            self.read_whole(|bytes| self.recode(contents, bytes, &mut staging))??;
        }
        Ok(staging)
    }

    /// Room for the bytes that cross where the host codes after the link.
    pub(crate) fn crossed(&self) -> MutexGuard<'_, Vec<u8>> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        staging.resize(self.source.len() as usize, 0);
        staging
    }

    /// Codes what has crossed.
    pub(crate) fn code_behind(&self, contents: &Contents, crossed: &[u8]) -> Result<(), JobError> {
        self.target.fill(|bytes| self.recode(contents, crossed, bytes))?
    }

    pub(crate) fn recode(&self, contents: &Contents, bytes: &[u8], out: &mut [u8]) -> Result<(), JobError> {
        let block = contents.block(self.block);
        codec::transcode(self.before, bytes, self.to.format, &block.matrices, out)
            .map_err(|source| JobError::Codec { block: self.block.0, form: self.to, source })
    }
}

/// Whether what is needed is there.
pub(crate) fn enough(memory: &'static str, needed: Bytes, there: Bytes) -> Result<(), DeviceError> {
    if needed <= there { Ok(()) } else { Err(DeviceError::NoRoom { memory, needed, there }) }
}

/// Memory that can be had without swapping: the kernel's estimate, where there is one.
pub(crate) fn available() -> Bytes {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.map_or_else(host_memory, |kibibytes| Bytes(kibibytes << 10))
}

/// The host's memory, free or not.
pub(crate) fn host_memory() -> Bytes {
    let system = rustix::system::sysinfo();
    Bytes((system.totalram as u64).saturating_mul(u64::from(system.mem_unit)))
}
