//! Misses in full precision, by the link or where they lie, in an order of the policy's own.

use crate::control::{Context, Proposal};
use crate::record::Action;
use crate::score::Terms;

/// More nanoseconds than any wait: what is taken only where nothing else can be.
pub(super) const LAST_RESORT: f64 = 1e15;

/// A way to serve a block in full precision, by its time on an idle machine; later where it is not `preferred`.
pub(super) fn by_own_time(context: &Context, proposal: &Proposal, preferred: bool) -> Option<Terms> {
    let native = context.model.block(proposal.block).native;
    if proposal.route.to.format != native || proposal.action == Action::Skip {
        return None;
    }
    let memory = if preferred { 0.0 } else { LAST_RESORT };
    Some(Terms { moving: proposal.route.time.0 as f64, memory, ..Terms::default() }.sum())
}
