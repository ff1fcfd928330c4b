//! Least frequently used, with counts that outlive residence.

use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{Order, ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "lfu",
    about: "evicts the block with the fewest demands so far, counted through evictions",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    clairvoyant: false,
    fitted: false,
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(Reactive::new(Lfu::new(input.model.blocks.len() as u32, Order::Atomic))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(Lfu::new(input.demands.universe(), input.order)))
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// The last demand, kept only where it breaks ties.
    last: u64,
    count: u32,
    resident: bool,
}

/// A value and its id: count, last demand, id, from the high bits down. The least is evicted.
type Key = Reverse<u128>;

/// Evicts the least (demands so far, time of the last demand, id) in access order, and the least (demands so far,
/// id) in atomic order. Counts stop at `u32::MAX`.
#[derive(Clone, Debug)]
pub struct Lfu {
    records: Box<[Record]>,
    /// One entry for each resident id that is not in `kept`. Values only grow, so an entry may lag behind its record:
    /// it is brought up to date when it comes to the top, and a hit costs no more than its count.
    heap: BinaryHeap<Key>,
    /// The top belongs to an id that has left: the next to come in takes its place.
    vacant: bool,
    /// Entries taken out of the heap because their ids were kept when they came to the top.
    kept: Vec<Key>,
    recency: bool,
}

impl Lfu {
    /// An empty cache of ids `0..universe`.
    pub fn new(universe: u32, order: Order) -> Lfu {
        Lfu {
            records: vec![Record::default(); universe as usize].into_boxed_slice(),
            heap: BinaryHeap::new(),
            vacant: false,
            kept: Vec::new(),
            recency: order == Order::Access,
        }
    }

    /// Counts the demands of an id that is not resident from nothing again.
    #[inline(always)]
    pub(super) fn forget(&mut self, id: u32) {
        self.records[id as usize].count = 0;
    }

    #[inline(always)]
    fn count(&mut self, id: u32, now: u64) {
        let record = &mut self.records[id as usize];
        record.count = record.count.saturating_add(1);
        if self.recency {
            record.last = now;
        }
    }
}

#[inline(always)]
fn key(id: u32, record: &Record) -> Key {
    Reverse(u128::from(record.count) << 96 | u128::from(record.last) << 32 | u128::from(id))
}

#[inline(always)]
fn id_of(key: Key) -> u32 {
    key.0 as u32
}

impl Rule for Lfu {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.records[id as usize].resident
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, now: u64) {
        self.count(id, now);
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, now: u64) {
        self.count(id, now);
        let record = &mut self.records[id as usize];
        record.resident = true;
        let key = key(id, record);
        if self.vacant
            && let Some(mut top) = self.heap.peek_mut()
        {
            *top = key;
        } else {
            self.heap.push(key);
        }
        self.vacant = false;
    }

    #[inline(always)]
    fn miss(&mut self, id: u32, now: u64) {
        self.count(id, now);
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        if self.vacant {
            self.heap.pop();
            self.vacant = false;
        }
        if !self.kept.is_empty() {
            self.heap.extend(self.kept.extract_if(.., |&mut key| !keep.keeps(id_of(key))));
        }
        while let Some(mut top) = self.heap.peek_mut() {
            let id = id_of(*top);
            let value = key(id, &self.records[id as usize]);
            if *top != value {
                *top = value;
            } else if keep.keeps(id) {
                self.kept.push(PeekMut::pop(top));
            } else {
                self.records[id as usize].resident = false;
                self.vacant = true;
                return Some(id);
            }
        }
        None
    }

    /// Linear in the number of residents.
    fn remove(&mut self, id: u32) {
        self.records[id as usize].resident = false;
        let resident = |key: &Key| self.records[id_of(*key) as usize].resident;
        self.heap.retain(resident);
        self.kept.retain(resident);
        self.vacant = false;
    }

    fn reset(&mut self) {
        self.records.fill(Record::default());
        self.heap.clear();
        self.kept.clear();
        self.vacant = false;
    }
}
