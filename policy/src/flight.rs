//! A move under way, as the ledger books it.

use crate::event::{Form, MoveClass, Source};
use crate::id::{BlockId, TierId};
use crate::units::{Bytes, Time};

/// A move under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight {
    /// What is moved.
    pub block: BlockId,
    /// Of what the copy is made.
    pub from: Source,
    /// To which copy.
    pub to: Form,
    /// A copy kept in a memory that it passes through.
    pub keep: Option<Form>,
    /// Why.
    pub class: MoveClass,
    /// Bytes that cross the link, or that a recipe makes.
    pub total: Bytes,
    /// Bytes handed to the link so far.
    pub sent: Bytes,
    /// Bytes that have arrived.
    pub arrived: Bytes,
    /// When it is wanted.
    pub deadline: Option<Time>,
}

impl Flight {
    /// A move of which nothing is handed over yet.
    pub fn new(block: BlockId, from: Source, to: Form, class: MoveClass, total: Bytes) -> Flight {
        let (sent, arrived) = (Bytes::ZERO, Bytes::ZERO);
        Flight { block, from, to, keep: None, class, total, sent, arrived, deadline: None }
    }

    /// Whether it reads this copy of its block, or makes it.
    pub fn touches(&self, form: Form) -> bool {
        self.from == Source::Copy(form) || self.to == form || self.keep == Some(form)
    }

    /// Whether it reads or makes a copy in this tier.
    pub fn involves(&self, tier: TierId) -> bool {
        let kept = self.keep.is_some_and(|form| form.tier == tier);
        self.from.tier(self.to) == tier || self.to.tier == tier || kept
    }
}
