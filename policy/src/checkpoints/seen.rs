//! Which blocks some request has computed, whether they are kept or not: how far a prompt is like earlier ones.
//!
//! The last so many are known, in two halves: when the younger half is full the older one is forgotten. So memory is bounded however
//! long a run is, and what was computed among the last [`MOST_KNOWN`] blocks is never missed.

use std::collections::BTreeSet;

/// Blocks that are known for certain: of 16 tokens each, 16 million tokens.
const MOST_KNOWN: usize = 1 << 20;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    younger: BTreeSet<u64>,
    older: BTreeSet<u64>,
}

impl Seen {
    /// These blocks have been computed.
    pub(super) fn note(&mut self, blocks: &[u64]) {
        self.note_within(blocks, MOST_KNOWN);
    }

    fn note_within(&mut self, blocks: &[u64], most: usize) {
        for block in blocks {
            if self.younger.len() >= most && !self.younger.contains(block) {
                self.older = std::mem::take(&mut self.younger);
            }
            self.younger.insert(*block);
        }
    }

    /// How many of these blocks, from the first on, have been computed.
    pub(super) fn alike(&self, blocks: &[u64]) -> usize {
        let known = |block: &&u64| self.younger.contains(block) || self.older.contains(block);
        blocks.iter().take_while(known).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_last_are_known_and_no_more_than_twice_as_many(blocks in prop::collection::vec(0u64..60, 1..200), most in 1usize..20) {
            let mut seen = Seen::default();
            for (at, block) in blocks.iter().enumerate() {
                seen.note_within(&[*block], most);
                prop_assert!(seen.younger.len() <= most && seen.older.len() <= most);
                for recent in &blocks[(at + 1).saturating_sub(most)..=at] {
                    prop_assert_eq!(seen.alike(&[*recent]), 1);
                }
                prop_assert_eq!(seen.alike(&[60, *block]), 0);
            }
        }
    }
}
