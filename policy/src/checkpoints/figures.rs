//! What checkpoints were used for.

use super::CheckpointSpec;
use crate::event::StateEnd;
use crate::id::CheckpointId;
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
    /// The most bytes, as they are served, of states of requests that were on their way to or from pools at once: beside the
    /// requests' own, and in no pool.
    pub staged: Bytes,
    /// Moves begun, and a digest of what they were: two runs that decided alike have the same.
    pub moves: u64,
    /// See `moves`.
    pub digest: u64,
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
    /// A move begins.
    pub(super) fn note_move(&mut self, checkpoint: CheckpointId, from: StateEnd, to: StateEnd) {
        let word = |end: StateEnd| match end {
            StateEnd::Request => 0,
            StateEnd::Kept(form) => 1 << 16 | u64::from(form.tier.0) << 8 | form.format.index() as u64,
        };
        self.moves += 1;
        // FNV-1a over whole words, as in `observe.rs`.
        for word in [checkpoint.0, word(from) << 32 | word(to)] {
            self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(super) fn new(machine: &Machine, spec: &CheckpointSpec) -> CheckpointUse {
        let pool = |pool: &super::PoolSpec| PoolUse {
            tier: machine.tier(pool.tier).name.clone(),
            room: pool.room,
            ..PoolUse::default()
        };
        CheckpointUse { pools: spec.pools.iter().map(pool).collect(), ..CheckpointUse::default() }
    }
}
