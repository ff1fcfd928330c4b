//! ARC (Megiddo and Modha, FAST 2003): a list for what was demanded once and one for what was demanded again, whose
//! shares adapt to the ghosts that come back.
//!
//! Chosen where the paper does not say: the target may be a fraction. A kept id is passed over; where its list has no
//! other, the other list gives way. An id that passes through uncached leaves the ghosts as they are.

use super::segments::Segments;
use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, KeepNone, Rule};

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "arc",
    about: "balances blocks demanded once and blocks demanded again by which of them it misses after eviction",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(Reactive::new(Arc::new(input.model.blocks.len() as u32, input.capacity))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(Arc::new(input.demands.universe(), input.capacity)))
}

/// Resident, demanded once since it came in.
const T1: u32 = 0;
/// Resident, demanded again.
const T2: u32 = 1;
/// Lately evicted from [`T1`].
const B1: u32 = 2;
/// Lately evicted from [`T2`].
const B2: u32 = 3;

/// Names as in the paper: residents are T1 and T2, ghosts B1 and B2, and `p` is the target for the size of T1.
#[derive(Clone, Debug)]
pub struct Arc {
    lists: Segments,
    capacity: usize,
    p: f64,
    /// The ghost that asks for room: the target has adapted to it.
    returning: Option<u32>,
}

impl Arc {
    /// An empty cache of `capacity` slots for ids `0..universe`.
    pub fn new(universe: u32, capacity: usize) -> Arc {
        Arc { lists: Segments::new(universe, 4), capacity, p: 0.0, returning: None }
    }

    #[inline(always)]
    fn adapt(&mut self, id: u32) {
        if self.returning == Some(id) {
            return;
        }
        let (b1, b2) = (self.lists.len(B1) as f64, self.lists.len(B2) as f64);
        self.p = match self.lists.of(id) {
            Some(B1) => (self.p + (b2 / b1).max(1.0)).min(self.capacity as f64),
            Some(B2) => (self.p - (b1 / b2).max(1.0)).max(0.0),
            _ => return,
        };
        self.returning = Some(id);
    }

    /// Keeps T1 and B1 to the capacity, and all four to twice that, as far as there are ghosts to drop.
    #[inline(always)]
    fn trim(&mut self) {
        loop {
            let len = |list| self.lists.len(list);
            let once = len(T1) + len(B1);
            let ghosts = if once > self.capacity { B1 } else { B2 };
            if once <= self.capacity && once + len(T2) + len(B2) <= 2 * self.capacity {
                return;
            }
            let Some(ghost) = self.lists.oldest(ghosts, &KeepNone) else { return };
            self.lists.remove(ghost);
        }
    }
}

impl Rule for Arc {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        matches!(self.lists.of(id), Some(T1 | T2))
    }

    #[inline(always)]
    fn incoming(&mut self, id: u32, _now: u64) {
        self.adapt(id);
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, _now: u64) {
        self.lists.push(id, T2);
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, _now: u64) {
        self.adapt(id);
        let list = if self.lists.of(id).is_some() { T2 } else { T1 };
        self.lists.push(id, list);
        self.returning = None;
        self.trim();
    }

    #[inline(always)]
    fn miss(&mut self, _id: u32, _now: u64) {
        self.returning = None;
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        let t1 = self.lists.len(T1) as f64;
        let from_b2 = self.returning.is_some_and(|id| self.lists.of(id) == Some(B2));
        let order = if t1 > self.p || (t1 == self.p && from_b2) { [T1, T2] } else { [T2, T1] };
        let (list, id) = order.into_iter().find_map(|list| Some((list, self.lists.oldest(list, keep)?)))?;
        self.lists.push(id, if list == T1 { B1 } else { B2 });
        Some(id)
    }

    #[inline(always)]
    fn remove(&mut self, id: u32) {
        self.lists.remove(id);
    }

    fn reset(&mut self) {
        self.lists.clear();
        (self.p, self.returning) = (0.0, None);
    }
}
