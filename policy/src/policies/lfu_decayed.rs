//! Least frequently used, with counts that fade: LRFU (Lee et al., IEEE Transactions on Computers 50(12), 2001) with
//! its weighing function written as a half-life.
//!
//! Chosen where sources differ: counts outlive residence, as in `lfu`. The clock is the rule's own demands, and the
//! half-life is given in demands for each slot, so that one value serves caches of every size.

use super::growing_queue::{GrowingQueue, Key};
use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};

const HALF_LIFE: Param = Param {
    name: "half_life",
    about: "demands for each slot after which a demand counts half",
    default: 8.0,
    min: 0.01,
    max: 10_000.0,
    scale: Scale::Log,
};

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "lfu_decayed",
    about: "evicts the block with the fewest demands so far, each fading with a half-life",
    params: &[HALF_LIFE],
    replay: Some(replay),
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let [half_life] = input.params_of()?;
    let (universe, capacity) = (input.model.blocks.len() as u32, input.capacity);
    Ok(Box::new(Reactive::new(LfuDecayed::new(universe, half_life * capacity.max(1) as f64))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    let [half_life] = input.params_of(ENTRY.name)?;
    let universe = input.demands.universe();
    Ok(input.run(LfuDecayed::new(universe, half_life * input.capacity.max(1) as f64)))
}

/// The bits of a score, which is not negative, and the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    bits: u64,
    id: u32,
}

impl Key for Score {
    #[inline(always)]
    fn id(self) -> u32 {
        self.id
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Faded demands, as of the last one.
    weight: f64,
    last: f64,
    /// `log2(weight) + last / half_life`: in the order of the faded demands at any later time, so that it stands still
    /// while they fade.
    score: f64,
    resident: bool,
}

/// Evicts the least (sum of 2^(-age / half-life) over all demands so far, id).
#[derive(Clone, Debug)]
pub struct LfuDecayed {
    records: Box<[Record]>,
    queue: GrowingQueue<Score>,
    /// Demands until a demand counts half.
    half_life: f64,
    /// Demands so far.
    clock: f64,
}

impl LfuDecayed {
    /// An empty cache of ids `0..universe`; the half-life is in demands, and positive.
    pub fn new(universe: u32, half_life: f64) -> LfuDecayed {
        LfuDecayed {
            records: vec![Record::default(); universe as usize].into_boxed_slice(),
            queue: GrowingQueue::new(),
            half_life,
            clock: 0.0,
        }
    }
}

#[inline(always)]
fn key(id: u32, record: &Record) -> Score {
    Score { bits: record.score.to_bits(), id }
}

impl Rule for LfuDecayed {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.records[id as usize].resident
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, _now: u64) {
        let record = &mut self.records[id as usize];
        record.weight = 1.0 + record.weight * libm::exp2((record.last - self.clock) / self.half_life);
        record.last = self.clock;
        record.score = libm::log2(record.weight) + self.clock / self.half_life;
        self.clock += 1.0;
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, now: u64) {
        self.touch(id, now);
        let record = &mut self.records[id as usize];
        record.resident = true;
        self.queue.push(key(id, record));
    }

    #[inline(always)]
    fn miss(&mut self, id: u32, now: u64) {
        self.touch(id, now);
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        let LfuDecayed { records, queue, .. } = self;
        let id = queue.pop(keep, |id| key(id, &records[id as usize]))?.id;
        self.records[id as usize].resident = false;
        Some(id)
    }

    /// Linear in the number of residents.
    fn remove(&mut self, id: u32) {
        self.records[id as usize].resident = false;
        self.queue.retain(|id| self.records[id as usize].resident);
    }

    fn reset(&mut self) {
        *self = LfuDecayed::new(self.records.len() as u32, self.half_life);
    }
}
