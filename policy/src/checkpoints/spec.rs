//! How checkpoints are kept: where they are made, which pools hold them, and what goes first.

use super::benefit::BenefitPerByte;
use super::evict::Evict;
use super::lru::Lru;
use super::marconi::Marconi;
use crate::id::TierId;
use crate::state_format::StateFormat;
use crate::units::Bytes;

/// How checkpoints are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointSpec {
    /// Where they are made.
    pub place: Place,
    /// What goes first.
    pub evict: Eviction,
    /// The memories that hold them, nearest to the accelerator first; each checkpoint is written to all that have room.
    pub pools: Vec<PoolSpec>,
}

/// One memory's room for checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// The memory.
    pub tier: TierId,
    /// Bytes that they may take.
    pub room: Bytes,
    /// What they are coded in on their way there.
    pub format: StateFormat,
    /// What copies that are exact may be coded in, once, to make room.
    pub reduce_to: Option<StateFormat>,
}

/// Where checkpoints are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Every so many tokens, and at the end of the prompt.
    Every(u32),
    /// Where a prompt parts from those before it, and at its end (Marconi's admission).
    Branch,
    /// At so many depths, those at which least is computed again by the depths to which prompts have been alike so far, and
    /// at the end.
    Optimal(u32),
}

/// What goes first where room is needed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Eviction {
    /// What was used longest ago.
    Lru,
    /// What Marconi's score (MLSys 2025) has least: recency, and `alpha` times the operations that it saves for a byte.
    Marconi {
        /// The weight of operations saved.
        alpha: f64,
    },
    /// The action (fewer bits, a lower memory, or nothing left) that loses least time for a byte: the chance of reuse, as learned
    /// from this run, times what restoring saves.
    BenefitPerByte,
}

impl Eviction {
    pub(super) fn build(self) -> Box<dyn Evict> {
        match self {
            Eviction::Lru => Box::new(Lru),
            Eviction::Marconi { alpha } => Box::new(Marconi { alpha }),
            Eviction::BenefitPerByte => Box::new(BenefitPerByte),
        }
    }
}
