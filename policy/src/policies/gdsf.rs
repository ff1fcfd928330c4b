//! GDSF, greedy dual size with frequency (Cherkasova, HP Labs 98-69, 1998): a resident is worth its demands since it
//! came in times the cost of its miss over its size, on top of an age that rises to what was last evicted.
//!
//! The paper leaves the cost open. Here it is size to the power `cost_exponent`: at 0 every miss costs the same, which
//! is the paper's variant for the hit rate; at 1 a miss costs its bytes, and sizes no longer matter. Of equals, the one
//! demanded longest ago leaves. In a replay all blocks have one size. As in the paper, what comes in has the age from
//! before it made room; but it always comes in, where the paper turns away what is worth less than all it would evict.

use super::growing_queue::{GrowingQueue, Key};
use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};

const COST_EXPONENT: Param = Param {
    name: "cost_exponent",
    about: "a miss costs the block's size to this power",
    default: 0.0,
    min: 0.0,
    max: 1.0,
    scale: Scale::Linear,
};

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "gdsf",
    about: "evicts the least age + demands since it came in * cost of a miss / size",
    params: &[COST_EXPONENT],
    replay: Some(replay),
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let [cost_exponent] = input.params_of()?;
    let largest = input.model.largest_block().0.max(1) as f64;
    let value = |block: &crate::model::Block| {
        let size = block.bytes(block.native).0.max(1) as f64 / largest;
        libm::pow(size, cost_exponent - 1.0)
    };
    Ok(Box::new(Reactive::new(Gdsf::new(input.model.blocks.iter().map(value).collect()))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(Gdsf::new(vec![1.0; input.demands.universe() as usize].into_boxed_slice())))
}

/// Priority as the bits of a number that is not negative, time of the last demand, id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Priority {
    bits: u64,
    last: u64,
    id: u32,
}

impl Key for Priority {
    #[inline(always)]
    fn id(self) -> u32 {
        self.id
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    priority: f64,
    last: u64,
    /// Demands since it came in; 0 while it is absent.
    demands: u32,
}

/// Evicts the least (age at the last demand + demands * value, time of the last demand, id).
#[derive(Clone, Debug)]
pub struct Gdsf {
    /// Cost over size of each id.
    values: Box<[f64]>,
    records: Box<[Record]>,
    queue: GrowingQueue<Priority>,
    age: f64,
    /// The id that asks for room, and the age when it came to ask.
    arriving: Option<(u32, f64)>,
}

impl Gdsf {
    /// An empty cache of ids with these values: the cost of a miss over the size, positive, in any unit.
    pub fn new(values: Box<[f64]>) -> Gdsf {
        let records = vec![Record::default(); values.len()].into_boxed_slice();
        Gdsf { values, records, queue: GrowingQueue::new(), age: 0.0, arriving: None }
    }
}

#[inline(always)]
fn key(id: u32, record: &Record) -> Priority {
    Priority { bits: record.priority.to_bits(), last: record.last, id }
}

impl Rule for Gdsf {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.records[id as usize].demands > 0
    }

    #[inline(always)]
    fn incoming(&mut self, id: u32, _now: u64) {
        if self.arriving.is_none_or(|(other, _)| other != id) {
            self.arriving = Some((id, self.age));
        }
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, now: u64) {
        let record = &mut self.records[id as usize];
        record.demands = record.demands.saturating_add(1);
        record.last = now;
        record.priority = self.age + f64::from(record.demands) * self.values[id as usize];
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, now: u64) {
        self.incoming(id, now);
        let age = self.arriving.take().map_or(self.age, |(_, age)| age);
        let priority = age + self.values[id as usize];
        self.records[id as usize] = Record { priority, last: now, demands: 1 };
        self.queue.push(key(id, &self.records[id as usize]));
    }

    #[inline(always)]
    fn miss(&mut self, _id: u32, _now: u64) {
        self.arriving = None;
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        let Gdsf { records, queue, .. } = self;
        let least = queue.pop(keep, |id| key(id, &records[id as usize]))?;
        // Lower than before only where the least was kept for a while.
        self.age = self.age.max(f64::from_bits(least.bits));
        self.records[least.id as usize].demands = 0;
        Some(least.id)
    }

    /// Linear in the number of residents.
    fn remove(&mut self, id: u32) {
        self.records[id as usize].demands = 0;
        self.queue.retain(|id| self.records[id as usize].demands > 0);
    }

    fn reset(&mut self) {
        self.records.fill(Record::default());
        self.queue.clear();
        (self.age, self.arriving) = (0.0, None);
    }
}
