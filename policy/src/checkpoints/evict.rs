//! What an eviction policy sees, and what it may ask for.

use super::costs::Costs;
use super::reuse::Reuse;
use super::{Copy, Entry, PoolSpec};
use crate::state_format::StateFormat;
use crate::units::Time;
use std::collections::BTreeMap;

/// What may be done with a copy to make room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    /// Give it up.
    Drop,
    /// Move it to the pool with this index.
    Lower(usize),
    /// Code it in fewer bits where it is.
    Reduce(StateFormat),
}

/// The pool that needs room, and what is known.
pub(super) struct View<'a> {
    pub(super) entries: &'a BTreeMap<u64, Entry>,
    pub(super) pools: &'a [PoolSpec],
    pub(super) costs: &'a Costs,
    pub(super) reuse: &'a Reuse,
    pub(super) now: Time,
    /// The pool that needs room.
    pub(super) pool: usize,
    /// The checkpoint that it is needed for.
    pub(super) newcomer: u64,
}

/// A policy: one file each.
pub(super) trait Evict: Send {
    /// The copy in the pool that goes first, and how; `None` where the newcomer is worth less than all of them.
    fn choose(&self, view: &View<'_>) -> Option<(u64, Action)>;
}

impl View<'_> {
    /// The checkpoints whose copy in the pool may go: complete, nobody reads it, and not the newcomer's own.
    pub(super) fn candidates(&self) -> impl Iterator<Item = (u64, &Entry, Copy)> {
        self.entries.iter().filter(|(node, entry)| **node != self.newcomer && entry.readers == 0).filter_map(
            |(node, entry)| {
                let copy = entry.copies[self.pool].filter(|copy| copy.ready && !copy.leaving)?;
                Some((*node, entry, copy))
            },
        )
    }

    /// The next pool down where an only copy would go on living, if there is one; a copy that has others is dropped.
    pub(super) fn down(&self, entry: &Entry) -> Action {
        let others = entry.copies.iter().enumerate();
        let kept = others.filter(|(pool, _)| *pool != self.pool).any(|(_, copy)| copy.is_some());
        match self.pool + 1 < self.pools.len() && !kept {
            true => Action::Lower(self.pool + 1),
            false => Action::Drop,
        }
    }

    /// What a copy is in when it has moved to a lower pool.
    pub(super) fn lowered(&self, copy: Copy, below: usize) -> StateFormat {
        lowered(copy.format, self.pools[below].format)
    }

    /// Tokens of the checkpoint that a request would go on from instead of this one.
    pub(super) fn behind(&self, entry: &Entry) -> u32 {
        entry.parent.and_then(|parent| self.entries.get(&parent)).map_or(0, |parent| parent.position)
    }
}

/// The format of a copy that goes to a pool: the pool's own where it is exact so far, else the one that it has.
pub(super) fn lowered(format: StateFormat, pool: StateFormat) -> StateFormat {
    if format.is_exact() && !pool.is_exact() { pool } else { format }
}
