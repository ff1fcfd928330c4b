//! What is known of which blocks come next: learned for the layers that have a router, certain for those that read all
//! of their blocks at every step.

use crate::id::LayerId;
use crate::model::Model;
use crate::predict::{Predictor, Shape};

/// See the module. Layers are those of the model.
pub struct History {
    learned: Option<Box<dyn Predictor>>,
    /// The layers that have a router, in order: the learned predictor numbers them so.
    routed: Vec<LayerId>,
    /// For each layer its number among them.
    place: Vec<Option<LayerId>>,
    /// For each layer, the share of its blocks that one token reads, once a block: what is known without learning.
    share: Vec<Vec<f32>>,
}

impl History {
    /// A history whose routed layers are predicted by what `learn` makes; `None` for one that knows only how many of a
    /// layer's blocks a token reads. `None` comes back if routed layers have unlike numbers of blocks.
    pub fn new(model: &Model, learn: Option<impl FnOnce(Shape) -> Box<dyn Predictor>>) -> Option<History> {
        let layers = (0u16..).map(LayerId).zip(&model.layers);
        let routed: Vec<LayerId> =
            layers.filter(|(_, layer)| model.is_routed(layer)).map(|(id, _)| id).collect();
        let mut place = vec![None; model.layers.len()];
        routed.iter().zip(0u16..).for_each(|(layer, at)| place[layer.index()] = Some(LayerId(at)));
        let share = |layer: &crate::model::Layer| {
            let share = layer.selected as f32 / layer.blocks.max(1) as f32;
            vec![share; layer.blocks as usize]
        };
        let learned = match routed.first() {
            Some(&first) => {
                let (experts, selected) =
                    (model.uniform_blocks()? as usize, model.layer(first).selected as usize);
                learn.map(|learn| learn(Shape { layers: routed.len(), experts, selected }))
            }
            None => None,
        };
        Some(History { learned, routed, place, share: model.layers.iter().map(share).collect() })
    }

    /// Whether no layer has a router.
    pub fn is_certain(&self) -> bool {
        self.routed.is_empty()
    }

    #[inline]
    fn learned(&self, layer: LayerId) -> Option<(&dyn Predictor, LayerId)> {
        self.learned.as_deref().zip(self.place[layer.index()])
    }

    /// A layer was routed: see [`Predictor::observe`]. Returns the layers for which that changed an estimate.
    pub fn observe(
        &mut self,
        layer: LayerId,
        chosen: &[u32],
        scale: f32,
    ) -> impl Iterator<Item = LayerId> + '_ {
        let learned = self.learned.as_mut().zip(self.place[layer.index()]);
        let changed = learned.map(|(learned, place)| {
            learned.observe(place, chosen, scale);
            learned.changed()
        });
        changed.unwrap_or_default().iter().map(|place| self.routed[place.index()])
    }

    /// For each block of a layer, the probability that it is needed when the layer comes next.
    #[inline]
    pub fn next_visit(&self, layer: LayerId) -> &[f32] {
        match self.learned(layer) {
            Some((learned, place)) => learned.next_visit(place),
            None => &self.share[layer.index()],
        }
    }

    /// For each block of a layer, how often it is needed a visit, from the visit after the next on.
    #[inline]
    pub fn later(&self, layer: LayerId) -> &[f32] {
        match self.learned(layer) {
            Some((learned, place)) => learned.later(place),
            None => &self.share[layer.index()],
        }
    }

    /// How often a layer has been seen; what is known without learning counts as seen any number of times.
    pub fn observations(&self, layer: LayerId) -> u64 {
        self.learned(layer).map_or(u64::MAX, |(learned, place)| learned.observations(place))
    }
}
