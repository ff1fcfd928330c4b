//! Layer-to-layer transitions: the log-odds of every expert, refined in stages as its layer comes nearer.
//!
//! A whole token ahead an expert starts from the log-odds of its decayed popularity, and each expert that its layer has
//! just chosen says something for or against it. At every distance after that, what the layer at that distance chose
//! is added to a share of what was known before. Each stage is an online logistic model of its own, which learns what
//! the earlier stages left unexplained; so a stage has one layer's choices to weigh, and the whole token counts.
//!
//! A stage changes only when its layer is routed, and then its last prediction is what it learns from: whoever drives
//! the stages keeps what each came to.

use super::Shape;
use super::lanes::{
    LANES, Lanes, add_row_products, add_rows, add_scaled, logistic, set_errors, teach_row, teach_rows,
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
    /// Room for a row.
    predicted: Vec<Lanes>,
    /// Room for a row.
    errors: Vec<Lanes>,
}

/// What a stage knows beside what it has learned.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// The experts that the layer at its distance chose, and how much of one token's choice each stands for.
    pub(super) chosen: (&'a [u32], f32),
    /// The row that the stage before came to, or for the first stage a row for each scale of the popularity.
    pub(super) before: &'a [Lanes],
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

    /// The weights of what was known before: a row for each of its rows.
    fn before(&mut self, distance: usize, layer: usize) -> &mut [Lanes] {
        let width = self.shape.width();
        if distance + 1 == self.distances {
            return &mut self.odds[layer * SCALES * width..(layer + 1) * SCALES * width];
        }
        let row = self.row(self.stage(distance, layer));
        &mut self.share[row]
    }

    /// Sets `scores` to the log-odds of a layer at one of the distances.
    pub(super) fn predict(&mut self, distance: usize, layer: usize, known: Known, scores: &mut [Lanes]) {
        let stage = self.stage(distance, layer);
        scores.copy_from_slice(&self.bias[self.row(stage)]);
        let weights = self.before(distance, layer).chunks_exact(scores.len());
        for (weights, before) in weights.zip(known.before.chunks_exact(scores.len())) {
            add_row_products(scores, weights, before);
        }
        add_rows(&self.says[self.table(stage)], known.chosen, scores);
    }

    /// Moves a stage from the `scores` it came to, from what was `known`, towards what was chosen.
    pub(super) fn learn(
        &mut self,
        distance: usize,
        layer: usize,
        known: Known,
        scores: &[Lanes],
        chosen: &[Lanes],
    ) {
        let stage = self.stage(distance, layer);
        let (mut predicted, mut errors) =
            (std::mem::take(&mut self.predicted), std::mem::take(&mut self.errors));
        predicted.copy_from_slice(scores);
        predicted.iter_mut().for_each(logistic);
        set_errors(&mut errors, chosen, &predicted);
        let row = self.row(stage);
        self.bias[row].iter_mut().zip(&errors).for_each(|(bias, error)| add_scaled(bias, RATE, error));
        let rate = if distance + 1 == self.distances { ODDS_RATE } else { SHARE_RATE };
        let weights = self.before(distance, layer).chunks_exact_mut(scores.len());
        for (weights, before) in weights.zip(known.before.chunks_exact(scores.len())) {
            teach_row(weights, rate, &errors, before);
        }
        let table = self.table(stage);
        teach_rows(&mut self.says[table], known.chosen, RATE, &errors);
        (self.predicted, self.errors) = (predicted, errors);
    }
}
