//! Whole-model offload: a phase's weights are moved in when it is called, and out when another one is.
//!
//! Source: `enable_model_cpu_offload` of Hugging Face diffusers, which is `cpu_offload_with_hook` of accelerate: a hook before
//! the forward of a text encoder, transformer or image decoder moves all of it to the accelerator, and the one before it off.
//! Nothing is computed meanwhile. While a phase fits, it is moved once however many steps it runs for.
//!
//! Differences: a layer's weights are moved when it first runs, not all before the first, which takes as long. A phase that
//! does not fit makes the original fail. Here its first layers stay, and each of the others is copied when it is called and
//! given up for the next, as accelerate places a model on a device with too little memory (`device_map`, `max_memory`).

use super::reactive::at_full_precision;
use super::sequential_offload::idle_copy;
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::Routed;
use crate::id::LayerId;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "model_offload",
    about: "moves a phase in when it is called and out when another one is (diffusers' model CPU offload)",
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(_: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(ModelOffload))
}

struct ModelOffload;

/// A copy of another phase than the running one.
fn of_another_phase(context: &Context) -> Option<Victim> {
    let running = context.model.phase_of(context.signals.layer);
    let phases = context.model.phases.iter().enumerate().filter(|(phase, _)| *phase != running);
    phases.flat_map(|(_, phase)| phase.layers.clone()).find_map(|layer| idle_copy(context, LayerId(layer)))
}

impl Policy for ModelOffload {
    fn observe(&mut self, _context: &Context, _layer: LayerId, _routed: &[Routed]) {}

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        at_full_precision(context, proposal)
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        let layers = 0..context.model.layers.len() as u16;
        of_another_phase(context)
            .or_else(|| layers.rev().find_map(|layer| idle_copy(context, LayerId(layer))))
    }

    fn release(&mut self, context: &Context) -> Option<Victim> {
        of_another_phase(context)
    }
}
