//! SIEVE (Zhang et al., NSDI 2024): first in, first out, with a second chance and a hand that stays where it was.

use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, KeepNone, Rule};

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "sieve",
    about: "evicts the oldest block not demanded since a slowly moving hand last passed it",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    ..Entry::ONLINE
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

/// The place before the oldest arrival and after the newest: slot 0, which no id has.
const END: u32 = 0;

#[derive(Clone, Copy, Debug)]
struct Slot {
    id: u32,
    newer: u32,
}

/// A hand goes from the oldest to the newest arrival, and around: it clears the mark of a visited id and passes it,
/// and evicts the first unvisited one. A kept id is passed as it is, mark included.
///
/// Arrivals are linked by slots and one way only, the hand's: they stay in a core's first cache.
#[derive(Clone, Debug)]
pub struct Sieve {
    states: Box<[State]>,
    slots: Vec<Slot>,
    /// Slots without an id.
    vacant: Vec<u32>,
    newest: u32,
    /// The slot to look at next, and the one before it; the end stands for the oldest.
    hand: u32,
    before: u32,
}

impl Sieve {
    /// An empty cache of ids `0..universe`.
    pub fn new(universe: u32) -> Sieve {
        Sieve {
            states: vec![State::Absent; universe as usize].into_boxed_slice(),
            slots: vec![Slot { id: u32::MAX, newer: END }],
            vacant: Vec::new(),
            newest: END,
            hand: END,
            before: END,
        }
    }

    fn len(&self) -> usize {
        self.slots.len() - 1 - self.vacant.len()
    }

    /// Demands one after the other in a full cache that is not empty. Answers how many were hits.
    #[inline(never)]
    fn replace_each(&mut self, ids: &[u32]) -> u64 {
        let (states, slots) = (&mut self.states[..], &mut self.slots[..]);
        let (mut newest, mut hand, mut before, mut hits) = (self.newest, self.hand, self.before, 0);
        for &id in ids {
            if states[id as usize] != State::Absent {
                states[id as usize] = State::Visited;
                hits += 1;
                continue;
            }
            let slot = loop {
                if hand == END {
                    (before, hand) = (END, slots[END as usize].newer);
                }
                let (slot, Slot { id, newer }) = (hand, slots[hand as usize]);
                hand = newer;
                let state = &mut states[id as usize];
                if *state == State::Resident {
                    *state = State::Absent;
                    break slot;
                }
                *state = State::Resident;
                before = slot;
            };
            slots[before as usize].newer = hand;
            newest = if newest == slot { before } else { newest };
            slots[slot as usize] = Slot { id, newer: END };
            slots[newest as usize].newer = slot;
            newest = slot;
            states[id as usize] = State::Resident;
        }
        (self.newest, self.hand, self.before) = (newest, hand, before);
        hits
    }

    /// Takes out the slot that follows `before`.
    #[inline(always)]
    fn take_after(&mut self, before: u32) {
        let slot = self.slots[before as usize].newer;
        let Slot { id, newer } = self.slots[slot as usize];
        self.slots[before as usize].newer = newer;
        if self.newest == slot {
            self.newest = before;
        }
        self.states[id as usize] = State::Absent;
        self.vacant.push(slot);
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
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot { id, newer: END });
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Slot { id, newer: END };
        self.slots[self.newest as usize].newer = slot;
        self.newest = slot;
        self.states[id as usize] = State::Resident;
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        // Two rounds clear every mark and come back: then all that is left is kept.
        for _ in 0..2 * self.len() {
            if self.hand == END {
                (self.before, self.hand) = (END, self.slots[END as usize].newer);
            }
            let Slot { id, newer } = self.slots[self.hand as usize];
            if !keep.keeps(id) {
                if self.states[id as usize] == State::Resident {
                    self.take_after(self.before);
                    self.hand = newer;
                    return Some(id);
                }
                self.states[id as usize] = State::Resident;
            }
            (self.before, self.hand) = (self.hand, newer);
        }
        None
    }

    /// Linear in the number of residents.
    fn remove(&mut self, id: u32) {
        let mut before = END;
        let mut slot = self.slots[END as usize].newer;
        while self.slots[slot as usize].id != id {
            (before, slot) = (slot, self.slots[slot as usize].newer);
        }
        if self.hand == slot {
            self.hand = self.slots[slot as usize].newer;
        } else if self.before == slot {
            self.before = before;
        }
        self.take_after(before);
    }

    fn reset(&mut self) {
        *self = Sieve::new(self.states.len() as u32);
    }

    #[inline(always)]
    fn access_each(&mut self, ids: &[u32], now: u64, free: &mut usize) -> u64 {
        let mut hits = 0;
        for (index, (now, &id)) in (now..).zip(ids).enumerate() {
            if *free == 0 && self.len() > 0 {
                return hits + self.replace_each(&ids[index..]);
            }
            hits += u64::from(self.access(id, now, &KeepNone, free));
        }
        hits
    }
}
