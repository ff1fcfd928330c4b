//! Layer-to-layer transitions: for every layer and a few distances ahead, an online logistic model of each expert.
//!
//! Its inputs are the experts chosen at the last two layers, those chosen at the target layer by the token before, and
//! the log-odds of the decayed popularities; it starts as the slow popularity and learns how to correct it. A layer is
//! predicted anew whenever it is one of the distances ahead, so that an estimate gets better as the layer comes near.
//!
//! A model changes only when its layer is routed, and then its last prediction is what it learns from: each prediction
//! is made once and kept. Rows of experts are cut into [`Lanes`], so that a sum over rows stays in registers.

use super::Predictor;
use super::popularity::{Popularity, RATES};
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
/// Log-odds inputs: one for each time scale of the popularity.
const SCALES: usize = RATES.len();
/// Rows of a model after the one-hot ones: the log-odds and a bias.
const EXTRA: usize = SCALES + 1;
/// The slowest scale, which a model starts from.
const SLOW: usize = SCALES - 1;
/// A predictor larger than this is not built; fewer distances are used instead.
const MAX_WEIGHTS: usize = 1 << 24;

/// Neighbouring experts of one row, worked on together.
const LANES: usize = 32;
type Lanes = [f32; LANES];

/// See the module. A row holds a number for each expert, in `width` lanes; what is beyond the last expert means nothing.
#[derive(Clone, Debug)]
pub struct Transitions {
    layers: usize,
    experts: usize,
    width: usize,
    popularity: Popularity,
    distances: Vec<usize>,
    /// `[distance][layer][row]`
    weights: Vec<Lanes>,
    /// `[distance][layer]`: the last prediction of each model.
    predicted: Vec<Lanes>,
    /// The distance at which each layer was predicted last.
    newest: Vec<usize>,
    /// The layers predicted last.
    changed: Vec<LayerId>,
    /// `[layer][scale]`
    odds: Vec<Lanes>,
    /// `[distance][layer]`: the one-hot rows that were set in the last prediction, and their values.
    inputs: Vec<Vec<(usize, f32)>>,
    /// Choices of the last `layers + 1` layer steps, and what each stands for; a step's slot is its number modulo them.
    history: Vec<(Vec<u32>, f32)>,
    /// The number of the coming step; the first is `history.len()`, so that every number looked back to is positive.
    step: usize,
    errors: Vec<Lanes>,
}

impl Transitions {
    /// A predictor that has seen nothing. It predicts a layer a whole token ahead, and anew when it is `near` layers away
    /// or fewer.
    pub fn new(layers: usize, experts: usize, selected: usize, near: usize) -> Transitions {
        let width = experts.div_ceil(LANES);
        let rows = HISTORIES * experts + EXTRA;
        let most = (MAX_WEIGHTS / (layers * rows * width * LANES).max(1)).max(1);
        let mut distances: Vec<usize> = (1..=near.min(layers.saturating_sub(1))).chain([layers]).collect();
        while distances.len() > most && distances.len() > 1 {
            distances.remove(distances.len() / 2);
        }
        let prior = selected as f32 / experts.max(1) as f32;
        let mut new = Transitions {
            weights: vec![[0.0; LANES]; distances.len() * layers * rows * width],
            predicted: vec![[prior; LANES]; distances.len() * layers * width],
            newest: vec![0; layers],
            changed: Vec::new(),
            odds: vec![[0.0; LANES]; layers * SCALES * width],
            inputs: vec![Vec::new(); distances.len() * layers],
            history: vec![(Vec::new(), 0.0); layers + 1],
            step: layers + 1,
            errors: vec![[0.0; LANES]; width],
            popularity: Popularity::new(layers, experts, selected),
            layers,
            experts,
            width,
            distances,
        };
        (0..layers).for_each(|layer| new.refresh_odds(layer));
        for model in new.weights.chunks_exact_mut(rows * width) {
            let (hot, extra) = model.split_at_mut(HISTORIES * experts * width);
            let same_layer = hot[(HISTORIES - 1) * experts * width..].as_flattened_mut();
            same_layer.iter_mut().step_by(width * LANES + 1).for_each(|weight| *weight = REPEATS);
            extra[SLOW * width..(SLOW + 1) * width].fill([1.0; LANES]);
        }
        new
    }

    fn refresh_odds(&mut self, layer: usize) {
        for scale in 0..SCALES {
            let from = (layer * SCALES + scale) * self.width;
            let odds = self.odds[from..from + self.width].as_flattened_mut();
            for (odds, &p) in odds.iter_mut().zip(self.popularity.scale(scale, LayerId(layer as u16))) {
                *odds = log_odds(p);
            }
        }
    }

    fn odds(&self, layer: usize) -> std::ops::Range<usize> {
        layer * SCALES * self.width..(layer + 1) * SCALES * self.width
    }

    fn model(&self, distance: usize, layer: usize) -> std::ops::Range<usize> {
        let size = (HISTORIES * self.experts + EXTRA) * self.width;
        let from = (distance * self.layers + layer) * size;
        from..from + size
    }

    fn prediction(&self, distance: usize, layer: usize) -> std::ops::Range<usize> {
        let from = (distance * self.layers + layer) * self.width;
        from..from + self.width
    }

    /// Predicts a layer that comes `ahead` steps after this one.
    fn predict(&mut self, distance: usize, layer: usize, ahead: usize) {
        let inputs = &mut self.inputs[distance * self.layers + layer];
        inputs.clear();
        let known = [self.step, self.step - 1, self.step + ahead - self.layers];
        for (kind, step) in known.into_iter().enumerate() {
            let (chosen, scale) = &self.history[step % self.history.len()];
            inputs.extend(chosen.iter().map(|&expert| (kind * self.experts + expert as usize, *scale)));
        }
        let (model, prediction) = (self.model(distance, layer), self.prediction(distance, layer));
        let (inputs, odds) = (&self.inputs[distance * self.layers + layer], &self.odds[self.odds(layer)]);
        predict(&self.weights[model], odds, inputs, &mut self.predicted[prediction]);
    }

    /// Moves a model from its last prediction towards what was chosen.
    fn learn(&mut self, distance: usize, layer: usize, chosen: &[u32]) {
        let (model, prediction) = (self.model(distance, layer), self.prediction(distance, layer));
        self.errors.fill([0.0; LANES]);
        for (error, predicted) in self.errors.iter_mut().zip(&self.predicted[prediction]) {
            add_scaled(error, -RATE, predicted);
        }
        for &expert in chosen {
            self.errors.as_flattened_mut()[expert as usize] += RATE;
        }
        let (inputs, odds) = (&self.inputs[distance * self.layers + layer], &self.odds[self.odds(layer)]);
        learn(&mut self.weights[model], odds, inputs, &self.errors);
    }
}

/// The probabilities that a model gives, row by row of its log-odds and its set inputs.
#[inline(never)] // As arguments, rows are known not to overlap: sums stay in vector registers.
fn predict(model: &[Lanes], odds: &[Lanes], inputs: &[(usize, f32)], out: &mut [Lanes]) {
    let width = out.len();
    let (hot, extra) = model.split_at(model.len() - EXTRA * width);
    for (lane, out) in out.iter_mut().enumerate() {
        let mut sum = extra[SCALES * width + lane];
        for scale in 0..SCALES {
            add_products(&mut sum, &extra[scale * width + lane], &odds[scale * width + lane]);
        }
        for &(row, value) in inputs {
            add_scaled(&mut sum, value, &hot[row * width + lane]);
        }
        logistic(&mut sum);
        *out = sum;
    }
}

/// Adds the errors to every row of a model that took part, by what its input was.
#[inline(never)]
fn learn(model: &mut [Lanes], odds: &[Lanes], inputs: &[(usize, f32)], errors: &[Lanes]) {
    let width = errors.len();
    let (hot, extra) = model.split_at_mut(model.len() - EXTRA * width);
    for (lane, &error) in errors.iter().enumerate() {
        let mut slowly = [0.0; LANES];
        add_scaled(&mut slowly, ODDS_RATE, &error);
        for scale in 0..SCALES {
            add_products(&mut extra[scale * width + lane], &slowly, &odds[scale * width + lane]);
        }
        add_scaled(&mut extra[SCALES * width + lane], 1.0, &error);
        for &(row, value) in inputs {
            add_scaled(&mut hot[row * width + lane], value, &error);
        }
    }
}

#[inline(always)]
fn add_products(sums: &mut Lanes, left: &Lanes, right: &Lanes) {
    for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
        *sum += left * right;
    }
}

#[inline(always)]
fn add_scaled(sums: &mut Lanes, scale: f32, row: &Lanes) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum += scale * value;
    }
}

impl Predictor for Transitions {
    fn observe(&mut self, layer: LayerId, chosen: &[u32], scale: f32) {
        let at = layer.index();
        for distance in 0..self.distances.len() {
            // Before the first prediction there is nothing to learn from.
            if !self.inputs[distance * self.layers + at].is_empty() {
                self.learn(distance, at, chosen);
            }
        }
        self.popularity.observe(layer, chosen, scale);
        self.refresh_odds(at);
        let slot = self.step % self.history.len();
        self.history[slot].0.clear();
        self.history[slot].0.extend_from_slice(chosen);
        self.history[slot].1 = scale;
        self.changed.clear();
        for distance in 0..self.distances.len() {
            let ahead = self.distances[distance];
            let target = (at + ahead) % self.layers;
            self.predict(distance, target, ahead);
            self.newest[target] = distance;
            self.changed.push(LayerId(target as u16));
        }
        self.step += 1;
    }

    fn next_visit(&self, layer: LayerId) -> &[f32] {
        let newest = self.prediction(self.newest[layer.index()], layer.index());
        &self.predicted[newest].as_flattened()[..self.experts]
    }

    fn popularity(&self, layer: LayerId) -> &[f32] {
        self.popularity.popularity(layer)
    }

    fn observations(&self, layer: LayerId) -> u64 {
        self.popularity.observations(layer)
    }

    fn changed(&self) -> &[LayerId] {
        &self.changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A router in which layer 1 always chooses the neighbour of layer 0's choice, and layer 0 walks round.
    #[test]
    fn it_learns_which_expert_follows_which() {
        let (layers, experts) = (2, 8);
        let mut model = Transitions::new(layers, experts, 1, 2);
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
