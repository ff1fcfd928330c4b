//! MoE-Infinity as its released code behaves: least visits since a block came in, and no prefetch.
//!
//! Source: the code released with Xue et al., "MoE-Infinity", arXiv 2401.14361. It differs from the paper: it evicts the
//! lowest visit count of what is resident, and ships with prefetch switched off. So whoever measures it measures a
//! reactive LFU whose counts end with residence. The policy of the paper is `moe_infinity`.
//!
//! Unspecified and chosen: ties leave as they do in `lfu`. A batch that visits a block at a layer step visits it once.

use super::lfu::Lfu;
use super::reactive::Reactive;
use crate::control::Policy;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{Order, ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "moe_infinity_released",
    about: "evicts the block with the fewest demands since it came in (MoE-Infinity's released code)",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    clairvoyant: false,
    fitted: false,
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(Reactive::new(FewestVisits::new(input.model.blocks.len() as u32, Order::Atomic))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(FewestVisits::new(input.demands.universe(), input.order)))
}

/// [`Lfu`] with counts that begin anew when an id comes in.
#[derive(Clone, Debug)]
pub struct FewestVisits {
    lfu: Lfu,
}

impl FewestVisits {
    /// An empty cache of ids `0..universe`.
    pub fn new(universe: u32, order: Order) -> FewestVisits {
        FewestVisits { lfu: Lfu::new(universe, order) }
    }
}

impl Rule for FewestVisits {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.lfu.contains(id)
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, now: u64) {
        self.lfu.touch(id, now);
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, now: u64) {
        self.lfu.forget(id);
        self.lfu.insert(id, now);
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, now: u64, keep: &K) -> Option<u32> {
        self.lfu.evict(now, keep)
    }

    fn remove(&mut self, id: u32) {
        self.lfu.remove(id);
    }

    fn reset(&mut self) {
        self.lfu.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::KeepNone;

    #[test]
    fn counts_end_with_residence() {
        let mut rule = FewestVisits::new(4, Order::Access);
        rule.insert(0, 0);
        (1..5).for_each(|now| rule.touch(0, now));
        rule.insert(1, 5);
        rule.touch(1, 6);
        rule.remove(0);
        // Id 0 is back with one visit against two: five of before do not count.
        rule.insert(0, 7);
        assert_eq!(rule.evict(8, &KeepNone), Some(0));
    }
}
