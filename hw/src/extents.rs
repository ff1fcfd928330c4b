//! Which ranges of a memory are free. First fit, by address; a request that no single range can hold is gathered from
//! several, so that it fails only when the bytes are not there.

use std::collections::BTreeMap;

/// A range of a memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// The free ranges; neighbours are always merged.
#[derive(Debug)]
pub(crate) struct FreeList {
    ranges: BTreeMap<u64, u64>,
    total: u64,
}

impl FreeList {
    /// Everything below `capacity` is free.
    pub(crate) fn new(capacity: u64) -> FreeList {
        let mut list = FreeList { ranges: BTreeMap::new(), total: 0 };
        list.give(Extent { start: 0, len: capacity });
        list
    }

    /// Free bytes.
    #[cfg(test)]
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Takes `len` bytes, from one range if one is long enough; `None` if there are not so many.
    pub(crate) fn take(&mut self, len: u64) -> Option<Vec<Extent>> {
        if len > self.total {
            return None;
        }
        let whole = self.ranges.iter().find(|(_, free)| **free >= len).map(|(start, _)| *start);
        let mut taken = Vec::new();
        let mut missing = len;
        while missing > 0 {
            let start = match whole {
                Some(start) => start,
                None => *self.ranges.first_key_value()?.0,
            };
            let extent = self.cut(start, missing)?;
            missing -= extent.len;
            taken.push(extent);
        }
        Some(taken)
    }

    /// Cuts up to `len` bytes off the front of the range at `start`.
    fn cut(&mut self, start: u64, len: u64) -> Option<Extent> {
        let free = self.ranges.remove(&start)?;
        let len = len.min(free);
        if len < free {
            self.ranges.insert(start + len, free - len);
        }
        self.total -= len;
        Some(Extent { start, len })
    }

    /// Takes a range back.
    pub(crate) fn give(&mut self, extent: Extent) {
        if extent.len == 0 {
            return;
        }
        self.total += extent.len;
        let Extent { mut start, mut len } = extent;
        if let Some((&before, &free)) = self.ranges.range(..start).next_back()
            && before + free == start
        {
            self.ranges.remove(&before);
            (start, len) = (before, len + free);
        }
        if let Some(free) = self.ranges.remove(&(start + len)) {
            len += free;
        }
        self.ranges.insert(start, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_merge_and_the_lowest_fitting_range_is_taken() {
        let mut list = FreeList::new(100);
        let first = list.take(10).unwrap();
        let second = list.take(20).unwrap();
        assert_eq!(second, [Extent { start: 10, len: 20 }]);
        first.into_iter().for_each(|extent| list.give(extent));
        assert_eq!(list.take(15).unwrap(), [Extent { start: 30, len: 15 }]);
        assert_eq!(list.take(10).unwrap(), [Extent { start: 0, len: 10 }]);
        list.give(Extent { start: 0, len: 10 });
        second.into_iter().for_each(|extent| list.give(extent));
        list.give(Extent { start: 30, len: 15 });
        assert_eq!(list.take(100).unwrap(), [Extent { start: 0, len: 100 }]);
        assert_eq!(list.take(1), None);
    }

    proptest! {
        #[test]
        fn a_request_fails_only_when_the_bytes_are_not_there_and_nothing_is_handed_out_twice(
            steps in prop::collection::vec((any::<bool>(), 1u64..40, any::<prop::sample::Index>()), 1..200),
        ) {
            let capacity = 200;
            let mut list = FreeList::new(capacity);
            let mut held: Vec<Vec<Extent>> = Vec::new();
            for (take, len, which) in steps {
                if take {
                    let free = list.total();
                    let taken = list.take(len);
                    prop_assert_eq!(taken.is_some(), len <= free);
                    held.extend(taken);
                } else if !held.is_empty() {
                    held.swap_remove(which.index(held.len())).into_iter().for_each(|extent| list.give(extent));
                }
                let mut owner = vec![false; capacity as usize];
                for extent in held.iter().flatten() {
                    for byte in extent.start..extent.start + extent.len {
                        prop_assert!(!std::mem::replace(&mut owner[byte as usize], true));
                    }
                }
                let used = owner.iter().filter(|used| **used).count() as u64;
                prop_assert_eq!(list.total(), capacity - used);
            }
        }
    }
}
