//! Frequency over age: the least demands so far for each unit of time since the last.

use super::lists::Lists;
use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};
use std::cmp::Ordering;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "lfru",
    about: "evicts the block with the least demands so far / (time since the last + 1)",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    clairvoyant: false,
    fitted: false,
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(Reactive::new(Lfru::new(input.model.blocks.len() as u32))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(Lfru::new(input.demands.universe())))
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    count: u64,
    last: u64,
}

impl Record {
    fn age(&self, now: u64) -> u128 {
        u128::from(now - self.last) + 1
    }

    /// Compares count / age, exactly.
    fn compare(&self, other: &Record, now: u64) -> Ordering {
        (u128::from(self.count) * other.age(now)).cmp(&(u128::from(other.count) * self.age(now)))
    }
}

/// Evicts the least (count / (now - last + 1), id), compared exactly. Counts outlive residence.
///
/// The order of two residents changes with time alone, so there is no queue to keep. Residents stand in lists by
/// the magnitude of their count, each list from the newest to the oldest demand: within it the count is known to a
/// factor of two, and an eviction looks only at those old enough to be the least.
#[derive(Clone, Debug)]
pub struct Lfru {
    records: Box<[Record]>,
    lists: Lists,
    /// A bit for each list that may hold something.
    used: u64,
}

impl Lfru {
    /// An empty cache of ids `0..universe`.
    pub fn new(universe: u32) -> Lfru {
        let records = vec![Record::default(); universe as usize].into_boxed_slice();
        Lfru { records, lists: Lists::new(universe, u64::BITS), used: 0 }
    }

    #[inline(always)]
    fn count(&mut self, id: u32, now: u64) {
        let record = &mut self.records[id as usize];
        record.count += 1;
        record.last = now;
    }

    #[inline(always)]
    fn link(&mut self, id: u32) {
        let list = self.records[id as usize].count.ilog2();
        self.used |= 1 << list;
        self.lists.link(id, self.lists.end(list));
    }

    /// The least of `best` and the residents of one list.
    fn least<K: Keep>(&self, list: u32, best: Option<u32>, now: u64, keep: &K) -> Option<u32> {
        let mut best = best;
        let mut id = self.lists.newer(self.lists.end(list));
        while id != self.lists.end(list) {
            let record = &self.records[id as usize];
            if let Some(other) = best {
                let other = &self.records[other as usize];
                // The least count of this list, at the age of this resident: the rest of the list is not below it.
                let floor = Record { count: 1 << list, ..*record };
                if floor.compare(other, now).is_gt() {
                    break;
                }
            }
            let less =
                |other: u32| record.compare(&self.records[other as usize], now).then(id.cmp(&other)).is_lt();
            if !keep.keeps(id) && best.is_none_or(less) {
                best = Some(id);
            }
            id = self.lists.newer(id);
        }
        best
    }
}

impl Rule for Lfru {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.lists.contains(id)
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, now: u64) {
        self.lists.unlink(id);
        self.insert(id, now);
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, now: u64) {
        self.count(id, now);
        self.link(id);
    }

    #[inline(always)]
    fn miss(&mut self, id: u32, now: u64) {
        self.count(id, now);
    }

    fn evict<K: Keep>(&mut self, now: u64, keep: &K) -> Option<u32> {
        let (mut best, mut rest) = (None, self.used);
        while rest != 0 {
            let list = rest.trailing_zeros();
            rest &= rest - 1;
            if self.lists.newer(self.lists.end(list)) == self.lists.end(list) {
                self.used &= !(1 << list);
            } else {
                best = self.least(list, best, now, keep);
            }
        }
        self.remove(best?);
        best
    }

    fn remove(&mut self, id: u32) {
        self.lists.remove(id);
    }

    fn reset(&mut self) {
        *self = Lfru::new(self.lists.universe());
    }
}
