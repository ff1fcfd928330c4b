//! The rules as their definitions say them: every decision looks at everything. Slow, and obvious.

use super::{Order, ReplayInput, ReplayResult, Reset};
use crate::demand::Demands;
use queues::{ArcLists, S3Queues, TinyLfuQueues};
use scored::Scored;
use std::cmp::Reverse;

mod queues;
mod scored;

/// A rule by its definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Definition {
    Fifo,
    Lru,
    LruLayer,
    Lfu,
    InCacheLfu,
    LfuDecayed,
    Lfru,
    Sieve,
    S3Fifo,
    Arc,
    WTinyLfu,
    Gdsf,
    LeastStale,
    Static,
    Belady,
}

impl Definition {
    pub(super) const ALL: [Definition; 15] = [
        Definition::Fifo,
        Definition::Lru,
        Definition::LruLayer,
        Definition::Lfu,
        Definition::InCacheLfu,
        Definition::LfuDecayed,
        Definition::Lfru,
        Definition::Sieve,
        Definition::S3Fifo,
        Definition::Arc,
        Definition::WTinyLfu,
        Definition::Gdsf,
        Definition::LeastStale,
        Definition::Static,
        Definition::Belady,
    ];
}

/// Parameters of the rules that have some: such that small caches reach every case.
pub(super) const S3_FIFO: [f64; 3] = [0.3, 0.9, 2.0];
pub(super) const W_TINY_LFU: [f64; 3] = [0.2, 0.6, 2.0];
pub(super) const HALF_LIFE: f64 = 3.0;

/// A rule in use. What is resident is known to the replay, which asks for one of the ids in `open` to leave.
trait Model {
    /// A resident id is demanded.
    fn hit(&mut self, id: u32, now: usize);
    /// Room is wanted for `id`: who leaves?
    fn make_room(&mut self, id: u32, now: usize, open: &[u32]) -> Option<u32>;
    /// An absent id comes in, whether room had to be made or not.
    fn come_in(&mut self, id: u32, now: usize);
    /// An absent id is demanded and found no room.
    fn pass_by(&mut self, id: u32, now: usize);
}

fn model<'a>(definition: Definition, input: &ReplayInput, steps: &'a [Step]) -> Box<dyn Model + 'a> {
    match definition {
        Definition::Arc => Box::new(ArcLists::new(input.capacity)),
        Definition::S3Fifo => Box::new(S3Queues::new(input.capacity)),
        Definition::WTinyLfu => Box::new(TinyLfuQueues::new(input)),
        _ => Box::new(Scored::new(definition, input, steps)),
    }
}

/// What is demanded together, and the number of its trace.
struct Step {
    trace: usize,
    ids: Vec<u32>,
}

/// Replays `input` and lists what was evicted, in order.
pub(super) fn replay(definition: Definition, input: &ReplayInput) -> (ReplayResult, Vec<u32>) {
    let steps = ordered(input.demands, input.order);
    let (mut result, mut evicted) = (ReplayResult::default(), Vec::new());
    let mut resident = resident_at_start(definition, input);
    let mut rule = model(definition, input, &steps);
    for (now, step) in steps.iter().enumerate() {
        if input.reset == Reset::Trace && now > 0 && steps[now - 1].trace != step.trace {
            rule = model(definition, input, &steps);
            resident = resident_at_start(definition, input);
        }
        let (hits, misses): (Vec<u32>, Vec<u32>) = step.ids.iter().partition(|&&id| resident[id as usize]);
        result.accesses += step.ids.len() as u64;
        result.hits += hits.len() as u64;
        hits.into_iter().for_each(|id| rule.hit(id, now));
        for id in misses {
            if resident.iter().filter(|&&resident| resident).count() >= input.capacity {
                let all = 0..resident.len() as u32;
                let open: Vec<u32> =
                    all.filter(|&id| resident[id as usize] && !step.ids.contains(&id)).collect();
                let Some(victim) = rule.make_room(id, now, &open) else {
                    rule.pass_by(id, now);
                    continue;
                };
                resident[victim as usize] = false;
                evicted.push(victim);
            }
            resident[id as usize] = true;
            rule.come_in(id, now);
        }
    }
    (result, evicted)
}

/// The demands one after the other.
fn ordered(demands: &Demands, order: Order) -> Vec<Step> {
    let mut all = Vec::new();
    for index in 0..demands.len() {
        let trace = demands.trace_starts().iter().filter(|&&start| start <= index).count();
        match order {
            Order::Access => {
                all.extend(demands.step(index).iter().map(|&id| Step { trace, ids: vec![id] }));
            }
            Order::Atomic => {
                let mut ids = Vec::new();
                for &id in demands.step(index).iter() {
                    if !ids.contains(&id) {
                        ids.push(id);
                    }
                }
                all.push(Step { trace, ids });
            }
        }
    }
    all
}

fn resident_at_start(definition: Definition, input: &ReplayInput) -> Vec<bool> {
    let universe = input.demands.universe();
    let mut resident = vec![false; universe as usize];
    if let (Definition::Static, Some(fit)) = (definition, input.fit) {
        let demanded = ordered(fit, input.order);
        let count = |id: u32| demanded.iter().filter(|step| step.ids.contains(&id)).count();
        let mut ranked: Vec<u32> = (0..universe).collect();
        ranked.sort_by_key(|&id| (Reverse(count(id)), id));
        ranked.iter().take(input.capacity).for_each(|&id| resident[id as usize] = true);
    }
    resident
}
