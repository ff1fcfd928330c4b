//! Room in the pools: what is taken, released, and given up for a newcomer.

use super::evict::{Action, View, lowered};
use super::{Checkpoints, Copy, Moving};
use crate::event::MoveClass;
use crate::state_format::StateFormat;

impl Checkpoints {
    pub(super) fn take(&mut self, pool: usize, bytes: u64) {
        let pool = &mut self.pools[pool];
        pool.used += bytes;
        pool.peak = pool.peak.max(pool.used);
    }

    /// Frees a checkpoint's copy in a pool, if it has one.
    pub(super) fn release(&mut self, node: u64, pool: usize) {
        let copy = self.entries.get_mut(&node).and_then(|entry| entry.copies[pool].take());
        self.pools[pool].used -= copy.map_or(0, |copy| copy.bytes);
    }

    /// Frees bytes of a pool for a newcomer; false if that cannot be done now, or costs more than the newcomer is worth.
    pub(super) fn make_room(&mut self, pool: usize, bytes: u64, newcomer: u64) -> bool {
        let room = self.spec.pools[pool].room.0;
        if bytes > room {
            return false;
        }
        while self.pools[pool].used + bytes > room {
            let view = View {
                entries: &self.entries,
                pools: &self.spec.pools,
                costs: &self.costs,
                reuse: &self.reuse,
                now: self.now,
                pool,
                newcomer,
            };
            let Some((node, action)) = self.evict.choose(&view) else { return false };
            match action {
                Action::Drop => self.drop_copy(node, pool),
                Action::Reduce(format) => self.reduce(node, pool, format),
                Action::Lower(below) => self.lower(node, pool, below),
            }
        }
        true
    }

    fn drop_copy(&mut self, node: u64, pool: usize) {
        self.release(node, pool);
        self.figures.pools[pool].evictions += 1;
        self.book(node);
        let gone = self.entries.get(&node).is_some_and(|entry| entry.copies.iter().all(Option::is_none));
        if gone {
            self.forget(node);
        }
    }

    /// Takes a checkpoint without copies out of the book.
    pub(super) fn forget(&mut self, node: u64) {
        self.book(node);
        let Some(entry) = self.entries.remove(&node) else { return };
        self.states.leave(entry.state, self.costs.served.0, self.now);
        for child in self.entries.values_mut().filter(|child| child.parent == Some(node)) {
            child.parent = entry.parent;
        }
        if let Some(parent) = entry.parent.and_then(|parent| self.entries.get_mut(&parent)) {
            parent.children = (parent.children + entry.children).saturating_sub(1);
        }
    }

    /// Codes an exact copy in fewer bits where it is.
    fn reduce(&mut self, node: u64, pool: usize, format: StateFormat) {
        let bytes = self.costs.footprint(pool, format);
        let Some(entry) = self.entries.get_mut(&node) else { return };
        let Some(copy) = &mut entry.copies[pool] else { return };
        let before = std::mem::replace(&mut copy.bytes, bytes);
        (copy.format, copy.ready) = (format, false);
        let (copy, generation) = (*copy, entry.generation);
        self.pools[pool].used -= before - bytes;
        self.figures.pools[pool].reduced += 1;
        let tier = self.spec.pools[pool].tier;
        let moving = Moving { node, generation, into: Some(pool), out_of: None };
        self.send(moving, copy, (tier, tier), MoveClass::Spill);
    }

    /// Moves a copy to a lower pool, coded for it if it is exact so far. Its room is free when it has arrived: so this newcomer goes without
    /// if nothing else can go.
    fn lower(&mut self, node: u64, pool: usize, below: usize) {
        let Some(copy) = self.entries.get(&node).and_then(|entry| entry.copies[pool]) else { return };
        let format = lowered(copy.format, self.spec.pools[below].format);
        let bytes = self.costs.footprint(below, format);
        if !self.make_room(below, bytes, node) {
            return self.drop_copy(node, pool);
        }
        let Some(entry) = self.entries.get_mut(&node) else { return };
        entry.copies[below] = Some(Copy { format, bytes, ready: false, leaving: false });
        if let Some(copy) = &mut entry.copies[pool] {
            copy.leaving = true;
        }
        let generation = entry.generation;
        self.take(below, bytes);
        self.figures.pools[pool].lowered += 1;
        let moving = Moving { node, generation, into: Some(below), out_of: Some(pool) };
        let (from, to) = (self.spec.pools[pool].tier, self.spec.pools[below].tier);
        self.send(moving, Copy { format, ..copy }, (from, to), MoveClass::Spill);
    }
}
