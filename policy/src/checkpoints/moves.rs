//! Moves of checkpoints: begun here, handed over chunk by chunk as the schedule asks, and booked when they have ended.

use super::evict::lowered;
use super::{Checkpoints, Copy, Hit, Passage};
use crate::event::{Command, EncodeAt, MoveClass, StateChunk, StateEnd, StateForm};
use crate::id::{CheckpointId, MoveId};
use crate::path::LinkSet;
use crate::refused::Refused;
use crate::schedule::{Book, HandedOver};
use crate::state_format::StateFormat;
use crate::units::Bytes;

/// Moves of states have numbers from here on, those of blocks from zero.
const FIRST_MOVE: u64 = 1 << 62;

/// What a move is for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Purpose {
    /// The pool it writes to; none where it goes to a request.
    pub(super) into: Option<usize>,
    /// The pool it leaves, if it does.
    pub(super) out_of: Option<usize>,
    /// The restore that it is a part of, if it is.
    restore: Option<Restore>,
}

impl Purpose {
    /// To write to a pool, and to leave another one with that.
    pub(super) fn writes(into: usize, out_of: Option<usize>) -> Purpose {
        Purpose { into: Some(into), out_of, restore: None }
    }
}

/// A request that is being restored.
#[derive(Clone, Copy, Debug)]
struct Restore {
    number: u64,
    /// Whether the states are coded for the nearest pool when the request has them.
    keeps: bool,
}

/// A move of states under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moving {
    node: u64,
    checkpoint: CheckpointId,
    from: StateEnd,
    to: StateEnd,
    purpose: Purpose,
    class: MoveClass,
    /// Bytes that cross, and those handed over and arrived.
    total: Bytes,
    sent: Bytes,
    arrived: Bytes,
}

impl Moving {
    /// Whether one end of it are states of a request's.
    fn is_of_request(&self) -> bool {
        self.from == StateEnd::Request || self.to == StateEnd::Request
    }
}

impl Checkpoints {
    /// Whether a move is one of states.
    pub fn owns(id: MoveId) -> bool {
        id.0 >= FIRST_MOVE
    }

    /// Begins to restore a request; the number of the restore.
    pub(super) fn restore(&mut self, hit: Hit) -> Option<u64> {
        let now = self.now;
        let entry = self.entries.get_mut(&hit.node)?;
        let copy = entry.copies[hit.pool]?;
        entry.last_used = now;
        entry.lost = false;
        let promotes = hit.pool > 0 && entry.copies[0].is_none();
        self.numbers.restores += 1;
        let number = self.numbers.restores;
        let from = self.kept(hit.pool, copy.format);
        let (near, is_fast) = (self.spec.pools[0], self.spec.pools[0].tier == self.costs.fast);
        let format = lowered(copy.format, near.format);
        if promotes && is_fast && format == copy.format && self.place(hit.node, 0, format) {
            // The copy stays where it has come to, and the request is restored from there.
            let restore = Some(Restore { number, keeps: false });
            let purpose = Purpose { into: Some(0), out_of: None, restore };
            self.send(hit.node, (from, self.kept(0, format)), purpose, MoveClass::Demand);
            return Some(number);
        }
        if promotes && !is_fast && self.place(hit.node, 0, format) {
            let ends = (from, self.kept(0, format));
            self.send(hit.node, ends, Purpose::writes(0, None), MoveClass::Prefetch);
        }
        let restore = Some(Restore { number, keeps: promotes && is_fast && format != copy.format });
        let purpose = Purpose { restore, ..Purpose::default() };
        self.send(hit.node, (from, StateEnd::Request), purpose, MoveClass::Demand);
        Some(number)
    }

    /// Keeps a request's states in a pool, if there is room for them.
    pub(super) fn keep(&mut self, node: u64, pool: usize, format: StateFormat, class: MoveClass) {
        if self.place(node, pool, format) {
            let ends = (StateEnd::Request, self.kept(pool, format));
            self.send(node, ends, Purpose::writes(pool, None), class);
        }
    }

    /// Takes a pool's room for a copy that is to come; false if there is none.
    pub(super) fn place(&mut self, node: u64, pool: usize, format: StateFormat) -> bool {
        let bytes = self.costs.footprint(pool, format);
        if !self.make_room(pool, bytes, node) {
            return false;
        }
        let Some(entry) = self.entries.get_mut(&node) else { return false };
        entry.copies[pool] = Some(Copy { format, bytes, ready: false, leaving: false });
        self.take(pool, bytes);
        self.book(node);
        true
    }

    /// A copy in a pool, as an end of a move.
    pub(super) fn kept(&self, pool: usize, format: StateFormat) -> StateEnd {
        StateEnd::Kept(StateForm { tier: self.spec.pools[pool].tier, format })
    }

    /// Begins a move.
    pub(super) fn send(
        &mut self,
        node: u64,
        (from, to): (StateEnd, StateEnd),
        purpose: Purpose,
        class: MoveClass,
    ) {
        let Some(entry) = self.entries.get_mut(&node) else { return };
        entry.moves += 1;
        entry.readers += u32::from(from != StateEnd::Request);
        let id = MoveId(FIRST_MOVE + self.numbers.moves);
        self.numbers.moves += 1;
        let (checkpoint, nothing) = (entry.id, Bytes::ZERO);
        let [source, target] = [from, to].map(|end| end.form(self.costs.fast).tier);
        let mut moving = Moving {
            node,
            checkpoint,
            from,
            to,
            purpose,
            class,
            total: nothing,
            sent: nothing,
            arrived: nothing,
        };
        moving.total = self.costs.size(moving.chunk(id, nothing).crossing());
        self.figures.note_move(checkpoint, from, to);
        self.moves.insert(id, moving);
        let staged = self.moves.values().filter(|moving| moving.is_of_request()).count() as u64;
        let staged = Bytes(self.costs.served.0.saturating_mul(staged));
        self.figures.staged = self.figures.staged.max(staged);
        let links = self.costs.paths.between(source, target).map_or(LinkSet::NONE, |path| path.set);
        self.begun.push((id, links));
    }

    /// A chunk of a move has arrived. The restore that is over with it, if one is.
    ///
    /// # Errors
    /// The move is not under way.
    pub fn landed(&mut self, id: MoveId, len: Bytes) -> Result<Option<u64>, Refused> {
        let moving = self.moves.get_mut(&id).ok_or(Refused::NoSuchMove(id))?;
        moving.arrived += len;
        if moving.arrived < moving.total {
            return Ok(None);
        }
        let moving = *moving;
        self.moves.remove(&id);
        Ok(self.ended(moving))
    }

    fn ended(&mut self, moving: Moving) -> Option<u64> {
        let Moving { node, purpose: Purpose { into, out_of, restore }, .. } = moving;
        let entry = self.entries.get_mut(&node)?;
        entry.moves -= 1;
        entry.readers -= u32::from(moving.from != StateEnd::Request);
        if let Some(copy) = into.and_then(|pool| entry.copies[pool].as_mut()) {
            copy.ready = true;
        }
        if let Some(pool) = out_of {
            self.release(node, pool);
        }
        self.book(node);
        let mut restored = None;
        if let Some(restore) = restore {
            if into.is_some() {
                let purpose = Purpose { restore: Some(restore), ..Purpose::default() };
                self.send(node, (moving.to, StateEnd::Request), purpose, MoveClass::Demand);
            } else {
                if restore.keeps {
                    self.keep_near(node);
                }
                restored = Some(restore.number);
            }
        }
        if self.entries.get(&node).is_some_and(|entry| entry.lost && entry.moves == 0) {
            self.give_up(node);
        }
        restored
    }

    /// Codes a restored request's states, which are exact, for the nearest pool, unless it has them by now.
    fn keep_near(&mut self, node: u64) {
        if self.entries.get(&node).is_some_and(|entry| entry.copies[0].is_none()) {
            self.keep(node, 0, self.spec.pools[0].format, MoveClass::Prefetch);
        }
    }

    /// A restore is over: the request that waits for it has its state.
    pub fn restored(passage: &mut Passage, number: u64) {
        if passage.restoring == Some(number) {
            passage.restoring = None;
        }
    }
}

impl Moving {
    /// What is to be handed over of it, as far as it goes at once.
    fn chunk(&self, id: MoveId, most: Bytes) -> StateChunk {
        let &Moving { checkpoint, from, to, class, total, sent, .. } = self;
        let len = total.saturating_sub(sent).min(most);
        StateChunk { id, checkpoint, from, to, class, offset: sent, len, last: sent + len == total }
    }
}

impl Book for Checkpoints {
    fn class(&self, id: MoveId) -> Option<MoveClass> {
        self.moves.get(&id).map(|moving| moving.class)
    }

    fn hand_over(&mut self, id: MoveId, _: EncodeAt, most: Bytes) -> Result<HandedOver, Refused> {
        let moving = self.moves.get_mut(&id).ok_or(Refused::NoSuchMove(id))?;
        let chunk = moving.chunk(id, most);
        moving.sent += chunk.len;
        let StateChunk { len, class, last, .. } = chunk;
        Ok(HandedOver { command: Command::MoveState(chunk), len, class, last })
    }
}
