//! What blocks, key-value caches and others have of fast memory.

use super::{ControlError, Orchestrator};
use crate::refused::Refused;
use crate::units::Bytes;

impl Orchestrator {
    /// Whether others have taken some of fast memory.
    pub(crate) fn is_pressed(&self) -> bool {
        self.room() < self.shared
    }

    /// What blocks and the cache share of fast memory now.
    pub(super) fn room(&self) -> Bytes {
        match self.group.is_out() {
            true => Bytes::ZERO,
            false => self.shared.saturating_sub(self.pressed + self.group.taken_over()),
        }
    }

    /// Blocks give up what they have beyond their room, but for what the running layer step holds: that goes when it ends.
    pub(crate) fn keep_to_room(&mut self) -> Result<(), Refused> {
        let caches = self.serving.cache_bytes().unwrap_or_default();
        let fast = self.context.costs.fast;
        self.context.ledger.set_capacity(fast, self.room().saturating_sub(caches));
        self.shed()
    }

    /// Gives the key-value cache so many bytes of fast memory, if blocks can make room for them now.
    pub(super) fn grant(&mut self, wanted: Bytes) -> Result<bool, ControlError> {
        let fast = self.context.costs.fast;
        let before = self.context.ledger.usage(fast).capacity;
        let Some(left) = self.room().0.checked_sub(wanted.0) else { return Ok(false) };
        self.context.ledger.set_capacity(fast, Bytes(left));
        let fits = self.make_room(Bytes::ZERO)?;
        if !fits {
            self.context.ledger.set_capacity(fast, before);
        }
        Ok(fits)
    }
}
