//! What is known of a model's router: learned choices, or one probability for every block of every layer. A dense layer
//! is the second kind, with certainty.

use crate::id::LayerId;
use crate::predict::{Predictor, Transitions};

/// See the module.
pub enum History {
    /// Choices are predicted from those before.
    Learned(Box<Transitions>),
    /// Every block of every layer is asked for with this probability, whatever happened before.
    Same(Vec<f32>),
}

impl History {
    /// Each of a layer's `blocks` is asked for with probability `p`.
    pub fn same(blocks: usize, p: f32) -> History {
        History::Same(vec![p; blocks])
    }

    /// Whether every block is asked for at every visit of its layer.
    pub fn is_certain(&self) -> bool {
        matches!(self, History::Same(all) if all.iter().all(|&p| p >= 1.0))
    }
}

impl Predictor for History {
    fn observe(&mut self, layer: LayerId, chosen: &[u32], scale: f32) {
        if let History::Learned(learned) = self {
            learned.observe(layer, chosen, scale);
        }
    }

    fn next_visit(&self, layer: LayerId) -> &[f32] {
        match self {
            History::Learned(learned) => learned.next_visit(layer),
            History::Same(all) => all,
        }
    }

    fn popularity(&self, layer: LayerId) -> &[f32] {
        match self {
            History::Learned(learned) => learned.popularity(layer),
            History::Same(all) => all,
        }
    }

    fn changed(&self) -> &[LayerId] {
        match self {
            History::Learned(learned) => learned.changed(),
            History::Same(_) => &[],
        }
    }

    fn observations(&self, layer: LayerId) -> u64 {
        match self {
            History::Learned(learned) => learned.observations(layer),
            History::Same(_) => u64::MAX,
        }
    }
}
