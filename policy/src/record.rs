//! Decision records: what was decided, on which terms, and why not otherwise; and the comparison of two logs.

use crate::event::Form;
use crate::id::{BlockId, LayerId};
use crate::score::Terms;
use crate::state::State;
use crate::units::Time;
use crate::veto::Verdict;
use serde::{Deserialize, Serialize};

/// What was proposed for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Fetch a block the running step waits for.
    Fetch,
    /// Read a fast copy that is there, though a better form exists.
    Read,
    /// Expand a compressed fast copy the running step waits for.
    Expand,
    /// Have the processor beside a copy compute the block where it is.
    InPlace,
    /// Leave a block out of the running step.
    Skip,
    /// Replace a reduced fast copy by a better one before the step may use it.
    Upgrade,
    /// Fetch a block before it is asked for.
    Speculate,
    /// Keep a copy below fast memory, nearer than home.
    Stage,
    /// Give a copy up to make room.
    Evict,
    /// Give a move up.
    Cancel,
}

impl Action {
    /// The action's name in logs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Action::Fetch => "fetch",
            Action::Read => "read",
            Action::Expand => "expand",
            Action::InPlace => "in_place",
            Action::Skip => "skip",
            Action::Upgrade => "upgrade",
            Action::Speculate => "speculate",
            Action::Stage => "stage",
            Action::Evict => "evict",
            Action::Cancel => "cancel",
        }
    }
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Its number in the run.
    pub seq: u64,
    /// The token step.
    pub step: u64,
    /// The layer being run.
    pub layer: LayerId,
    /// The block.
    pub block: BlockId,
    /// What was proposed.
    pub action: Action,
    /// The copy read, or given up.
    pub from: Option<Form>,
    /// The copy made.
    pub to: Option<Form>,
    /// The block's state before.
    pub state: State,
    /// What the guard said.
    pub verdict: Verdict,
    /// Every term of the score; empty for rules that rank by order alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub terms: Option<Terms>,
    /// A digest of everything observed before the decision.
    pub observed: u64,
    /// When it was taken. Measured, not decided: real time on hardware that runs live.
    pub at: Time,
}

impl Decision {
    /// Whether two decisions are the same decision: everything but when.
    pub fn same(&self, other: &Decision) -> bool {
        Decision { at: other.at, ..self.clone() } == *other
    }
}

/// How two logs differ.
#[derive(Clone, Debug, PartialEq)]
pub enum LogDifference {
    /// The decisions at this place differ.
    At {
        /// The place.
        index: usize,
        /// The first log's decision.
        left: Box<Decision>,
        /// The second log's decision.
        right: Box<Decision>,
    },
    /// One log goes on where the other ends.
    Length {
        /// Decisions in the first.
        left: usize,
        /// Decisions in the second.
        right: usize,
    },
}

/// Compares two decision logs, decision by decision; `None` if they are the same.
pub fn compare_logs(left: &[Decision], right: &[Decision]) -> Option<LogDifference> {
    for (index, (a, b)) in left.iter().zip(right).enumerate() {
        if !a.same(b) {
            return Some(LogDifference::At { index, left: Box::new(a.clone()), right: Box::new(b.clone()) });
        }
    }
    (left.len() != right.len()).then_some(LogDifference::Length { left: left.len(), right: right.len() })
}
