//! How often checkpoints are used again, learned from the run: uses for each class of checkpoint and age, as LHD has it (NSDI
//! 2018), and of those that were given up as well, since their prefixes are still seen.
//!
//! Time is counted in requests. A use counts for the deepest checkpoint of a prompt, kept or not: the others are only
//! passed. So a checkpoint that a conversation has gone on from falls into a class that is rarely used again, unless
//! several go on from it.

use std::collections::BTreeMap;

/// Checkpoints that are remembered, kept or not.
const MOST_KNOWN: usize = 1 << 16;
/// Ages are counted in powers of two.
const AGES: usize = 24;
/// Uses so far: none, one, more. And how many checkpoints go on from it, likewise.
const FEW: u32 = 2;
const CLASSES: usize = ((FEW + 1) * (FEW + 1)) as usize;
/// Rates are worked out again after so many requests.
const REFRESH: u64 = 64;
/// What is believed before anything is seen: one use in so many requests, as strong as that many requests.
const PRIOR: f64 = 4096.0;

type Table = [[f64; AGES]; CLASSES];

/// What is known of a checkpoint's prefix.
#[derive(Clone, Copy, Debug)]
struct Known {
    uses: u32,
    children: u32,
    /// The request that made or used it last.
    last: u64,
}

impl Known {
    fn class(self) -> usize {
        (self.uses.min(FEW) * (FEW + 1) + self.children.min(FEW)) as usize
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
    /// A checkpoint has been made, going on from another.
    pub(super) fn made(&mut self, node: u64, parent: Option<u64>) {
        let fresh = Known { uses: 0, children: 0, last: self.requests };
        self.known.entry(node).or_insert(fresh).last = self.requests;
        if let Some(parent) = parent.and_then(|parent| self.known.get_mut(&parent)) {
            parent.children = parent.children.saturating_add(1);
        }
    }

    /// A prompt comes by, with these places for checkpoints from its beginning on.
    pub(super) fn pass(&mut self, path: impl Iterator<Item = u64>) {
        self.requests += 1;
        let now = self.requests;
        if let Some(deepest) = path.filter(|node| self.known.contains_key(node)).last()
            && let Some(known) = self.known.get_mut(&deepest)
        {
            let age = now - known.last;
            self.uses[known.class()][bucket(age)] += 1.0;
            wait(&mut self.waited[known.class()], age);
            (known.uses, known.last) = (known.uses.saturating_add(1), now);
        }
        if now.is_multiple_of(REFRESH) {
            self.refresh();
        }
    }

    /// Expected uses a request of a checkpoint, at its age.
    pub(super) fn rate(&self, node: u64) -> f64 {
        let known = self.known.get(&node);
        known.map_or(1.0 / PRIOR, |known| self.rates[known.class()][bucket(self.requests - known.last)])
    }

    fn refresh(&mut self) {
        if self.known.len() > MOST_KNOWN {
            let mut lasts: Vec<u64> = self.known.values().map(|known| known.last).collect();
            lasts.sort_unstable();
            let oldest = lasts[lasts.len() - MOST_KNOWN];
            self.known.retain(|_, known| known.last >= oldest);
        }
        let mut waited = self.waited;
        for known in self.known.values() {
            wait(&mut waited[known.class()], self.requests - known.last);
        }
        for class in 0..CLASSES {
            let (mut uses, mut spent) = (1.0, PRIOR);
            for age in (0..AGES).rev() {
                uses += self.uses[class][age];
                spent += waited[class][age];
                self.rates[class][age] = uses / spent;
            }
        }
    }
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
