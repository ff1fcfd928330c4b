//! A cache for each layer, least recently used within it, each with its share of fast memory.

use super::per_layer::Ranking;
use crate::control::{Context, Victim};
use crate::event::Routed;
use crate::id::{BlockId, LayerId};
use crate::model::Model;

/// The caches. Room that a layer does not use is lent: a layer holds more than its share until another needs the room.
#[derive(Clone, Debug)]
pub(super) struct LayerCaches {
    /// Blocks of each layer that may stay.
    shares: Vec<u32>,
    /// Blocks of each layer that are there or under way.
    held: Vec<u32>,
    /// The layer step in which a block was last needed or fetched.
    used: Vec<u64>,
    oldest: Ranking,
}

impl LayerCaches {
    /// Empty caches with so many blocks for each layer.
    pub(super) fn new(model: &Model, shares: Vec<u32>) -> LayerCaches {
        LayerCaches {
            held: vec![0; shares.len()],
            used: vec![0; model.blocks.len()],
            oldest: Ranking::new(shares.len()),
            shares,
        }
    }

    /// Notes what the running layer step needs.
    pub(super) fn observe(&mut self, context: &Context, routed: &[Routed]) {
        for expert in routed {
            self.used[expert.block.index()] = context.signals.layer_step;
        }
    }

    /// The oldest block of the layer that is furthest above its share; of layers alike, the running one gives first.
    pub(super) fn victim(&mut self, context: &Context) -> Option<Victim> {
        let LayerCaches { shares, held, used, oldest } = self;
        let excess = |layer: LayerId| {
            let running = if layer == context.signals.layer { 0.5 } else { 0.0 };
            f64::from(held[layer.index()]) - f64::from(shares[layer.index()]) + running
        };
        let age = |block: BlockId| Some(used[block.index()] as f64);
        let (_, block) = oldest.least(context, age, |layer, _| -excess(layer))?;
        let form = context.ledger.fast_copies(block).next()?;
        self.lost(context, block);
        Some(Victim { block, form, terms: None })
    }

    /// A block has room.
    pub(super) fn admitted(&mut self, context: &Context, block: BlockId) {
        self.held[context.model.block(block).layer.index()] += 1;
        self.used[block.index()] = context.signals.layer_step;
    }

    /// A block is gone.
    pub(super) fn lost(&mut self, context: &Context, block: BlockId) {
        let held = &mut self.held[context.model.block(block).layer.index()];
        *held = held.saturating_sub(1);
    }
}
