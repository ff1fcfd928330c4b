//! What checkpoints of recurrent states did in a run, as its summary has it.

use crate::report::{StateUse, Transition, ratio, states, transitions};
use crate::simulate::Outcome;
use policy::checkpoints::CheckpointUse;
use serde::Serialize;

/// What checkpoints of recurrent states were used for.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointFigures {
    /// Share of prompt tokens that a checkpoint spared.
    pub token_hit_rate: f64,
    /// Share of the requests that begin like an earlier one which went on from a checkpoint.
    pub reuse_rate: f64,
    /// Prompt tokens that a checkpoint spared.
    pub hit_tokens: u64,
    /// Prompt tokens that some earlier request had computed.
    pub seen_tokens: u64,
    /// Those of them that were computed again.
    pub recomputed_tokens: u64,
    /// Requests that went on from a checkpoint.
    pub restores: u64,
    /// Requests that begin like an earlier one and began anew all the same.
    pub recomputes: u64,
    /// Checkpoints made.
    pub made: u64,
    /// Checkpoints that no pool had room for, or none better used.
    pub not_kept: u64,
    /// The most bytes of states that were on their way between requests and pools at once: beside the requests' own, and in no pool.
    pub staged_peak_bytes: u64,
    /// The pools, nearest first.
    pub pools: Vec<PoolFigures>,
    /// Bytes, as states are served, times seconds that checkpoints spent in each state.
    pub states: Vec<StateUse>,
    /// Edges taken.
    pub transitions: Vec<Transition>,
}

/// What one pool did.
#[derive(Clone, Debug, Serialize)]
pub struct PoolFigures {
    /// The tier.
    pub tier: String,
    /// Bytes that checkpoints may take of it.
    pub room_bytes: u64,
    /// The most they took.
    pub peak_bytes: u64,
    /// Requests restored from it.
    pub hits: u64,
    /// Copies given up.
    pub evictions: u64,
    /// Copies that went on to the next pool.
    pub lowered: u64,
    /// Copies coded in fewer bits to make room.
    pub reduced: u64,
}

impl CheckpointFigures {
    /// The figures of a run, if it had checkpoints.
    pub(crate) fn new(outcome: &Outcome) -> Option<CheckpointFigures> {
        let checkpoints = outcome.orchestrator.serving().checkpoints()?;
        let used: CheckpointUse = checkpoints.figures();
        let pool = |pool: policy::checkpoints::PoolUse| PoolFigures {
            tier: pool.tier,
            room_bytes: pool.room.0,
            peak_bytes: pool.peak.0,
            hits: pool.hits,
            evictions: pool.evictions,
            lowered: pool.lowered,
            reduced: pool.reduced,
        };
        Some(CheckpointFigures {
            token_hit_rate: ratio(used.hit_tokens as f64, used.prompt_tokens as f64),
            reuse_rate: ratio(used.restores as f64, used.reusable as f64),
            hit_tokens: used.hit_tokens,
            seen_tokens: used.seen_tokens,
            recomputed_tokens: used.recomputed_tokens,
            restores: used.restores,
            recomputes: used.recomputes,
            made: used.made,
            not_kept: used.not_kept,
            staged_peak_bytes: used.staged.0,
            pools: used.pools.into_iter().map(pool).collect(),
            states: states(checkpoints.states().byte_seconds(outcome.world.now())),
            transitions: transitions(checkpoints.states().transitions()),
        })
    }
}
