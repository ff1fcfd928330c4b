//! How often checkpoints are used again, learned from the run: uses for each class of checkpoint and age, as LHD has it (NSDI
//! 2018), and of those that were given up as well, since their prefixes are still seen.
//!
//! Time is counted in requests. A prompt uses the deepest checkpoint that is kept, and would have used any deeper one that was
//! given up; the others are only passed. So a checkpoint behind which another one is kept falls into a class that is rarely
//! used, and is of use again when that one goes.

use super::Entry;
use std::collections::BTreeMap;

/// Checkpoints that are remembered, kept or not.
const MOST_KNOWN: usize = 1 << 16;
/// Ages are counted in powers of two.
const AGES: usize = 24;
/// Uses so far: none, one, more; how many checkpoints go on from it, likewise; and whether it was within its prompt.
const FEW: u32 = 2;
const CLASSES: usize = ((FEW + 1) * (FEW + 1) * 2) as usize;
/// Rates are worked out again after so many requests.
const REFRESH: u64 = 64;
/// What is believed before anything is seen: one use in so many requests, as strong as that many requests.
const PRIOR: f64 = 4096.0;

type Table = [[f64; AGES]; CLASSES];

/// What is known of a checkpoint's prefix.
#[derive(Clone, Copy, Debug)]
struct Known {
    uses: u32,
    /// Made within a prompt and not at its end: where others had parted from it, or every so often.
    within: bool,
    /// The request that made or used it last.
    last: u64,
}

impl Known {
    /// Its class, where so many kept checkpoints go on from it.
    fn class(self, children: u32) -> usize {
        let few = self.uses.min(FEW) * (FEW + 1) + children.min(FEW);
        (2 * few + u32::from(self.within)) as usize
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Reuse {
    known: BTreeMap<u64, Known>,
    requests: u64,
    /// Uses by class and age, and the requests that those that were used had waited in each.
    uses: Table,
    waited: Table,
    /// Uses a request from each age on.
    rates: Table,
}

impl Default for Reuse {
    fn default() -> Reuse {
        let (none, prior) = ([[0.0; AGES]; CLASSES], [[1.0 / PRIOR; AGES]; CLASSES]);
        Reuse { known: BTreeMap::new(), requests: 0, uses: none, waited: none, rates: prior }
    }
}

impl Reuse {
    /// A checkpoint has been made, within a prompt or at its end.
    pub(super) fn made(&mut self, node: u64, within: bool) {
        let fresh = Known { uses: 0, within, last: self.requests };
        self.known.entry(node).or_insert(fresh).last = self.requests;
    }

    /// A prompt comes by, with these places for checkpoints from its beginning on.
    pub(super) fn pass(&mut self, path: impl Iterator<Item = u64>, kept: &BTreeMap<u64, Entry>) {
        self.requests += 1;
        let mut used: Vec<u64> = Vec::new();
        for node in path.filter(|node| self.known.contains_key(node)) {
            if kept.contains_key(&node) {
                used.clear();
            }
            used.push(node);
        }
        for node in used {
            let Some(known) = self.known.get_mut(&node) else { continue };
            let (class, age) = (known.class(children(kept, node)), self.requests - known.last);
            self.uses[class][bucket(age)] += 1.0;
            wait(&mut self.waited[class], age);
            (known.uses, known.last) = (known.uses.saturating_add(1), self.requests);
        }
        if self.requests.is_multiple_of(REFRESH) {
            self.refresh(kept);
        }
    }

    /// Expected uses a request of a checkpoint, at its age, with so many kept ones that go on from it.
    pub(super) fn rate(&self, node: u64, children: u32) -> f64 {
        let known = self.known.get(&node);
        let rate = |known: &Known| self.rates[known.class(children)][bucket(self.requests - known.last)];
        known.map_or(1.0 / PRIOR, rate)
    }

    fn refresh(&mut self, kept: &BTreeMap<u64, Entry>) {
        if self.known.len() > MOST_KNOWN {
            let mut lasts: Vec<u64> = self.known.values().map(|known| known.last).collect();
            lasts.sort_unstable();
            let oldest = lasts[lasts.len() - MOST_KNOWN];
            self.known.retain(|_, known| known.last >= oldest);
        }
        let mut waited = self.waited;
        for (node, known) in &self.known {
            wait(&mut waited[known.class(children(kept, *node))], self.requests - known.last);
        }
        for ((used, waited), rates) in self.uses.iter().zip(waited).zip(&mut self.rates) {
            let (mut uses, mut spent) = (1.0, PRIOR);
            for age in (0..AGES).rev() {
                uses += used[age];
                spent += waited[age];
                rates[age] = uses / spent;
            }
        }
    }
}

/// Kept checkpoints that go on from one; none from one that is not kept.
fn children(kept: &BTreeMap<u64, Entry>, node: u64) -> u32 {
    kept.get(&node).map_or(0, |entry| entry.children)
}

/// The power of two that an age is in.
fn bucket(age: u64) -> usize {
    ((u64::BITS - age.leading_zeros()) as usize).min(AGES - 1)
}

/// Adds the requests that something has waited to each age that it has been through.
fn wait(row: &mut [f64; AGES], age: u64) {
    for (place, spent) in row.iter_mut().enumerate() {
        let from = if place == 0 { 0 } else { 1 << (place - 1) };
        let until = if place == AGES - 1 { u64::MAX } else { 1 << place };
        *spent += age.clamp(from, until).saturating_sub(from) as f64;
    }
}
