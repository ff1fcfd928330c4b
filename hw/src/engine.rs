//! What a device is made of: memory behind its tiers, and workers that carry jobs out. The host is one engine, a CUDA
//! device another; what they have in common, which is everything that is promised, is in `device`.

use crate::arena::{Arena, ArenaError};
use crate::cargo::Cargo;
use crate::codec::CodecError;
use crate::compute::ComputeError;
use crate::content::{Checksum, ContentError, Contents, StateError};
use crate::cuda::error::CudaError;
use crate::merge::{Merge, MergeError};
use crate::refusal::DeviceError;
use crate::region::Region;
use policy::event::{Form, Part, Slice};
use policy::machine::Tier;
use policy::units::{Bytes, Nanos};
use policy::{BlockId, LayerId, MoveId, ProcessorId, TierId};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use thiserror::Error;

/// A kind of device.
pub trait Engine {
    /// What it is, for people: `host`, or the name and number of an accelerator.
    fn name(&self) -> String;

    /// How much fast memory, host memory and storage it could give at present.
    fn capacity(&self) -> [Bytes; 3];

    /// Whether it can give so many bytes of fast memory, of the host's and of other accelerators' at present; else a run
    /// would end in the middle, or take the machine down with it.
    fn room(&self, needed: [Bytes; 3]) -> Result<(), DeviceError>;

    /// Memory for `capacity` bytes of a tier.
    fn arena(&self, tier: &Tier, capacity: Bytes) -> Result<Arena, ArenaError>;

    /// Somebody to do the jobs of a lane.
    fn worker(&self, lane: LaneKind, contents: &Arc<Contents>) -> Result<Box<dyn Worker>, DeviceError>;
}

/// What a lane is for: its jobs are done in the order they are submitted, as those of a copy engine or a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LaneKind {
    /// Copies from one tier to another, or changes of format within one.
    Copy {
        /// Where from.
        from: TierId,
        /// Where to.
        to: TierId,
    },
    /// The accelerator's compute.
    Compute,
    /// Blocks that a processor beside other memories computes where they are.
    Near(ProcessorId),
}

/// Does the jobs of one lane, on a thread of its own.
pub trait Worker: Send {
    /// Does jobs in order until there are no more, and reports each.
    fn run(&mut self, jobs: &Receiver<Job>, report: &mut dyn FnMut(Done));
}

/// Where the format of a move changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Both sides have the same format.
    Nowhere,
    /// Before the link.
    BeforeLink,
    /// After it.
    AfterLink,
}

/// What all chunks of a move share.
pub struct Haul {
    /// The move.
    pub id: MoveId,
    /// What is moved.
    pub cargo: Cargo,
    /// Where the format changes.
    pub change: Change,
    /// The bytes it is made of: of another copy, or of the base that its recipe starts from. Where a copy is kept in passing, of
    /// that one, which each chunk fills first.
    pub source: Arc<Region>,
    /// Where that copy's bytes come from.
    pub origin: Option<Arc<Region>>,
    /// Its recipe, if it is made by one.
    pub recipe: Option<Merge>,
    /// The bytes of the copy that is made.
    pub target: Arc<Region>,
    /// The bytes that cross, where the format changes: workspace of the side that codes, outside the tiers.
    pub staging: Mutex<Vec<u8>>,
}

/// One copy that a compute job reads.
pub struct Reading {
    /// The block.
    pub block: BlockId,
    /// The copy.
    pub form: Form,
    /// Its bytes.
    pub region: Arc<Region>,
    /// Tokens that go through it.
    pub tokens: u32,
}

/// A matrix in bf16 beside the managed blocks.
#[derive(Clone)]
pub struct Dense {
    /// Its bytes, from the first on.
    pub region: Arc<Region>,
    /// Its rows.
    pub rows: u64,
    /// Its columns.
    pub columns: u64,
}

/// A compute command with the bytes it reads.
pub struct Work {
    /// Its layer.
    pub layer: LayerId,
    /// Its part.
    pub part: Part,
    /// The tokens of the batch.
    pub batch: Arc<[Slice]>,
    /// Managed blocks.
    pub reads: Vec<Reading>,
    /// Weights that never move, read by the mixer and the head: every token goes through them.
    pub dense: Option<Dense>,
    /// The part of the key-value cache that the mixer reads.
    pub cache: Option<Dense>,
    /// Compare the bytes of every copy with its block before it is read, outside the time measured.
    pub check: bool,
}

/// A job of a lane.
pub enum Job {
    /// A chunk of a move.
    Chunk {
        /// The move.
        haul: Arc<Haul>,
        /// The first of its bytes, among those that cross.
        offset: Bytes,
        /// How many.
        len: Bytes,
        /// Whether the copy is complete with it.
        last: bool,
    },
    /// A compute command.
    Compute(Work),
}

/// A job that has been done, or has failed.
pub enum Done {
    /// A chunk.
    Chunk(MoveId, Result<ChunkReport, JobError>),
    /// A compute command.
    Compute(Part, Result<ComputeReport, JobError>),
}

/// A chunk that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkReport {
    /// Bytes that crossed.
    pub bytes: Bytes,
    /// Real time it took, without the wait for its lane and without the check of its bytes.
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
    /// For each copy read, in order, the root mean square of what it gave.
    pub digests: Vec<f32>,
    /// Real time it took, without the wait for its lane and without checks of bytes.
    pub took: Nanos,
}

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
    /// A block could not be made by its recipe.
    #[error("block {block} by its recipe: {source}")]
    Merge {
        /// The block.
        block: u32,
        /// Why.
        source: MergeError,
    },
    /// What is in a block cannot be had.
    #[error("block {block} as {}: {source}", form.format.name())]
    Content {
        /// The block.
        block: u32,
        /// The copy.
        form: Form,
        /// Why.
        source: ContentError,
    },
    /// The states of a checkpoint cannot be had, or coded.
    #[error("checkpoint {checkpoint}: {source}")]
    State {
        /// The checkpoint.
        checkpoint: u64,
        /// Why.
        source: StateError,
    },
    /// The bytes of a checkpoint's copy are not those of its states.
    #[error("checkpoint {checkpoint} as {format}: bytes hash to {got:?}, not {expected:?}")]
    StateMismatch {
        /// The checkpoint.
        checkpoint: u64,
        /// What its states are coded in.
        format: &'static str,
        /// The checksum of those states in this format.
        expected: Checksum,
        /// The checksum of the bytes found.
        got: Checksum,
    },
    /// A product.
    #[error(transparent)]
    Product(#[from] ComputeError),
    /// The accelerator.
    #[error(transparent)]
    Cuda(#[from] CudaError),
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
