//! Decayed popularity on three time scales: what was hot lately, in the last dozens of tokens, and on the whole.

use super::lanes::{LANES, Lanes, add_scaled, log_odds_of};
use super::{Predictor, Shape};
use crate::id::LayerId;

/// Weight of the newest token, for the fast, the middle and the slow scale.
const RATES: [f32; SCALES] = [0.2, 0.05, 0.004];
/// How the scales are mixed (measured on gpt-oss-20b routing: the mix is worth 0.9 points of hit rate over the best
/// single scale at a quarter of the experts).
const MIX: [f32; SCALES] = [0.45, 0.35, 0.2];
/// Time scales there are.
pub(super) const SCALES: usize = 3;

/// See the module. A row is `shape.width()` lanes.
#[derive(Clone, Debug)]
pub struct Popularity {
    shape: Shape,
    /// `[layer][scale]`
    scales: Vec<Lanes>,
    /// `[layer]`
    mixed: Vec<Lanes>,
    seen: Vec<u64>,
    newest: LayerId,
}

impl Popularity {
    /// Every expert equally likely.
    pub fn new(shape: Shape) -> Popularity {
        let rows = |rows: usize| vec![[shape.prior(); LANES]; rows * shape.width()];
        Popularity {
            shape,
            scales: rows(shape.layers * SCALES),
            mixed: rows(shape.layers),
            seen: vec![0; shape.layers],
            newest: LayerId(0),
        }
    }

    /// Sets `odds` to the log-odds of a layer, scale by scale.
    pub(super) fn log_odds(&self, layer: usize, odds: &mut [Lanes]) {
        let from = layer * SCALES * self.shape.width();
        odds.copy_from_slice(&self.scales[from..from + odds.len()]);
        odds.iter_mut().for_each(log_odds_of);
    }

    /// The estimates of a layer.
    pub(super) fn mixed(&self, layer: usize) -> &[Lanes] {
        let width = self.shape.width();
        &self.mixed[layer * width..(layer + 1) * width]
    }
}

impl Predictor for Popularity {
    fn observe(&mut self, layer: LayerId, chosen: &[u32], _scale: f32) {
        let (width, at) = (self.shape.width(), layer.index());
        let mixed = &mut self.mixed[at * width..(at + 1) * width];
        mixed.fill([0.0; LANES]);
        let scales = self.scales[at * SCALES * width..(at + 1) * SCALES * width].chunks_exact_mut(width);
        for ((scale, rate), mix) in scales.zip(RATES).zip(MIX) {
            for value in scale.as_flattened_mut() {
                *value -= rate * *value;
            }
            for &expert in chosen {
                scale.as_flattened_mut()[expert as usize] += rate;
            }
            mixed.iter_mut().zip(scale).for_each(|(mixed, scale)| add_scaled(mixed, mix, scale));
        }
        self.newest = layer;
        self.seen[at] += 1;
    }

    fn next_visit(&self, layer: LayerId) -> &[f32] {
        self.later(layer)
    }

    fn later(&self, layer: LayerId) -> &[f32] {
        &self.mixed(layer.index()).as_flattened()[..self.shape.experts]
    }

    fn changed(&self) -> &[LayerId] {
        std::slice::from_ref(&self.newest)
    }

    fn observations(&self, layer: LayerId) -> u64 {
        self.seen[layer.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_always_chosen_becomes_certain_and_the_rest_fades() {
        let mut popularity = Popularity::new(Shape { layers: 2, experts: 4, selected: 1 });
        for _ in 0..3000 {
            popularity.observe(LayerId(1), &[2], 1.0);
        }
        let next = popularity.next_visit(LayerId(1));
        assert!(next[2] > 0.999 && next[0] < 1e-3);
        assert_eq!(popularity.next_visit(LayerId(0)), [0.25; 4]);
        assert_eq!(popularity.observations(LayerId(1)), 3000);
    }
}
