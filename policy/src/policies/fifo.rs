//! First in, first out.

use super::lists::Lists;
use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "fifo",
    about: "evicts the block that came in first",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(Reactive::new(Fifo::new(input.model.blocks.len() as u32))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(Fifo::new(input.demands.universe())))
}

/// Evicts the oldest arrival; those of one step arrive in its stored order. What is kept stays in its place.
#[derive(Clone, Debug)]
pub struct Fifo {
    arrivals: Lists,
}

impl Fifo {
    /// An empty cache of ids `0..universe`.
    pub fn new(universe: u32) -> Fifo {
        Fifo { arrivals: Lists::new(universe, 1) }
    }
}

impl Rule for Fifo {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.arrivals.contains(id)
    }

    #[inline(always)]
    fn touch(&mut self, _id: u32, _now: u64) {}

    #[inline(always)]
    fn insert(&mut self, id: u32, _now: u64) {
        self.arrivals.link(id, self.arrivals.end(0));
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        let id = self.arrivals.oldest(0, keep)?;
        self.remove(id);
        Some(id)
    }

    #[inline(always)]
    fn remove(&mut self, id: u32) {
        self.arrivals.remove(id);
    }

    fn reset(&mut self) {
        *self = Fifo::new(self.arrivals.universe());
    }
}
