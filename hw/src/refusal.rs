//! Why a device refuses a command, or fails at one.

use crate::arena::ArenaError;
use crate::content::{ContentError, StateError};
use crate::engine::JobError;
use policy::event::Form;
use policy::units::Bytes;
use policy::{BlockId, TierId};
use std::io;
use thiserror::Error;

/// Why a device refused a command or failed at it.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The memory of a tier.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// What a recipe takes cannot be had.
    #[error("the ingredients of recipes: {source}")]
    Ingredients {
        /// Why.
        source: ContentError,
    },
    /// A job failed, or its bytes are wrong.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The machine has not the memory for what the device is to hold.
    #[error(
        "{needed} of {memory} memory are needed, {there} are free; lower `memory`, or take a smaller model"
    )]
    NoRoom {
        /// `fast` or `main`.
        memory: &'static str,
        /// Bytes needed.
        needed: Bytes,
        /// Bytes that are free.
        there: Bytes,
    },
    /// A lane could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// A lane has ended before its time.
    #[error("a lane has died; its panic message is above")]
    LaneDied,
    /// A command names a block, tier or format that is not there.
    #[error("the {what} with number {number} does not exist")]
    Unknown {
        /// `block`, `tier` or `format`.
        what: &'static str,
        /// The number.
        number: u64,
    },
    /// States are to be moved on a device that has set nothing aside for them.
    #[error("no memory has been set aside for checkpoints of recurrent states")]
    NoStates,
    /// What a stage of a pipeline has computed is to go to the next one.
    #[error("a device is one accelerator, and no stage of a pipeline: leave `parallel` out, or simulate")]
    NoStages,
    /// A checkpoint is to be kept in a tier that has no pool.
    #[error("tier {} has no pool for checkpoints", tier.0)]
    NoPool {
        /// The tier.
        tier: TierId,
    },
    /// States of the model cannot be made up.
    #[error("checkpoints of this model: {source}")]
    States {
        /// Why.
        source: StateError,
    },
    /// A command names a copy of a checkpoint that is not there, not complete, or in another format.
    #[error("checkpoint {checkpoint} has no complete copy in tier {} as it is asked for", tier.0)]
    NoCheckpoint {
        /// The checkpoint.
        checkpoint: u64,
        /// The tier.
        tier: TierId,
    },
    /// A copy of a checkpoint is to be dropped that is still read.
    #[error("drop: checkpoint {checkpoint} in tier {} is still read by move {id}", tier.0)]
    CheckpointInUse {
        /// The checkpoint.
        checkpoint: u64,
        /// The tier.
        tier: TierId,
        /// The move.
        id: u64,
    },
    /// No link leads from one tier to another.
    #[error("no link leads from tier {} to tier {}", from.0, to.0)]
    NoLink {
        /// Where the move starts.
        from: TierId,
        /// Where it should go.
        to: TierId,
    },
    /// A command names a copy that is not published.
    #[error("{command}: {copy} is not published: it is still being moved, was dropped, or never was")]
    NotPublished {
        /// What was asked.
        command: &'static str,
        /// The copy.
        copy: CopyName,
    },
    /// A move to a form that the block already has, or is being given.
    #[error("move {id}: {copy} exists already")]
    Exists {
        /// The move.
        id: u64,
        /// The copy.
        copy: CopyName,
    },
    /// A change of format from a copy that has lost bits.
    #[error("move {id}: {copy} has lost bits of its block; only a lossless copy may be coded anew")]
    LossySource {
        /// The move.
        id: u64,
        /// The copy.
        copy: CopyName,
    },
    /// A chunk that does not continue its move.
    #[error("move {id}: this chunk does not continue it: {why}")]
    Chunk {
        /// The move.
        id: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A move that is not under way, or whose last chunk has been submitted, where one is needed that is.
    #[error("move {id} is not under way")]
    NoSuchMove {
        /// The move.
        id: u64,
    },
    /// A command is for a processor beside memories that the machine does not have.
    #[error("the machine has no such processor beside its memories")]
    NoProcessor,
    /// Nothing was submitted that could be waited for.
    #[error("no compute is under way")]
    NoCompute,
    /// A copy is to be dropped that is still read.
    #[error("drop: {copy} is still read by {reader}")]
    InUse {
        /// The copy.
        copy: CopyName,
        /// Who reads it.
        reader: String,
    },
    /// A copy is to be dropped that is the last with all bits of its block.
    #[error("drop: {copy} is the last copy with all bits of its block")]
    LastCopy {
        /// The copy.
        copy: CopyName,
    },
}

/// A copy, for people to read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("block {} as {} in {tier}", block.0, form.format.name())]
pub struct CopyName {
    /// The block.
    pub block: BlockId,
    /// The form.
    pub form: Form,
    /// The name of the tier.
    pub tier: String,
}
