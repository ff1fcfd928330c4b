//! Several queues of dense ids whose lengths are known, each from oldest to newest.

use super::lists::Lists;
use crate::rule::Keep;

/// The segment of an id that is in none.
const NONE: u32 = u32::MAX;

/// Ids `0..universe`, each in one of several queues, its segment, or in none.
#[derive(Clone, Debug)]
pub(super) struct Segments {
    lists: Lists,
    of: Box<[u32]>,
    lens: Box<[usize]>,
}

impl Segments {
    /// Empty segments.
    pub(super) fn new(universe: u32, segments: u32) -> Segments {
        Segments {
            lists: Lists::new(universe, segments),
            of: vec![NONE; universe as usize].into_boxed_slice(),
            lens: vec![0; segments as usize].into_boxed_slice(),
        }
    }

    /// The segment that `id` is in.
    #[inline(always)]
    pub(super) fn of(&self, id: u32) -> Option<u32> {
        let segment = self.of[id as usize];
        (segment != NONE).then_some(segment)
    }

    /// How many ids are in a segment.
    #[inline(always)]
    pub(super) fn len(&self, segment: u32) -> usize {
        self.lens[segment as usize]
    }

    /// The oldest id of a segment that `keep` does not hold.
    #[inline(always)]
    pub(super) fn oldest<K: Keep>(&self, segment: u32, keep: &K) -> Option<u32> {
        self.lists.oldest(segment, keep)
    }

    /// Makes `id` the newest of `segment`, whichever segment it was in.
    #[inline(always)]
    pub(super) fn push(&mut self, id: u32, segment: u32) {
        self.remove(id);
        self.lists.link(id, self.lists.end(segment));
        self.of[id as usize] = segment;
        self.lens[segment as usize] += 1;
    }

    /// Takes `id` out of the segment it is in, if it is in one.
    #[inline(always)]
    pub(super) fn remove(&mut self, id: u32) {
        if let Some(segment) = self.of(id) {
            self.lists.unlink(id);
            self.of[id as usize] = NONE;
            self.lens[segment as usize] -= 1;
        }
    }

    /// Empties every segment.
    pub(super) fn clear(&mut self) {
        *self = Segments::new(self.lists.universe(), self.lens.len() as u32);
    }
}
