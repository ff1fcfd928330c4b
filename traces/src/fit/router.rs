//! The router: it draws experts by a weighted sum of what it chose before.

use super::history::{FEATURES, Features, History};
use super::tables::Tables;
use crate::routing::RoutingTrace;
use rand::RngExt;
use rand_pcg::Pcg64Dxsm;

/// An expert is drawn with a probability proportional to `exp(offset + weights . features)`.
pub(super) struct Router {
    pub(super) weights: Features,
    /// One for each block.
    pub(super) offsets: Vec<f64>,
}

impl Router {
    /// Draws a token: at each layer, `top_k` experts one after the other without replacement. `take` gets the layer,
    /// the features of its experts and what was chosen.
    pub(super) fn next_token(
        &self,
        rng: &mut Pcg64Dxsm,
        history: &mut History,
        scratch: &mut Scratch,
        mut take: impl FnMut(usize, &[Features], &[u16]),
    ) {
        let shape = history.shape();
        let experts = shape.experts as usize;
        for (layer, offsets) in self.offsets.chunks_exact(experts).enumerate() {
            let Scratch { features, likely, chosen } = scratch;
            history.features(layer, features);
            likely.clear();
            likely
                .extend(features.iter().zip(offsets).map(|(features, offset)| offset + self.score(features)));
            let highest = likely.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            likely.iter_mut().for_each(|score| *score = libm::exp(*score - highest));
            chosen.clear();
            for _ in 0..shape.top_k {
                let expert = draw(rng, likely, chosen);
                likely[expert as usize] = 0.0;
                chosen.push(expert);
            }
            take(layer, features, chosen);
            history.choose(layer, chosen);
        }
        history.end_token();
    }

    fn score(&self, features: &Features) -> f64 {
        features.iter().zip(&self.weights).map(|(x, w)| x * w).sum()
    }
}

/// An expert by weight; those `chosen` have none. Where nothing has any, the first that is free.
fn draw(rng: &mut Pcg64Dxsm, likely: &[f64], chosen: &[u16]) -> u16 {
    let mut point = rng.random::<f64>() * likely.iter().sum::<f64>();
    let mut last = None;
    for (expert, &weight) in likely.iter().enumerate().filter(|&(_, &weight)| weight > 0.0) {
        last = Some(expert as u16);
        point -= weight;
        if point < 0.0 {
            break;
        }
    }
    last.or_else(|| (0..likely.len() as u16).find(|expert| !chosen.contains(expert))).unwrap_or(0)
}

/// Room that every token needs again.
#[derive(Default)]
pub(super) struct Scratch {
    features: Vec<Features>,
    likely: Vec<f64>,
    chosen: Vec<u16>,
}

/// Means over choices: of the features of what was chosen, and how often each block was.
pub(super) struct Moments {
    sums: Features,
    squares: Features,
    counts: Vec<f64>,
    choices: f64,
    experts: usize,
}

impl Moments {
    pub(super) fn new(tables: &Tables) -> Moments {
        Moments {
            sums: [0.0; FEATURES],
            squares: [0.0; FEATURES],
            counts: vec![0.0; tables.popularity.len()],
            choices: 0.0,
            experts: tables.shape.experts as usize,
        }
    }

    /// Adds what a token of a recorded trace chose, as if the router had drawn it.
    pub(super) fn add_token(
        &mut self,
        trace: &RoutingTrace,
        row: usize,
        history: &mut History,
        scratch: &mut Scratch,
    ) {
        for layer in 0..trace.shape().layers as usize {
            history.features(layer, &mut scratch.features);
            let chosen = trace.selection(row, layer);
            self.add(layer, &scratch.features, chosen);
            history.choose(layer, chosen);
        }
        history.end_token();
    }

    pub(super) fn add(&mut self, layer: usize, features: &[Features], chosen: &[u16]) {
        for &expert in chosen {
            for (index, feature) in features[expert as usize].iter().enumerate() {
                self.sums[index] += feature;
                self.squares[index] += feature * feature;
            }
            self.counts[layer * self.experts + expert as usize] += 1.0;
        }
        self.choices += chosen.len() as f64;
    }

    pub(super) fn mean(&self, feature: usize) -> f64 {
        self.sums[feature] / self.choices
    }

    /// Never 0: where a feature is always the same, nothing depends on the scale.
    pub(super) fn variance(&self, feature: usize) -> f64 {
        let mean = self.mean(feature);
        (self.squares[feature] / self.choices - mean * mean).max(1e-3)
    }

    /// Share of a block in all choices, as if one choice more had been spread by `prior`.
    pub(super) fn share(&self, block: usize, prior: f64) -> f64 {
        (self.counts[block] + prior) / (self.choices + 1.0)
    }
}
