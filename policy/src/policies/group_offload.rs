//! Group offload: the next layer's weights are copied while one computes, and nothing is kept.
//!
//! Source: `apply_group_offloading` of Hugging Face diffusers (0.33) with `use_stream`: groups of modules have hooks as in
//! sequential offload, and a hook also starts the copies of the group that came next in the first pass, on a stream of their
//! own, from pinned memory. So a layer takes the longer of its compute and the next one's copies, and memory holds two groups.
//!
//! Differences: a group is a layer (`block_level`, one block a group). What comes next is known from the first step on.

use super::look_ahead::prefetch;
use super::reactive::at_full_precision;
use super::sequential_offload::idle_copy;
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::Routed;
use crate::id::{BlockId, LayerId};
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "group_offload",
    about: "copies the next layer's blocks while one computes, and keeps none (diffusers' group offload with a stream)",
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(_: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(GroupOffload))
}

struct GroupOffload;

impl Policy for GroupOffload {
    fn observe(&mut self, _context: &Context, _layer: LayerId, _routed: &[Routed]) {}

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        at_full_precision(context, proposal)
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        let next = context.signals.coming(1);
        let others = (0..context.model.layers.len() as u16).map(LayerId).filter(|&layer| layer != next);
        others.chain([next]).find_map(|layer| idle_copy(context, layer))
    }

    fn release(&mut self, context: &Context) -> Option<Victim> {
        idle_copy(context, context.signals.layer)
    }

    fn speculate(&mut self, context: &Context, proposals: &mut Vec<Proposal>) {
        let next = context.model.layer(context.signals.coming(1));
        let blocks = (next.first_block.0..next.first_block.0 + next.blocks).map(BlockId);
        let native = |block: BlockId| context.model.block(block).native;
        proposals.extend(blocks.filter_map(|block| prefetch(context, block, native(block), 1.0, 1.0)));
    }
}
