//! Least recently used.

use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, KeepNone, Rule};
use std::hint::select_unpredictable;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "lru",
    about: "evicts the block whose last demand is oldest",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(Reactive::new(Lru::new(input.model.blocks.len() as u32))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(Lru::new(input.demands.universe())))
}

/// The place beyond both ends of the list: slot 0, which no id has.
const END: u32 = 0;
/// The id of a slot that has none.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    id: u32,
    newer: u32,
    older: u32,
}

impl Slot {
    const VACANT: Slot = Slot { id: NONE, newer: END, older: END };
}

/// Evicts the least (time of the last demand, id).
///
/// Residents stand in a list from newest to oldest, linked by slots: a few thousand slots stay in a core's first cache
/// where as many links for every id there can be do not.
#[derive(Clone, Debug)]
pub struct Lru {
    /// The last slot of each id, its own only while the slot says so too.
    slot_of: Box<[u32]>,
    slots: Vec<Slot>,
    /// Slots without an id.
    vacant: Vec<u32>,
    newest: u32,
    oldest: u32,
    /// The newest time, and the slot of the oldest id demanded then ([`END`] where there is none any more). Ids of one
    /// time stand in the list by id, so that ties leave by lowest id.
    now: u64,
    oldest_now: u32,
}

impl Lru {
    /// An empty cache of ids `0..universe`.
    pub fn new(universe: u32) -> Lru {
        Lru {
            slot_of: vec![END; universe as usize].into_boxed_slice(),
            slots: vec![Slot::VACANT],
            vacant: Vec::new(),
            newest: END,
            oldest: END,
            now: 0,
            oldest_now: END,
        }
    }

    /// Takes a slot out of the list.
    #[inline(always)]
    fn unlink(&mut self, slot: u32) {
        let Slot { newer, older, .. } = self.slots[slot as usize];
        self.slots[older as usize].newer = newer;
        self.slots[newer as usize].older = older;
        if slot == self.oldest {
            self.oldest = newer;
        }
        if slot == self.newest {
            self.newest = older;
        }
        if slot == self.oldest_now {
            self.oldest_now = newer;
        }
    }

    /// Gives a slot that is not in the list to an id, at its place for a demand now.
    #[inline(always)]
    fn place(&mut self, slot: u32, id: u32, now: u64) {
        let (mut newer, mut older) = (END, self.newest);
        if now != self.now || self.oldest_now == END {
            self.now = now;
            self.oldest_now = slot;
        } else {
            while self.slots[older as usize].id >= id {
                (newer, older) = (older, self.slots[older as usize].older);
                if newer == self.oldest_now {
                    self.oldest_now = slot;
                    break;
                }
            }
        }
        self.slot_of[id as usize] = slot;
        self.slots[slot as usize] = Slot { id, newer, older };
        self.slots[older as usize].newer = slot;
        self.slots[newer as usize].older = slot;
        if newer == END {
            self.newest = slot;
        }
        if older == END {
            self.oldest = slot;
        }
    }

    /// Demands one after the other in a full cache of two slots or more, in which nothing was demanded at `now` yet.
    /// Answers how many were hits.
    ///
    /// A hit moves the slot of the id to the front and a miss the oldest slot: one path for both, because which of them
    /// it will be is what no branch predictor knows.
    #[inline(never)]
    fn replace_each(&mut self, ids: &[u32], now: u64) -> u64 {
        let (slot_of, slots) = (&mut self.slot_of[..], &mut self.slots[..]);
        let (mut newest, mut oldest, mut hits) = (self.newest, self.oldest, 0);
        for &id in ids {
            let own = slot_of[id as usize];
            let hit = slots[own as usize].id == id;
            hits += u64::from(hit);
            let slot = select_unpredictable(hit, own, oldest);
            if slot == newest {
                continue;
            }
            let Slot { newer, older, .. } = slots[slot as usize];
            slots[older as usize].newer = newer;
            slots[newer as usize].older = older;
            oldest = select_unpredictable(slot == oldest, newer, oldest);
            slot_of[id as usize] = slot;
            slots[slot as usize] = Slot { id, newer: END, older: newest };
            slots[newest as usize].newer = slot;
            newest = slot;
        }
        (self.newest, self.oldest, self.oldest_now) = (newest, oldest, newest);
        self.now = now + ids.len().saturating_sub(1) as u64;
        hits
    }

    /// A slot without an id, a new one if there is none.
    fn vacant_slot(&mut self) -> u32 {
        self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot::VACANT);
            self.slots.len() as u32 - 1
        })
    }
}

impl Rule for Lru {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.slots[self.slot_of[id as usize] as usize].id == id
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, now: u64) {
        let slot = self.slot_of[id as usize];
        self.unlink(slot);
        self.place(slot, id, now);
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, now: u64) {
        let slot = self.vacant_slot();
        self.place(slot, id, now);
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        let mut slot = self.oldest;
        while slot != END {
            let Slot { id, newer, .. } = self.slots[slot as usize];
            if !keep.keeps(id) {
                self.remove(id);
                return Some(id);
            }
            slot = newer;
        }
        None
    }

    #[inline(always)]
    fn remove(&mut self, id: u32) {
        let slot = self.slot_of[id as usize];
        self.unlink(slot);
        self.slots[slot as usize].id = NONE;
        self.vacant.push(slot);
    }

    fn reset(&mut self) {
        *self = Lru::new(self.slot_of.len() as u32);
    }

    #[inline(always)]
    fn access_each(&mut self, ids: &[u32], now: u64, free: &mut usize) -> u64 {
        let mut hits = 0;
        for (index, (now, &id)) in (now..).zip(ids).enumerate() {
            if *free == 0 && self.newest != self.oldest && now > self.now {
                return hits + self.replace_each(&ids[index..], now);
            }
            hits += u64::from(self.access(id, now, &KeepNone, free));
        }
        hits
    }
}
