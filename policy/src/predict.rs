//! Predictors: from what the router chose so far to what it will choose when each layer comes next.
//!
//! [`Popularity`] knows how often each expert was chosen lately. [`Ensemble`] mixes models of which expert follows which
//! (`transitions`) and of how tokens like this one went on (`trajectories`), each weighted by how well it has done.

use crate::id::LayerId;

mod distances;
mod ensemble;
pub mod history;
mod lanes;
mod mixer;
mod popularity;
mod recent;
mod trajectories;
mod transitions;

pub use distances::Distances;
pub use ensemble::{Ensemble, Members};
pub use history::History;
pub use popularity::Popularity;

/// A predictor over layers of equally many experts. It learns online, from router history alone. Layers are observed in
/// the order they run.
pub trait Predictor: Send {
    /// A layer was routed: `chosen` are the distinct experts, `scale` how much of one token's choice each stands for
    /// (1 for a single token, less for a batch).
    fn observe(&mut self, layer: LayerId, chosen: &[u32], scale: f32);

    /// For each expert of a layer, the probability that it is chosen when the layer comes next.
    fn next_visit(&self, layer: LayerId) -> &[f32];

    /// For each expert of a layer, how often it is chosen a visit, from the visit after the next on.
    fn later(&self, layer: LayerId) -> &[f32];

    /// The layers for which the last [`observe`](Predictor::observe) changed an estimate.
    fn changed(&self) -> &[LayerId];

    /// How often a layer has been seen.
    fn observations(&self, layer: LayerId) -> u64;
}

/// The size of what is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Layers that have a router.
    pub layers: usize,
    /// Experts of each.
    pub experts: usize,
    /// Experts that one token chooses.
    pub selected: usize,
}

impl Shape {
    /// How likely any expert is where nothing is known.
    fn prior(self) -> f32 {
        self.selected as f32 / self.experts.max(1) as f32
    }

    /// [`Lanes`](lanes::Lanes) in a row of experts.
    fn width(self) -> usize {
        self.experts.div_ceil(lanes::LANES)
    }
}

/// The predictors there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Popularity`] alone.
    Popularity,
    /// Layer-to-layer transitions.
    Transitions,
    /// What tokens of a like trajectory went on to choose.
    Trajectories,
    /// Transitions and trajectories, mixed.
    Ensemble,
}

impl Kind {
    /// Every kind, from the simplest on.
    pub const ALL: [Kind; 4] = [Kind::Popularity, Kind::Transitions, Kind::Trajectories, Kind::Ensemble];

    /// A predictor that has seen nothing.
    pub fn build(self, shape: Shape, distances: Distances) -> Box<dyn Predictor> {
        let ensemble = |members| Box::new(Ensemble::new(shape, distances, members));
        match self {
            Kind::Popularity => Box::new(Popularity::new(shape)),
            Kind::Transitions => ensemble(Members::Transitions),
            Kind::Trajectories => ensemble(Members::Trajectories),
            Kind::Ensemble => ensemble(Members::All),
        }
    }
}
