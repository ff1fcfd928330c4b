//! FreeToken: least recently used over all layers, and each layer's misses split between the link and the host.
//!
//! Source: "FreeToken", arXiv 2608.16157, and the figures in its issue tracker.
//!
//! - *Eviction* is least recently used over all layers; nothing is prefetched.
//! - *Split*. Of m misses, q = m B_P / B_H cross the link and stay, the others are computed by the host where they are: B_P
//!   is the link's rate and B_H the rate of both together, so that both end at the same time.
//!
//! Unspecified and chosen: q is rounded to the nearest number, and the first q misses in the order of the choice cross the
//! link. The rates are those of the first block missed on an idle machine, B_H being at most what its memory gives.
//!
//! Differences: in a larger batch the host's rate is that for the tokens of the first block missed. A processor of the memory
//! where it lies stands in for the host. Where none may compute, every miss crosses the link.

use super::full_precision::by_own_time;
use super::lru::Lru;
use super::reactive::Reactive;
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::Routed;
use crate::id::{BlockId, LayerId};
use crate::record::Action;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "free_token",
    about: "least recently used; misses are split between the link and the host by their rates (arXiv 2608.16157)",
    params: &[],
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let cache = Reactive::new(Lru::new(input.model.blocks.len() as u32));
    Ok(Box::new(FreeToken { cache, to_copy: 0 }))
}

struct FreeToken {
    cache: Reactive<Lru>,
    /// Misses of the running layer step that still are to cross the link.
    to_copy: u64,
}

/// Of so many misses, those that cross the link: in proportion to the rates of the link and of both together.
fn share_of_link(misses: u64, link: f64, both: f64) -> u64 {
    libm::round(misses as f64 * link / both) as u64
}

/// The rates of the link and of link and host together, in bytes a nanosecond, where the host computes.
fn rates(context: &Context, missed: &Routed) -> Option<(f64, f64)> {
    let Context { costs, ledger, machine, model, .. } = context;
    let native = model.block(missed.block).native;
    let fetch = costs.fetch(ledger, missed.block, native)?;
    let in_place = costs.in_place(ledger, missed.block, missed.tokens);
    let host = in_place.filter(|route| route.to.format == native).min_by_key(|route| route.time)?;
    let rate = |route: &crate::score::Route| route.crossing.0 as f64 / route.time.0.max(1) as f64;
    let memory = machine.tier(host.to.tier).read.0 as f64 / 1e9;
    Some((rate(&fetch), (rate(&fetch) + rate(&host)).min(memory.max(rate(&fetch)))))
}

impl Policy for FreeToken {
    fn observe(&mut self, context: &Context, layer: LayerId, routed: &[Routed]) {
        self.cache.observe(context, layer, routed);
        let mut missed = routed.iter().filter(|expert| !context.ledger.is_fast(expert.block));
        let first = missed.next();
        let misses = missed.count() as u64 + u64::from(first.is_some());
        let rates = first.and_then(|first| rates(context, first));
        self.to_copy = rates.map_or(misses, |(link, both)| share_of_link(misses, link, both));
    }

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        by_own_time(context, proposal, (proposal.action == Action::InPlace) == (self.to_copy == 0))
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        self.cache.victim(context)
    }

    fn admitted(&mut self, context: &Context, block: BlockId) {
        self.to_copy = self.to_copy.saturating_sub(1);
        self.cache.admitted(context, block);
    }

    fn lost(&mut self, context: &Context, block: BlockId) {
        self.cache.lost(context, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_split_come_together() {
        // The published machine: 26.1 GB/s over PCIe, 119.5 GB/s of link and host together.
        assert_eq!(
            [0, 1, 2, 3, 4, 8, 9].map(|misses| share_of_link(misses, 26.1, 119.5)),
            [0, 0, 0, 1, 1, 2, 2]
        );
        // The link takes q / B_P, the host (m - q) / (B_H - B_P): apart by at most half a block on each.
        for misses in 1..100 {
            let q = share_of_link(misses, 26.1, 119.5) as f64;
            let (link, host) = (q / 26.1, (misses as f64 - q) / (119.5 - 26.1));
            assert!((link - host).abs() <= 0.5 / 26.1 + 0.5 / (119.5 - 26.1) + 1e-12);
        }
    }
}
