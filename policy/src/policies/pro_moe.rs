//! ProMoE: a queue of prefetches ahead of the running layer, behind demands, over least recently used.
//!
//! Source: Song et al., "ProMoE: Fast MoE-based LLM Serving using Proactive Caching", arXiv 2410.22134.
//!
//! - A learned predictor for each layer says what coming layers will choose; here it is the platform's look-ahead with its
//!   stated accuracy. Without one nothing is prefetched, and what is left is LRU.
//! - Transfers wait in a queue of two priorities: what the running layer misses before what a coming layer may. The
//!   controller's demand and prefetch classes are these.
//! - An expert is cut into three chunks, and a demand goes between two. The scenario sets the chunk, in bytes, for all
//!   policies alike.
//! - Early pre-emption: once a layer has chosen, prefetches to it that were wrong are given up, and one that was right is
//!   raised to a demand where it is. The controller does both for every policy.
//! - Eviction is least recently used; a prefetch counts as a use.
//!
//! Unspecified and chosen: the nearest layer comes first, in it the largest expected gate weight; four prefetches may be
//! under way.
//!
//! Differences: the paper computes a layer's experts in the order cached, in flight, missing, each as soon as it is
//! there; here a layer's experts are computed together, once all are there.

use super::look_ahead::{Expected, PREFETCHES, gate_squared, prefetch, room_for};
use super::lru::Lru;
use super::reactive::Reactive;
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::Routed;
use crate::id::{BlockId, LayerId};
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "pro_moe",
    about: "prefetches what look-ahead expects, behind demands, over least recently used (arXiv 2410.22134)",
    params: &[PREFETCHES],
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let &[prefetches] = input.params else { return Err(SimulateError::Params) };
    Ok(Box::new(ProMoe {
        cache: Reactive::new(Lru::new(input.model.blocks.len() as u32)),
        expected: Expected::new(input.model.layers.len()),
        order: Vec::new(),
        prefetches: prefetches as usize,
    }))
}

#[derive(Debug)]
struct ProMoe {
    cache: Reactive<Lru>,
    expected: Expected,
    /// Empty between uses; kept for its memory.
    order: Vec<Routed>,
    prefetches: usize,
}

impl Policy for ProMoe {
    fn foresee(&mut self, _context: &Context, layer: LayerId, routed: &[Routed]) {
        self.expected.foresee(layer, routed);
    }

    fn observe(&mut self, context: &Context, layer: LayerId, routed: &[Routed]) {
        self.expected.passed(layer);
        self.cache.observe(context, layer, routed);
    }

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        self.cache.weigh(context, proposal)
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        self.cache.victim(context)
    }

    fn admitted(&mut self, context: &Context, block: BlockId) {
        self.cache.admitted(context, block);
    }

    fn lost(&mut self, context: &Context, block: BlockId) {
        self.cache.lost(context, block);
    }

    fn speculate(&mut self, context: &Context, proposals: &mut Vec<Proposal>) {
        let most = room_for(context, self.prefetches);
        for (_, routed) in self.expected.coming(context.signals.layer, context.signals.layers) {
            if proposals.len() >= most {
                break;
            }
            self.order.clear();
            self.order.extend_from_slice(routed);
            self.order.sort_by(|a, b| b.gate_squared.total_cmp(&a.gate_squared).then(a.block.cmp(&b.block)));
            proposals.extend(self.order.iter().filter_map(|expert| {
                let native = context.model.block(expert.block).native;
                prefetch(context, expert.block, native, gate_squared(context, expert), 1.0)
            }));
        }
        proposals.truncate(most);
    }
}
