//! Moves on a device: opened by their first chunk, carried chunk by chunk, published when the last one has been seen.

use super::{Copy, Deed, Device, Held};
use crate::cargo::Cargo;
use crate::engine::{Change, ChunkReport, Haul, Job, JobError, LaneKind};
use crate::merge::Merge;
use crate::refusal::DeviceError;
use crate::region::Region;
use policy::event::{EncodeAt, Form, MoveChunk, Source, StateChunk, StateEnd};
use policy::units::{Bytes, Nanos};
use policy::{BlockId, CheckpointId, FormatId, MoveId, TierId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// What a move is, the same in all of its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Of a block.
    Block(OfBlock),
    /// Of a checkpoint: which, what is read, and what is made.
    State(CheckpointId, StateEnd, StateEnd),
}

/// A move of a block: which, what it is made of, the copy that is made, the one that is kept in passing, and where its format changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OfBlock {
    pub(super) block: BlockId,
    pub(super) from: Source,
    to: Form,
    keep: Option<Form>,
    encode_at: EncodeAt,
}

impl OfBlock {
    /// The copies that it makes.
    fn copies(&self) -> impl Iterator<Item = Copy> + use<> {
        let block = self.block;
        std::iter::once(self.to).chain(self.keep).map(move |form| (block, form))
    }
}

/// A chunk of a move of either kind.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    id: MoveId,
    what: What,
    /// Where from and where to.
    way: (TierId, TierId),
    offset: Bytes,
    len: Bytes,
    last: bool,
    deed: Deed,
}

impl Piece {
    pub(super) fn of_block(chunk: &MoveChunk) -> Piece {
        let &MoveChunk { id, block, from, to, keep, encode_at, offset, len, last, .. } = chunk;
        let what = What::Block(OfBlock { block, from, to, keep, encode_at });
        let way = (from.tier(to), to.tier);
        Piece { id, what, way, offset, len, last, deed: Deed::Chunk(*chunk) }
    }

    pub(super) fn id(&self) -> MoveId {
        self.id
    }

    /// `fast` is the memory that compute reads.
    pub(super) fn of_state(chunk: &StateChunk, fast: TierId) -> Piece {
        let &StateChunk { id, checkpoint, from, to, offset, len, last, .. } = chunk;
        let way = (from.form(fast).tier, to.form(fast).tier);
        Piece {
            id,
            what: What::State(checkpoint, from, to),
            way,
            offset,
            len,
            last,
            deed: Deed::State(*chunk),
        }
    }
}

/// A move of which something is still to be submitted, carried or waited for.
pub(super) struct Flight {
    pub(super) id: MoveId,
    pub(super) what: What,
    way: (TierId, TierId),
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
    /// A move of which nothing has been submitted.
    pub(super) fn new(piece: &Piece, haul: Haul, total: Bytes) -> Flight {
        Flight {
            id: piece.id,
            what: piece.what,
            way: piece.way,
            haul: Some(Arc::new(haul)),
            next: Bytes::ZERO,
            total,
            carried_later: 0,
            arrived: VecDeque::new(),
            took: Nanos::ZERO,
            given_up: false,
        }
    }

    /// Nothing more is submitted or waited for.
    fn give_up(&mut self) {
        self.haul = None;
        self.given_up = true;
        self.arrived.clear();
    }
}

impl Flight {
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
                let what = flight.what;
                if arrived.is_err() {
                    flight.give_up();
                    self.release_made(id, what)?;
                }
                self.clock.see(ended, self.streams.iter().all(|stream| stream.computing.is_empty()));
                self.forget_if_over(id);
                return self.publish(id, what, arrived);
            }
            if flight.carried_later == 0 {
                return Err(DeviceError::NoSuchMove { id: id.0 });
            }
            self.next(None)?;
        }
    }

    /// Starts one chunk of a move. A first chunk that is refused leaves nothing behind.
    pub(super) fn carry(&mut self, piece: &Piece) -> Result<(), DeviceError> {
        let first = !self.moves.contains_key(&piece.id);
        if first {
            let flight = self.open(piece)?;
            self.moves.insert(piece.id, flight);
        }
        let carried = self.carry_on(piece);
        if carried.is_err() && first {
            self.give_up(piece.id)?;
        }
        carried
    }

    fn carry_on(&mut self, piece: &Piece) -> Result<(), DeviceError> {
        let refuse = |why| Err(DeviceError::Chunk { id: piece.id.0, why });
        let Some(flight) = self.moves.get_mut(&piece.id) else { return refuse("it is not under way") };
        let Some(haul) = flight.haul.clone() else { return refuse("its last chunk has been submitted") };
        if piece.what != flight.what {
            return refuse("block, forms or place of the encode differ from its first chunk");
        }
        let end = piece.offset + piece.len;
        if piece.offset != flight.next || end > flight.total || piece.last != (end == flight.total) {
            return refuse("chunks follow each other without gaps, and the last one ends with the copy");
        }
        flight.next = end;
        flight.carried_later += 1;
        if piece.last {
            flight.haul = None;
        }
        self.under_way += 1;
        let (from, to) = piece.way;
        self.clock.submit(LaneKind::Copy { from, to }, piece.deed);
        let job = Job::Chunk { haul, offset: piece.offset, len: piece.len, last: piece.last };
        let lane = self.lanes.get(&(from, to));
        if lane.is_some_and(|lane| lane.submit(job)) { Ok(()) } else { Err(DeviceError::LaneDied) }
    }

    /// Checks the first chunk of a move and takes the memory of its copy.
    fn open(&mut self, piece: &Piece) -> Result<Flight, DeviceError> {
        let (from, to) = piece.way;
        if piece.offset != Bytes::ZERO {
            let why = "it is the first, and does not begin at byte 0";
            return Err(DeviceError::Chunk { id: piece.id.0, why });
        }
        if let What::Block(OfBlock { block, to, .. }) = piece.what {
            self.check_names(block, to)?;
        }
        if !self.lanes.contains_key(&(from, to)) {
            return Err(DeviceError::NoLink { from, to });
        }
        match piece.what {
            What::Block(of) => self.open_block(piece, of),
            What::State(checkpoint, from, to) => self.open_state(piece, checkpoint, (from, to)),
        }
    }

    fn open_block(&mut self, piece: &Piece, of: OfBlock) -> Result<Flight, DeviceError> {
        let OfBlock { block: id, from, to, keep, encode_at } = of;
        let target = (id, to);
        let (source, recipe) = self.material(piece.id, target, from)?;
        if self.copies.contains_key(&target) {
            return Err(DeviceError::Exists { id: piece.id.0, copy: self.name_of(target) });
        }
        let block = self.contents.block(id);
        let before = from.copy().map_or(block.native, |form| form.format);
        let change = match (encode_at, from) {
            _ if before == to.format => Change::Nowhere,
            (_, Source::Copy(form)) if !before.keeps(block.native) => {
                let copy = self.name_of((id, form));
                return Err(DeviceError::LossySource { id: piece.id.0, copy });
            }
            (EncodeAt::Source, Source::Copy(_)) => Change::BeforeLink,
            _ => Change::AfterLink,
        };
        let size = block.bytes(to.format);
        let total = if change == Change::AfterLink { block.bytes(before) } else { size };
        let slot = self.allocate(to.tier, size)?;
        let kept = match keep {
            Some(keep) => {
                let opened = self.open_kept(piece.id, &of, keep, before);
                Some(opened.inspect_err(|_| self.free(to.tier, slot))?)
            }
            None => None,
        };
        let (source, origin) = match kept {
            Some(kept) => (kept, Some(source)),
            None => (source, None),
        };
        let haul = Haul {
            id: piece.id,
            cargo: Cargo::Block { block: id, before, to },
            change,
            source,
            origin,
            recipe,
            target: self.arenas[to.tier.index()].region(slot)?,
            staging: Mutex::default(),
        };
        self.copies.insert(target, Held { slot, published: false });
        Ok(Flight::new(piece, haul, total))
    }

    /// Takes the memory of a copy that is kept in passing: in the format in which the bytes pass.
    fn open_kept(
        &mut self,
        id: MoveId,
        of: &OfBlock,
        keep: Form,
        passing: FormatId,
    ) -> Result<Arc<Region>, DeviceError> {
        self.check_names(of.block, keep)?;
        let copy = (of.block, keep);
        if self.copies.contains_key(&copy) {
            return Err(DeviceError::Exists { id: id.0, copy: self.name_of(copy) });
        }
        if keep.format != passing || of.from.copy().is_none() {
            let why = "what is kept in passing has the format in which it passes";
            return Err(DeviceError::Chunk { id: id.0, why });
        }
        let slot = self.allocate(keep.tier, self.contents.block(of.block).bytes(keep.format))?;
        let region = self.arenas[keep.tier.index()].region(slot)?;
        self.copies.insert(copy, Held { slot, published: false });
        Ok(region)
    }

    /// What the copy of a move is made of.
    fn material(
        &self,
        id: MoveId,
        (block, to): Copy,
        from: Source,
    ) -> Result<(Arc<Region>, Option<Merge>), DeviceError> {
        let made = match from {
            Source::Copy(form) => return Ok((self.readable("move", (block, form))?, None)),
            Source::Recipe => self.recipes.of(&self.contents, block, to.tier),
        };
        let refused = DeviceError::Chunk { id: id.0, why: "no recipe of its block is followed in that tier" };
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
        let what = flight.what;
        self.forget_if_over(id);
        self.release_made(id, what)
    }

    /// Takes the oldest chunk that has not been waited for as lost, though it may have been carried over: its move is given up.
    pub fn fail(&mut self, id: MoveId) -> Result<(), DeviceError> {
        loop {
            let unknown = DeviceError::NoSuchMove { id: id.0 };
            let flight = self.moves.get_mut(&id).filter(|flight| !flight.given_up).ok_or(unknown)?;
            if let Some((ended, _)) = flight.arrived.pop_front() {
                self.clock.see(ended, self.streams.iter().all(|stream| stream.computing.is_empty()));
                return self.abandon(id);
            }
            self.next(None)?;
        }
    }

    /// Frees what a move was making.
    fn release_made(&mut self, id: MoveId, what: What) -> Result<(), DeviceError> {
        match what {
            What::Block(of) => of.copies().try_for_each(|copy| self.release(copy)),
            What::State(checkpoint, _, to) => self.states.give_up(id, checkpoint, to),
        }
    }

    /// Books a chunk that has been carried over; false if its move was given up meanwhile.
    pub(super) fn arrive(&mut self, id: MoveId, arrived: Result<ChunkReport, JobError>) -> bool {
        let Some(flight) = self.moves.get_mut(&id) else { return false };
        flight.carried_later -= 1;
        let took = arrived.as_ref().ok().map(|report| report.took);
        let link = flight.way;
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
        id: MoveId,
        what: What,
        arrived: Result<ChunkReport, JobError>,
    ) -> Result<ChunkReport, DeviceError> {
        let report = arrived.map_err(|error| self.count(error))?;
        if report.published.is_some() {
            self.totals.verified_copies += 1;
            match what {
                What::Block(of) => {
                    for copy in of.copies() {
                        if let Some(held) = self.copies.get_mut(&copy) {
                            held.published = true;
                        }
                    }
                }
                What::State(checkpoint, _, to) => self.states.publish(id, checkpoint, to)?,
            }
        }
        Ok(report)
    }
}
