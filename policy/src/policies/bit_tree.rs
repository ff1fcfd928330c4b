//! A set of integers that finds its greatest member in a few words.

/// Bits of a word as a shift.
const SHIFT: u32 = 6;

/// A set of `u32` below a fixed bound: one bit each, and above it levels in which a bit says that the word below
/// is not empty. The last level is one word.
#[derive(Clone, Debug)]
pub(super) struct BitTree {
    words: Vec<u64>,
    /// Where each level starts in `words`, members first.
    levels: Vec<usize>,
}

impl BitTree {
    /// An empty set of integers below `bound`.
    pub(super) fn new(bound: usize) -> BitTree {
        let (mut levels, mut total, mut size) = (Vec::new(), 0, bound.max(1));
        while levels.is_empty() || size > 1 {
            size = size.div_ceil(1 << SHIFT);
            levels.push(total);
            total += size;
        }
        BitTree { words: vec![0; total], levels }
    }

    /// Empties the set.
    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds `member`.
    #[inline(always)]
    pub(super) fn insert(&mut self, member: u32) {
        let mut at = member;
        for &level in &self.levels {
            let word = &mut self.words[level + (at >> SHIFT) as usize];
            let before = *word;
            *word |= 1 << (at % 64);
            // Members far ahead stand alone, those near do not: the first level's test would be a coin toss.
            if before != 0 && at != member {
                return;
            }
            at >>= SHIFT;
        }
    }

    /// Takes `member` out.
    #[inline(always)]
    pub(super) fn remove(&mut self, member: u32) {
        let mut at = member;
        for &level in &self.levels {
            let word = &mut self.words[level + (at >> SHIFT) as usize];
            *word &= !(1 << (at % 64));
            if *word != 0 {
                return;
            }
            at >>= SHIFT;
        }
    }

    /// The greatest member.
    #[inline(always)]
    pub(super) fn last(&self) -> Option<u32> {
        self.last_under(self.levels.len(), 0)
    }

    /// The greatest member below `member`.
    #[inline(always)]
    pub(super) fn last_below(&self, member: u32) -> Option<u32> {
        let mut at = member;
        for (height, &level) in self.levels.iter().enumerate() {
            let lower = self.words[level + (at >> SHIFT) as usize] & ((1 << (at % 64)) - 1);
            at >>= SHIFT;
            if lower != 0 {
                return self.last_under(height, at << SHIFT | lower.ilog2());
            }
        }
        None
    }

    /// The greatest member under bit `at` of the level `height`.
    #[inline(always)]
    fn last_under(&self, height: usize, mut at: u32) -> Option<u32> {
        for &level in self.levels[..height].iter().rev() {
            at = at << SHIFT | self.words[level + at as usize].checked_ilog2()?;
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_a_set(bound in prop::sample::select(vec![1u32, 63, 64, 65, 4096, 4097, 300_000]),
                    steps in prop::collection::vec((any::<bool>(), any::<u32>()), 1..200)) {
            let (mut tree, mut set) = (BitTree::new(bound as usize), BTreeSet::new());
            for (add, member) in steps {
                let member = member % bound;
                if add { tree.insert(member); set.insert(member); } else { tree.remove(member); set.remove(&member); }
                prop_assert_eq!(tree.last(), set.last().copied());
                prop_assert_eq!(tree.last_below(member), set.range(..member).next_back().copied());
            }
            tree.clear();
            prop_assert_eq!(tree.last(), None);
        }
    }
}
