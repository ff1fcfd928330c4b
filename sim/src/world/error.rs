//! Why the world cannot go on.

use crate::fabric::NoPath;
use crate::memory::MemoryError;
use crate::world::states::StateError;
use policy::event::Form;
use policy::{Bytes, MoveId, ProcessorId};
use thiserror::Error;

/// Why the world cannot go on. But for [`WorldError::TooLate`], the controller is wrong and not the input.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WorldError {
    /// Memory refuses.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A pool of checkpoints refuses.
    #[error(transparent)]
    States(#[from] StateError),
    /// Two tiers have no links between them.
    #[error(transparent)]
    NoPath(#[from] NoPath),
    /// Times so long that they can no longer be added up.
    #[error(
        "the run goes on for more than 292 years of simulated time: a latency is too long, or a rate too low"
    )]
    TooLate,
    /// Another accelerator of the same run cannot go on.
    #[error("rank {rank}: {why}")]
    Rank {
        /// Which one.
        rank: u32,
        /// Why.
        why: String,
    },
    /// Another stage of the same pipeline cannot go on. Its layers and blocks are numbered from its own first.
    #[error("stage {stage}: {why}")]
    Stage {
        /// Which one, from 0.
        stage: u32,
        /// Why.
        why: String,
    },
    /// A part of a layer is to be computed while another is.
    #[error("the accelerator is busy")]
    Busy,
    /// The machine has no such processor.
    #[error("the machine has no processor {0:?} beside its memories")]
    NoProcessor(ProcessorId),
    /// A copy is to be computed by a processor that is not beside it.
    #[error("the processor {by:?} is to compute from {form:?}, which is not in a memory beside it")]
    NotBeside {
        /// The processor.
        by: ProcessorId,
        /// The copy.
        form: Form,
    },
    /// A copy is to be made in a memory that has failed, or of one there.
    #[error("move {0:?} reads or makes a copy in a memory that has failed")]
    Lost(MoveId),
    /// A move is cancelled that is not under way.
    #[error("move {0:?} is not under way")]
    NoSuchMove(MoveId),
    /// A chunk does not follow on the one before.
    #[error("move {id:?} goes on at byte {offset} after {sent} bytes")]
    OutOfOrder {
        /// The move.
        id: MoveId,
        /// Where the chunk begins.
        offset: Bytes,
        /// Where it should.
        sent: Bytes,
    },
}
