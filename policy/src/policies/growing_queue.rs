//! A queue of dense ids by a value that only grows while an id waits in it.

use crate::rule::Keep;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// What an id is ordered by; the id itself is part of it, so that no two are equal.
pub(super) trait Key: Copy + Ord {
    /// Whose key it is.
    fn id(self) -> u32;
}

/// The residents of a rule by their keys, the least to be evicted.
///
/// A key in the queue may lag behind that of its id: it is brought up to date when it comes to the top, and a demand
/// of a resident costs the queue nothing.
#[derive(Clone, Debug)]
pub(super) struct GrowingQueue<K> {
    /// One key for each resident that is not in `kept`.
    heap: BinaryHeap<Reverse<K>>,
    /// The top belongs to an id that has left: the next to come in takes its place.
    vacant: bool,
    /// Keys taken out of the heap because their ids were kept when they came to the top.
    kept: Vec<Reverse<K>>,
}

impl<K: Key> GrowingQueue<K> {
    /// An empty queue.
    pub(super) fn new() -> GrowingQueue<K> {
        GrowingQueue { heap: BinaryHeap::new(), vacant: false, kept: Vec::new() }
    }

    /// Adds the key of an id that is not in the queue.
    #[inline(always)]
    pub(super) fn push(&mut self, key: K) {
        if self.vacant
            && let Some(mut top) = self.heap.peek_mut()
        {
            *top = Reverse(key);
        } else {
            self.heap.push(Reverse(key));
        }
        self.vacant = false;
    }

    /// Takes out the least key of those that `keep` does not hold; `current` is the up-to-date key of an id.
    #[inline(always)]
    pub(super) fn pop<H: Keep>(&mut self, keep: &H, current: impl Fn(u32) -> K) -> Option<K> {
        if self.vacant {
            self.heap.pop();
            self.vacant = false;
        }
        if !self.kept.is_empty() {
            self.heap.extend(self.kept.extract_if(.., |key| !keep.keeps(key.0.id())));
        }
        while let Some(mut top) = self.heap.peek_mut() {
            let key = current(top.0.id());
            if top.0 != key {
                *top = Reverse(key);
            } else if keep.keeps(key.id()) {
                self.kept.push(PeekMut::pop(top));
            } else {
                self.vacant = true;
                return Some(key);
            }
        }
        None
    }

    /// Takes out every id that is not resident any more. Linear in their number.
    pub(super) fn retain(&mut self, resident: impl Fn(u32) -> bool) {
        self.heap.retain(|key| resident(key.0.id()));
        self.kept.retain(|key| resident(key.0.id()));
        self.vacant = false;
    }

    /// Empties the queue.
    pub(super) fn clear(&mut self) {
        self.heap.clear();
        self.kept.clear();
        self.vacant = false;
    }
}
