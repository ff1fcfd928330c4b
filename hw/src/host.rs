//! The host as a device: an arena for every tier, a lane for every path, one for changes of format within
//! each tier, one for compute. Commands are checked when they are submitted, carried out by the lanes, and seen when
//! they are waited for: a copy is published when its last chunk has been waited for, not before.

use crate::arena::{Arena, SlotId};
use crate::content::Contents;
use crate::lane::{Change, ChunkReport, ComputeReport, Done, Haul, Job, JobError, Lane, check};
use crate::refusal::{CopyName, HostError};
use crate::region::Region;
use policy::event::{Command, EncodeAt, Form, MoveChunk, Part, Read};
use policy::format::FORMATS;
use policy::units::{Bytes, Nanos};
use policy::{BlockId, LayerId, Machine, Model, MoveId, Paths, TierId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

/// What a device has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Moves whose last chunk was carried over.
    pub moves: u64,
    /// Bytes carried from one tier to another, those of moves given up included.
    pub bytes_moved: BTreeMap<(TierId, TierId), Bytes>,
    /// Compute commands done.
    pub computes: u64,
    /// Copies dropped.
    pub drops: u64,
    /// Times the bytes of a copy were compared with its block and found right: when published and in the last audit.
    pub verified_copies: u64,
    /// Times the bytes of a copy were found wrong.
    pub mismatches: u64,
    /// Moves by the real time they took on their lanes: the key is its upper bound, a power of two of nanoseconds.
    pub real_move_ns: BTreeMap<u64, u64>,
}

type Copy = (BlockId, Form);

/// Compute commands run in order on one of two streams: the accelerator's, and the host's own.
pub(crate) fn stream_of(part: Part) -> usize {
    usize::from(part == Part::Host)
}

struct Held {
    slot: SlotId,
    published: bool,
}

/// A move of which something is still to be submitted, carried or waited for.
struct Flight {
    first: MoveChunk,
    /// What the chunks need; gone once the last one is submitted or the move is given up.
    haul: Option<Arc<Haul>>,
    /// The byte at which the next chunk must begin.
    next: Bytes,
    /// Bytes that cross in all.
    total: Bytes,
    /// Chunks submitted that have not been carried over.
    carried_later: u64,
    /// Chunks carried over that have not been waited for.
    arrived: VecDeque<Result<ChunkReport, JobError>>,
    /// Real time of the chunks so far.
    took: Nanos,
    given_up: bool,
}

/// A machine's memories, links and compute, on this host.
pub struct HostDevice {
    tiers: Vec<String>,
    contents: Arc<Contents>,
    arenas: Vec<Arena>,
    copies: BTreeMap<Copy, Held>,
    moves: BTreeMap<MoveId, Flight>,
    /// The copies that each compute command reads, until it has been waited for.
    computing: [VecDeque<BTreeSet<Copy>>; 2],
    computed: [VecDeque<Result<ComputeReport, JobError>>; 2],
    lanes: BTreeMap<(TierId, TierId), Lane>,
    /// The accelerator's stream, and the host's own.
    compute: [Lane; 2],
    done: Receiver<Done>,
    /// Jobs that the lanes have not reported on.
    under_way: u64,
    totals: Totals,
}

impl HostDevice {
    /// Sets aside the machine's memories, tiers of files in `folder`, and writes the copies that exist before the run:
    /// each block's home copy, and those encoded ahead. `seed` decides what the blocks contain.
    pub fn new(
        machine: &Machine,
        model: &Model,
        copies: &[(BlockId, Form)],
        seed: u64,
        folder: &Path,
    ) -> Result<HostDevice, HostError> {
        let contents = Arc::new(Contents::new(model, seed));
        let (report, done) = channel();
        let lane =
            |name: String| Lane::spawn(name, contents.clone(), report.clone()).map_err(HostError::Thread);
        let within = (0..machine.tiers.len() as u8).map(|tier| (TierId(tier), TierId(tier)));
        let paths = Paths::new(machine);
        let between = paths.iter().map(|path| (path.from, path.to));
        let mut lanes = BTreeMap::new();
        for (from, to) in within.chain(between) {
            lanes.insert((from, to), lane(format!("lane-{}-{}", from.0, to.0))?);
        }
        let arenas = machine.tiers.iter().map(|tier| Arena::new(tier, folder));
        let mut device = HostDevice {
            tiers: machine.tiers.iter().map(|tier| tier.name.clone()).collect(),
            arenas: arenas.collect::<Result<_, _>>()?,
            copies: BTreeMap::new(),
            moves: BTreeMap::new(),
            computing: Default::default(),
            computed: Default::default(),
            compute: [lane("lane-compute".into())?, lane("lane-host-compute".into())?],
            lanes,
            done,
            under_way: 0,
            totals: Totals::default(),
            contents,
        };
        for (block, form) in copies {
            device.materialise(*block, *form)?;
        }
        Ok(device)
    }

    /// Checks a command and starts it. Waits only where it needs memory that a job is still using.
    pub fn submit(&mut self, command: &Command) -> Result<(), HostError> {
        match command {
            Command::Move(chunk) => self.carry(chunk),
            Command::Drop { block, form } => self.drop_copy((*block, *form)),
            Command::Cancel { id } => self.give_up(*id),
            Command::Compute { layer, part, reads, .. } => self.start_compute(*layer, *part, reads),
            // Requests have no memory of their own here.
            Command::Finish { .. } => Ok(()),
        }
    }

    /// Waits for the oldest chunk of a move that has not been waited for. After the last one the copy is published.
    pub fn wait(&mut self, id: MoveId) -> Result<ChunkReport, HostError> {
        loop {
            let unknown = HostError::NoSuchMove { id: id.0 };
            let flight = self.moves.get_mut(&id).filter(|flight| !flight.given_up).ok_or(unknown)?;
            if let Some(arrived) = flight.arrived.pop_front() {
                let copy = (flight.first.block, flight.first.to);
                self.forget_if_over(id);
                return self.see(copy, arrived);
            }
            if flight.carried_later == 0 {
                return Err(HostError::NoSuchMove { id: id.0 });
            }
            self.collect()?;
        }
    }

    /// Waits for the oldest compute command that has not been waited for, of those that run where `part` does.
    pub fn wait_compute(&mut self, part: Part) -> Result<ComputeReport, HostError> {
        let stream = stream_of(part);
        while self.computed[stream].is_empty() {
            if self.computing[stream].is_empty() {
                return Err(HostError::NoCompute);
            }
            self.collect()?;
        }
        self.computing[stream].pop_front();
        let computed = self.computed[stream].pop_front().ok_or(HostError::NoCompute)?;
        computed.map_err(|error| self.count(error))
    }

    /// Waits until the lanes are idle, then compares the bytes of every published copy with its block. Returns the
    /// published copies.
    pub fn audit(&mut self) -> Result<BTreeSet<(BlockId, Form)>, HostError> {
        while self.under_way > 0 {
            self.collect()?;
        }
        let published: Vec<Copy> = self.published().collect();
        for (block, form) in &published {
            let region = self.readable("audit", (*block, *form))?;
            check(&self.contents, *block, *form, &region).map_err(|error| self.count(error))?;
            self.totals.verified_copies += 1;
        }
        Ok(published.into_iter().collect())
    }

    /// What has been done so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The copies that can be read.
    pub fn published(&self) -> impl Iterator<Item = (BlockId, Form)> + '_ {
        self.copies.iter().filter(|(_, held)| held.published).map(|(copy, _)| *copy)
    }

    /// Bytes that a tier's slots take.
    pub fn held(&self, tier: TierId) -> Option<Bytes> {
        self.arenas.get(tier.index()).map(Arena::held)
    }

    fn materialise(&mut self, block: BlockId, form: Form) -> Result<(), HostError> {
        self.check_names(block, form)?;
        let copy = (block, form);
        if self.copies.contains_key(&copy) {
            return Err(HostError::Exists { id: 0, copy: self.name(copy) });
        }
        let failed = |source| JobError::Codec { block: block.0, form, source };
        let bytes = self.contents.bytes(block, form.format).map_err(failed)?;
        let arena = &mut self.arenas[form.tier.index()];
        let slot = arena.allocate(Bytes(bytes.len() as u64))?;
        arena.region(slot)?.write_at(0, &bytes)?;
        self.copies.insert(copy, Held { slot, published: true });
        Ok(())
    }

    /// Starts one chunk of a move.
    fn carry(&mut self, chunk: &MoveChunk) -> Result<(), HostError> {
        if !self.moves.contains_key(&chunk.id) {
            let flight = self.open(chunk)?;
            self.moves.insert(chunk.id, flight);
        }
        let refuse = |why| Err(HostError::Chunk { id: chunk.id.0, why });
        let Some(flight) = self.moves.get_mut(&chunk.id) else { return refuse("it is not under way") };
        let Some(haul) = flight.haul.clone() else { return refuse("its last chunk has been submitted") };
        let first = &flight.first;
        if (chunk.block, chunk.from, chunk.to, chunk.encode_at)
            != (first.block, first.from, first.to, first.encode_at)
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
        let job = Job::Chunk { haul, offset: chunk.offset.0, len: chunk.len.0, last: chunk.last };
        let lane = self.lanes.get(&(chunk.from.tier, chunk.to.tier));
        if lane.is_some_and(|lane| lane.submit(job)) { Ok(()) } else { Err(HostError::LaneDied) }
    }

    /// Checks the first chunk of a move and takes the memory of its copy.
    fn open(&mut self, chunk: &MoveChunk) -> Result<Flight, HostError> {
        self.check_names(chunk.block, chunk.to)?;
        let (source, target) = ((chunk.block, chunk.from), (chunk.block, chunk.to));
        let (from, to) = (chunk.from.tier, chunk.to.tier);
        if chunk.offset != Bytes::ZERO {
            return Err(HostError::Chunk {
                id: chunk.id.0,
                why: "it is the first, and does not begin at byte 0",
            });
        }
        if !self.lanes.contains_key(&(from, to)) {
            return Err(HostError::NoLink { from, to });
        }
        let read_from = self.readable("move", source)?;
        if self.copies.contains_key(&target) {
            return Err(HostError::Exists { id: chunk.id.0, copy: self.name(target) });
        }
        let block = self.contents.block(chunk.block);
        let change = match chunk.encode_at {
            _ if chunk.from.format == chunk.to.format => Change::Nowhere,
            _ if !chunk.from.format.keeps(block.native) => {
                return Err(HostError::LossySource { id: chunk.id.0, copy: self.name(source) });
            }
            EncodeAt::Source => Change::BeforeLink,
            EncodeAt::Destination => Change::AfterLink,
        };
        let size = block.bytes(chunk.to.format);
        let total = if change == Change::AfterLink { block.bytes(chunk.from.format) } else { size };
        let arena = &mut self.arenas[to.index()];
        let slot = arena.allocate(size)?;
        let haul = Haul {
            id: chunk.id,
            block: chunk.block,
            from: chunk.from,
            to: chunk.to,
            change,
            source: read_from,
            target: arena.region(slot)?,
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

    fn drop_copy(&mut self, copy: Copy) -> Result<(), HostError> {
        let in_use = |reader| HostError::InUse { copy: self.name(copy), reader };
        self.readable("drop", copy)?;
        if self.computing.iter().flatten().any(|reads| reads.contains(&copy)) {
            return Err(in_use("a compute command".into()));
        }
        let reads =
            |flight: &&Flight| flight.haul.is_some() && (flight.first.block, flight.first.from) == copy;
        if let Some(flight) = self.moves.values().find(reads) {
            return Err(in_use(format!("move {}", flight.first.id.0)));
        }
        let native = self.contents.block(copy.0).native;
        let whole = |other: Copy| other.0 == copy.0 && other.1.format.keeps(native);
        if whole(copy) && !self.published().any(|other| other != copy && whole(other)) {
            return Err(HostError::LastCopy { copy: self.name(copy) });
        }
        self.release(copy)?;
        self.totals.drops += 1;
        Ok(())
    }

    fn give_up(&mut self, id: MoveId) -> Result<(), HostError> {
        let open = |flight: &&mut Flight| flight.haul.is_some();
        let flight = self.moves.get_mut(&id).filter(open).ok_or(HostError::NoSuchMove { id: id.0 })?;
        flight.haul = None;
        flight.given_up = true;
        flight.arrived.clear();
        let copy = (flight.first.block, flight.first.to);
        self.forget_if_over(id);
        self.release(copy)
    }

    fn start_compute(&mut self, layer: LayerId, part: Part, reads: &[Read]) -> Result<(), HostError> {
        let mut regions = Vec::with_capacity(reads.len());
        for read in reads {
            regions.push((read.block, read.form, self.readable("compute", (read.block, read.form))?));
        }
        let stream = stream_of(part);
        self.computing[stream].push_back(reads.iter().map(|read| (read.block, read.form)).collect());
        self.under_way += 1;
        let job = Job::Compute { layer, part, reads: regions };
        if self.compute[stream].submit(job) { Ok(()) } else { Err(HostError::LaneDied) }
    }

    /// Takes in one report of a lane.
    fn collect(&mut self) -> Result<(), HostError> {
        let done = self.done.recv().map_err(|_| HostError::LaneDied)?;
        self.under_way -= 1;
        match done {
            Done::Compute(part, computed) => {
                self.totals.computes += 1;
                self.computed[stream_of(part)].push_back(computed);
            }
            Done::Chunk(id, arrived) => self.arrive(id, arrived),
        }
        Ok(())
    }

    fn arrive(&mut self, id: MoveId, arrived: Result<ChunkReport, JobError>) {
        let Some(flight) = self.moves.get_mut(&id) else { return };
        flight.carried_later -= 1;
        if let Ok(report) = &arrived {
            let link = (flight.first.from.tier, flight.first.to.tier);
            *self.totals.bytes_moved.entry(link).or_default() += report.bytes;
            flight.took += report.took;
            if report.published.is_some() {
                self.totals.moves += 1;
                let bound = flight.took.0.checked_next_power_of_two().unwrap_or(u64::MAX);
                *self.totals.real_move_ns.entry(bound).or_default() += 1;
            }
        }
        if !flight.given_up {
            flight.arrived.push_back(arrived);
        }
        self.forget_if_over(id);
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
    fn see(&mut self, copy: Copy, arrived: Result<ChunkReport, JobError>) -> Result<ChunkReport, HostError> {
        let report = arrived.map_err(|error| self.count(error))?;
        if report.published.is_some() {
            self.totals.verified_copies += 1;
            if let Some(held) = self.copies.get_mut(&copy) {
                held.published = true;
            }
        }
        Ok(report)
    }

    fn count(&mut self, error: JobError) -> HostError {
        if matches!(error, JobError::Mismatch { .. }) {
            self.totals.mismatches += 1;
        }
        error.into()
    }

    fn release(&mut self, copy: Copy) -> Result<(), HostError> {
        match self.copies.remove(&copy) {
            Some(held) => Ok(self.arenas[copy.1.tier.index()].free(held.slot)?),
            None => Ok(()),
        }
    }

    /// The bytes of a published copy.
    fn readable(&self, command: &'static str, copy: Copy) -> Result<Arc<Region>, HostError> {
        self.check_names(copy.0, copy.1)?;
        match self.copies.get(&copy) {
            Some(held) if held.published => Ok(self.arenas[copy.1.tier.index()].region(held.slot)?),
            _ => Err(HostError::NotPublished { command, copy: self.name(copy) }),
        }
    }

    fn check_names(&self, block: BlockId, form: Form) -> Result<(), HostError> {
        let unknown = |what, number| Err(HostError::Unknown { what, number });
        match (self.contents.blocks(), self.tiers.len(), FORMATS.len()) {
            (blocks, ..) if block.index() >= blocks => unknown("block", block.0.into()),
            (_, tiers, _) if form.tier.index() >= tiers => unknown("tier", form.tier.0.into()),
            (.., formats) if form.format.0 as usize >= formats => unknown("format", form.format.0.into()),
            _ => Ok(()),
        }
    }

    fn name(&self, (block, form): Copy) -> CopyName {
        let tier = self.tiers.get(form.tier.index()).cloned().unwrap_or_default();
        CopyName { block, form, tier }
    }
}

#[cfg(test)]
mod tests;
