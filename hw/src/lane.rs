//! Lanes: a thread each, doing one job after the other, as a copy engine or a stream of an accelerator does. A lane
//! knows nothing of the controller; it holds the regions of its jobs until they are done.

use crate::arena::ArenaError;
use crate::codec::{self, CodecError};
use crate::content::{Checksum, Contents};
use crate::region::Region;
use policy::event::{Form, Part};
use policy::units::{Bytes, Nanos};
use policy::{BlockId, LayerId, MoveId};
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;
use thiserror::Error;

/// What can go wrong while a job is carried out.
#[derive(Debug, Error)]
pub enum JobError {
    /// The memory.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// The codec.
    #[error("block {block} as {}: {source}", form.format.name())]
    Codec {
        /// The block.
        block: u32,
        /// The copy.
        form: Form,
        /// Why.
        source: CodecError,
    },
    /// The bytes of a copy are not those of its block.
    #[error("block {block} as {} in tier {}: bytes hash to {got:?}, not {expected:?}", form.format.name(), form.tier.0)]
    Mismatch {
        /// The block.
        block: u32,
        /// The copy.
        form: Form,
        /// The checksum of the block in this format.
        expected: Checksum,
        /// The checksum of the bytes found.
        got: Checksum,
    },
}

/// A chunk that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkReport {
    /// Bytes that crossed.
    pub bytes: Bytes,
    /// Real time it took, less the wait for its lane.
    pub took: Nanos,
    /// The checksum of the complete copy, found right, if this was the last chunk.
    pub published: Option<Checksum>,
}

/// A compute command that is done.
#[derive(Clone, Debug, PartialEq)]
pub struct ComputeReport {
    /// Its layer.
    pub layer: LayerId,
    /// Its part.
    pub part: Part,
    /// For each copy read, in order, the product of its matrix and the activation vector, in one number.
    pub digests: Vec<f32>,
    /// Real time it took, less the wait for its lane.
    pub took: Nanos,
}

/// Where the format of a move changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Nowhere,
    BeforeLink,
    AfterLink,
}

/// What all chunks of a move share.
pub(crate) struct Haul {
    pub(crate) id: MoveId,
    pub(crate) block: BlockId,
    pub(crate) from: Form,
    pub(crate) to: Form,
    pub(crate) change: Change,
    pub(crate) source: Arc<Region>,
    pub(crate) target: Arc<Region>,
    /// The bytes that cross, where the format changes: workspace of the side that codes, outside the tiers.
    pub(crate) staging: Mutex<Vec<u8>>,
}

pub(crate) enum Job {
    Chunk { haul: Arc<Haul>, offset: u64, len: u64, last: bool },
    Compute { layer: LayerId, part: Part, reads: Vec<(BlockId, Form, Arc<Region>)> },
}

pub(crate) enum Done {
    Chunk(MoveId, Result<ChunkReport, JobError>),
    Compute(Part, Result<ComputeReport, JobError>),
}

/// A thread that does jobs in the order they come.
pub(crate) struct Lane {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    pub(crate) fn spawn(name: String, contents: Arc<Contents>, done: Sender<Done>) -> io::Result<Lane> {
        let (jobs, queue) = channel();
        let work = move || {
            for job in queue {
                // Nobody listens any more when the device is being dropped.
                let _ = done.send(run(&contents, job));
            }
        };
        let thread = Builder::new().name(name).spawn(work)?;
        Ok(Lane { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a job; false if the thread has died.
    pub(crate) fn submit(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }
}

impl Drop for Lane {
    /// Finishes what is queued, then ends the thread.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// The present. Measured, never decided upon.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn since(start: Instant) -> Nanos {
    Nanos(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

fn run(contents: &Contents, job: Job) -> Done {
    let start = now();
    match job {
        Job::Chunk { haul, offset, len, last } => {
            let id = haul.id;
            let published = haul.carry(contents, offset, len, last);
            let took = since(start);
            Done::Chunk(id, published.map(|published| ChunkReport { bytes: Bytes(len), took, published }))
        }
        Job::Compute { layer, part, reads } => {
            let digests = reads.iter().map(|(block, form, region)| compute(contents, *block, *form, region));
            let digests = digests.collect::<Result<Vec<f32>, JobError>>();
            let took = since(start);
            Done::Compute(part, digests.map(|digests| ComputeReport { layer, part, digests, took }))
        }
    }
}

impl Haul {
    /// Carries one chunk over; after the last one the copy is complete and checked.
    fn carry(
        &self,
        contents: &Contents,
        offset: u64,
        len: u64,
        last: bool,
    ) -> Result<Option<Checksum>, JobError> {
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
        if !last {
            return Ok(None);
        }
        check(contents, self.block, self.to, &self.target).map(Some)
    }

    fn recode(&self, contents: &Contents, bytes: &[u8], out: &mut [u8]) -> Result<(), JobError> {
        let block = contents.block(self.block);
        let (from, to) = (self.from.format, self.to.format);
        codec::transcode(from, bytes, to, &block.matrices, out).map_err(|source| JobError::Codec {
            block: self.block.0,
            form: self.to,
            source,
        })
    }
}

/// Compares the bytes of a copy with what its block contains.
pub(crate) fn check(
    contents: &Contents,
    block: BlockId,
    form: Form,
    region: &Region,
) -> Result<Checksum, JobError> {
    let got = region.with_bytes(Checksum::of)?;
    let failed = |source| JobError::Codec { block: block.0, form, source };
    let expected = contents.checksum(block, form.format).map_err(failed)?;
    if got == expected { Ok(got) } else { Err(JobError::Mismatch { block: block.0, form, expected, got }) }
}

/// Reads a copy as a kernel would: checks its bytes, expands them and multiplies by the activation vector. One vector
/// whatever the tokens: the product is linear, and what is proved is what was read, not how fast.
fn compute(contents: &Contents, id: BlockId, form: Form, region: &Region) -> Result<f32, JobError> {
    check(contents, id, form, region)?;
    let block = contents.block(id);
    let mut values = vec![0.0f32; block.elements() as usize];
    region
        .with_bytes(|bytes| codec::decode(form.format, bytes, &block.matrices, &mut values))?
        .map_err(|source| JobError::Codec { block: id.0, form, source })?;
    Ok(contents.product(id, &values))
}
