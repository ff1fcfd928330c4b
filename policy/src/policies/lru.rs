//! Least recently used.

use super::lists::Lists;
use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "lru",
    about: "evicts the block whose last demand is oldest",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    clairvoyant: false,
    fitted: false,
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(Reactive::new(Lru::new(input.model.blocks.len() as u32))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(Lru::new(input.demands.universe())))
}

/// Evicts the least (time of the last demand, id).
#[derive(Clone, Debug)]
pub struct Lru {
    list: Lists,
    /// The newest time, and the oldest id demanded then (the list's end where there is none any more). Ids of one
    /// time stand in the list by id, so that ties leave by lowest id.
    now: u64,
    oldest_now: u32,
}

impl Lru {
    /// An empty cache of ids `0..universe`.
    pub fn new(universe: u32) -> Lru {
        let list = Lists::new(universe, 1);
        Lru { now: 0, oldest_now: list.end(0), list }
    }

    #[inline(always)]
    fn place(&mut self, id: u32, now: u64) {
        let mut newer = self.list.end(0);
        if now != self.now || self.oldest_now == newer {
            self.now = now;
            self.oldest_now = id;
        } else {
            loop {
                let at = self.list.older(newer);
                if at < id {
                    break;
                }
                newer = at;
                if at == self.oldest_now {
                    self.oldest_now = id;
                    break;
                }
            }
        }
        self.list.link(id, newer);
    }

    #[inline(always)]
    fn forget(&mut self, id: u32) {
        if id == self.oldest_now {
            self.oldest_now = self.list.newer(id);
        }
    }
}

impl Rule for Lru {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.list.contains(id)
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, now: u64) {
        self.forget(id);
        self.list.unlink(id);
        self.place(id, now);
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, now: u64) {
        self.place(id, now);
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        let id = self.list.oldest(0, keep)?;
        self.remove(id);
        Some(id)
    }

    #[inline(always)]
    fn remove(&mut self, id: u32) {
        self.forget(id);
        self.list.remove(id);
    }

    fn reset(&mut self) {
        *self = Lru::new(self.list.universe());
    }
}
