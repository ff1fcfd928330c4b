//! Lists of dense ids from newest to oldest, linked inside one array.

use crate::rule::Keep;

#[derive(Clone, Copy, Debug)]
struct Node {
    newer: u32,
    older: u32,
}

/// What `newer` holds for an id that is in no list.
const ABSENT: u32 = u32::MAX;

/// Ids `0..universe`, each in one of several circular lists or in none. The place between the newest and the oldest
/// of a list is a node too, its end, so that no link has an edge case.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    nodes: Box<[Node]>,
    universe: u32,
}

impl Lists {
    /// Empty lists that ids `0..universe` may enter.
    pub(super) fn new(universe: u32, lists: u32) -> Lists {
        let absent = (0..universe).map(|_| Node { newer: ABSENT, older: ABSENT });
        let ends = (0..lists).map(|list| universe + list).map(|end| Node { newer: end, older: end });
        Lists { nodes: absent.chain(ends).collect(), universe }
    }

    /// The place in a list that is newer than the newest and older than the oldest id.
    #[inline(always)]
    pub(super) fn end(&self, list: u32) -> u32 {
        self.universe + list
    }

    /// The number of ids there can be.
    pub(super) fn universe(&self) -> u32 {
        self.universe
    }

    /// Whether `id` is in a list.
    #[inline(always)]
    pub(super) fn contains(&self, id: u32) -> bool {
        self.nodes[id as usize].newer != ABSENT
    }

    /// The next newer place.
    #[inline(always)]
    pub(super) fn newer(&self, at: u32) -> u32 {
        self.nodes[at as usize].newer
    }

    /// The next older place.
    #[inline(always)]
    pub(super) fn older(&self, at: u32) -> u32 {
        self.nodes[at as usize].older
    }

    /// The oldest id of a list that `keep` does not hold.
    #[inline(always)]
    pub(super) fn oldest<K: Keep>(&self, list: u32, keep: &K) -> Option<u32> {
        let mut id = self.newer(self.end(list));
        while id != self.end(list) {
            if !keep.keeps(id) {
                return Some(id);
            }
            id = self.newer(id);
        }
        None
    }

    /// Links `id`, which is in no place, directly on the older side of `newer`.
    #[inline(always)]
    pub(super) fn link(&mut self, id: u32, newer: u32) {
        let older = self.nodes[newer as usize].older;
        self.nodes[newer as usize].older = id;
        self.nodes[older as usize].newer = id;
        self.nodes[id as usize] = Node { newer, older };
    }

    /// Takes `id` out of its place, to be linked again at once.
    #[inline(always)]
    pub(super) fn unlink(&mut self, id: u32) {
        let Node { newer, older } = self.nodes[id as usize];
        self.nodes[newer as usize].older = older;
        self.nodes[older as usize].newer = newer;
    }

    /// Takes `id` out of its list.
    #[inline(always)]
    pub(super) fn remove(&mut self, id: u32) {
        self.unlink(id);
        self.nodes[id as usize].newer = ABSENT;
    }
}
