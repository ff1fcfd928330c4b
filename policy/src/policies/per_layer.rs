//! What is worked out for each layer from its blocks' copies, and worked out anew only when they have changed.

use crate::control::Context;
use crate::id::{BlockId, LayerId};

/// A value for each layer, kept as long as the layer's version in the ledger.
#[derive(Clone, Debug)]
pub(super) struct PerLayer<T> {
    /// The version and the value; `None` where there is no value, or it no longer holds.
    known: Vec<Option<(u64, T)>>,
}

impl<T: Copy> PerLayer<T> {
    /// Nothing is known of any of so many layers.
    pub(super) fn new(layers: usize) -> PerLayer<T> {
        PerLayer { known: vec![None; layers] }
    }

    /// The value of a layer.
    #[inline]
    pub(super) fn get(&mut self, context: &Context, layer: LayerId, work_out: impl FnOnce() -> T) -> T {
        let version = context.ledger.version(layer);
        match self.known[layer.index()] {
            Some((known, value)) if known == version => value,
            _ => {
                let value = work_out();
                self.known[layer.index()] = Some((version, value));
                value
            }
        }
    }

    /// A layer's value no longer holds, though its copies are as they were.
    pub(super) fn forget(&mut self, layer: LayerId) {
        self.known[layer.index()] = None;
    }

    /// No layer's value holds any longer.
    pub(super) fn forget_all(&mut self) {
        self.known.fill(None);
    }

    fn layers(&self) -> impl Iterator<Item = LayerId> + use<T> {
        (0..self.known.len() as u16).map(LayerId)
    }
}

impl PerLayer<u64> {
    /// The sum over all layers.
    pub(super) fn sum(&mut self, context: &Context, of_layer: impl Fn(LayerId) -> u64) -> u64 {
        self.layers().map(|layer| self.get(context, layer, || of_layer(layer))).sum()
    }
}

/// The idle block of least worth in each layer.
pub(super) type Ranking = PerLayer<Option<(f64, BlockId)>>;

impl Ranking {
    /// The idle block of least worth, and its worth; ties to the lowest id. `within` is what orders the blocks of a layer, `None` for
    /// one that may not leave; `across` makes of the least of a layer what orders the layers. A layer whose `within`
    /// changes while its copies do not has to be [forgotten](PerLayer::forget).
    pub(super) fn least(
        &mut self,
        context: &Context,
        within: impl Fn(BlockId) -> Option<f64>,
        across: impl Fn(LayerId, f64) -> f64,
    ) -> Option<(f64, BlockId)> {
        let least = |a: (f64, BlockId), b: (f64, BlockId)| {
            if b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).is_lt() { b } else { a }
        };
        let of_layer = |layer| {
            let worths = context.ledger.idle(layer).filter_map(|block| Some((within(block)?, block)));
            worths.reduce(least)
        };
        let layers = self.layers().filter_map(|layer| {
            let (worth, block) = self.get(context, layer, || of_layer(layer))?;
            Some((across(layer, worth), block))
        });
        layers.reduce(least)
    }
}
