//! Logistic mixing: the log-odds of several models, weighted online, expert by expert.
//!
//! This is how context-mixing compressors join their models (M. Mahoney, Adaptive Weighing of Context Models for
//! Lossless Data Compression, 2005): a model that does well gets a greater say, one that is over-confident is toned
//! down, and the result is a calibrated probability.

use super::lanes::{Lanes, add_scaled, dot, logistic, set_errors};
use std::ops::Range;

/// Learning rate in the long run, for each expert that a weight is learned from.
const RATE: f32 = 0.0003;
/// At first it is so many times more on top, and half of that after so many visits: the weights that a mix starts from suit one
/// model (on generated routing of Mixtral and Qwen3 the stall is 1 to 2 % less than without; on gpt-oss-20b 0.1 to 0.3 % more).
const BOOST: f32 = 10.0;
const BOOST_VISITS: f32 = 100.0;

/// The weights of several mixes, each shared by all experts of a row.
#[derive(Clone, Debug)]
pub(super) struct Mixer {
    inputs: usize,
    width: usize,
    /// `[mix][input]`, the bias as the last.
    weights: Vec<f32>,
    /// How often each mix has learned.
    visits: Vec<f32>,
    /// Room for a row.
    errors: Vec<Lanes>,
}

impl Mixer {
    /// `mixes` mixes in which every input starts with its weight in `initial`. A row is `width` lanes.
    pub(super) fn new(mixes: usize, initial: &[f32], width: usize) -> Mixer {
        let weights = [initial, &[0.0]].concat().repeat(mixes);
        Mixer {
            inputs: initial.len(),
            width,
            weights,
            visits: vec![0.0; mixes],
            errors: vec![[0.0; _]; width],
        }
    }

    /// Lanes that a mix reads and writes: rows of log-odds, one an input, then one of probabilities.
    pub(super) fn lanes(&self) -> usize {
        (self.inputs + 1) * self.width
    }

    fn weights(&self, mix: usize) -> Range<usize> {
        mix * (self.inputs + 1)..(mix + 1) * (self.inputs + 1)
    }

    /// Mixes the inputs in `rows` into the probabilities that follow them.
    pub(super) fn mix(&self, mix: usize, rows: &mut [Lanes]) {
        let weights = &self.weights[self.weights(mix)];
        let (inputs, out) = rows.split_at_mut(self.inputs * self.width);
        out.fill([weights[self.inputs]; _]);
        for (&weight, inputs) in weights.iter().zip(inputs.chunks_exact(self.width)) {
            out.iter_mut().zip(inputs).for_each(|(out, input)| add_scaled(out, weight, input));
        }
        out.iter_mut().for_each(logistic);
    }

    /// Moves the weights of a mix from what the inputs in `rows` came to towards what was chosen; `one` is a row with 1
    /// for each expert.
    pub(super) fn learn(&mut self, mix: usize, rows: &[Lanes], chosen: &[Lanes], one: &[Lanes]) {
        let visits = &mut self.visits[mix];
        let rate = RATE * (1.0 + BOOST / (1.0 + *visits / BOOST_VISITS));
        *visits += 1.0;
        let (inputs, predicted) = rows.split_at(self.inputs * self.width);
        set_errors(&mut self.errors, chosen, predicted);
        for (error, one) in self.errors.as_flattened_mut().iter_mut().zip(one.as_flattened()) {
            *error *= rate * one;
        }
        let weights = self.weights(mix);
        let inputs = inputs.chunks_exact(self.width).chain([one]);
        for (weight, inputs) in self.weights[weights].iter_mut().zip(inputs) {
            *weight += dot(&self.errors, inputs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::LANES;
    use super::*;

    /// Of two models one is right and the other says the opposite.
    #[test]
    fn the_better_model_gets_the_say() {
        let mut mixer = Mixer::new(1, &[0.5, 0.5], 1);
        let (mut rows, mut one) = ([[0.0; LANES]; 3], [[0.0; LANES]]);
        one[0][0] = 1.0;
        for visit in 0..40_000 {
            let (right, chosen) = if visit % 2 == 0 { (2.0, one) } else { (-2.0, [[0.0; LANES]]) };
            rows[0] = [right; LANES];
            rows[1] = [-right; LANES];
            mixer.mix(0, &mut rows);
            mixer.learn(0, &rows, &chosen, &one);
        }
        assert!((1.0 - rows[2][0]) * rows[2][0] < 0.05, "{}", rows[2][0]);
    }
}
