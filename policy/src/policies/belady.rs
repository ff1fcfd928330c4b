//! Belady's rule: the bound that no rule without knowledge of the future can pass.

use super::bit_tree::BitTree;
use crate::control::Policy;
use crate::demand::Demands;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{Order, ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};
use std::borrow::Cow;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "belady",
    about: "knows the trace and evicts the block demanded again last: the bound",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    clairvoyant: true,
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let future = input.future.ok_or(SimulateError::NoFuture)?;
    Ok(Box::new(Reactive::new(Belady::of_steps(future)?)))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(match input.order {
        Order::Access => Belady::of_accesses(input.demands)?,
        Order::Atomic => Belady::of_steps(input.demands)?,
    }))
}

/// How many demands ahead the owner of a number is found without a look into the trace: most evicted ids come back
/// within this many, and the table still fits a core's own cache.
const WINDOW: usize = 1 << 17;

/// Evicts the id whose next demand is farthest; ties, and ids never demanded again, leave by lowest id.
///
/// The demands are numbered in time order, those of one step from the highest id to the lowest, so that the
/// greatest number is the one to evict. An id never demanded again has a number of its own above all demands.
#[derive(Clone, Debug)]
pub struct Belady<'a> {
    /// The id of each demand.
    ids: Cow<'a, [u32]>,
    /// The number of the next demand for the same id.
    next: Vec<u32>,
    /// One past the last demand of each step; in access order each demand is a step.
    ends: Option<Vec<u32>>,
    /// The next demand of each id, as of the last time it was told.
    upcoming: Box<[u32]>,
    resident: Box<[bool]>,
    /// The next demands of all residents. Demands that are over stay in it until one comes up as the greatest.
    future: BitTree,
    /// By the low bits of a number, the id that had it last.
    owners: Box<[u32]>,
}

impl<'a> Belady<'a> {
    /// An empty cache that knows `demands`; time is the access.
    ///
    /// # Errors
    /// [`ReplayError::TooLong`] where demands and ids together do not fit 32 bits.
    pub fn of_accesses(demands: &'a Demands) -> Result<Belady<'a>, ReplayError> {
        Belady::new(demands.ids(), None, demands.universe())
    }

    /// An empty cache that knows `demands`; time is the layer step.
    ///
    /// # Errors
    /// [`ReplayError::TooLong`] where demands and ids together do not fit 32 bits.
    pub fn of_steps(demands: &Demands) -> Result<Belady<'static>, ReplayError> {
        let mut ids = Vec::with_capacity(demands.ids().len());
        let mut ends = Vec::with_capacity(demands.len());
        let mut step_ids = Vec::new();
        for step in 0..demands.len() {
            step_ids.clear();
            step_ids.extend_from_slice(&demands.step(step));
            step_ids.sort_unstable_by(|a, b| b.cmp(a));
            step_ids.dedup();
            ids.extend_from_slice(&step_ids);
            ends.push(ids.len() as u32);
        }
        Belady::new(Cow::Owned(ids), Some(ends), demands.universe())
    }

    fn new(ids: Cow<'a, [u32]>, ends: Option<Vec<u32>>, universe: u32) -> Result<Belady<'a>, ReplayError> {
        let too_long = ReplayError::TooLong { demands: ids.len() };
        let bound = ids.len() + universe as usize;
        let never = u32::try_from(bound).map_err(|_| too_long)? - universe;
        let mut upcoming: Box<[u32]> = (0..universe).rev().map(|above| never + above).collect();
        let mut next = vec![0; ids.len()];
        for ((next, &id), number) in next.iter_mut().zip(ids.iter()).zip(0..never).rev() {
            *next = std::mem::replace(&mut upcoming[id as usize], number);
        }
        Ok(Belady {
            ids,
            next,
            ends,
            upcoming,
            resident: vec![false; universe as usize].into_boxed_slice(),
            future: BitTree::new(bound),
            owners: vec![0; WINDOW].into_boxed_slice(),
        })
    }

    /// Moves `id` on to its next demand after `now`.
    #[inline(always)]
    fn advance(&mut self, id: u32, now: u64) -> u32 {
        let end = match &self.ends {
            None => now as u32 + 1,
            Some(ends) => ends.get(now as usize).map_or(self.ids.len() as u32, |&end| end),
        };
        let upcoming = &mut self.upcoming[id as usize];
        while *upcoming < end
            && let Some(&next) = self.next.get(*upcoming as usize)
        {
            *upcoming = next;
        }
        *upcoming
    }

    /// The id of a demand, or of the number that stands for no demand.
    #[inline(always)]
    fn id(&self, number: u32) -> u32 {
        let owner = self.owners[number as usize % WINDOW];
        if self.upcoming[owner as usize] == number {
            return owner;
        }
        match self.ids.get(number as usize) {
            Some(&id) => id,
            None => (self.ids.len() + self.upcoming.len() - 1) as u32 - number,
        }
    }
}

impl Rule for Belady<'_> {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.resident[id as usize]
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, now: u64) {
        let next = self.advance(id, now);
        self.owners[next as usize % WINDOW] = id;
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
