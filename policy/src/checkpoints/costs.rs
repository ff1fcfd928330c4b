//! What checkpoints take, what restoring one takes, and what computing its tokens again would.

use super::CheckpointSpec;
use crate::id::TierId;
use crate::machine::{Class, Machine};
use crate::model::{Layer, Model};
use crate::path::Paths;
use crate::state_format::StateFormat;
use crate::units::{Bytes, Nanos};

/// Sizes and times of a model's checkpoints on a machine.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    /// The tier that compute reads.
    pub(super) fast: TierId,
    /// Ways between memories.
    pub(super) paths: Paths,
    /// Bytes of all states as they are served.
    pub(super) served: Bytes,
    /// Bytes in each format, in order.
    sizes: Vec<Bytes>,
    /// The granularity of each pool.
    granularities: Vec<Bytes>,
    /// For each pool and format, from the decision to the state in place, on an idle machine.
    restores: Vec<Vec<Nanos>>,
    /// Nanoseconds to compute a token of a prompt, and for each pair of a token and one it looks at.
    per_token: f64,
    per_pair: f64,
    flops_per_token: f64,
    flops_per_pair: f64,
    cache_per_token: u64,
}

impl Costs {
    /// Costs where prompts are computed in steps of `chunk` tokens.
    pub(super) fn new(model: &Model, machine: &Machine, spec: &CheckpointSpec, chunk: u32) -> Costs {
        let fast = machine.tiers_of(Class::Fast).next().unwrap_or_default();
        let sizes: Vec<Bytes> = StateFormat::all().map(|format| model.state_bytes(format)).collect();
        let served = model.state_bytes(StateFormat::SERVED);
        let paths = Paths::new(machine);
        let restore = |tier: TierId, format: StateFormat| {
            let bytes = sizes[format.index()];
            let way = paths.between(tier, fast).map_or(Nanos::ZERO, |path| path.transfer(bytes));
            let expands = tier == fast || format != StateFormat::SERVED;
            way + if expands { coding(machine, bytes, served) } else { Nanos::ZERO }
        };
        let of_pool = |tier| StateFormat::all().map(|format| restore(tier, format)).collect();
        let flops: u64 = model.layers.iter().map(|layer| active_flops(model, layer)).sum();
        let pairs: u64 = model.layers.iter().map(|layer| layer.flops_per_pair).sum();
        let weights: Bytes =
            model.resident_bytes() + model.blocks.iter().map(|block| block.bytes(block.native)).sum();
        let processor = machine.accelerator;
        let nanos = |flops: u64| flops as f64 * 1e9 / processor.flops.0 as f64;
        let reading = processor.read.time_for(weights).0 as f64 / f64::from(chunk.max(1));
        Costs {
            restores: spec.pools.iter().map(|pool| of_pool(pool.tier)).collect(),
            granularities: spec.pools.iter().map(|pool| machine.tier(pool.tier).granularity).collect(),
            fast,
            paths,
            served,
            per_token: nanos(flops).max(reading),
            per_pair: nanos(pairs),
            flops_per_token: flops as f64,
            flops_per_pair: pairs as f64,
            cache_per_token: model.layers.iter().map(|layer| layer.kv_per_token.0).sum(),
            sizes,
        }
    }

    /// Bytes of a checkpoint in a format.
    pub(super) fn size(&self, format: StateFormat) -> Bytes {
        self.sizes[format.index()]
    }

    /// What it takes of a pool.
    pub(super) fn footprint(&self, pool: usize, format: StateFormat) -> u64 {
        self.size(format).round_up(self.granularities[pool]).0
    }

    /// From the decision to the state in place, on an idle machine.
    pub(super) fn restore(&self, pool: usize, format: StateFormat) -> Nanos {
        self.restores[pool][format.index()]
    }

    /// The time to compute the tokens of a prompt between two positions.
    pub(super) fn prefill(&self, from: u32, to: u32) -> Nanos {
        let (from, to) = (f64::from(from.min(to)), f64::from(to));
        let pairs = (to * to - from * from) / 2.0;
        Nanos((self.per_token * (to - from) + self.per_pair * pairs) as u64)
    }

    /// Operations of a prompt's first tokens, with attention over all pairs of them.
    pub(super) fn all_pairs_flops(&self, tokens: u32) -> f64 {
        let tokens = f64::from(tokens);
        self.flops_per_token * tokens + self.flops_per_pair * tokens * tokens
    }

    /// Bytes that tokens leave in the key-value cache.
    pub(super) fn cache_bytes(&self, tokens: u32) -> u64 {
        self.cache_per_token.saturating_mul(tokens.into())
    }
}

/// The time in which the accelerator reads one form of a state and writes the other.
pub(super) fn coding(machine: &Machine, coded: Bytes, served: Bytes) -> Nanos {
    machine.accelerator.launch + machine.accelerator.read.time_for(coded + served)
}

/// Operations of a layer for a token: those of its own weights and of the blocks that it selects.
fn active_flops(model: &Model, layer: &Layer) -> u64 {
    let first = layer.first_block.index();
    let blocks = &model.blocks[first..first + layer.blocks as usize];
    let elements: u64 = blocks.iter().map(|block| block.elements()).sum();
    let selected = u128::from(elements) * u128::from(layer.selected) / u128::from(layer.blocks.max(1));
    layer.flops_per_token.saturating_add(2 * selected as u64)
}
