//! Checkpoints in virtual time: coded on the side of the accelerator or the host, carried chunk by chunk over the links that blocks
//! move on too, complete when the last chunk is there. Their pools trust no controller: room, completeness and order are checked.

use super::{Tick, World, WorldError};
use crate::fabric::{Delivered, NoPath};
use crate::queue::Rank;
use policy::checkpoints::PoolSpec;
use policy::event::{StateChunk, StateEnd, StateForm};
use policy::state_format::StateFormat;
use policy::under_way::UnderWay;
use policy::{Bytes, CheckpointId, MoveId, Nanos, TierId, Time};
use std::collections::BTreeMap;
use thiserror::Error;

/// A command that a pool cannot obey.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StateError {
    /// A copy is named that is not there, not complete, or in another format.
    #[error("checkpoint {0:?} has no complete copy in tier {1:?} as it is asked for")]
    Absent(CheckpointId, TierId),
    /// A copy is made that is there already.
    #[error("checkpoint {0:?} has a copy in tier {1:?} already")]
    Present(CheckpointId, TierId),
    /// A copy is dropped that a move reads.
    #[error("checkpoint {0:?} is read from tier {1:?}")]
    InUse(CheckpointId, TierId),
    /// The tier has no pool, or it is full.
    #[error("the pool in tier {tier:?} holds {used} of {room}")]
    Full {
        /// The tier.
        tier: TierId,
        /// Bytes that it would hold.
        used: Bytes,
        /// Bytes that it may hold.
        room: Bytes,
    },
}

/// A kept copy.
#[derive(Clone, Copy, Debug)]
struct Kept {
    format: StateFormat,
    bytes: Bytes,
    complete: bool,
}

/// A move under way.
#[derive(Clone, Copy, Debug)]
struct Moving {
    chunk: StateChunk,
    /// When the states are coded, if that happens before the links.
    coded: Time,
    sent: Bytes,
    left: Bytes,
    arrived: Bytes,
    whole: Option<Bytes>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct States {
    /// What each pool may hold, and holds.
    pools: BTreeMap<TierId, (Bytes, Bytes)>,
    kept: BTreeMap<(CheckpointId, TierId), Kept>,
    moves: UnderWay<Moving>,
}

impl States {
    pub(super) fn new<'a>(pools: impl IntoIterator<Item = &'a PoolSpec>) -> States {
        let pools = pools.into_iter().map(|pool| (pool.tier, (pool.room, Bytes::ZERO))).collect();
        States { pools, ..States::default() }
    }

    /// Whether a move is one of states.
    pub(super) fn moves(&self, id: MoveId) -> bool {
        self.moves.get(id).is_some()
    }

    /// Frees a complete copy that nobody reads.
    pub(super) fn free(&mut self, checkpoint: CheckpointId, tier: TierId) -> Result<(), StateError> {
        let place = (checkpoint, tier);
        let reads = |moving: &Moving| {
            let of = moving.chunk.checkpoint == checkpoint;
            of && matches!(moving.chunk.from, StateEnd::Kept(form) if form.tier == tier)
        };
        if self.moves.iter().any(|(_, moving)| reads(moving)) {
            return Err(StateError::InUse(checkpoint, tier));
        }
        match self.kept.get(&place).copied() {
            Some(kept) if kept.complete => {
                self.kept.remove(&place);
                self.take(tier, Bytes::ZERO, kept.bytes)
            }
            _ => Err(StateError::Absent(checkpoint, tier)),
        }
    }

    /// A move begins: what it reads must be complete, what it makes must fit.
    fn begin(&mut self, chunk: &StateChunk, bytes: Bytes) -> Result<(), StateError> {
        let checkpoint = chunk.checkpoint;
        let mut before = None;
        if let StateEnd::Kept(StateForm { tier, format }) = chunk.from {
            let whole =
                self.kept.get(&(checkpoint, tier)).filter(|kept| kept.complete && kept.format == format);
            before = Some((tier, *whole.ok_or(StateError::Absent(checkpoint, tier))?));
        }
        let StateEnd::Kept(StateForm { tier, format }) = chunk.to else { return Ok(()) };
        let replaced = before.filter(|(from, _)| *from == tier).map(|(_, kept)| kept.bytes);
        if replaced.is_none() && self.kept.contains_key(&(checkpoint, tier)) {
            return Err(StateError::Present(checkpoint, tier));
        }
        self.take(tier, bytes, replaced.unwrap_or_default())?;
        self.kept.insert((checkpoint, tier), Kept { format, bytes, complete: false });
        Ok(())
    }

    fn take(&mut self, tier: TierId, more: Bytes, less: Bytes) -> Result<(), StateError> {
        let full = |used, room| StateError::Full { tier, used, room };
        let (room, used) = self.pools.get_mut(&tier).ok_or(full(more, Bytes::ZERO))?;
        *used = used.saturating_sub(less) + more;
        if *used > *room { Err(full(*used, *room)) } else { Ok(()) }
    }
}

impl World {
    /// Starts one chunk of a move of states.
    pub(super) fn begin_state(&mut self, chunk: StateChunk) -> Result<(), WorldError> {
        let StateChunk { id, offset, len, last, .. } = chunk;
        let [from, to] = [chunk.from, chunk.to].map(|end| end.form(self.fast).tier);
        if offset == Bytes::ZERO {
            if from != to && self.paths.between(from, to).is_none() {
                return Err(NoPath { from, to }.into());
            }
            let granularity = self.machine.tier(to).granularity;
            let bytes = self.model.state_bytes(chunk.to.form(self.fast).format).round_up(granularity);
            self.states.begin(&chunk, bytes)?;
            let nothing = Bytes::ZERO;
            let (coded, sent, left, arrived) = (Time(0), nothing, nothing, nothing);
            self.states.moves.insert(id, Moving { chunk, coded, sent, left, arrived, whole: None });
        }
        let moving = self.states.moves.get_mut(id).ok_or(WorldError::NoSuchMove(id))?;
        if moving.sent != offset {
            return Err(WorldError::OutOfOrder { id, offset, sent: moving.sent });
        }
        moving.sent += len;
        moving.whole = last.then_some(moving.sent);
        if from == to {
            let end = self.code_state(self.now, &chunk);
            self.queue.push(end, Rank::Transfer, Tick::Arrived { id, bytes: len, queued: Nanos::ZERO });
            return Ok(());
        }
        let before = chunk.from.form(self.fast).format;
        if offset == Bytes::ZERO && before != chunk.crossing() {
            let coded = self.code_state(self.now, &chunk);
            self.states.moves.get_mut(id).ok_or(WorldError::NoSuchMove(id))?.coded = coded;
        }
        let coded = self.states.moves.get(id).map_or(self.now, |moving| moving.coded);
        if coded > self.now {
            self.queue.push(coded, Rank::Completion, Tick::Encoded { id, bytes: len });
            return Ok(());
        }
        self.share();
        Ok(self.fabric.submit(self.now, id, from, to, len)?)
    }

    /// The ends of a move's way, if it is one of states.
    pub(super) fn state_way(&self, id: MoveId) -> Option<(TierId, TierId)> {
        let moving = self.states.moves.get(id)?;
        Some((moving.chunk.from.form(self.fast).tier, moving.chunk.to.form(self.fast).tier))
    }

    /// The last byte of a chunk has left its links: it arrives a latency later, and with the last chunk the states are expanded where
    /// they are served.
    pub(super) fn state_left(&mut self, id: MoveId, delivered: &Delivered) {
        let Some((from, to)) = self.state_way(id) else { return };
        let Some(moving) = self.states.moves.get_mut(id) else { return };
        let &Delivered { bytes, queued, .. } = delivered;
        moving.left += bytes;
        let Moving { chunk, left, whole, .. } = *moving;
        self.memory.carried(from, to, bytes);
        let mut at = self.now + self.latency(from, to);
        if whole == Some(left) && chunk.crossing() != chunk.to.form(self.fast).format {
            at = self.code_state(at, &chunk);
        }
        self.queue.push(at, Rank::Transfer, Tick::Arrived { id, bytes, queued });
    }

    /// A chunk has arrived; with the last one the copy is complete.
    pub(super) fn state_arrived(&mut self, id: MoveId, bytes: Bytes) -> Option<()> {
        let moving = self.states.moves.get_mut(id)?;
        moving.arrived += bytes;
        if moving.whole == Some(moving.arrived) {
            let StateChunk { checkpoint, to, .. } = moving.chunk;
            self.states.moves.remove(id);
            if let StateEnd::Kept(form) = to {
                self.states.kept.entry((checkpoint, form.tier)).and_modify(|kept| kept.complete = true);
            }
        }
        Some(())
    }

    /// Has the states of a move read in one form and written in the other from `ready` on, by the accelerator where one end is its
    /// memory, else by the host at the pace of its own; returns when that is done.
    fn code_state(&mut self, ready: Time, chunk: &StateChunk) -> Time {
        let [from, to] = [chunk.from, chunk.to].map(|end| end.form(self.fast));
        let bytes = self.model.state_bytes(from.format) + self.model.state_bytes(to.format);
        let by_accelerator = from.tier == self.fast || to.tier == self.fast;
        let takes = if by_accelerator {
            let processor = self.machine.accelerator;
            processor.launch + processor.read.time_for(bytes)
        } else {
            self.machine.tier(from.tier).read.time_for(bytes)
        };
        let coder = &mut self.coders[usize::from(!by_accelerator)];
        *coder = ready.max(*coder) + takes;
        *coder
    }
}
