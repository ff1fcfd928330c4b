//! Sequential CPU offload: weights are copied when they are called and not kept.
//!
//! Source: `enable_sequential_cpu_offload` of Hugging Face diffusers, which is `cpu_offload` of accelerate: a hook before each
//! module's forward copies its weights to the accelerator, and one after it drops them. Copies and kernels take turns, so a
//! step takes the time of all its bytes on the link and of all its compute, one after the other. It is what needs least memory.
//!
//! Differences: a layer's blocks are copied together and then computed; the hooks take one matrix after the other, which
//! takes as long. The hooks copy from pageable memory, at whatever rate the driver's bounce buffers give; here copies have
//! the rate of their link, so this is what it could be at best.

use super::reactive::at_full_precision;
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::Routed;
use crate::id::LayerId;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "sequential_offload",
    about: "copies blocks when their layer is called, and keeps none (diffusers' sequential CPU offload)",
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(_: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(SequentialOffload))
}

struct SequentialOffload;

/// A copy of a layer that is not in use.
pub(super) fn idle_copy(context: &Context, layer: LayerId) -> Option<Victim> {
    let ledger = &context.ledger;
    let copy = |block| ledger.fast_copies(block).next().map(|form| Victim { block, form, terms: None });
    ledger.idle(layer).find_map(copy)
}

impl Policy for SequentialOffload {
    fn observe(&mut self, _context: &Context, _layer: LayerId, _routed: &[Routed]) {}

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        at_full_precision(context, proposal)
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        (0..context.model.layers.len() as u16).find_map(|layer| idle_copy(context, LayerId(layer)))
    }

    fn release(&mut self, context: &Context) -> Option<Victim> {
        idle_copy(context, context.signals.layer)
    }
}
