//! Room in the pools: what is taken, released, and given up for a newcomer.

use super::Checkpoints;
use super::evict::{Action, View, lowered};
use super::moves::Purpose;
use crate::event::MoveClass;
use crate::state_format::StateFormat;

impl Checkpoints {
    pub(super) fn take(&mut self, pool: usize, bytes: u64) {
        let pool = &mut self.pools[pool];
        pool.used += bytes;
        pool.peak = pool.peak.max(pool.used);
    }

    /// Frees a checkpoint's copy in a pool, if it has one; nothing moves it.
    pub(super) fn release(&mut self, node: u64, pool: usize) {
        let Some(entry) = self.entries.get_mut(&node) else { return };
        let Some(copy) = entry.copies[pool].take() else { return };
        self.pools[pool].used -= copy.bytes;
        self.dropped.push((entry.id, self.spec.pools[pool].tier));
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
        let exact = std::mem::replace(&mut copy.format, format);
        copy.ready = false;
        self.pools[pool].used -= before - bytes;
        self.figures.pools[pool].reduced += 1;
        let ends = (self.kept(pool, exact), self.kept(pool, format));
        self.send(node, ends, Purpose::writes(pool, None), MoveClass::Spill);
    }

    /// Moves a copy to a lower pool, coded for it if it is exact so far. Its room is free when it has arrived: so this newcomer goes without
    /// if nothing else can go.
    fn lower(&mut self, node: u64, pool: usize, below: usize) {
        let Some(copy) = self.entries.get(&node).and_then(|entry| entry.copies[pool]) else { return };
        let format = lowered(copy.format, self.spec.pools[below].format);
        if !self.place(node, below, format) {
            return self.drop_copy(node, pool);
        }
        if let Some(copy) = self.entries.get_mut(&node).and_then(|entry| entry.copies[pool].as_mut()) {
            copy.leaving = true;
        }
        self.figures.pools[pool].lowered += 1;
        let ends = (self.kept(pool, copy.format), self.kept(below, format));
        self.send(node, ends, Purpose::writes(below, Some(pool)), MoveClass::Spill);
    }
}
