//! MoE-Infinity as its released code behaves: least visits since a block came in, and no prefetch.
//!
//! Source: the code released with Xue et al., "MoE-Infinity", arXiv 2401.14361. It differs from the paper: it evicts the
//! lowest visit count of what is resident, and ships with prefetch switched off. So whoever measures it measures a
//! reactive LFU whose counts end with residence (in-cache LFU as in Breslau et al., INFOCOM 1999, against perfect LFU, which is
//! `lfu`). The policy of the paper is `moe_infinity`.
//!
//! Unspecified and chosen: ties leave as they do in `lfu`. A batch that visits a block at a layer step visits it once.

use super::lfu::Lfu;
use super::reactive::Reactive;
use crate::control::Policy;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{Order, ReplayError, ReplayInput, ReplayResult};

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "moe_infinity_released",
    about: "evicts the block with the fewest demands since it came in (MoE-Infinity's released code)",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(Reactive::new(Lfu::in_cache(input.model.blocks.len() as u32, Order::Atomic))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(Lfu::in_cache(input.demands.universe(), input.order)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{KeepNone, Rule};

    #[test]
    fn counts_end_with_residence() {
        let mut rule = Lfu::in_cache(4, Order::Access);
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
