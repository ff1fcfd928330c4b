//! The drift of a run, from what was read in which format: the sum that the guard keeps, with errors that were measured
//! on the run's own blocks in place of the table's.

use policy::event::{Read, Routed};
use policy::{BlockId, FormatId, Model};
use std::collections::{BTreeMap, BTreeSet};

/// What the steps of a run have read, as far as it makes output drift.
#[derive(Debug, Default)]
pub struct Drift {
    /// For each step, the squared gate weights, averaged over tokens, of what was read in each format that loses bits, and of what was left out.
    steps: Vec<Share>,
    step: Share,
    /// Blocks that the running layer needs and that have not been read: their squared gate weights.
    awaited: BTreeMap<BlockId, f64>,
    /// Blocks that were read in a format that loses bits.
    read: BTreeSet<(FormatId, BlockId)>,
}

#[derive(Clone, Debug, Default)]
struct Share {
    formats: BTreeMap<FormatId, f64>,
    left_out: f64,
}

impl Drift {
    /// A layer needs these blocks for so many tokens.
    pub(crate) fn routed(&mut self, routed: &[Routed], tokens: u32) {
        self.end_layer();
        let tokens = f64::from(tokens.max(1));
        let weight = |block: &Routed| (block.block, f64::from(block.gate_squared) / tokens);
        self.awaited = routed.iter().map(weight).collect();
    }

    /// These copies are read.
    pub(crate) fn computed(&mut self, model: &Model, reads: &[Read]) {
        for Read { block, form, .. } in reads {
            let Some(weight) = self.awaited.remove(block) else { continue };
            if !form.format.keeps(model.block(*block).native) {
                *self.step.formats.entry(form.format).or_default() += weight;
                self.read.insert((form.format, *block));
            }
        }
    }

    fn end_layer(&mut self) {
        self.step.left_out += std::mem::take(&mut self.awaited).into_values().sum::<f64>();
    }

    pub(crate) fn end_step(&mut self) {
        self.end_layer();
        self.steps.push(std::mem::take(&mut self.step));
    }

    /// The formats that lose bits, each with the blocks that were read in it.
    pub fn formats(&self) -> BTreeMap<FormatId, Vec<BlockId>> {
        let mut formats: BTreeMap<FormatId, Vec<BlockId>> = BTreeMap::new();
        for (format, block) in &self.read {
            formats.entry(*format).or_default().push(*block);
        }
        formats
    }

    /// The mean over steps, and the most of any, where `errors` are those of the formats, and steps have so many layers.
    pub fn of(&self, layers: usize, errors: &BTreeMap<FormatId, f64>) -> (f64, f64) {
        let step = |share: &Share| {
            let square = |(format, weight): (&FormatId, &f64)| {
                weight * errors.get(format).copied().unwrap_or(0.0).powi(2)
            };
            let sum: f64 = share.formats.iter().map(square).sum();
            ((sum + share.left_out) / layers.max(1) as f64).sqrt()
        };
        let drifts: Vec<f64> = self.steps.iter().map(step).collect();
        let mean = drifts.iter().sum::<f64>() / drifts.len().max(1) as f64;
        (mean, drifts.iter().copied().fold(0.0, f64::max))
    }
}
