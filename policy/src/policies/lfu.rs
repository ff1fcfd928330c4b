//! Least frequently used, with counts that outlive residence.

use super::growing_queue::{GrowingQueue, Key};
use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{Order, ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "lfu",
    about: "evicts the block with the fewest demands so far, counted through evictions",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    ..Entry::ONLINE
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

/// Count, last demand and id, from the high bits down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packed(u128);

impl Key for Packed {
    #[inline(always)]
    fn id(self) -> u32 {
        self.0 as u32
    }
}

/// Evicts the least (demands so far, time of the last demand, id) in access order, and the least (demands so far,
/// id) in atomic order. Counts stop at `u32::MAX`.
#[derive(Clone, Debug)]
pub struct Lfu {
    records: Box<[Record]>,
    queue: GrowingQueue<Packed>,
    recency: bool,
    forgets: bool,
}

impl Lfu {
    /// An empty cache of ids `0..universe`.
    pub fn new(universe: u32, order: Order) -> Lfu {
        Lfu {
            records: vec![Record::default(); universe as usize].into_boxed_slice(),
            queue: GrowingQueue::new(),
            recency: order == Order::Access,
            forgets: false,
        }
    }

    /// The same, but what leaves starts from nothing when it comes back.
    pub fn in_cache(universe: u32, order: Order) -> Lfu {
        Lfu { forgets: true, ..Lfu::new(universe, order) }
    }

    #[inline(always)]
    fn count(&mut self, id: u32, now: u64) {
        let record = &mut self.records[id as usize];
        record.count = record.count.saturating_add(1);
        if self.recency {
            record.last = now;
        }
    }

    #[inline(always)]
    fn leave(&mut self, id: u32) {
        let record = &mut self.records[id as usize];
        record.resident = false;
        if self.forgets {
            record.count = 0;
        }
    }
}

#[inline(always)]
fn key(id: u32, record: &Record) -> Packed {
    Packed(u128::from(record.count) << 96 | u128::from(record.last) << 32 | u128::from(id))
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
        self.queue.push(key(id, record));
    }

    #[inline(always)]
    fn miss(&mut self, id: u32, now: u64) {
        if !self.forgets {
            self.count(id, now);
        }
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        let Lfu { records, queue, .. } = self;
        let id = queue.pop(keep, |id| key(id, &records[id as usize]))?.id();
        self.leave(id);
        Some(id)
    }

    /// Linear in the number of residents.
    fn remove(&mut self, id: u32) {
        self.leave(id);
        self.queue.retain(|id| self.records[id as usize].resident);
    }

    fn reset(&mut self) {
        self.records.fill(Record::default());
        self.queue.clear();
    }
}
