//! Moves on a device: opened by their first chunk, carried chunk by chunk, published when the last one has been seen.

use super::{Copy, Deed, Device, Held};
use crate::engine::{Change, ChunkReport, Haul, Job, JobError, LaneKind};
use crate::merge::Merge;
use crate::refusal::DeviceError;
use crate::region::Region;
use policy::event::{EncodeAt, Form, MoveChunk, Source};
use policy::units::{Bytes, Nanos};
use policy::{FormatId, MoveId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// A move of which something is still to be submitted, carried or waited for.
pub(super) struct Flight {
    pub(super) first: MoveChunk,
    /// What the chunks need; gone once the last one is submitted or the move is given up.
    pub(super) haul: Option<Arc<Haul>>,
    /// The byte at which the next chunk must begin.
    next: Bytes,
    /// Bytes that cross in all.
    total: Bytes,
    /// Chunks submitted that have not been carried over.
    carried_later: u64,
    /// Chunks carried over that have not been waited for.
    arrived: VecDeque<(Nanos, Result<ChunkReport, JobError>)>,
    /// Real time of the chunks so far.
    took: Nanos,
    given_up: bool,
}

impl Flight {
    /// Nothing more is submitted or waited for.
    fn give_up(&mut self) {
        self.haul = None;
        self.given_up = true;
        self.arrived.clear();
    }
}

impl Flight {
    /// The copies that it makes.
    fn copies(&self) -> Vec<Copy> {
        let MoveChunk { block, to, keep, .. } = self.first;
        std::iter::once(to).chain(keep).map(|form| (block, form)).collect()
    }

    pub(super) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }
}

impl Device {
    /// Waits for the oldest chunk of a move that has not been waited for. After the last one the copy is published. A
    /// chunk that failed ends its move: what was copied is given up, the copy it was read from is untouched.
    pub fn wait(&mut self, id: MoveId) -> Result<ChunkReport, DeviceError> {
        loop {
            let unknown = DeviceError::NoSuchMove { id: id.0 };
            let flight = self.moves.get_mut(&id).filter(|flight| !flight.given_up).ok_or(unknown)?;
            if let Some((ended, arrived)) = flight.arrived.pop_front() {
                let copies = flight.copies();
                if arrived.is_err() {
                    flight.give_up();
                    copies.iter().try_for_each(|&copy| self.release(copy))?;
                }
                self.clock.see(ended, self.computing.iter().all(VecDeque::is_empty));
                self.forget_if_over(id);
                return self.publish(&copies, arrived);
            }
            if flight.carried_later == 0 {
                return Err(DeviceError::NoSuchMove { id: id.0 });
            }
            self.next(None)?;
        }
    }

    /// Starts one chunk of a move. A first chunk that is refused leaves nothing behind.
    pub(super) fn carry(&mut self, chunk: &MoveChunk) -> Result<(), DeviceError> {
        let first = !self.moves.contains_key(&chunk.id);
        if first {
            let flight = self.open(chunk)?;
            self.moves.insert(chunk.id, flight);
        }
        let carried = self.carry_on(chunk);
        if carried.is_err() && first {
            self.give_up(chunk.id)?;
        }
        carried
    }

    fn carry_on(&mut self, chunk: &MoveChunk) -> Result<(), DeviceError> {
        let refuse = |why| Err(DeviceError::Chunk { id: chunk.id.0, why });
        let Some(flight) = self.moves.get_mut(&chunk.id) else { return refuse("it is not under way") };
        let Some(haul) = flight.haul.clone() else { return refuse("its last chunk has been submitted") };
        let first = &flight.first;
        if (chunk.block, chunk.from, chunk.to, chunk.keep, chunk.encode_at)
            != (first.block, first.from, first.to, first.keep, first.encode_at)
        {
            return refuse("block, forms or place of the encode differ from its first chunk");
        }
        let end = chunk.offset + chunk.len;
        if chunk.offset != flight.next || end > flight.total || chunk.last != (end == flight.total) {
            return refuse("chunks follow each other without gaps, and the last one ends with the copy");
        }
        flight.next = end;
        flight.carried_later += 1;
        if chunk.last {
            flight.haul = None;
        }
        self.under_way += 1;
        let (from, to) = (chunk.from.tier(chunk.to), chunk.to.tier);
        let kind = LaneKind::Copy { from, to };
        self.clock.submit(kind, Deed::Chunk(*chunk));
        let job = Job::Chunk { haul, offset: chunk.offset, len: chunk.len, last: chunk.last };
        let lane = self.lanes.get(&(from, to));
        if lane.is_some_and(|lane| lane.submit(job)) { Ok(()) } else { Err(DeviceError::LaneDied) }
    }

    /// Checks the first chunk of a move and takes the memory of its copy.
    fn open(&mut self, chunk: &MoveChunk) -> Result<Flight, DeviceError> {
        self.check_names(chunk.block, chunk.to)?;
        let target = (chunk.block, chunk.to);
        let (from, to) = (chunk.from.tier(chunk.to), chunk.to.tier);
        if chunk.offset != Bytes::ZERO {
            return Err(DeviceError::Chunk {
                id: chunk.id.0,
                why: "it is the first, and does not begin at byte 0",
            });
        }
        if !self.lanes.contains_key(&(from, to)) {
            return Err(DeviceError::NoLink { from, to });
        }
        let (source, recipe) = self.material(chunk)?;
        if self.copies.contains_key(&target) {
            return Err(DeviceError::Exists { id: chunk.id.0, copy: self.name_of(target) });
        }
        let block = self.contents.block(chunk.block);
        let before = chunk.from.copy().map_or(block.native, |form| form.format);
        let change = match (chunk.encode_at, chunk.from) {
            _ if before == chunk.to.format => Change::Nowhere,
            (_, Source::Copy(form)) if !before.keeps(block.native) => {
                let copy = self.name_of((chunk.block, form));
                return Err(DeviceError::LossySource { id: chunk.id.0, copy });
            }
            (EncodeAt::Source, Source::Copy(_)) => Change::BeforeLink,
            _ => Change::AfterLink,
        };
        let size = block.bytes(chunk.to.format);
        let total = if change == Change::AfterLink { block.bytes(before) } else { size };
        let slot = self.allocate(to, size)?;
        let kept = match chunk.keep {
            Some(keep) => Some(self.open_kept(chunk, keep, before).inspect_err(|_| self.free(to, slot))?),
            None => None,
        };
        let (source, origin) = match kept {
            Some(kept) => (kept, Some(source)),
            None => (source, None),
        };
        let haul = Haul {
            id: chunk.id,
            block: chunk.block,
            before,
            to: chunk.to,
            change,
            source,
            origin,
            recipe,
            target: self.arenas[to.index()].region(slot)?,
            staging: Mutex::default(),
        };
        self.copies.insert(target, Held { slot, published: false });
        Ok(Flight {
            first: *chunk,
            haul: Some(Arc::new(haul)),
            next: Bytes::ZERO,
            total,
            carried_later: 0,
            arrived: VecDeque::new(),
            took: Nanos::ZERO,
            given_up: false,
        })
    }

    /// Takes the memory of a copy that is kept in passing: in the format in which the bytes pass.
    fn open_kept(
        &mut self,
        chunk: &MoveChunk,
        keep: Form,
        passing: FormatId,
    ) -> Result<Arc<Region>, DeviceError> {
        self.check_names(chunk.block, keep)?;
        let copy = (chunk.block, keep);
        if self.copies.contains_key(&copy) {
            return Err(DeviceError::Exists { id: chunk.id.0, copy: self.name_of(copy) });
        }
        if keep.format != passing || chunk.from.copy().is_none() {
            let why = "what is kept in passing has the format in which it passes";
            return Err(DeviceError::Chunk { id: chunk.id.0, why });
        }
        let slot = self.allocate(keep.tier, self.contents.block(chunk.block).bytes(keep.format))?;
        let region = self.arenas[keep.tier.index()].region(slot)?;
        self.copies.insert(copy, Held { slot, published: false });
        Ok(region)
    }

    /// What the copy of a first chunk is made of.
    fn material(&self, chunk: &MoveChunk) -> Result<(Arc<Region>, Option<Merge>), DeviceError> {
        let made = match chunk.from {
            Source::Copy(form) => return Ok((self.readable("move", (chunk.block, form))?, None)),
            Source::Recipe => self.recipes.of(&self.contents, chunk.block, chunk.to.tier),
        };
        let refused =
            DeviceError::Chunk { id: chunk.id.0, why: "no recipe of its block is followed in that tier" };
        made.map(|merge| (merge.base.clone(), Some(merge))).ok_or(refused)
    }

    pub(super) fn give_up(&mut self, id: MoveId) -> Result<(), DeviceError> {
        let open = |flight: &Flight| flight.haul.is_some();
        match self.moves.get(&id).is_some_and(open) {
            true => self.abandon(id),
            false => Err(DeviceError::NoSuchMove { id: id.0 }),
        }
    }

    fn abandon(&mut self, id: MoveId) -> Result<(), DeviceError> {
        let flight = self.moves.get_mut(&id).ok_or(DeviceError::NoSuchMove { id: id.0 })?;
        flight.give_up();
        let copies = flight.copies();
        self.forget_if_over(id);
        copies.into_iter().try_for_each(|copy| self.release(copy))
    }

    /// Takes the oldest chunk that has not been waited for as lost, though it may have been carried over: its move is given up.
    pub fn fail(&mut self, id: MoveId) -> Result<(), DeviceError> {
        loop {
            let unknown = DeviceError::NoSuchMove { id: id.0 };
            let flight = self.moves.get_mut(&id).filter(|flight| !flight.given_up).ok_or(unknown)?;
            if let Some((ended, _)) = flight.arrived.pop_front() {
                self.clock.see(ended, self.computing.iter().all(VecDeque::is_empty));
                return self.abandon(id);
            }
            self.next(None)?;
        }
    }

    /// Books a chunk that has been carried over; false if its move was given up meanwhile.
    pub(super) fn arrive(&mut self, id: MoveId, arrived: Result<ChunkReport, JobError>) -> bool {
        let Some(flight) = self.moves.get_mut(&id) else { return false };
        flight.carried_later -= 1;
        let took = arrived.as_ref().ok().map(|report| report.took);
        let link = (flight.first.from.tier(flight.first.to), flight.first.to.tier);
        let lane = LaneKind::Copy { from: link.0, to: link.1 };
        let ended = self.clock.done(lane, took);
        if let Ok(report) = &arrived {
            *self.totals.bytes_moved.entry(link).or_default() += report.bytes;
            flight.took += report.took;
            if report.published.is_some() {
                self.totals.moves += 1;
                let bound = flight.took.0.checked_next_power_of_two().unwrap_or(u64::MAX);
                *self.totals.real_move_ns.entry(bound).or_default() += 1;
            }
        }
        let awaited = !flight.given_up;
        if awaited {
            flight.arrived.push_back((ended, arrived));
        }
        self.forget_if_over(id);
        awaited
    }

    /// Forgets a move of which nothing is left to be submitted, carried or waited for.
    fn forget_if_over(&mut self, id: MoveId) {
        let over =
            |flight: &Flight| flight.haul.is_none() && flight.carried_later == 0 && flight.arrived.is_empty();
        if self.moves.get(&id).is_some_and(over) {
            self.moves.remove(&id);
        }
    }

    /// Shows an arrived chunk to the caller; the last one publishes its copy.
    fn publish(
        &mut self,
        copies: &[Copy],
        arrived: Result<ChunkReport, JobError>,
    ) -> Result<ChunkReport, DeviceError> {
        let report = arrived.map_err(|error| self.count(error))?;
        if report.published.is_some() {
            self.totals.verified_copies += 1;
            for copy in copies {
                if let Some(held) = self.copies.get_mut(copy) {
                    held.published = true;
                }
            }
        }
        Ok(report)
    }
}
