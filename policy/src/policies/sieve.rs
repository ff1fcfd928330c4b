//! SIEVE (Zhang et al., NSDI 2024): first in, first out, with a second chance and a hand that stays where it was.

use super::lists::Lists;
use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "sieve",
    about: "evicts the oldest block not demanded since a slowly moving hand last passed it",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    clairvoyant: false,
    fitted: false,
    scripted: false,
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(Reactive::new(Sieve::new(input.model.blocks.len() as u32))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(Sieve::new(input.demands.universe())))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Resident,
    Visited,
}

/// A hand goes from the oldest to the newest arrival, and around: it clears the mark of a visited id and passes it,
/// and evicts the first unvisited one. A kept id is passed as it is, mark included.
#[derive(Clone, Debug)]
pub struct Sieve {
    list: Lists,
    states: Box<[State]>,
    /// The place to look at next; the list's end stands for the oldest.
    hand: u32,
    len: usize,
}

impl Sieve {
    /// An empty cache of ids `0..universe`.
    pub fn new(universe: u32) -> Sieve {
        let list = Lists::new(universe, 1);
        let states = vec![State::Absent; universe as usize].into_boxed_slice();
        Sieve { hand: list.end(0), list, states, len: 0 }
    }
}

impl Rule for Sieve {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.states[id as usize] != State::Absent
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, _now: u64) {
        self.states[id as usize] = State::Visited;
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, _now: u64) {
        self.list.link(id, self.list.end(0));
        self.states[id as usize] = State::Resident;
        self.len += 1;
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        // Two rounds clear every mark and come back: then all that is left is kept. A round also passes the end.
        for _ in 0..2 * (self.len + 1) {
            let id = self.hand;
            if id != self.list.end(0) && !keep.keeps(id) {
                if self.states[id as usize] == State::Resident {
                    self.remove(id);
                    return Some(id);
                }
                self.states[id as usize] = State::Resident;
            }
            self.hand = self.list.newer(id);
        }
        None
    }

    #[inline(always)]
    fn remove(&mut self, id: u32) {
        if id == self.hand {
            self.hand = self.list.newer(id);
        }
        self.list.remove(id);
        self.states[id as usize] = State::Absent;
        self.len -= 1;
    }

    fn reset(&mut self) {
        *self = Sieve::new(self.list.universe());
    }
}
