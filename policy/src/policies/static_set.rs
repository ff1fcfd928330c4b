//! A fixed set, chosen from a trace of the past.

use crate::control::Policy;
use crate::demand::Demands;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{Order, ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};
use std::cmp::Reverse;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "static",
    about: "keeps the blocks most demanded in the fitted trace; nothing moves",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    fitted: true,
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let (universe, fit) = (input.model.blocks.len() as u32, input.fit.ok_or(ReplayError::NoFit)?);
    if fit.universe() != universe {
        return Err(ReplayError::FitUniverse { fit: fit.universe(), demands: universe }.into());
    }
    // A step may need blocks outside the set: they pass through slots that the set leaves free.
    let members = input.capacity.saturating_sub(input.largest_demand);
    Ok(Box::new(Reactive::new(Static::fit(fit, Order::Atomic, members))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    let (universe, fit) = (input.demands.universe(), input.fit.ok_or(ReplayError::NoFit)?);
    if fit.universe() != universe {
        return Err(ReplayError::FitUniverse { fit: fit.universe(), demands: universe });
    }
    Ok(input.run(Static::fit(fit, input.order, input.capacity)))
}

/// The members of the set are resident from the start and never leave. Other ids may use what room is left beside
/// them; of those the least id leaves first.
#[derive(Clone, Debug)]
pub struct Static {
    member: Box<[bool]>,
    resident: Box<[bool]>,
}

impl Static {
    /// The `capacity` ids most demanded in `fit`, ties to the lowest id. In atomic order an id counts once a step.
    pub fn fit(fit: &Demands, order: Order, capacity: usize) -> Static {
        let mut counts = vec![0u64; fit.universe() as usize];
        let mut counted_in = vec![usize::MAX; fit.universe() as usize];
        for step in 0..fit.len() {
            for &id in fit.step(step).iter() {
                let before = std::mem::replace(&mut counted_in[id as usize], step);
                counts[id as usize] += u64::from(order == Order::Access || before != step);
            }
        }
        let mut ranked: Vec<usize> = (0..counts.len()).collect();
        ranked.sort_by_key(|&id| Reverse(counts[id]));
        let mut member = vec![false; counts.len()].into_boxed_slice();
        ranked.iter().take(capacity).for_each(|&id| member[id] = true);
        Static { resident: member.clone(), member }
    }
}

impl Rule for Static {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.resident[id as usize]
    }

    #[inline(always)]
    fn touch(&mut self, _id: u32, _now: u64) {}

    fn insert(&mut self, id: u32, _now: u64) {
        self.resident[id as usize] = true;
    }

    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        let guests = self.resident.iter().zip(&self.member).zip(0..);
        let mut guests = guests.filter(|((resident, member), _)| **resident && !**member).map(|(_, id)| id);
        let victim = guests.find(|&id| !keep.keeps(id))?;
        self.remove(victim);
        Some(victim)
    }

    fn remove(&mut self, id: u32) {
        self.resident[id as usize] = false;
    }

    fn reset(&mut self) {
        self.resident.copy_from_slice(&self.member);
    }
}
