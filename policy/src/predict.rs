//! Predictors: from what the router chose so far to what it will choose when each layer comes next.

use crate::id::LayerId;

pub mod history;
pub mod popularity;
pub mod smooth;
pub mod transitions;

pub use history::History;
pub use popularity::Popularity;
pub use transitions::Transitions;

/// A predictor over layers of equally many experts. It learns online, from router history alone.
pub trait Predictor: Send {
    /// A layer was routed: `chosen` are the distinct experts, `scale` how much of one token's choice each stands for
    /// (1 for a single token, less for a batch).
    fn observe(&mut self, layer: LayerId, chosen: &[u32], scale: f32);

    /// For each expert of a layer, the probability that it is chosen when the layer comes next.
    fn next_visit(&self, layer: LayerId) -> &[f32];

    /// For each expert of a layer, how often it is chosen in the long run.
    fn popularity(&self, layer: LayerId) -> &[f32];

    /// The layers for which the last [`observe`](Predictor::observe) changed an estimate.
    fn changed(&self) -> &[LayerId];

    /// How often a layer has been seen.
    fn observations(&self, layer: LayerId) -> u64;
}
