//! Moves in virtual time: encoded on this side of their links or on the other, carried chunk by chunk, published whole.

use super::{Tick, World, WorldError};
use crate::fabric::{Delivered, NoPath};
use crate::queue::Rank;
use crate::timeline::Chunk;
use policy::event::{EncodeAt, EventKind, Form, MoveChunk, MoveClass, Source};
use policy::machine::Class;
use policy::score::coding_time;
use policy::{BlockId, Bytes, MoveId, Nanos, TierId, Time};

/// A move under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moving {
    block: BlockId,
    from: Source,
    to: Form,
    keep: Option<Form>,
    class: MoveClass,
    encode_at: EncodeAt,
    /// When its block is encoded, if that happens before the links.
    encoded: Time,
    sent: Bytes,
    left: Bytes,
    arrived: Bytes,
    whole: Option<Bytes>,
    /// A memory that it needs failed while a chunk was under way.
    failed: bool,
}

impl Moving {
    fn involves(&self, tier: TierId) -> bool {
        self.from.tier(self.to) == tier
            || self.to.tier == tier
            || self.keep.is_some_and(|form| form.tier == tier)
    }
}

impl World {
    /// Starts one chunk of a move.
    pub(super) fn begin_chunk(&mut self, chunk: MoveChunk) -> Result<(), WorldError> {
        let MoveChunk { id, to, encode_at, .. } = chunk;
        if chunk.offset == Bytes::ZERO {
            self.begin_move(&chunk)?;
        }
        let moving = self.moves.get_mut(id).ok_or(WorldError::NoSuchMove(id))?;
        if moving.sent != chunk.offset {
            return Err(WorldError::OutOfOrder { id, offset: chunk.offset, sent: moving.sent });
        }
        moving.sent += chunk.len;
        moving.whole = chunk.last.then_some(moving.sent);
        let mut moving = *moving;
        let from = moving.from.tier(to);
        if from == to.tier {
            let end = match moving.from {
                Source::Copy(_) => self.code(self.now, to.tier, &moving),
                Source::Recipe => self.recompute(&moving, chunk.len, chunk.last),
            };
            let tick = Tick::Arrived { id, bytes: chunk.len, queued: Nanos::ZERO };
            self.queue.push(end, Rank::Transfer, tick);
            return Ok(());
        }
        if encode_at == EncodeAt::Source && chunk.offset == Bytes::ZERO {
            moving.encoded = self.code(self.now, from, &moving);
            self.moves.get_mut(id).ok_or(WorldError::NoSuchMove(id))?.encoded = moving.encoded;
        }
        if moving.encoded > self.now {
            self.queue.push(moving.encoded, Rank::Completion, Tick::Encoded { id, bytes: chunk.len });
            return Ok(());
        }
        self.share();
        Ok(self.fabric.submit(self.now, id, from, to.tier, chunk.len)?)
    }

    fn begin_move(&mut self, chunk: &MoveChunk) -> Result<(), WorldError> {
        let &MoveChunk { id, block, from, to, keep, class, encode_at, .. } = chunk;
        let tier = from.tier(to);
        if tier != to.tier && self.paths.between(tier, to.tier).is_none() {
            return Err(NoPath { from: tier, to: to.tier }.into());
        }
        if let Source::Copy(form) = from {
            self.memory.expect(block, form)?;
        }
        for form in std::iter::once(to).chain(keep) {
            self.memory.reserve(block, form)?;
            self.note_level(form.tier);
        }
        let (nothing, encoded) = (Bytes::ZERO, Time(0));
        let (sent, left, arrived, whole) = (nothing, nothing, nothing, None);
        let failed = false;
        let new =
            Moving { block, from, to, keep, class, encode_at, encoded, sent, left, arrived, whole, failed };
        if self.lost.iter().any(|&tier| new.involves(tier)) {
            return Err(WorldError::Lost(id));
        }
        self.moves.insert(id, new);
        Ok(())
    }

    /// A chunk has been encoded: it goes on to its links.
    pub(super) fn encoded(&mut self, id: MoveId, bytes: Bytes) -> Result<(), WorldError> {
        let of_block = self.moves.get(id).map(|moving| (moving.from.tier(moving.to), moving.to.tier));
        let Some((from, to)) = of_block.or_else(|| self.state_way(id)) else { return Ok(()) };
        self.share();
        Ok(self.fabric.submit(self.now, id, from, to, bytes)?)
    }

    /// The last byte of a chunk has left: it arrives a latency later, and with the last chunk the block is decoded.
    pub(super) fn left(&mut self, id: MoveId, (from, to): (TierId, TierId), delivered: &Delivered) {
        let Some(moving) = self.moves.get_mut(id) else { return };
        let &Delivered { bytes, queued, taken_up, .. } = delivered;
        moving.left += bytes;
        let moving = *moving;
        if let (Some(timeline), Some(path)) = (&mut self.timeline, self.paths.between(from, to)) {
            let Moving { block, from, to, class, .. } = moving;
            for &link in &path.links {
                timeline.carried(
                    link,
                    Chunk { id, block, from, to, class, bytes, queued },
                    taken_up,
                    self.now,
                );
            }
        }
        self.memory.carried(from, to, bytes);
        let mut at = self.now + self.latency(from, to);
        if moving.whole == Some(moving.left) && moving.encode_at == EncodeAt::Destination {
            at = self.code(at, to, &moving);
        }
        self.queue.push(at, Rank::Transfer, Tick::Arrived { id, bytes, queued });
    }

    /// The time between a flow's last byte leaving and arriving.
    pub(super) fn latency(&self, from: TierId, to: TierId) -> Nanos {
        self.paths.between(from, to).map_or(Nanos::ZERO, |path| path.latency)
    }

    /// Books the change of a move's format with the processor beside `tier`, from `ready` on; returns when it is done.
    fn code(&mut self, ready: Time, tier: TierId, moving: &Moving) -> Time {
        let Moving { block, from, to, .. } = *moving;
        let native = self.model.block(block).native;
        let before = from.copy().map_or(native, |copy| copy.format);
        let bytes = self.sizes.bytes(block, native);
        match coding_time(&self.machine, tier, bytes, before, to.format) {
            Some(takes) if takes > Nanos::ZERO => self.work(ready, tier, moving, takes),
            _ => ready,
        }
    }

    /// Has the accelerator make a chunk of a block by its recipe, and code the block once it is whole; returns when it is done.
    fn recompute(&mut self, moving: &Moving, made: Bytes, whole: bool) -> Time {
        let Moving { block, to, .. } = *moving;
        let data = self.model.block(block);
        let takes = data.recipe.map_or(Nanos::ZERO, |recipe| recipe.time(&self.machine, data, made));
        let made = self.work(self.now, to.tier, moving, takes);
        if whole { self.code(made, to.tier, moving) } else { made }
    }

    /// Gives the processor beside `tier` something to do from `ready` on, after what it has; returns when it is done.
    fn work(&mut self, ready: Time, tier: TierId, moving: &Moving, takes: Nanos) -> Time {
        let coder = &mut self.coders[usize::from(self.machine.tier(tier).class != Class::Fast)];
        let start = ready.max(*coder);
        *coder = start + takes;
        if let Some(timeline) = &mut self.timeline {
            timeline.coding(moving.block, moving.from, moving.to, start, takes);
        }
        start + takes
    }

    /// A chunk has arrived; `None` if its move was given up meanwhile.
    pub(super) fn arrived(&mut self, id: MoveId, bytes: Bytes, queued: Nanos) -> Option<EventKind> {
        let moving = self.moves.get_mut(id)?;
        moving.arrived += bytes;
        if moving.failed {
            return Some(EventKind::ChunkFailed { id });
        }
        if moving.whole == Some(moving.arrived) {
            let Moving { block, to, keep, .. } = self.moves.remove(id)?;
            for form in std::iter::once(to).chain(keep) {
                self.memory.publish(block, form);
            }
        }
        Some(EventKind::ChunkDone { id, queued })
    }

    /// A memory fails: whatever is on its way from it or to it does not arrive.
    pub(super) fn lose(&mut self, tier: TierId) {
        self.lost.push(tier);
        self.moves.iter_mut().filter(|moving| moving.involves(tier)).for_each(|moving| moving.failed = true);
    }

    /// Gives a move up: its room is free.
    pub(super) fn cancel(&mut self, id: MoveId) -> Result<(), WorldError> {
        let moving = self.moves.remove(id).ok_or(WorldError::NoSuchMove(id))?;
        for form in std::iter::once(moving.to).chain(moving.keep) {
            self.memory.abandon(moving.block, form);
            self.note_level(form.tier);
        }
        Ok(())
    }
}
