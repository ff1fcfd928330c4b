//! W-TinyLFU (Einziger, Friedman and Manes, ACM Transactions on Storage 13(4), 2017): new ids pass through a small
//! window, and one that falls out of it stays only if it was demanded more often of late than the one the main part
//! would evict.
//!
//! As in the paper and in Caffeine: a window of 1 % in LRU order, a main part in two segments, 80 % of it protected,
//! counts up to 15 that are halved once in ten demands for each slot. Chosen: ids are dense, so the counts are exact,
//! where a server keeps a sketch and a doorkeeper to save memory. The window has at least one slot. A kept id is passed
//! over; where one side has no other, the other side gives way.

use super::segments::Segments;
use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, KeepNone, Rule};

const PARAMS: &[Param] = &[
    Param {
        name: "window_size",
        about: "share of the slots for the window",
        default: 0.01,
        min: 0.0,
        max: 1.0,
        scale: Scale::Linear,
    },
    Param {
        name: "protected",
        about: "share of the main part for blocks demanded again",
        default: 0.8,
        min: 0.0,
        max: 1.0,
        scale: Scale::Linear,
    },
    Param {
        name: "sample",
        about: "demands for each slot after which the counts are halved",
        default: 10.0,
        min: 1.0,
        max: 10_000.0,
        scale: Scale::Linear,
    },
];

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "w_tiny_lfu",
    about: "evicts from a window of new blocks what was demanded less of late than the main part's oldest",
    params: PARAMS,
    replay: Some(replay),
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let sizes = Sizes::new(input.params_of()?, input.capacity);
    Ok(Box::new(Reactive::new(WTinyLfu::new(input.model.blocks.len() as u32, sizes))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    let sizes = Sizes::new(input.params_of(ENTRY.name)?, input.capacity);
    Ok(input.run(WTinyLfu::new(input.demands.universe(), sizes)))
}

/// Slots of each segment, and the demands between two halvings of the counts.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Slots of the window.
    pub window: usize,
    /// Slots of the main part.
    pub main: usize,
    /// Of those, slots for what was demanded again.
    pub protected: usize,
    /// Demands between two halvings of the counts.
    pub sample: u64,
}

impl Sizes {
    /// By the parameters of the registry entry.
    pub fn new([window, protected, sample]: [f64; 3], capacity: usize) -> Sizes {
        let share = |slots: usize, ratio: f64| (slots as f64 * ratio) as usize;
        let window = share(capacity, window).max(1);
        let main = capacity.saturating_sub(window);
        let sample = (sample * capacity as f64) as u64;
        Sizes { window, main, protected: share(main, protected), sample: sample.max(1) }
    }
}

/// How often each id was demanded of late: counts up to 15, halved all at once from time to time.
#[derive(Clone, Debug)]
struct Counts {
    /// The count when it was last written, and how often counts had been halved by then.
    written: Box<[(u8, u64)]>,
    halvings: u64,
    left: u64,
    sample: u64,
}

impl Counts {
    const MOST: u8 = 15;

    fn new(universe: u32, sample: u64) -> Counts {
        let written = vec![(0, 0); universe as usize].into_boxed_slice();
        Counts { written, halvings: 0, left: sample, sample }
    }

    #[inline(always)]
    fn get(&self, id: u32) -> u8 {
        let (count, at) = self.written[id as usize];
        count.checked_shr((self.halvings - at).min(8) as u32).unwrap_or(0)
    }

    #[inline(always)]
    fn demanded(&mut self, id: u32) {
        self.written[id as usize] = ((self.get(id) + 1).min(Counts::MOST), self.halvings);
        self.left -= 1;
        if self.left == 0 {
            self.left = self.sample;
            self.halvings += 1;
        }
    }
}

/// The segments.
const WINDOW: u32 = 0;
const PROBATION: u32 = 1;
const PROTECTED: u32 = 2;

/// See the module.
#[derive(Clone, Debug)]
pub struct WTinyLfu {
    sizes: Sizes,
    segments: Segments,
    counts: Counts,
}

impl WTinyLfu {
    /// An empty cache of ids `0..universe`.
    pub fn new(universe: u32, sizes: Sizes) -> WTinyLfu {
        WTinyLfu { sizes, segments: Segments::new(universe, 3), counts: Counts::new(universe, sizes.sample) }
    }

    /// Moves the oldest id of a segment to another while the first is longer than `most`.
    #[inline(always)]
    fn spill(&mut self, from: u32, most: usize, to: u32) {
        while self.segments.len(from) > most
            && let Some(id) = self.segments.oldest(from, &KeepNone)
        {
            self.segments.push(id, to);
        }
    }
}

impl Rule for WTinyLfu {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.segments.of(id).is_some()
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, _now: u64) {
        self.counts.demanded(id);
        if self.segments.of(id) == Some(WINDOW) {
            self.segments.push(id, WINDOW);
        } else {
            self.segments.push(id, PROTECTED);
            self.spill(PROTECTED, self.sizes.protected, PROBATION);
        }
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, _now: u64) {
        self.counts.demanded(id);
        self.segments.push(id, WINDOW);
        // While the main part has room, what falls out of the window needs no comparison.
        let room =
            self.sizes.main.saturating_sub(self.segments.len(PROBATION) + self.segments.len(PROTECTED));
        let least = self.segments.len(WINDOW).saturating_sub(room);
        self.spill(WINDOW, self.sizes.window.max(least), PROBATION);
    }

    #[inline(always)]
    fn miss(&mut self, id: u32, _now: u64) {
        self.counts.demanded(id);
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        let candidate = self.segments.oldest(WINDOW, keep);
        let main =
            || [PROBATION, PROTECTED].into_iter().find_map(|segment| self.segments.oldest(segment, keep));
        let id = match (candidate, main()) {
            (Some(candidate), Some(victim)) if self.counts.get(candidate) > self.counts.get(victim) => {
                self.segments.push(candidate, PROBATION);
                victim
            }
            (candidate, victim) => candidate.or(victim)?,
        };
        self.segments.remove(id);
        Some(id)
    }

    #[inline(always)]
    fn remove(&mut self, id: u32) {
        self.segments.remove(id);
    }

    fn reset(&mut self) {
        *self = WTinyLfu::new(self.counts.written.len() as u32, self.sizes);
    }
}
