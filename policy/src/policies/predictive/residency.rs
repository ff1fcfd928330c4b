//! The policy without time, costs and formats: which block leaves, by expected time to next use.
//!
//! Demands that do not go round the layers of a model, such as a cache trace, give nothing to predict by; they are
//! replayed by frequency over age.

use super::holding::{NextUse, RARE};
use super::params::{PREDICTED_NEAR, Settings};
use crate::demand::{Demand, Demands};
use crate::id::LayerId;
use crate::policies::lfru::Lfru;
use crate::predict::{Distances, Kind, Predictor, Shape};
use crate::replay::{Order, ReplayError, ReplayInput, ReplayResult};
use crate::rule::{Keep, KeepNone, Rule};

pub(super) fn replay(input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
    let (policy, given) = (super::ENTRY.name, input.params.len());
    let expected = super::ENTRY.params.len();
    let settings = Settings::read(input.params).ok_or(ReplayError::ParamCount { policy, expected, given })?;
    match layers(input.demands) {
        Some(layers) => Ok(input.run(Residency::new(input.demands, layers, input.order, settings))),
        None => Ok(input.run(Lfru::new(input.demands.universe()))),
    }
}

/// How many layers the demands go round, each of equally many ids; `None` where they do not.
fn layers(demands: &Demands) -> Option<usize> {
    let steps = || (0..demands.len()).map(|step| demands.step(step));
    let first = |ids: &[u32]| ids.iter().min().copied();
    // Ids grow from layer to layer, until the first layer is back.
    let falls =
        |(one, next): (Demand, Demand)| first(&one).zip(first(&next)).is_some_and(|(one, next)| next < one);
    let layers = steps().zip(steps().skip(1)).position(falls).map_or(demands.len(), |last| last + 1);
    let universe = demands.universe() as usize;
    if layers == 0 || layers > usize::from(u16::MAX) || !universe.is_multiple_of(layers) {
        return None;
    }
    let experts = (universe / layers) as u32;
    let in_place = |(step, ids): (usize, Demand)| {
        let layer = (step % layers) as u32;
        ids.iter().all(|id| id / experts == layer)
    };
    steps().enumerate().all(in_place).then_some(layers)
}

/// A resident id of a layer, and the tokens expected from the layer's next visit to its next use.
type Candidate = (f64, u32);

/// Evicts the block whose next use is expected last. A step is observed as a whole: in atomic order when it begins,
/// as an engine sees it; in access order when it is over.
struct Residency<'a> {
    demands: &'a Demands,
    order: Order,
    settings: Settings,
    layers: usize,
    predictor: Box<dyn Predictor>,
    resident: Vec<bool>,
    /// For each layer the resident to give up first, where it is known.
    last_used: Vec<Option<Option<Candidate>>>,
    /// Steps observed.
    observed: usize,
    /// The layer being run.
    layer: usize,
    chosen: Vec<u32>,
}

impl<'a> Residency<'a> {
    fn new(demands: &'a Demands, layers: usize, order: Order, settings: Settings) -> Residency<'a> {
        Residency {
            demands,
            order,
            predictor: predictor(demands, layers, &settings),
            settings,
            layers,
            resident: vec![false; demands.universe() as usize],
            last_used: vec![None; layers],
            observed: 0,
            layer: 0,
            chosen: Vec::new(),
        }
    }

    fn experts(&self) -> usize {
        self.resident.len() / self.layers
    }

    /// Takes in every step that is known at a time: see [`Residency`].
    #[inline]
    fn catch_up(&mut self, now: u64) {
        match self.order {
            Order::Atomic => {
                while self.observed as u64 <= now {
                    self.observe();
                }
            }
            Order::Access => {
                while (self.demands.offset(self.observed + 1) as u64) <= now {
                    self.observe();
                }
                self.layer = self.observed % self.layers;
            }
        }
    }

    fn observe(&mut self) {
        let (layer, experts) = (self.observed % self.layers, self.experts() as u32);
        self.chosen.clear();
        self.chosen.extend(self.demands.step(self.observed).iter().map(|id| id % experts));
        self.chosen.sort_unstable();
        self.chosen.dedup();
        self.predictor.observe(LayerId(layer as u16), &self.chosen, 1.0);
        for changed in self.predictor.changed() {
            self.last_used[changed.index()] = None;
        }
        self.last_used[layer] = None;
        self.layer = layer;
        self.observed += 1;
    }

    /// The resident of a layer that is used last and that may leave.
    fn last_used<K: Keep>(&self, layer: usize, keep: &K) -> Option<Candidate> {
        let id = LayerId(layer as u16);
        let later = self.predictor.later(id);
        let next = if self.settings.inputs.next_use { self.predictor.next_visit(id) } else { later };
        let first = layer * self.experts();
        let resident = &self.resident[first..first + self.experts()];
        let candidates = resident.iter().zip(next).zip(later).zip(first as u32..);
        let may_leave = candidates.filter(|(((resident, _), _), id)| **resident && !keep.keeps(*id));
        let tokens = may_leave.map(|(((_, &p), &later), id)| {
            let next_use = NextUse { p: f64::from(p), wait: 0.0, rate: f64::from(later) + RARE };
            (next_use.tokens(), id)
        });
        tokens.reduce(|last, other| if other.0 > last.0 { other } else { last })
    }

    /// Tokens until a layer comes.
    fn wait(&self, layer: usize) -> f64 {
        if !self.settings.inputs.next_use {
            return 0.0;
        }
        let ahead = if layer > self.layer { layer - self.layer } else { layer + self.layers - self.layer };
        ahead as f64 / self.layers as f64
    }

    fn layer_of(&self, id: u32) -> usize {
        id as usize / self.experts()
    }
}

fn predictor(demands: &Demands, layers: usize, settings: &Settings) -> Box<dyn Predictor> {
    let kind = if settings.inputs.router_history { settings.predictor } else { Kind::Popularity };
    let widest = (0..demands.len()).map(|step| demands.step(step).len()).max().unwrap_or(0);
    let shape = Shape { layers, experts: demands.universe() as usize / layers, selected: widest };
    kind.build(shape, Distances::until(PREDICTED_NEAR, layers))
}

impl Rule for Residency<'_> {
    #[inline]
    fn contains(&self, id: u32) -> bool {
        self.resident[id as usize]
    }

    fn touch(&mut self, _id: u32, now: u64) {
        self.catch_up(now);
    }

    fn insert(&mut self, id: u32, now: u64) {
        self.catch_up(now);
        self.resident[id as usize] = true;
        let layer = self.layer_of(id);
        self.last_used[layer] = None;
    }

    fn miss(&mut self, _id: u32, now: u64) {
        self.catch_up(now);
    }

    fn evict<K: Keep>(&mut self, now: u64, keep: &K) -> Option<u32> {
        self.catch_up(now);
        let mut last: Option<Candidate> = None;
        for layer in 0..self.layers {
            let known = self.last_used[layer];
            let known = known.unwrap_or_else(|| self.last_used(layer, &KeepNone));
            self.last_used[layer] = Some(known);
            let kept = known.is_some_and(|(_, id)| keep.keeps(id));
            let candidate = if kept { self.last_used(layer, keep) } else { known };
            let Some((tokens, id)) = candidate else { continue };
            let tokens = tokens + self.wait(layer);
            if last.is_none_or(|(most, _)| tokens > most) {
                last = Some((tokens, id));
            }
        }
        let (_, id) = last?;
        self.remove(id);
        Some(id)
    }

    fn remove(&mut self, id: u32) {
        self.resident[id as usize] = false;
        let layer = self.layer_of(id);
        self.last_used[layer] = None;
    }

    fn reset(&mut self) {
        self.predictor = predictor(self.demands, self.layers, &self.settings);
        self.resident.fill(false);
        self.last_used.fill(None);
    }
}
