//! Least frequently used among what is resident: a count starts anew with every arrival (in-cache LFU as in Breslau et
//! al., INFOCOM 1999, against perfect LFU, which is `lfu`).
//!
//! This is what MoE-Infinity as released does without prefetch: it evicts the lowest visit count in the cache.

use crate::control::Policy;
use crate::policies::lfu::Lfu;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{Order, ReplayError, ReplayInput, ReplayResult};

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "in_cache_lfu",
    about: "evicts the block with the fewest demands since it came in",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    clairvoyant: false,
    fitted: false,
    scripted: false,
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(Reactive::new(Lfu::in_cache(input.model.blocks.len() as u32, Order::Atomic))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(Lfu::in_cache(input.demands.universe(), input.order)))
}
