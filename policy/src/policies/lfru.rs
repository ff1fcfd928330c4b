//! Frequency over age: the least demands so far for each unit of time since the last.

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

/// What `slot` holds for an id that is not resident.
const ABSENT: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Record {
    count: u64,
    last: u64,
    slot: u32,
}

const UNSEEN: Record = Record { count: 0, last: 0, slot: ABSENT };

/// Evicts the least (count / (now - last + 1), id), compared exactly. Counts outlive residence. An eviction looks at
/// every resident: their order changes with time alone.
#[derive(Clone, Debug)]
pub struct Lfru {
    records: Box<[Record]>,
    residents: Vec<u32>,
}

impl Lfru {
    /// An empty cache of ids `0..universe`.
    pub fn new(universe: u32) -> Lfru {
        Lfru { records: vec![UNSEEN; universe as usize].into_boxed_slice(), residents: Vec::new() }
    }

    #[inline(always)]
    fn compare(&self, a: u32, b: u32, now: u64) -> Ordering {
        let [x, y] = [a, b].map(|id| self.records[id as usize]);
        let [age_x, age_y] = [x, y].map(|record| u128::from(now - record.last + 1));
        (u128::from(x.count) * age_y).cmp(&(u128::from(y.count) * age_x)).then(a.cmp(&b))
    }
}

impl Rule for Lfru {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.records[id as usize].slot != ABSENT
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, now: u64) {
        let record = &mut self.records[id as usize];
        record.count += 1;
        record.last = now;
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, now: u64) {
        self.touch(id, now);
        self.records[id as usize].slot = self.residents.len() as u32;
        self.residents.push(id);
    }

    #[inline(always)]
    fn miss(&mut self, id: u32, now: u64) {
        self.touch(id, now);
    }

    fn evict<K: Keep>(&mut self, now: u64, keep: &K) -> Option<u32> {
        let open = self.residents.iter().copied().filter(|&id| !keep.keeps(id));
        let victim = open.min_by(|&a, &b| self.compare(a, b, now))?;
        self.remove(victim);
        Some(victim)
    }

    fn remove(&mut self, id: u32) {
        let slot = std::mem::replace(&mut self.records[id as usize].slot, ABSENT);
        self.residents.swap_remove(slot as usize);
        if let Some(&moved) = self.residents.get(slot as usize) {
            self.records[moved as usize].slot = slot;
        }
    }

    fn reset(&mut self) {
        self.records.fill(UNSEEN);
        self.residents.clear();
    }
}
