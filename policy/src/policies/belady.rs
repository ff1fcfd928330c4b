//! Belady's rule: the bound that no rule without knowledge of the future can pass.

use super::bit_tree::BitTree;
use crate::control::Policy;
use crate::demand::Demands;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{Order, ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "belady",
    about: "knows the trace and evicts the block demanded again last: the bound",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    clairvoyant: true,
    fitted: false,
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let future = input.future.ok_or(SimulateError::NoFuture)?;
    Ok(Box::new(Reactive::new(Belady::new(future, Order::Atomic)?)))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(Belady::new(input.demands, input.order)?))
}

/// Evicts the id whose next demand is farthest; ties, and ids never demanded again, leave by lowest id.
///
/// The demands are numbered in time order, those of one step from the highest id to the lowest, so that the
/// greatest number is the one to evict. An id never demanded again has a number of its own above all demands.
#[derive(Clone, Debug)]
pub struct Belady {
    /// The id of each demand.
    ids: Vec<u32>,
    /// The number of the next demand for the same id.
    next: Vec<u32>,
    /// One past the last demand of each step; in access order each demand is a step.
    ends: Option<Vec<u32>>,
    /// The next demand of each id, as of the last time it was told.
    upcoming: Box<[u32]>,
    resident: Box<[bool]>,
    /// The next demands of all residents. Demands that are over stay in it until one comes up as the greatest.
    future: BitTree,
}

impl Belady {
    /// An empty cache that knows `demands`. Time is the access or the step of `demands`.
    ///
    /// # Errors
    /// [`ReplayError::TooLong`] where demands and ids together do not fit 32 bits.
    pub fn new(demands: &Demands, order: Order) -> Result<Belady, ReplayError> {
        let bound = demands.ids().len() + demands.universe() as usize;
        if u32::try_from(bound).is_err() {
            return Err(ReplayError::TooLong { demands: demands.ids().len() });
        }
        let (ids, ends) = match order {
            Order::Access => (demands.ids().to_vec(), None),
            Order::Atomic => by_step(demands),
        };
        let universe = demands.universe();
        let mut upcoming: Box<[u32]> =
            (0..universe).map(|id| ids.len() as u32 + (universe - 1 - id)).collect();
        let mut next = vec![0; ids.len()];
        for (at, (next, &id)) in next.iter_mut().zip(&ids).enumerate().rev() {
            *next = std::mem::replace(&mut upcoming[id as usize], at as u32);
        }
        let resident = vec![false; universe as usize].into_boxed_slice();
        Ok(Belady { ids, next, ends, upcoming, resident, future: BitTree::new(bound) })
    }

    /// Moves `id` on to its next demand after `now`.
    #[inline(always)]
    fn advance(&mut self, id: u32, now: u64) -> u32 {
        let end = match &self.ends {
            None => now as u32 + 1,
            Some(ends) => ends[now as usize],
        };
        let upcoming = &mut self.upcoming[id as usize];
        while *upcoming < end {
            *upcoming = self.next[*upcoming as usize];
        }
        *upcoming
    }

    /// The id of a demand, or of the number that stands for no demand.
    #[inline(always)]
    fn id(&self, number: u32) -> u32 {
        match self.ids.get(number as usize) {
            Some(&id) => id,
            None => (self.ids.len() + self.upcoming.len() - 1) as u32 - number,
        }
    }
}

/// The distinct ids of each step from highest to lowest, and where each step ends.
fn by_step(demands: &Demands) -> (Vec<u32>, Option<Vec<u32>>) {
    let (mut ids, mut ends) = (Vec::with_capacity(demands.ids().len()), Vec::with_capacity(demands.len()));
    let mut step_ids = Vec::new();
    for step in 0..demands.len() {
        step_ids.clear();
        step_ids.extend_from_slice(demands.step(step));
        step_ids.sort_unstable_by(|a, b| b.cmp(a));
        step_ids.dedup();
        ids.extend_from_slice(&step_ids);
        ends.push(ids.len() as u32);
    }
    (ids, Some(ends))
}

impl Rule for Belady {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.resident[id as usize]
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, now: u64) {
        let next = self.advance(id, now);
        self.future.insert(next);
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, now: u64) {
        self.resident[id as usize] = true;
        self.touch(id, now);
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        let mut number = self.future.last()?;
        loop {
            let id = self.id(number);
            if !self.resident[id as usize] || self.upcoming[id as usize] != number {
                self.future.remove(number);
            } else if !keep.keeps(id) {
                self.remove(id);
                return Some(id);
            }
            number = self.future.last_below(number)?;
        }
    }

    #[inline(always)]
    fn remove(&mut self, id: u32) {
        self.future.remove(self.upcoming[id as usize]);
        self.resident[id as usize] = false;
    }

    /// What is to come stays known.
    fn reset(&mut self) {
        self.future.clear();
        self.resident.fill(false);
    }
}
