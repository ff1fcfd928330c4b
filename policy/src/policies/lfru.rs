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
    ..Entry::ONLINE
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
    fn age(&self, now: u64) -> u64 {
        now - self.last + 1
    }

    /// Compares count / age, exactly.
    fn compare(&self, other: &Record, now: u64) -> Ordering {
        let product = |count: u64, age: u64| u128::from(count) * u128::from(age);
        product(self.count, other.age(now)).cmp(&product(other.count, self.age(now)))
    }
}

/// A list for each of the first counts, then as many for each power of two.
const FINE: u32 = 16;

/// The list of residents with this count.
#[inline(always)]
fn list_of(count: u64) -> u32 {
    let shift = (count / u64::from(FINE)).checked_ilog2().unwrap_or(0);
    shift * FINE + (count >> shift) as u32
}

/// The least count of a list.
#[inline(always)]
fn least_count(list: u32) -> u64 {
    let shift = (list / FINE).saturating_sub(1);
    u64::from(list - shift * FINE) << shift
}

/// Evicts the least (count / (now - last + 1), id), compared exactly. Counts outlive residence.
///
/// The order of two residents changes with time alone, so there is no queue to keep. Residents stand in lists by
/// their count, exact where it is small and to one part in sixteen where it is large, each list from the newest to
/// the oldest demand: an eviction looks only at those of a list that are old enough to be the least.
#[derive(Clone, Debug)]
pub struct Lfru {
    records: Box<[Record]>,
    lists: Lists,
    /// One past the last list that was ever used.
    used: u32,
}

impl Lfru {
    /// An empty cache of ids `0..universe`.
    pub fn new(universe: u32) -> Lfru {
        let records = vec![Record::default(); universe as usize].into_boxed_slice();
        Lfru { records, lists: Lists::new(universe, list_of(u64::MAX) + 1), used: 0 }
    }

    #[inline(always)]
    fn count(&mut self, id: u32, now: u64) {
        let record = &mut self.records[id as usize];
        record.count += 1;
        record.last = now;
    }

    #[inline(always)]
    fn link(&mut self, id: u32) {
        let list = list_of(self.records[id as usize].count);
        self.used = self.used.max(list + 1);
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
                let floor = Record { count: least_count(list), ..*record };
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
        let best = (0..self.used).fold(None, |best, list| self.least(list, best, now, keep));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_cut_the_counts_in_order() {
        for count in (1..5_000).chain([u64::MAX / 3, u64::MAX]) {
            let list = list_of(count);
            assert!(least_count(list) <= count);
            assert!(count == u64::MAX || list_of(count + 1) <= list + 1);
            assert_eq!(list_of(least_count(list)), list);
        }
    }
}
