//! The quality guard: how much the output may drift from full precision, and how much it has.
//!
//! A layer's drift is the root of the gate-weighted squared errors of its active blocks, averaged over the tokens of
//! the batch; a step's is the root mean square over layers. The budget is spent layer by layer: a layer may use what
//! its predecessors in the step left over, so that no step, and therefore no running mean, exceeds the budget.

use crate::format::{FORMATS, FormatId};
use crate::id::BlockId;
use crate::model::{BlockKind, Model};
use std::collections::BTreeMap;

/// The relative error of a branch's output when its weights are stored in a format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorBound {
    /// The mean over draws, as a fraction of the output's root mean square.
    pub mean: f64,
    /// An upper confidence bound on it; what decisions use.
    pub upper: f64,
}

/// A sensitivity profile: an error for each format it knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivity {
    errors: Vec<Option<ErrorBound>>,
}

impl Sensitivity {
    /// A profile from a table of formats.
    pub fn new(table: impl IntoIterator<Item = (FormatId, ErrorBound)>) -> Sensitivity {
        let mut errors = vec![None; FORMATS.len()];
        for (format, bound) in table {
            errors[format.0 as usize] = Some(bound);
        }
        Sensitivity { errors }
    }

    /// The error of a block stored in `format` whose full precision is `native`; `None` where the profile has no
    /// figure, and then the format may not be used.
    pub fn error(&self, native: FormatId, format: FormatId) -> Option<ErrorBound> {
        if format.keeps(native) {
            return Some(ErrorBound { mean: 0.0, upper: 0.0 });
        }
        self.errors[format.0 as usize]
    }
}

/// What the operator allows.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardSpec {
    /// The largest drift of a step, as a fraction. Zero keeps every block at full precision.
    pub drift_budget: f64,
    /// The coarsest format each kind of block may take, however slack the budget.
    pub floors: BTreeMap<BlockKind, FormatId>,
    /// The errors decisions are made on.
    pub sensitivity: Sensitivity,
}

/// The guard of one run: the specification and what has been spent of it.
#[derive(Clone, Debug)]
pub struct Guard {
    spec: GuardSpec,
    layers: usize,
    /// Squared upper error by format for blocks of the model; `None` is forbidden.
    allowed: Vec<Option<ErrorBound>>,
    spent_upper: f64,
    spent_mean: f64,
    layers_left: usize,
    steps: u64,
    drift_sum: f64,
    drift_max: f64,
}

impl Guard {
    /// A guard over the managed blocks of a model, all of one kind and native format in each layer.
    pub fn new(spec: GuardSpec, model: &Model) -> Guard {
        let layers = model.layers.len();
        let allowed = (0..FORMATS.len() as u8)
            .map(FormatId)
            .map(|format| {
                model.blocks.first().and_then(|block| Self::bound(&spec, block.kind, block.native, format))
            })
            .collect();
        Guard {
            spec,
            layers,
            allowed,
            spent_upper: 0.0,
            spent_mean: 0.0,
            layers_left: layers,
            steps: 0,
            drift_sum: 0.0,
            drift_max: 0.0,
        }
    }

    fn bound(spec: &GuardSpec, kind: BlockKind, native: FormatId, format: FormatId) -> Option<ErrorBound> {
        let error = spec.sensitivity.error(native, format)?;
        let floor = spec.floors.get(&kind).and_then(|&floor| spec.sensitivity.error(native, floor));
        floor.is_none_or(|floor| error.upper <= floor.upper).then_some(error)
    }

    /// The error of a block in a format, or `None` if a floor or a missing figure forbids it.
    #[inline]
    pub fn error(&self, _block: BlockId, format: FormatId) -> Option<ErrorBound> {
        self.allowed[format.0 as usize]
    }

    /// The operator's budget for a step.
    pub fn budget(&self) -> f64 {
        self.spec.drift_budget
    }

    /// The squared drift the coming layer may have: what is left of the step's budget, shared by the layers left.
    pub fn allowance(&self) -> f64 {
        let whole = self.layers as f64 * self.spec.drift_budget * self.spec.drift_budget;
        ((whole - self.spent_upper) / self.layers_left.max(1) as f64).max(0.0)
    }

    /// Books a layer that has been computed, by its squared drift at the mean and at the upper bound.
    pub fn spend_layer(&mut self, mean: f64, upper: f64) {
        self.spent_mean += mean;
        self.spent_upper += upper;
        self.layers_left = self.layers_left.saturating_sub(1);
    }

    /// Closes a step and returns its drift at the upper bound.
    pub fn end_step(&mut self) -> f64 {
        let layers = self.layers.max(1) as f64;
        let drift = libm::sqrt(self.spent_upper / layers);
        self.drift_sum += libm::sqrt(self.spent_mean / layers);
        self.drift_max = self.drift_max.max(drift);
        self.steps += 1;
        self.spent_upper = 0.0;
        self.spent_mean = 0.0;
        self.layers_left = self.layers;
        drift
    }

    /// The mean drift of the steps so far.
    pub fn drift_mean(&self) -> f64 {
        if self.steps == 0 { 0.0 } else { self.drift_sum / self.steps as f64 }
    }

    /// The largest drift of a step so far, at the upper bound.
    pub fn drift_max(&self) -> f64 {
        self.drift_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(budget: f64, layers: usize) -> Guard {
        let mut guard = Guard::new(
            GuardSpec { drift_budget: budget, floors: BTreeMap::new(), sensitivity: Sensitivity::new([]) },
            &Model {
                name: String::new(),
                layers: Vec::new(),
                blocks: Vec::new(),
                resident: Default::default(),
                head_read: Default::default(),
                head_flops_per_token: 0,
            },
        );
        guard.layers = layers;
        guard.layers_left = layers;
        guard
    }

    #[test]
    fn a_step_that_spends_every_allowance_ends_on_the_budget() {
        let mut guard = guard(0.01, 4);
        for share in [0.5, 0.0, 1.0, 1.0] {
            let layer = guard.allowance() * share;
            guard.spend_layer(layer, layer);
        }
        assert!((guard.end_step() - 0.01).abs() < 1e-12);
    }

    #[test]
    fn a_budget_of_zero_allows_nothing() {
        assert_eq!(guard(0.0, 3).allowance(), 0.0);
    }
}
