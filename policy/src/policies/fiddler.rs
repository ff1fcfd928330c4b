//! Fiddler: popular experts stay on the accelerator, and each miss is computed where it is done first.
//!
//! Source: Kamahori et al., "Fiddler: CPU-GPU Orchestration for Fast Inference of Mixture-of-Experts Models", arXiv
//! 2402.07033, and its code at efeslab/fiddler.
//!
//! - *Placement* by popularity, profiled beforehand over all layers together; nothing else is ever kept.
//! - *A miss* is computed by the host, or its weights are copied and it is computed by the accelerator, whichever is
//!   quicker for its number of tokens by a model of both times: the host's grows with tokens, the copy's does not.
//!
//! Unspecified and chosen: slots for the largest demand are left free for what is copied, and of that the
//! least popular leaves first; the paper's copies are used once. Times are those of an idle machine, as in the paper: each expert is
//! decided alone, though several may share the link or the host.
//!
//! Differences: fast memory is empty when a run begins, so members are copied at their first demand. A processor of the memory
//! where a block lies stands in for the host. Where none may compute, every miss is copied.

use super::full_precision::by_own_time;
use super::placement::{Placement, by_popularity, popularity, training};
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::Routed;
use crate::id::LayerId;
use crate::record::Action;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "fiddler",
    about: "keeps the most popular blocks of the fitted trace; the host computes misses where it is quicker (arXiv 2402.07033)",
    params: &[],
    simulate: Some(simulate),
    fitted: true,
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let order = by_popularity(&popularity(input.model, training(input)?));
    let mut placement = Placement::new(input.model);
    let members = input.capacity.saturating_sub(input.largest_demand);
    placement.choose_first(input.model, &order, members);
    Ok(Box::new(Fiddler { placement }))
}

struct Fiddler {
    placement: Placement,
}

impl Policy for Fiddler {
    fn observe(&mut self, _context: &Context, _layer: LayerId, _routed: &[Routed]) {}

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        let by_host = proposal.action == Action::InPlace;
        by_own_time(context, proposal, !(by_host && self.placement.is_member(proposal.block)))
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        self.placement.victim(context)
    }
}
