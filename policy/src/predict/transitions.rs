//! Layer-to-layer transitions: the log-odds of every expert, refined in stages as its layer comes nearer.
//!
//! A whole token ahead an expert starts from the log-odds of its decayed popularity, and each expert that its layer has
//! just chosen says something for or against it. At every distance after that, what the layer at that distance chose
//! is added to a share of what was known before. Each stage is an online logistic model of its own, which learns what
//! the earlier stages left unexplained; so a stage has one layer's choices to weigh, and the whole token counts.
//!
//! A stage changes only when its layer is routed, and then its last prediction is what it learns from: each prediction
//! is made once and kept.

use super::Shape;
use super::lanes::{
    LANES, Lanes, add_row_products, add_rows, add_scaled, errors_of, logistic, teach_row, teach_rows,
};
use super::popularity::SCALES;

/// Learning rate of what the choices say, and of the bias.
const RATE: f32 = 0.02;
/// Learning rate of the popularity's log-odds.
const ODDS_RATE: f32 = 0.002;
/// Learning rate of the share of what was known before.
const SHARE_RATE: f32 = 0.0005;
/// What a choice one token ago starts out saying for the same expert now: that choices repeat is the commonest
/// regularity, and learning it for each expert alone takes hundreds of tokens.
const REPEATS: f32 = 1.0;
/// The slowest scale of the popularity, which the first stage starts from.
const SLOW: usize = SCALES - 1;
/// Weights there may be at most; fewer distances are used instead.
const MAX_WEIGHTS: usize = 12 << 20;

/// See the module. A row is `shape.width()` lanes.
#[derive(Clone, Debug)]
pub(super) struct Transitions {
    shape: Shape,
    distances: usize,
    /// `[distance][layer][expert chosen at the distance]`
    says: Vec<Lanes>,
    /// `[distance][layer]`
    bias: Vec<Lanes>,
    /// `[distance][layer]`: how much of what the stage before came to is kept; of no use in the first.
    share: Vec<Lanes>,
    /// `[layer][scale]`: what the popularity's log-odds count for in the first stage.
    odds: Vec<Lanes>,
    /// `[distance][layer]`: the log-odds that each stage came to last.
    scores: Vec<Lanes>,
    /// What the stage before had come to.
    before: Vec<Lanes>,
    predicted: Vec<Lanes>,
    errors: Vec<Lanes>,
}

impl Transitions {
    /// The most distances that there may be weights for.
    pub(super) fn most_distances(shape: Shape) -> usize {
        let stage =
            [shape.experts, shape.width(), LANES].into_iter().fold(shape.layers, usize::saturating_mul);
        MAX_WEIGHTS / stage.max(1)
    }

    /// Nothing learned yet, at `distances` distances.
    pub(super) fn new(shape: Shape, distances: usize) -> Transitions {
        let (stages, width) = (distances * shape.layers, shape.width());
        let rows = |rows: usize, value: f32| vec![[value; LANES]; rows * width];
        let mut new = Transitions {
            shape,
            distances,
            says: rows(stages * shape.experts, 0.0),
            bias: rows(stages, 0.0),
            share: rows(stages, 1.0),
            odds: rows(shape.layers * SCALES, 0.0),
            scores: rows(stages, 0.0),
            before: rows(stages, 0.0),
            predicted: rows(1, 0.0),
            errors: rows(1, 0.0),
        };
        let first = new.says.len() / distances.max(1) * (distances - 1);
        for layer in new.says[first..].chunks_exact_mut(shape.experts * width) {
            layer.as_flattened_mut().iter_mut().step_by(width * LANES + 1).for_each(|says| *says = REPEATS);
        }
        for layer in new.odds.chunks_exact_mut(SCALES * width) {
            layer[SLOW * width..].fill([1.0; LANES]);
        }
        new
    }

    fn stage(&self, distance: usize, layer: usize) -> usize {
        distance * self.shape.layers + layer
    }

    fn row(&self, stage: usize) -> std::ops::Range<usize> {
        let width = self.shape.width();
        stage * width..(stage + 1) * width
    }

    fn table(&self, stage: usize) -> std::ops::Range<usize> {
        let size = self.shape.experts * self.shape.width();
        stage * size..(stage + 1) * size
    }

    fn scales(&self, layer: usize) -> std::ops::Range<usize> {
        let size = SCALES * self.shape.width();
        layer * size..(layer + 1) * size
    }

    /// The log-odds that a stage came to last.
    pub(super) fn scores(&self, distance: usize, layer: usize) -> &[Lanes] {
        &self.scores[self.row(self.stage(distance, layer))]
    }

    /// The log-odds of a layer at one of the distances; `known` is what the layer at that distance has just chosen.
    pub(super) fn predict(
        &mut self,
        distance: usize,
        layer: usize,
        odds: &[Lanes],
        known: (&[u32], f32),
    ) -> &[Lanes] {
        let stage = self.stage(distance, layer);
        let row = self.row(stage);
        if distance + 1 == self.distances {
            let weights = &self.odds[self.scales(layer)];
            let scores = &mut self.scores[row.clone()];
            scores.copy_from_slice(&self.bias[row.clone()]);
            for (weights, odds) in weights.chunks_exact(row.len()).zip(odds.chunks_exact(row.len())) {
                add_row_products(scores, weights, odds);
            }
        } else {
            let earlier = self.row(self.stage(distance + 1, layer));
            self.before[row.clone()].copy_from_slice(&self.scores[earlier]);
            let scores = &mut self.scores[row.clone()];
            scores.copy_from_slice(&self.bias[row.clone()]);
            add_row_products(scores, &self.share[row.clone()], &self.before[row.clone()]);
        }
        let table = self.table(stage);
        add_rows(&self.says[table], known, &mut self.scores[row.clone()]);
        &self.scores[row]
    }

    /// Moves a stage from its last prediction towards what was chosen; `known` is what it was predicted from.
    pub(super) fn learn(
        &mut self,
        distance: usize,
        layer: usize,
        odds: &[Lanes],
        known: (&[u32], f32),
        chosen: &[u32],
    ) {
        let stage = self.stage(distance, layer);
        let row = self.row(stage);
        let mut predicted = std::mem::take(&mut self.predicted);
        predicted.copy_from_slice(&self.scores[row.clone()]);
        predicted.iter_mut().for_each(logistic);
        errors_of(&predicted, chosen, &mut self.errors);
        self.predicted = predicted;
        for (bias, error) in self.bias[row.clone()].iter_mut().zip(&self.errors) {
            add_scaled(bias, RATE, error);
        }
        if distance + 1 == self.distances {
            let scales = self.scales(layer);
            let weights = self.odds[scales].chunks_exact_mut(row.len());
            for (weights, odds) in weights.zip(odds.chunks_exact(row.len())) {
                teach_row(weights, ODDS_RATE, &self.errors, odds);
            }
        } else {
            teach_row(&mut self.share[row.clone()], SHARE_RATE, &self.errors, &self.before[row]);
        }
        let table = self.table(stage);
        teach_rows(&mut self.says[table], known, RATE, &self.errors);
    }
}
