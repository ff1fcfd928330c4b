//! What the ledger refuses.

use crate::event::Form;
use crate::id::{BlockId, MoveId, TierId};
use crate::state::State;
use crate::units::Bytes;
use thiserror::Error;

/// A refused change. None of these is reachable from user input: they say that a policy is wrong.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// The change of state is not in the table.
    #[error("block {block:?} cannot go from {from:?} to {to:?}")]
    NoSuchEdge {
        /// The block.
        block: BlockId,
        /// Its state before.
        from: State,
        /// The state it would have.
        to: State,
    },
    /// The tier is full.
    #[error("tier {tier:?} has {free} free and {wanted} is wanted")]
    NoRoom {
        /// The tier.
        tier: TierId,
        /// What is free.
        free: Bytes,
        /// What is asked for.
        wanted: Bytes,
    },
    /// The copy named is not there, or is there already.
    #[error("block {block:?} has no such copy, or has it already: {form:?}")]
    NoSuchCopy {
        /// The block.
        block: BlockId,
        /// The copy.
        form: Form,
    },
    /// The copy is in use: needed by the running step, read by a move, or the only one there is.
    #[error("the copy {form:?} of block {block:?} is in use")]
    InUse {
        /// The block.
        block: BlockId,
        /// The copy.
        form: Form,
    },
    /// The form is not one that this run knows.
    #[error("form {0:?} is not part of this run")]
    UnknownForm(Form),
    /// The move is not under way.
    #[error("move {0:?} is not under way")]
    NoSuchMove(MoveId),
}
