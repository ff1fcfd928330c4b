//! Layer-to-layer transitions: for every layer and several distances ahead, an online logistic model of each expert.
//!
//! Its inputs are the experts chosen at the last two layers, those chosen at the target layer by the token before, and
//! the log-odds of the decayed popularities; it starts as the slow popularity and learns how to correct it. A layer is
//! predicted anew whenever it is one of the distances ahead, so that an estimate gets better as the layer comes near.

use super::Predictor;
use super::popularity::Popularity;
use super::smooth::{log_odds, logistic};
use crate::id::LayerId;

/// Learning rate of the one-hot inputs and the bias.
const RATE: f32 = 0.02;
/// Learning rate of the log-odds inputs, relative to `RATE`.
const ODDS_RATE: f32 = 0.1;
/// One-hot inputs: the last layer, the one before, the same layer one token ago.
const HISTORIES: usize = 3;
/// What a choice one token ago starts out saying for the same expert now: that choices repeat is the commonest
/// regularity, and learning it for each expert alone takes hundreds of tokens.
const REPEATS: f32 = 1.0;
/// Rows of a model after the one-hot ones: three log-odds and a bias.
const EXTRA: usize = 4;
/// A predictor larger than this is not built; fewer distances are used instead.
const MAX_WEIGHTS: usize = 1 << 24;

/// See the module.
#[derive(Clone, Debug)]
pub struct Transitions {
    layers: usize,
    experts: usize,
    popularity: Popularity,
    distances: Vec<usize>,
    /// `[distance][layer][row][expert]`
    weights: Vec<f32>,
    /// `[layer][expert]`
    next: Vec<f32>,
    /// `[layer][scale][expert]`
    odds: Vec<f32>,
    /// Choices of the last `layers + 2` layer steps, newest last written at `steps`.
    history: Vec<Vec<u32>>,
    scales: Vec<f32>,
    steps: usize,
    row: Vec<f32>,
}

/// The inputs of one prediction: for each history, the chosen experts and their weight.
type Inputs = [(usize, f32); HISTORIES];

impl Transitions {
    /// A predictor that has seen nothing.
    pub fn new(layers: usize, experts: usize, selected: usize) -> Transitions {
        let rows = HISTORIES * experts + EXTRA;
        let most = (MAX_WEIGHTS / (layers * rows * experts).max(1)).max(1);
        let mut distances: Vec<usize> =
            std::iter::successors(Some(1), |d| Some(d * 2)).take_while(|&d| d < layers).collect();
        distances.push(layers);
        distances.dedup();
        while distances.len() > most && distances.len() > 1 {
            distances.remove(distances.len() / 2);
        }
        let popularity = Popularity::new(layers, experts, selected);
        let mut new = Transitions {
            weights: vec![0.0; distances.len() * layers * rows * experts],
            next: vec![selected as f32 / experts.max(1) as f32; layers * experts],
            odds: vec![0.0; layers * 3 * experts],
            history: vec![Vec::new(); layers + 2],
            scales: vec![0.0; layers + 2],
            steps: 0,
            row: vec![0.0; experts],
            layers,
            experts,
            popularity,
            distances,
        };
        (0..layers).for_each(|layer| new.refresh_odds(layer));
        for model in new.weights.chunks_exact_mut(rows * experts) {
            let same_layer = &mut model[(HISTORIES - 1) * experts * experts..HISTORIES * experts * experts];
            same_layer.iter_mut().step_by(experts + 1).for_each(|weight| *weight = REPEATS);
        }
        new
    }

    fn refresh_odds(&mut self, layer: usize) {
        for scale in 0..3 {
            let from = (layer * 3 + scale) * self.experts;
            let source = self.popularity.scale(scale, LayerId(layer as u16));
            for (odds, &p) in self.odds[from..from + self.experts].iter_mut().zip(source) {
                *odds = log_odds(p);
            }
        }
    }

    fn model(&self, distance: usize, layer: usize) -> std::ops::Range<usize> {
        let size = (HISTORIES * self.experts + EXTRA) * self.experts;
        let from = (distance * self.layers + layer) * size;
        from..from + size
    }

    /// History slots as seen when the target was `ahead` steps in the future of `step`.
    fn inputs(&self, step: usize, ahead: usize) -> Inputs {
        let slots = self.layers + 2;
        [step, step.wrapping_sub(1), (step + ahead).wrapping_sub(self.layers)].map(|s| {
            let slot = s % slots;
            (slot, self.scales[slot])
        })
    }

    /// Log-odds of every expert of `layer` into `self.row`.
    fn predict(&mut self, distance: usize, layer: usize, inputs: &Inputs) {
        let experts = self.experts;
        let range = self.model(distance, layer);
        let model = &self.weights[range];
        let (hot, extra) = model.split_at(HISTORIES * experts * experts);
        let odds = &self.odds[layer * 3 * experts..(layer + 1) * 3 * experts];
        let row = &mut self.row[..experts];
        for (index, value) in row.iter_mut().enumerate() {
            *value = extra[3 * experts + index]
                + extra[index] * odds[index]
                + extra[experts + index] * odds[experts + index]
                + (extra[2 * experts + index] + 1.0) * odds[2 * experts + index];
        }
        for (history, &(slot, scale)) in inputs.iter().enumerate() {
            for &chosen in &self.history[slot] {
                let from = (history * experts + chosen as usize) * experts;
                for (value, &weight) in row.iter_mut().zip(&hot[from..from + experts]) {
                    *value += scale * weight;
                }
            }
        }
        logistic(row);
    }

    /// Moves a model towards what was chosen; `self.row` holds its prediction.
    fn learn(&mut self, distance: usize, layer: usize, inputs: &Inputs, chosen: &[u32]) {
        let experts = self.experts;
        let range = self.model(distance, layer);
        let row = &mut self.row[..experts];
        for value in row.iter_mut() {
            *value *= -RATE;
        }
        for &expert in chosen {
            row[expert as usize] += RATE;
        }
        let model = &mut self.weights[range];
        let (hot, extra) = model.split_at_mut(HISTORIES * experts * experts);
        let odds = &self.odds[layer * 3 * experts..(layer + 1) * 3 * experts];
        for (index, &error) in row.iter().enumerate() {
            for scale in 0..3 {
                extra[scale * experts + index] += ODDS_RATE * error * odds[scale * experts + index];
            }
            extra[3 * experts + index] += error;
        }
        for (history, &(slot, scale)) in inputs.iter().enumerate() {
            for &chosen in &self.history[slot] {
                let from = (history * experts + chosen as usize) * experts;
                for (weight, &error) in hot[from..from + experts].iter_mut().zip(row.iter()) {
                    *weight += scale * error;
                }
            }
        }
    }
}

impl Predictor for Transitions {
    fn observe(&mut self, layer: LayerId, chosen: &[u32], scale: f32) {
        let at = layer.index();
        for distance in 0..self.distances.len() {
            let ahead = self.distances[distance];
            // A prediction made before anything was seen has nothing to learn from.
            if self.steps > ahead {
                let inputs = self.inputs(self.steps - 1 - (ahead - 1), ahead);
                self.predict(distance, at, &inputs);
                self.learn(distance, at, &inputs, chosen);
            }
        }
        self.popularity.observe(layer, chosen, scale);
        self.refresh_odds(at);
        let slot = self.steps % (self.layers + 2);
        self.history[slot].clear();
        self.history[slot].extend_from_slice(chosen);
        self.scales[slot] = scale;
        self.steps += 1;
        for distance in 0..self.distances.len() {
            let ahead = self.distances[distance];
            let target = (at + ahead) % self.layers;
            let inputs = self.inputs(self.steps - 1, ahead);
            self.predict(distance, target, &inputs);
            let from = target * self.experts;
            self.next[from..from + self.experts].copy_from_slice(&self.row[..self.experts]);
        }
    }

    fn next_visit(&self, layer: LayerId) -> &[f32] {
        let from = layer.index() * self.experts;
        &self.next[from..from + self.experts]
    }

    fn popularity(&self, layer: LayerId) -> &[f32] {
        self.popularity.popularity(layer)
    }

    fn observations(&self, layer: LayerId) -> u64 {
        self.popularity.observations(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A router in which layer 1 always chooses the neighbour of layer 0's choice, and layer 0 walks round.
    #[test]
    fn it_learns_which_expert_follows_which() {
        let (layers, experts) = (2, 8);
        let mut model = Transitions::new(layers, experts, 1);
        let mut right = 0;
        for token in 0..2000u32 {
            let first = token * 5 % 8;
            model.observe(LayerId(0), &[first], 1.0);
            let next = model.next_visit(LayerId(1));
            let best = (0..experts).max_by(|&a, &b| next[a].total_cmp(&next[b])).unwrap();
            if token >= 1000 {
                right += usize::from(best as u32 == (first + 1) % 8);
            }
            model.observe(LayerId(1), &[(first + 1) % 8], 1.0);
        }
        assert_eq!(right, 1000);
        assert!(model.next_visit(LayerId(1)).iter().all(|p| (0.0..=1.0).contains(p)));
    }
}
