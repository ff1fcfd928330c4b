//! The quality guard: how much the output may drift from full precision, and how much it has.
//!
//! A layer's drift is the root of the gate-weighted squared errors of its active blocks, averaged over the tokens of
//! the batch; a step's is the root mean square over layers. The budget is spent layer by layer: a layer may use what
//! its predecessors in the step left over, so that no step, and therefore no running mean, exceeds the budget.

use crate::format::{FORMATS, FormatId};
use crate::id::BlockId;
use crate::model::{BlockKind, Model};
use crate::state_format::StateFormat;
use crate::veto::Reason;
use std::collections::BTreeMap;

/// How many layers' shares of the drift budget a layer may use at once. With 1 hardly any layer can use a format whose error is
/// well over the budget, whoever pays; with 8 or 32 nothing is gained over 4 (mixtral-8x7b, budgets 0.5 to 9 %).
const AHEAD_OF_PACE: f64 = 4.0;

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

impl GuardSpec {
    /// Why no prompt may go on from states in a format, if none may. What such a prompt computes is off by the state's relative
    /// error where all layers are recurrent and remember, and by less elsewhere; so that error is held to the floor of states
    /// and to the budget of a step.
    pub fn state_veto(&self, format: StateFormat) -> Option<Reason> {
        let error = format.get().error;
        let below = |floor: &FormatId| error > StateFormat::coarsest_error(*floor);
        match self.floors.get(&BlockKind::State) {
            Some(floor) if below(floor) => Some(Reason::PrecisionFloor),
            _ if error > self.drift_budget => Some(Reason::DriftBudget),
            _ => None,
        }
    }
}

/// The guard of one run: the specification and what has been spent of it.
#[derive(Clone, Debug)]
pub struct Guard {
    spec: GuardSpec,
    /// Layers of the running step, and its budget: the operator's, or a share of it.
    layers: usize,
    budget: f64,
    /// Whether every step reads all blocks of its layers.
    certain: bool,
    /// The error of each format for each kind of block there is; `None` is forbidden.
    allowed: Vec<[Option<ErrorBound>; FORMATS.len()]>,
    /// Whether blocks of each kind may be left out.
    may_skip: Vec<bool>,
    /// The row of `allowed` that a block has.
    kinds: Vec<u16>,
    spent_upper: f64,
    spent_mean: f64,
    layers_left: usize,
    steps: u64,
    drift_sum: f64,
    drift_max: f64,
    last_drift: f64,
}

impl Guard {
    /// A guard over the managed blocks of a model.
    pub fn new(spec: GuardSpec, model: &Model) -> Guard {
        let layers = model.layers.len();
        let (mut known, mut allowed, mut may_skip, mut kinds) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for block in &model.blocks {
            let kind = (block.kind, block.native);
            let row = known.iter().position(|&other| other == kind).unwrap_or_else(|| {
                known.push(kind);
                may_skip.push(!spec.floors.contains_key(&block.kind));
                allowed.push(std::array::from_fn(|format| {
                    Self::bound(&spec, block.kind, block.native, FormatId(format as u8))
                }));
                known.len() - 1
            });
            kinds.push(row as u16);
        }
        Guard {
            budget: spec.drift_budget,
            spec,
            layers,
            certain: model.routed_layers().next().is_none(),
            allowed,
            may_skip,
            kinds,
            spent_upper: 0.0,
            spent_mean: 0.0,
            layers_left: layers,
            steps: 0,
            drift_sum: 0.0,
            drift_max: 0.0,
            last_drift: 0.0,
        }
    }

    /// A floor whose own error is not known lets nothing through that loses anything.
    fn bound(spec: &GuardSpec, kind: BlockKind, native: FormatId, format: FormatId) -> Option<ErrorBound> {
        let error = spec.sensitivity.error(native, format)?;
        let floor = spec.floors.get(&kind);
        let coarsest =
            floor.map(|&floor| spec.sensitivity.error(native, floor).map_or(0.0, |floor| floor.upper));
        coarsest.is_none_or(|coarsest| error.upper <= coarsest).then_some(error)
    }

    /// The error of a block in a format, or `None` if a floor or a missing figure forbids it.
    #[inline]
    pub fn error(&self, block: BlockId, format: FormatId) -> Option<ErrorBound> {
        self.allowed[self.kinds[block.index()] as usize][format.0 as usize]
    }

    /// The error of leaving a block out, or `None` where its kind has a floor: no format is coarser.
    #[inline]
    pub fn skip(&self, block: BlockId) -> Option<ErrorBound> {
        self.may_skip[self.kinds[block.index()] as usize].then_some(ErrorBound { mean: 1.0, upper: 1.0 })
    }

    /// The budget of the running step.
    pub fn budget(&self) -> f64 {
        self.budget
    }

    /// What the operator allows a step at most.
    pub fn stated_budget(&self) -> f64 {
        self.spec.drift_budget
    }

    /// A step of so many layers begins, which may use a share of the operator's budget.
    pub fn begin_step(&mut self, layers: u32, share: f64) {
        (self.layers, self.layers_left) = (layers as usize, layers as usize);
        self.budget = self.spec.drift_budget * share;
    }

    /// The squared drift the coming layer may have: its share of what is left of the step's budget and some more, as one
    /// block in a coarse format can take several layers' shares; all that is left where each step reads all blocks, as what later
    /// layers will want is known. The step as a whole keeps the budget.
    pub fn allowance(&self) -> f64 {
        let ahead = if self.certain { self.layers_left as f64 } else { AHEAD_OF_PACE };
        let left = self.left();
        (ahead * left / self.layers_left.max(1) as f64).min(left).max(0.0)
    }

    /// The squared drift that is left of the running step's budget.
    fn left(&self) -> f64 {
        self.layers as f64 * self.budget * self.budget - self.spent_upper
    }

    /// The squared drift that a copy made ahead of demand may add.
    pub fn most_ahead(&self) -> f64 {
        let layers = if self.certain { self.layers as f64 } else { 1.0 };
        layers * self.budget * self.budget
    }

    /// The squared drift that a layer may have in a step that has spent evenly so far.
    pub fn most_of_a_layer(&self) -> f64 {
        AHEAD_OF_PACE.min(self.layers as f64) * self.budget * self.budget
    }

    /// What each of the layers left may spend of the step's budget, as a share of what each could have spent from the start:
    /// 1 while the step spends evenly.
    pub fn pace(&self) -> f64 {
        let budget = self.budget * self.budget;
        if budget == 0.0 {
            return 1.0;
        }
        (self.left() / (self.layers_left.max(1) as f64 * budget)).max(0.0)
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
        self.last_drift = drift;
        self.steps += 1;
        self.spent_upper = 0.0;
        self.spent_mean = 0.0;
        self.layers_left = self.layers;
        drift
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The sum of their drifts, at the mean.
    pub fn drift_sum(&self) -> f64 {
        self.drift_sum
    }

    /// The drift of the last one, at the upper bound.
    pub fn last_drift(&self) -> f64 {
        self.last_drift
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
            &Model::default(),
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

    #[test]
    fn a_floor_binds_its_own_kind_and_one_of_unknown_error_lets_nothing_lossy_through() {
        let format = |name| FormatId::named(name).unwrap();
        let block = |kind| crate::model::Block {
            kind,
            layer: crate::LayerId(0),
            index: 0,
            matrices: [crate::model::Matrix { rows: 32, columns: 32 }].into(),
            native: format("bf16"),
            mixed: None,
            recipe: None,
        };
        let blocks = vec![block(BlockKind::Expert), block(BlockKind::Attention), block(BlockKind::Dense)];
        let model = Model { blocks, ..Model::default() };
        let error = |upper| ErrorBound { mean: upper, upper };
        let spec = GuardSpec {
            drift_budget: 0.1,
            floors: [(BlockKind::Attention, format("int8")), (BlockKind::Dense, format("fp32"))].into(),
            sensitivity: Sensitivity::new([(format("int8"), error(0.01)), (format("mxfp4"), error(0.2))]),
        };
        let guard = Guard::new(spec, &model);
        let allows = |block, name| guard.error(BlockId(block), format(name)).is_some();
        assert!(allows(0, "int8") && allows(0, "mxfp4"));
        assert!(allows(1, "int8") && !allows(1, "mxfp4"));
        assert!(!allows(2, "int8") && allows(2, "bf16_packed"));
    }

    #[test]
    fn states_are_held_to_their_floor_and_to_the_budget() {
        let floors = |floor: &str| (BlockKind::State, FormatId::named(floor).unwrap());
        let spec = |drift_budget, floor: Option<&str>| GuardSpec {
            drift_budget,
            floors: floor.map(floors).into_iter().collect(),
            sensitivity: Sensitivity::new([]),
        };
        let veto = |spec: &GuardSpec, name| spec.state_veto(StateFormat::named(name).unwrap());
        let none = spec(0.0, None);
        assert_eq!((veto(&none, "fp16"), veto(&none, "fp32")), (None, None));
        assert_eq!(veto(&none, "int8_g32"), Some(Reason::DriftBudget));
        let some = spec(0.02, None);
        assert_eq!((veto(&some, "int8"), veto(&some, "int4")), (None, Some(Reason::DriftBudget)));
        let floored = spec(0.2, Some("int8"));
        assert_eq!((veto(&floored, "int8"), veto(&floored, "int4")), (None, Some(Reason::PrecisionFloor)));
        // A floor that states have no format of lets through what loses nothing.
        assert_eq!(veto(&spec(0.2, Some("mxfp4")), "int8"), Some(Reason::PrecisionFloor));
        assert_eq!(veto(&spec(0.2, Some("bf16")), "fp16"), None);
    }
}
