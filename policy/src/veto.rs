//! Phase three: an ordered list of rules, each of which may refuse or put off what the policy proposes.

use crate::control::{Context, Proposal};
use crate::event::MoveClass;
use crate::guard::ErrorBound;
use crate::record::Action;
use serde::{Deserialize, Serialize};

/// Why a proposal was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The format is below the floor of the block's kind, or its error is not known.
    PrecisionFloor,
    /// The layer's share of the drift budget does not allow it.
    DriftBudget,
    /// Too little has been observed to speculate on.
    Evidence,
    /// There is no room, and none can be made without taking what the running step needs.
    Capacity,
    /// The stall it is expected to save is worth less than what it costs.
    SpeculationPrice,
}

/// All reasons, for reports.
pub const REASONS: [Reason; 5] = [
    Reason::PrecisionFloor,
    Reason::DriftBudget,
    Reason::Evidence,
    Reason::Capacity,
    Reason::SpeculationPrice,
];

impl Reason {
    /// The reason's name in logs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Reason::PrecisionFloor => "precision_floor",
            Reason::DriftBudget => "drift_budget",
            Reason::Evidence => "evidence",
            Reason::Capacity => "capacity",
            Reason::SpeculationPrice => "speculation_price",
        }
    }
}

/// The guard's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Go on.
    Pass,
    /// No.
    Reject(Reason),
    /// Not before this layer step.
    Defer(u64),
}

/// A rule of the guard: one question asked of a proposal.
type Check = fn(&Proposal, &Context) -> Verdict;

/// The rules, in order; the first that does not pass decides.
const RULES: &[Check] = &[precision_floor, drift_budget, evidence, speculation_price];

/// Observations below which a predictor is not believed.
const MIN_OBSERVATIONS: u64 = 32;

/// Asks every rule.
pub fn check(proposal: &Proposal, context: &Context) -> Verdict {
    RULES
        .iter()
        .map(|rule| rule(proposal, context))
        .find(|verdict| *verdict != Verdict::Pass)
        .unwrap_or(Verdict::Pass)
}

/// The error of what the block's tokens would go through: a branch left out is wrong by all of its output.
pub(crate) fn error_of(proposal: &Proposal, context: &Context) -> Option<ErrorBound> {
    match proposal.action {
        Action::Skip => context.guard.skip(proposal.block),
        _ => context.guard.error(proposal.block, proposal.route.to.format),
    }
}

fn precision_floor(proposal: &Proposal, context: &Context) -> Verdict {
    match error_of(proposal, context) {
        Some(_) => Verdict::Pass,
        None => Verdict::Reject(Reason::PrecisionFloor),
    }
}

fn drift_budget(proposal: &Proposal, context: &Context) -> Verdict {
    let Some(error) = error_of(proposal, context) else {
        return Verdict::Reject(Reason::PrecisionFloor);
    };
    let added = proposal.gate_squared * error.upper * error.upper;
    let allowed = match proposal.action {
        Action::Speculate => context.guard.most_ahead(),
        _ => context.guard.allowance(),
    };
    if added == 0.0 || proposal.layer_drift + added <= allowed {
        Verdict::Pass
    } else {
        Verdict::Reject(Reason::DriftBudget)
    }
}

fn evidence(proposal: &Proposal, context: &Context) -> Verdict {
    if speculative(proposal) && proposal.observations < MIN_OBSERVATIONS {
        let missing = MIN_OBSERVATIONS - proposal.observations;
        return Verdict::Defer(context.signals.layer_step + missing * u64::from(context.signals.layers));
    }
    Verdict::Pass
}

fn speculation_price(proposal: &Proposal, _context: &Context) -> Verdict {
    if speculative(proposal) && proposal.terms.total >= 0.0 {
        return Verdict::Reject(Reason::SpeculationPrice);
    }
    Verdict::Pass
}

fn speculative(proposal: &Proposal) -> bool {
    matches!(proposal.class, MoveClass::Speculation | MoveClass::Prefetch)
}
