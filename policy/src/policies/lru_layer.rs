//! Least recently used, with slots of its own for every layer.
//!
//! Source: mixtral-offloading (Eliseev and Mazur, 2023, arXiv 2312.17238), which gives each layer a cache of the same
//! number of experts; AdapMoE and HybriMoE keep the same split as a baseline.
//!
//! Chosen where it does not say: where the slots do not divide evenly, the first layers have one more. A slot that its
//! layer does not use yet is lent to others, and taken back when the layer asks: the one that is furthest over its share
//! gives way, the lowest of equals. A step that needs more blocks than its layer has slots borrows in the same way.

use super::segments::Segments;
use crate::control::Policy;
use crate::policies::reactive::Reactive;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, Rule};
use std::cmp::Reverse;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "lru_layer",
    about: "lru with the slots split evenly over the layers",
    params: &[],
    replay: Some(replay),
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    Ok(Box::new(Reactive::new(LruLayer::new(input.model.layer_of_each(), input.capacity))))
}

fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    Ok(input.run(LruLayer::new(input.demands.layer_of_each(), input.capacity)))
}

/// Evicts the id demanded longest ago of the layer that has to give way; those of one step count as demanded in its
/// order, hits before misses.
#[derive(Clone, Debug)]
pub struct LruLayer {
    layer_of: Box<[u32]>,
    /// Slots of each layer.
    shares: Box<[usize]>,
    /// The residents of each layer.
    residents: Segments,
    /// The layer that asks for room.
    asking: u32,
}

impl LruLayer {
    /// An empty cache of `capacity` slots for ids of the given layers.
    pub fn new(layer_of: Box<[u32]>, capacity: usize) -> LruLayer {
        let layers = layer_of.iter().max().map_or(1, |&last| last as usize + 1);
        let share = |layer: usize| capacity / layers + usize::from(layer < capacity % layers);
        let residents = Segments::new(layer_of.len() as u32, layers as u32);
        LruLayer { layer_of, shares: (0..layers).map(share).collect(), residents, asking: 0 }
    }

    #[inline(always)]
    fn excess(&self, layer: u32) -> isize {
        self.residents.len(layer) as isize - self.shares[layer as usize] as isize
    }
}

impl Rule for LruLayer {
    #[inline(always)]
    fn contains(&self, id: u32) -> bool {
        self.residents.of(id).is_some()
    }

    #[inline(always)]
    fn incoming(&mut self, id: u32, _now: u64) {
        self.asking = self.layer_of[id as usize];
    }

    #[inline(always)]
    fn touch(&mut self, id: u32, now: u64) {
        self.insert(id, now);
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, _now: u64) {
        self.residents.push(id, self.layer_of[id as usize]);
    }

    #[inline(always)]
    fn evict<K: Keep>(&mut self, _now: u64, keep: &K) -> Option<u32> {
        let own = Some(self.asking).filter(|&layer| self.excess(layer) >= 0);
        let of_own = own.and_then(|layer| self.residents.oldest(layer, keep));
        let of_others = || {
            let oldest =
                |layer| Some((self.excess(layer), Reverse(layer), self.residents.oldest(layer, keep)?));
            (0..self.shares.len() as u32).filter_map(oldest).max().map(|(_, _, id)| id)
        };
        let id = of_own.or_else(of_others)?;
        self.residents.remove(id);
        Some(id)
    }

    #[inline(always)]
    fn remove(&mut self, id: u32) {
        self.residents.remove(id);
    }

    fn reset(&mut self) {
        self.residents.clear();
        self.asking = 0;
    }
}
