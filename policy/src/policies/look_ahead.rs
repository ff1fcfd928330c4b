//! What published systems do with look-ahead: they remember what each coming layer is expected to choose, and prefetch
//! it in an order of their own, at no price.

use crate::control::{Context, Proposal};
use crate::event::{Form, MoveClass, Routed};
use crate::format::FormatId;
use crate::id::{BlockId, LayerId};
use crate::record::Action;
use crate::registry::{Param, Scale};
use crate::score::Terms;

/// The latest expectation of each coming layer of the running step.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    layers: Vec<Vec<Routed>>,
}

impl Expected {
    /// Nothing is expected of so many layers.
    pub(super) fn new(layers: usize) -> Expected {
        Expected { layers: vec![Vec::new(); layers] }
    }

    /// A layer is expected to choose so.
    pub(super) fn foresee(&mut self, layer: LayerId, routed: &[Routed]) {
        self.passed(layer);
        self.layers[layer.index()].extend_from_slice(routed);
    }

    /// A layer has chosen: what was expected of it is of no use any more.
    pub(super) fn passed(&mut self, layer: LayerId) {
        self.layers[layer.index()].clear();
    }

    /// Whether a block is expected to be chosen.
    pub(super) fn holds(&self, context: &Context, block: BlockId) -> bool {
        let layer = context.model.block(block).layer;
        self.layers[layer.index()].iter().any(|expert| expert.block == block)
    }

    /// What is expected of the layers after `layer`, nearest first, at most so many layers ahead: the distance, and the
    /// choice. It ends with the step.
    pub(super) fn coming(&self, layer: LayerId, most: u32) -> impl Iterator<Item = (u32, &[Routed])> {
        let layers = self.layers.iter().skip(layer.index() + 1).map(Vec::as_slice);
        (1..=most).zip(layers)
    }
}

/// The squared gate weight that a choice gives a block, per token of the running step.
pub(super) fn gate_squared(context: &Context, expert: &Routed) -> f64 {
    f64::from(expert.gate_squared) / f64::from(context.signals.step_tokens.max(1))
}

/// A prefetch of a block in `format`; `None` where that copy is there, a move to the block is under way, or there is no
/// route. `gate_squared` is an upper bound on its squared gate weight per token. The published systems neither price a
/// prefetch nor ask how well founded it is: it saves one nanosecond at no cost, so that the guard lets it through.
pub(super) fn prefetch(
    context: &Context,
    block: BlockId,
    format: FormatId,
    gate_squared: f64,
    probability: f64,
) -> Option<Proposal> {
    let ledger = &context.ledger;
    if ledger.has(block, Form { tier: context.costs.fast, format }) || ledger.is_moving(block) {
        return None;
    }
    let (kind, terms) =
        ((Action::Speculate, MoveClass::Prefetch), Terms { probability, saved: 1.0, ..Terms::default() });
    let route = context.costs.fetch(ledger, block, format)?;
    Some(Proposal { gate_squared, ..Proposal::ahead(block, kind, route, u64::MAX, terms) })
}

/// The parameter of policies that prefetch for the layers that come next.
pub(super) const AHEAD: Param = Param {
    name: "ahead",
    about: "layers that prefetches look ahead",
    default: 3.0,
    min: 0.0,
    max: 64.0,
    scale: Scale::Linear,
};

/// The parameter of policies whose sources do not say how many prefetches may be under way.
pub(super) const PREFETCHES: Param = Param {
    name: "prefetches",
    about: "prefetches under way at most",
    default: 4.0,
    min: 0.0,
    max: 64.0,
    scale: Scale::Linear,
};

/// How many more prefetches may begin where `most` may be under way.
pub(super) fn room_for(context: &Context, most: usize) -> usize {
    let background = context.ledger.flights().filter(|(_, flight)| flight.class != MoveClass::Demand);
    most.saturating_sub(background.count())
}
