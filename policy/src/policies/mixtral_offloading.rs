//! mixtral-offloading: a least recently used cache for each layer, and the next layer's gate asked ahead.
//!
//! Source: Eliseev and Mazur, "Fast Inference of Mixture-of-Experts Language Models with Offloading", arXiv 2312.17238, and
//! its code at dvmazur/mixtral-offloading.
//!
//! - *Cache*: the same number of experts in every layer (2 or 4 on the paper's machines), least recently used within it.
//! - *Speculation*: the next layer's gate is applied to the running layer's hidden state, and the one or two likeliest
//!   experts are loaded. Four buffers beside the caches receive copies. The released code never shipped it: set
//!   `speculate` to 0 for what its users have.
//!
//! Unspecified and chosen: the buffers come out of the same memory; what is left is shared evenly, the remainder going to
//! the first layers. Where two experts are equally likely, the lower number comes first.
//!
//! Differences: a layer may hold more than its share while others hold less, and a speculative copy takes its place in the
//! cache when it begins, not when it is used. The paper's precision (HQQ, mixed) is that of the model here. In a batch the
//! likeliest experts are those with the most gate weight over it. Without look-ahead nothing is speculated on.

use super::layer_caches::LayerCaches;
use super::look_ahead::{Expected, gate_squared, prefetch, room_for};
use super::reactive::at_full_precision;
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::Routed;
use crate::id::{BlockId, LayerId};
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "mixtral_offloading",
    about: "least recently used within each layer; loads what the next layer's gate foretells (arXiv 2312.17238)",
    params: &[Param {
        name: "speculate",
        about: "blocks of the next layer that are loaded ahead; as released, 0",
        default: 2.0,
        min: 0.0,
        max: 8.0,
        scale: Scale::Linear,
    }],
    simulate: Some(simulate),
    ..Entry::ONLINE
};

/// Copies under way beside the caches.
const BUFFERS: usize = 4;

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let &[speculate] = input.params else { return Err(SimulateError::Params) };
    let layers = input.model.layers.len();
    let slots = input.capacity.saturating_sub(BUFFERS);
    let share = |layer: usize| (slots / layers + usize::from(layer < slots % layers)) as u32;
    Ok(Box::new(MixtralOffloading {
        caches: LayerCaches::new(input.model, (0..layers).map(share).collect()),
        expected: Expected::new(layers),
        likeliest: Vec::new(),
        speculate: speculate as usize,
    }))
}

struct MixtralOffloading {
    caches: LayerCaches,
    expected: Expected,
    /// Empty between uses; kept for its memory.
    likeliest: Vec<Routed>,
    speculate: usize,
}

impl Policy for MixtralOffloading {
    fn foresee(&mut self, _context: &Context, layer: LayerId, routed: &[Routed]) {
        self.expected.foresee(layer, routed);
    }

    fn observe(&mut self, context: &Context, layer: LayerId, routed: &[Routed]) {
        self.expected.passed(layer);
        self.caches.observe(context, routed);
    }

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        at_full_precision(context, proposal)
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        self.caches.victim(context)
    }

    fn admitted(&mut self, context: &Context, block: BlockId) {
        self.caches.admitted(context, block);
    }

    fn lost(&mut self, context: &Context, block: BlockId) {
        self.caches.lost(context, block);
    }

    fn speculate(&mut self, context: &Context, proposals: &mut Vec<Proposal>) {
        let room = room_for(context, BUFFERS);
        let Some((_, expected)) = self.expected.coming(context.signals.layer, 1).next() else { return };
        self.likeliest.clear();
        self.likeliest.extend_from_slice(expected);
        self.likeliest.sort_by(|a, b| b.gate_squared.total_cmp(&a.gate_squared).then(a.block.cmp(&b.block)));
        let moves = self.likeliest.iter().take(self.speculate).filter_map(|expert| {
            let native = context.model.block(expert.block).native;
            prefetch(context, expert.block, native, gate_squared(context, expert), 1.0)
        });
        proposals.extend(moves.take(room));
    }
}
