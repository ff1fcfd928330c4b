//! S3-FIFO (Yang et al., SOSP 2023): a small queue for what is new, a main queue with second chances, and a queue of
//! ghosts that lets what comes back go to the main queue at once.
//!
//! Where the paper's pseudo-code and its authors' simulator differ, this follows the simulator (libCacheSim's S3FIFO.c,
//! 2024): one eviction takes exactly one id; whether an id is a ghost is asked before room is made for it; until the
//! first eviction, what finds the small queue full goes to the main queue. What moves to the main queue is unmarked.
//! A kept id is passed over and stays where it is.

use super::lists::Lists;
use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, KeepNone, Rule};

const PARAMS: &[Param] = &[
    Param {
        name: "small_size_ratio",
        about: "share of the slots for the small queue",
        default: 0.1,
        min: 0.0,
        max: 1.0,
        scale: Scale::Linear,
    },
    Param {
        name: "ghost_size_ratio",
        about: "ghosts for each slot",
        default: 0.9,
        min: 0.0,
        max: 10.0,
        scale: Scale::Linear,
    },
    Param {
        name: "move_to_main_threshold",
        about: "demands in the small queue that make a block move to the main one",
        default: 2.0,
        min: 1.0,
        max: 3.0,
        scale: Scale::Linear,
    },
];

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "s3_fifo",
    about: "evicts new blocks that were not demanded again soon, and the rest first in, first out with second chances",
    params: PARAMS,
    replay: Some(replay),
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let sizes = Sizes::new(input.params_of()?, input.capacity);
    Ok(Box::new(Reactive::new(S3Fifo::new(input.model.blocks.len() as u32, sizes))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    let sizes = Sizes::new(input.params_of(ENTRY.name)?, input.capacity);
    Ok(input.run(S3Fifo::new(input.demands.universe(), sizes)))
}

/// How long the queues are.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Slots of the small queue, as a target.
    pub small: usize,
    /// Ghosts at most.
    pub ghosts: usize,
    /// Demands in the small queue that make an id move to the main one.
    pub promote_at: u8,
}

impl Sizes {
    /// By the parameters of the registry entry; the small queue has at least one slot.
    pub fn new([small, ghosts, promote_at]: [f64; 3], capacity: usize) -> Sizes {
        let share = |ratio: f64| (capacity as f64 * ratio) as usize;
        Sizes { small: share(small).max(1), ghosts: share(ghosts), promote_at: promote_at as u8 }
    }
}

/// Where an id is, and in the two low bits, if it is resident, how often it was demanded there, at most three times.
type State = u8;
const ABSENT: State = 0;
const GHOST: State = 1;
/// A ghost that asks for room; it is in no queue.
const RETURNING: State = 2;
const SMALL: State = 4;
const MAIN: State = 8;
const DEMANDS: State = 3;

/// The lists of ids.
const SMALL_QUEUE: u32 = 0;
const MAIN_QUEUE: u32 = 1;
const GHOST_QUEUE: u32 = 2;

/// See the module.
#[derive(Clone, Debug)]
pub struct S3Fifo {
    sizes: Sizes,
    states: Box<[State]>,
    queues: Lists,
    small: usize,
    ghosts: usize,
    evicted: bool,
}

impl S3Fifo {
    /// An empty cache of ids `0..universe`.
    pub fn new(universe: u32, sizes: Sizes) -> S3Fifo {
        let states = vec![ABSENT; universe as usize].into_boxed_slice();
        S3Fifo { sizes, states, queues: Lists::new(universe, 3), small: 0, ghosts: 0, evicted: false }
    }

    #[inline(always)]
    fn join(&mut self, id: u32, queue: u32, state: State) {
        self.queues.link(id, self.queues.end(queue));
        self.states[id as usize] = state;
    }

    /// From the small queue: what was demanded often enough moves on, the first other leaves and becomes a ghost.
    #[inline(always)]
    fn evict_small<K: Keep>(&mut self, keep: &K) -> Option<u32> {
        let end = self.queues.end(SMALL_QUEUE);
        let mut id = self.queues.newer(end);
        while id != end {
            let next = self.queues.newer(id);
            if !keep.keeps(id) {
                self.queues.unlink(id);
                self.small -= 1;
                if self.states[id as usize] & DEMANDS < self.sizes.promote_at {
                    self.haunt(id);
                    return Some(id);
                }
                self.join(id, MAIN_QUEUE, MAIN);
            }
            id = next;
        }
        None
    }

    /// From the main queue: what was demanded goes round again with one demand less, the first other leaves.
    #[inline(always)]
    fn evict_main<K: Keep>(&mut self, keep: &K) -> Option<u32> {
        let end = self.queues.end(MAIN_QUEUE);
        let mut id = self.queues.newer(end);
        while id != end {
            let next = self.queues.newer(id);
            if !keep.keeps(id) {
                self.queues.unlink(id);
                let state = self.states[id as usize];
                if state == MAIN {
                    self.states[id as usize] = ABSENT;
                    return Some(id);
                }
                self.join(id, MAIN_QUEUE, state - 1);
                if next == end {
                    id = self.queues.older(end);
                    continue;
                }
            }
            id = next;
        }
        None
    }

    /// Makes an id that has just left a ghost.
    #[inline(always)]
    fn haunt(&mut self, id: u32) {
        self.join(id, GHOST_QUEUE, GHOST);
        self.ghosts += 1;
        if self.ghosts > self.sizes.ghosts
            && let Some(oldest) = self.queues.oldest(GHOST_QUEUE, &KeepNone)
        {
            self.queues.unlink(oldest);
            self.states[oldest as usize] = ABSENT;
            self.ghosts -= 1;
        }
    }
}

impl Rule for S3Fifo {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.states[id as usize] >= SMALL
    }

    #[inline(always)]
    fn incoming(&mut self, id: u32, _now: u64) {
        if self.states[id as usize] == GHOST {
            self.queues.unlink(id);
            self.ghosts -= 1;
            self.states[id as usize] = RETURNING;
        }
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, _now: u64) {
        let state = &mut self.states[id as usize];
        *state += u8::from(*state & DEMANDS < DEMANDS);
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, now: u64) {
        self.incoming(id, now);
        let returning = self.states[id as usize] == RETURNING;
        if returning || (!self.evicted && self.small >= self.sizes.small) {
            self.join(id, MAIN_QUEUE, MAIN);
        } else {
            self.join(id, SMALL_QUEUE, SMALL);
            self.small += 1;
        }
    }

    fn miss(&mut self, id: u32, _now: u64) {
        if self.states[id as usize] == RETURNING {
            self.haunt(id);
        }
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        self.evicted = true;
        if self.small >= self.sizes.small {
            self.evict_small(keep).or_else(|| self.evict_main(keep))
        } else {
            self.evict_main(keep).or_else(|| self.evict_small(keep))
        }
    }

    fn remove(&mut self, id: u32) {
        self.small -= usize::from(self.states[id as usize] < MAIN);
        self.queues.unlink(id);
        self.states[id as usize] = ABSENT;
    }

    fn reset(&mut self) {
        *self = S3Fifo::new(self.queues.universe(), self.sizes);
    }
}
