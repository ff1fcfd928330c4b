//! What is taken of a tier.

use crate::units::Bytes;

/// Bytes and their peak in one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes taken now, moves under way included.
    pub used: Bytes,
    /// The most that was ever taken.
    pub peak: Bytes,
    /// Bytes that may be taken.
    pub capacity: Bytes,
    /// Copies given up.
    pub evictions: u64,
}

impl Usage {
    /// Whether no more is taken than may be.
    pub fn fits(&self) -> bool {
        self.used <= self.capacity
    }
}
