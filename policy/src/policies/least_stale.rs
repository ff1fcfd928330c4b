//! Least-Stale (Hoang et al., "SpecMD", arXiv 2602.03921, 2026): layers run in a fixed order, so what this pass through
//! the model has not demanded yet is either of a layer that has passed, and not needed before the next pass, or of one
//! to come.
//!
//! The paper separates stale ids, last demanded in an earlier pass, from current ones, and evicts stale ones first, in
//! the order of layers. Chosen where what is public of it says no more: of the stale, first those of layers that this
//! pass has left behind, from the first layer on, then those of layers to come, from the last layer back; then current
//! ones in the same order; of one layer the one demanded longest ago. A pass begins where the layers do: at a layer
//! before the last one demanded, and with every step where layers are not known.

use super::segments::Segments;
use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "least_stale",
    about: "evicts what this pass through the layers has not demanded, layers already passed first",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(Reactive::new(LeastStale::new(input.model.layer_of_each()))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(LeastStale::new(input.demands.layer_of_each())))
}

/// See the module.
#[derive(Clone, Debug)]
pub struct LeastStale {
    layer_of: Box<[u32]>,
    layers: u32,
    /// The residents of each layer, by last demand.
    residents: Segments,
    /// The pass each id was last demanded in.
    demanded_in: Box<[u64]>,
    pass: u64,
    layer: u32,
    now: u64,
}

impl LeastStale {
    /// An empty cache of ids of the given layers.
    pub fn new(layer_of: Box<[u32]>) -> LeastStale {
        let layers = layer_of.iter().max().map_or(1, |&last| last + 1);
        LeastStale {
            layers,
            residents: Segments::new(layer_of.len() as u32, layers),
            demanded_in: vec![0; layer_of.len()].into_boxed_slice(),
            layer_of,
            pass: 1,
            layer: 0,
            now: 0,
        }
    }

    /// Takes note of the layer that runs.
    #[inline(always)]
    fn advance(&mut self, id: u32, now: u64) {
        let layer = self.layer_of[id as usize];
        if layer < self.layer || (self.layers == 1 && now != self.now) {
            self.pass += 1;
        }
        (self.layer, self.now) = (layer, now);
    }

    /// The first id to leave of those that are stale, or of the others.
    fn first<K: Keep>(&self, stale: bool, keep: &K) -> Option<u32> {
        let passed = 0..self.layer;
        let to_come = (self.layer..self.layers).rev();
        passed.chain(to_come).find_map(|layer| {
            // Those demanded in this pass are the newest of their layer.
            let oldest = self.residents.oldest(layer, keep)?;
            ((self.demanded_in[oldest as usize] < self.pass) == stale).then_some(oldest)
        })
    }
}

impl Rule for LeastStale {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.residents.of(id).is_some()
    }

    #[inline(always)]
    fn incoming(&mut self, id: u32, now: u64) {
        self.advance(id, now);
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, now: u64) {
        self.insert(id, now);
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, now: u64) {
        self.advance(id, now);
        self.demanded_in[id as usize] = self.pass;
        self.residents.push(id, self.layer);
    }

    fn miss(&mut self, id: u32, now: u64) {
        self.advance(id, now);
    }

    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        let id = self.first(true, keep).or_else(|| self.first(false, keep))?;
        self.residents.remove(id);
        Some(id)
    }

    fn remove(&mut self, id: u32) {
        self.residents.remove(id);
    }

    fn reset(&mut self) {
        *self = LeastStale::new(std::mem::take(&mut self.layer_of));
    }
}
