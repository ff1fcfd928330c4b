//! What a move carries: a copy of a block, or a copy of a checkpoint. How its format changes, and whether its bytes are right.

use crate::codec;
use crate::content::{Checksum, Contents, StateBytes};
use crate::engine::JobError;
use crate::region::Region;
use crate::verify;
use policy::event::Form;
use policy::{BlockId, CheckpointId, FormatId};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cargo {
    /// A copy of a block.
    Block {
        /// The block.
        block: BlockId,
        /// The format of what it is made of.
        before: FormatId,
        /// The copy that is made.
        to: Form,
    },
    /// The states of a checkpoint.
    State {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// What the bytes are that are read.
        before: StateBytes,
        /// What those are to be that are made.
        to: StateBytes,
    },
}

impl Cargo {
    /// Writes `bytes` in the format of the copy that is made.
    pub(crate) fn recode(&self, contents: &Contents, bytes: &[u8], out: &mut [u8]) -> Result<(), JobError> {
        match *self {
            Cargo::Block { block, before, to } => {
                codec::transcode(before, bytes, to.format, &contents.block(block).matrices, out)
                    .map_err(|source| JobError::Codec { block: block.0, form: to, source })
            }
            Cargo::State { checkpoint, before, to } => contents
                .recode_states((before.format(), bytes), (to.format(), out))
                .map_err(|source| JobError::State { checkpoint: checkpoint.0, source }),
        }
    }

    /// The checksum that the copy must have.
    pub(crate) fn expected(&self, contents: &Contents) -> Result<Checksum, JobError> {
        match *self {
            Cargo::Block { block, to, .. } => {
                let failed = |source| JobError::Content { block: block.0, form: to, source };
                contents.checksum(block, to.format).map_err(failed)
            }
            Cargo::State { checkpoint, to, .. } => {
                let failed = |source| JobError::State { checkpoint: checkpoint.0, source };
                contents.state_checksum(checkpoint, to).map_err(failed)
            }
        }
    }

    /// Compares the checksum of the copy's bytes with what it must be.
    pub(crate) fn compare(&self, contents: &Contents, got: Checksum) -> Result<Checksum, JobError> {
        let expected = self.expected(contents)?;
        match *self {
            _ if got == expected => Ok(got),
            Cargo::Block { block, to, .. } => {
                Err(JobError::Mismatch { block: block.0, form: to, expected, got })
            }
            Cargo::State { checkpoint, to, .. } => {
                let format = to.format().name();
                Err(JobError::StateMismatch { checkpoint: checkpoint.0, format, expected, got })
            }
        }
    }

    /// Compares the bytes of the copy with what they must be.
    pub(crate) fn check(&self, contents: &Contents, region: &Region) -> Result<Checksum, JobError> {
        match *self {
            Cargo::Block { block, to, .. } => verify::check(contents, block, to, region),
            Cargo::State { .. } => self.compare(contents, region.with_bytes(Checksum::of)?),
        }
    }
}
