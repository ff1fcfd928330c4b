//! Logistic mixing: the log-odds of several models, weighted online, expert by expert.
//!
//! This is how context-mixing compressors join their models (M. Mahoney, Adaptive Weighing of Context Models for
//! Lossless Data Compression, 2005): a model that does well gets a greater say, one that is over-confident is toned
//! down, and the result is a calibrated probability.

use super::lanes::{Lanes, add_row_products, add_scaled, errors_of, logistic, teach_row};

/// Learning rate.
const RATE: f32 = 0.002;

/// The weights of several mixes. A row is [`width`](Mixer::width) lanes.
#[derive(Clone, Debug)]
pub(super) struct Mixer {
    inputs: usize,
    width: usize,
    /// `[mix][input][lane]`, the bias as the last input.
    weights: Vec<Lanes>,
}

impl Mixer {
    /// `mixes` mixes in which every input starts with its weight in `initial`.
    pub(super) fn new(mixes: usize, initial: &[f32], width: usize) -> Mixer {
        let one = initial.iter().chain([&0.0]).flat_map(|&weight| std::iter::repeat_n([weight; _], width));
        let weights = one.collect::<Vec<_>>().repeat(mixes);
        Mixer { inputs: initial.len(), width, weights }
    }

    /// Rows that a mix reads and writes: `inputs` of log-odds, then one of probabilities.
    pub(super) fn rows(&self) -> usize {
        (self.inputs + 1) * self.width
    }

    fn range(&self, mix: usize) -> std::ops::Range<usize> {
        mix * self.rows()..(mix + 1) * self.rows()
    }

    /// Mixes the inputs in `rows` into the probabilities that follow them.
    pub(super) fn mix(&self, mix: usize, rows: &mut [Lanes]) {
        let weights = self.weights[self.range(mix)].chunks_exact(self.width);
        let (inputs, out) = rows.split_at_mut(self.inputs * self.width);
        out.copy_from_slice(weights.clone().last().unwrap_or_default());
        for (weights, inputs) in weights.zip(inputs.chunks_exact(self.width)) {
            add_row_products(out, weights, inputs);
        }
        out.iter_mut().for_each(logistic);
    }

    /// Moves the weights of a mix from what the inputs in `rows` came to towards what was chosen. `errors` is room for
    /// a row.
    pub(super) fn learn(&mut self, mix: usize, rows: &[Lanes], chosen: &[u32], errors: &mut [Lanes]) {
        errors_of(&rows[self.inputs * self.width..], chosen, errors);
        let range = self.range(mix);
        let (weights, bias) = self.weights[range].split_at_mut(self.inputs * self.width);
        for (weights, inputs) in weights.chunks_exact_mut(self.width).zip(rows.chunks_exact(self.width)) {
            teach_row(weights, RATE, errors, inputs);
        }
        for (bias, error) in bias.iter_mut().zip(&*errors) {
            add_scaled(bias, RATE, error);
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
        let (mut rows, mut errors) = ([[0.0; LANES]; 3], [[0.0; LANES]]);
        for visit in 0..4000 {
            let (right, chosen): (f32, &[u32]) = if visit % 2 == 0 { (2.0, &[7]) } else { (-2.0, &[]) };
            rows[0] = [right; LANES];
            rows[1] = [-right; LANES];
            mixer.mix(0, &mut rows);
            mixer.learn(0, &rows, chosen, &mut errors);
        }
        assert!(errors[0][7].abs() < 0.05, "{errors:?}");
    }
}
