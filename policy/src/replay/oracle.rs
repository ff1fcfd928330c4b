//! The rules as their definitions say them: every decision looks at everything. Slow, and obvious.

use super::{Order, ReplayInput, ReplayResult, Reset};
use crate::demand::Demands;
use std::cmp::{Ordering, Reverse};

/// A rule by its definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Definition {
    Lru,
    Lfu,
    Lfru,
    Sieve,
    Static,
    Belady,
}

/// One cold start's worth of state; tables are by id.
struct Cache {
    resident: Vec<bool>,
    count: Vec<u64>,
    last: Vec<u64>,
    visited: Vec<bool>,
    /// Residents in order of arrival, and which of them SIEVE's hand looks at next.
    arrivals: Vec<u32>,
    hand: usize,
}

/// Replays `input` and lists what was evicted, in order.
pub(super) fn replay(definition: Definition, input: &ReplayInput) -> (ReplayResult, Vec<u32>) {
    let steps = ordered(input.demands, input.order);
    let (mut result, mut evicted) = (ReplayResult::default(), Vec::new());
    let mut cache = Cache::new(definition, input);
    for (now, (trace, step)) in steps.iter().enumerate() {
        if input.reset == Reset::Trace && now > 0 && steps[now - 1].0 != *trace {
            cache = Cache::new(definition, input);
        }
        let before = cache.resident.clone();
        result.accesses += step.len() as u64;
        for &id in step {
            if before[id as usize] {
                result.hits += 1;
            } else {
                let full = cache.resident.iter().filter(|&&resident| resident).count() >= input.capacity;
                let victim =
                    if full { cache.victim(definition, input.order, now, step, &steps) } else { None };
                if let Some(victim) = victim {
                    cache.leave(victim);
                    evicted.push(victim);
                }
                if !full || victim.is_some() {
                    cache.resident[id as usize] = true;
                    cache.visited[id as usize] = false;
                    cache.arrivals.push(id);
                }
            }
            cache.count[id as usize] += 1;
            cache.last[id as usize] = now as u64;
            cache.visited[id as usize] = before[id as usize];
        }
    }
    (result, evicted)
}

/// The demands one after the other, each with the number of its trace.
fn ordered(demands: &Demands, order: Order) -> Vec<(usize, Vec<u32>)> {
    let mut all = Vec::new();
    for index in 0..demands.len() {
        let trace = demands.trace_starts().iter().filter(|&&start| start <= index).count();
        match order {
            Order::Access => all.extend(demands.step(index).iter().map(|&id| (trace, vec![id]))),
            Order::Atomic => {
                let mut distinct = Vec::new();
                for &id in demands.step(index) {
                    if !distinct.contains(&id) {
                        distinct.push(id);
                    }
                }
                all.push((trace, distinct));
            }
        }
    }
    all
}

impl Cache {
    fn new(definition: Definition, input: &ReplayInput) -> Cache {
        let universe = input.demands.universe() as usize;
        let mut resident = vec![false; universe];
        if let (Definition::Static, Some(fit)) = (definition, input.fit) {
            let demanded = ordered(fit, input.order);
            let count = |id: u32| demanded.iter().filter(|(_, step)| step.contains(&id)).count();
            let mut ranked: Vec<u32> = (0..universe as u32).collect();
            ranked.sort_by_key(|&id| (Reverse(count(id)), id));
            ranked.iter().take(input.capacity).for_each(|&id| resident[id as usize] = true);
        }
        let (count, last) = (vec![0; universe], vec![0; universe]);
        Cache { resident, count, last, visited: vec![false; universe], arrivals: Vec::new(), hand: 0 }
    }

    fn leave(&mut self, id: u32) {
        self.resident[id as usize] = false;
        let place = self.arrivals.iter().position(|&other| other == id).unwrap();
        self.arrivals.remove(place);
        if place < self.hand {
            self.hand -= 1;
        }
        // Past the newest the hand is at the oldest at once: what arrives next is behind it.
        if self.hand == self.arrivals.len() {
            self.hand = 0;
        }
    }

    fn victim(
        &mut self,
        definition: Definition,
        order: Order,
        now: usize,
        step: &[u32],
        steps: &[(usize, Vec<u32>)],
    ) -> Option<u32> {
        let open: Vec<u32> = (0..self.resident.len() as u32)
            .filter(|&id| self.resident[id as usize] && !step.contains(&id))
            .collect();
        if open.is_empty() {
            return None;
        }
        let next = |id: u32| {
            let ahead = steps[now + 1..].iter().position(|(_, step)| step.contains(&id));
            ahead.unwrap_or(usize::MAX)
        };
        let (count, last) = (|id: u32| self.count[id as usize], |id: u32| self.last[id as usize]);
        let frequency = |id: u32| (count(id), if order == Order::Access { last(id) } else { 0 });
        let age = |id: u32| now as u64 - last(id) + 1;
        let compare = |a: u32, b: u32| match definition {
            Definition::Lru => last(a).cmp(&last(b)),
            Definition::Lfu => frequency(a).cmp(&frequency(b)),
            Definition::Lfru => (count(a) * age(b)).cmp(&(count(b) * age(a))),
            Definition::Belady => next(b).cmp(&next(a)),
            Definition::Static | Definition::Sieve => Ordering::Equal,
        };
        match definition {
            Definition::Static => None,
            Definition::Sieve => Some(self.sieve(step)),
            _ => open.into_iter().min_by(|&a, &b| compare(a, b).then(a.cmp(&b))),
        }
    }

    fn sieve(&mut self, step: &[u32]) -> u32 {
        loop {
            self.hand %= self.arrivals.len();
            let id = self.arrivals[self.hand];
            if !step.contains(&id) && !std::mem::replace(&mut self.visited[id as usize], false) {
                return id;
            }
            self.hand += 1;
        }
    }
}
