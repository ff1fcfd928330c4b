//! What checkpoints were used for.

use super::CheckpointSpec;
use crate::machine::Machine;
use crate::units::Bytes;

/// What the checkpoints of a run were used for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointUse {
    /// Requests admitted, each time they were.
    pub requests: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Tokens that a checkpoint spared them.
    pub hit_tokens: u64,
    /// Tokens that some earlier request had computed.
    pub seen_tokens: u64,
    /// Those of them that were computed again.
    pub recomputed_tokens: u64,
    /// Requests whose prompts begin like an earlier one.
    pub reusable: u64,
    /// Those that went on from a checkpoint, and those that began anew.
    pub restores: u64,
    /// See `restores`.
    pub recomputes: u64,
    /// Checkpoints made, and those that no pool took.
    pub made: u64,
    /// See `made`.
    pub not_kept: u64,
    /// Each pool.
    pub pools: Vec<PoolUse>,
}

/// What one pool was used for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Its tier.
    pub tier: String,
    /// Bytes that it may take, and the most that it took.
    pub room: Bytes,
    /// See `room`.
    pub peak: Bytes,
    /// Requests restored from it.
    pub hits: u64,
    /// Copies given up, moved to a lower pool, and coded in fewer bits.
    pub evictions: u64,
    /// See `evictions`.
    pub lowered: u64,
    /// See `evictions`.
    pub reduced: u64,
}

impl CheckpointUse {
    pub(super) fn new(machine: &Machine, spec: &CheckpointSpec) -> CheckpointUse {
        let pool = |pool: &super::PoolSpec| PoolUse {
            tier: machine.tier(pool.tier).name.clone(),
            room: pool.room,
            ..PoolUse::default()
        };
        CheckpointUse { pools: spec.pools.iter().map(pool).collect(), ..CheckpointUse::default() }
    }
}
