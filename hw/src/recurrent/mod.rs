//! Recurrent layers on the host: the recurrences of Mamba-1 and Mamba-2 over a prompt and token by token, their states in
//! fp32, fp16 and fewer bits, and the attention they stand beside. The kernels of `hw/kernels/recurrent*.cu` compute the same.
//!
//! A Mamba-2 layer (SSD) has `heads` states `S` of `head_dim` rows and `state_dim` columns. At token `t`, with the step
//! `dt[t][head]`, the head's rate `a < 0` and the vectors `b`, `c` of the head's group,
//!
//! `S = exp(dt a) S + dt x b'` and `y = S c`.
//!
//! A Mamba-1 layer has a row of state a channel, and a rate for each of its numbers. Convolutions, gates, norms and projections are
//! no part of the recurrence and are not computed here.

pub mod attention;
mod backlog;
pub mod checkpoint;
mod chunk;
pub mod coded;
mod f16c;
pub mod folded;
pub mod gated;
pub mod inputs;
mod lanes;
pub mod made;
pub mod mixers;
pub mod number;
mod product;
pub mod quantised;
pub mod reference;
pub mod ring;
pub mod scan;
pub mod shape;
pub mod ssd;
pub mod step;
pub mod upkeep;
pub mod window;

use crate::codec::CodecError;
use crate::compute::ComputeError;
use thiserror::Error;

/// Why a kernel refuses what it is given.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum RecurrentError {
    /// Dimensions that no layer has.
    #[error("{0}")]
    Shape(&'static str),
    /// A buffer of another size than the shape asks for.
    #[error("{what}: {expected} numbers are asked for, the buffer has {got}")]
    WrongLength {
        /// Which.
        what: &'static str,
        /// What the shape asks for.
        expected: usize,
        /// What is there.
        got: usize,
    },
    /// Bytes of a checkpoint that are not what was written.
    #[error("the bytes of a checkpoint are not those that were written: it is torn, or another one")]
    Torn,
    /// A state that no format holds.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Codes that cannot be read.
    #[error(transparent)]
    Compute(#[from] ComputeError),
}

fn check(what: &'static str, expected: usize, got: usize) -> Result<(), RecurrentError> {
    if expected == got { Ok(()) } else { Err(RecurrentError::WrongLength { what, expected, got }) }
}
