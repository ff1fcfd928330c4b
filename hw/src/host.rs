//! The host as an engine: memories are its own and a file, copies are made by its processor, one thread a lane.

use crate::arena::{Arena, ArenaError};
use crate::branch;
use crate::codec;
use crate::content::{Checksum, Contents};
use crate::device::{Device, Setup};
use crate::engine::{
    Change, ChunkReport, ComputeReport, Done, Engine, Haul, Job, JobError, LaneKind, Reading, Work, Worker,
};
use crate::lane::{now, since};
use crate::refusal::DeviceError;
use crate::verify::check;
use policy::BlockId;
use policy::event::Form;
use policy::machine::Tier;
use policy::units::{Bytes, Nanos};
use policy::{Machine, Model};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};

/// The machine this runs on.
pub struct Host {
    folder: PathBuf,
}

impl Host {
    /// Tiers of files are in `folder`.
    pub fn new(folder: &Path) -> Host {
        Host { folder: folder.to_owned() }
    }
}

impl Engine for Host {
    fn name(&self) -> String {
        "host".into()
    }

    fn arena(&self, tier: &Tier, capacity: Bytes) -> Result<Arena, ArenaError> {
        Arena::new(&Tier { capacity, ..tier.clone() }, &self.folder, None)
    }

    fn worker(&self, _lane: LaneKind, contents: &Arc<Contents>) -> Result<Box<dyn Worker>, DeviceError> {
        Ok(Box::new(HostWorker::new(contents.clone())))
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
        contents: Contents::new(model, seed),
        copies,
        budgets: &[],
        cache: Bytes::ZERO,
        check_reads: true,
    };
    Device::new(&Host::new(folder), setup)
}

/// One thread of the host.
pub(crate) struct HostWorker {
    contents: Arc<Contents>,
}

impl HostWorker {
    pub(crate) fn new(contents: Arc<Contents>) -> HostWorker {
        HostWorker { contents }
    }
}

impl Worker for HostWorker {
    fn run(&mut self, jobs: &Receiver<Job>, report: &mut dyn FnMut(Done)) {
        for job in jobs {
            report(match job {
                Job::Chunk { haul, offset, len, last } => {
                    Done::Chunk(haul.id, haul.carry(&self.contents, offset, len, last))
                }
                Job::Compute(work) => Done::Compute(work.part, self.compute(&work)),
            });
        }
    }
}

impl Haul {
    /// Carries one chunk over; after the last one the copy is complete and checked.
    fn carry(
        &self,
        contents: &Contents,
        offset: Bytes,
        len: Bytes,
        last: bool,
    ) -> Result<ChunkReport, JobError> {
        let start = now();
        self.copy(contents, offset.0, len.0, last)?;
        let took = since(start);
        let checked: Option<Result<Checksum, JobError>> =
            last.then(|| check(contents, self.block, self.to, &self.target));
        Ok(ChunkReport { bytes: len, took, published: checked.transpose()? })
    }

    pub(crate) fn copy(
        &self,
        contents: &Contents,
        offset: u64,
        len: u64,
        last: bool,
    ) -> Result<(), JobError> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        match self.change {
            Change::Nowhere => self.target.copy_from(&self.source, offset, len)?,
            Change::BeforeLink => {
                if offset == 0 {
                    staging.resize(self.target.len() as usize, 0);
                    self.source.with_bytes(|bytes| self.recode(contents, bytes, &mut staging))??;
                }
                self.target.write_at(offset, &staging[offset as usize..][..len as usize])?;
            }
            Change::AfterLink => {
                staging.resize(self.source.len() as usize, 0);
                self.source.read_at(offset, &mut staging[offset as usize..][..len as usize])?;
                if last {
                    self.target.fill(|bytes| self.recode(contents, &staging, bytes))??;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn recode(&self, contents: &Contents, bytes: &[u8], out: &mut [u8]) -> Result<(), JobError> {
        let block = contents.block(self.block);
        let (from, to) = (self.from.format, self.to.format);
        codec::transcode(from, bytes, to, &block.matrices, out).map_err(|source| JobError::Codec {
            block: self.block.0,
            form: self.to,
            source,
        })
    }
}

impl HostWorker {
    fn compute(&self, work: &Work) -> Result<ComputeReport, JobError> {
        let mut took = Nanos::ZERO;
        let mut digests = Vec::with_capacity(work.reads.len());
        for reading in &work.reads {
            if work.check {
                check(&self.contents, reading.block, reading.form, &reading.region)?;
            }
            let start = now();
            digests.push(self.read(reading)?);
            took += since(start);
        }
        Ok(ComputeReport { layer: work.layer, part: work.part, digests, took })
    }

    /// Expands a copy and multiplies by the activation vector.
    fn read(&self, reading: &Reading) -> Result<f32, JobError> {
        let Reading { block: id, form, region, .. } = reading;
        let block = self.contents.block(*id);
        let mut values = vec![0.0f32; block.elements() as usize];
        region
            .with_bytes(|bytes| codec::decode(form.format, bytes, &block.matrices, &mut values))?
            .map_err(|source| JobError::Codec { block: id.0, form: *form, source })?;
        let output = branch::output(block, &values, &self.contents.input(branch::inputs(block)));
        Ok(root_mean_square(&output))
    }
}

fn root_mean_square(values: &[f32]) -> f32 {
    let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
    (squares / values.len().max(1) as f64).sqrt() as f32
}
