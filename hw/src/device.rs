//! A device: an arena for every tier, a lane for every path, one for changes of format within each tier, one for the accelerator's
//! compute and one for each processor beside other memories.
//! Commands are checked when they are submitted, carried out by the lanes, and seen when they are waited for: a copy is
//! published when its last chunk has been waited for, not before. What the memory is and who does the jobs is the
//! engine's affair; what is promised of them is here, once for all engines.

mod clock;
mod moves;
mod recipes;
mod resident;
mod states;
mod streams;

use self::clock::Clock;
pub use self::clock::{Deed, Span};
use self::moves::{Flight, Piece, What};
use self::recipes::Recipes;
use self::resident::Resident;
pub use self::states::StateRoom;
use self::states::States;
use self::streams::Stream;
pub(crate) use self::streams::stream_of;
use crate::arena::{Arena, SlotId};
use crate::content::Contents;
use crate::engine::{Done, Engine, JobError, LaneKind};
use crate::lane::{Lane, now};
use crate::refusal::{CopyName, DeviceError};
use crate::region::Region;
use crate::verify;
use policy::event::{Command, Form, Part};
use policy::format::FORMATS;
use policy::machine::{Backing, Class, Tier};
use policy::units::{Bytes, Nanos};
use policy::{BlockId, LayerId, Machine, MoveId, Paths, ProcessorId, TierId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

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
    /// The most bytes that the copies in each tier have taken together.
    pub peak: Vec<Bytes>,
}

/// What a device is to hold when it begins.
pub struct Setup<'a> {
    /// The machine whose tiers and links it stands for.
    pub machine: &'a Machine,
    /// What is in the blocks of the model.
    pub contents: Arc<Contents>,
    /// The copies that exist before the run: each block's home copy, and those encoded ahead.
    pub copies: &'a [(BlockId, Form)],
    /// Bytes of each tier that copies may take.
    pub budgets: &'a [Bytes],
    /// Key-value cache beside them in the fast tier.
    pub cache: Bytes,
    /// The most tokens of one step.
    pub tokens: u32,
    /// Compare every copy with its block each time it is read, not only when it is published.
    pub check_reads: bool,
}

impl Setup<'_> {
    /// Whether an engine has the memory at present: for what the fast tier may come to hold and what a step takes beside it,
    /// and for what the host's tiers and those of other accelerators begin with.
    ///
    /// # Errors
    /// [`DeviceError::NoRoom`], or the device does not say what it has.
    pub fn fits(&self, engine: &dyn Engine) -> Result<(), DeviceError> {
        let (machine, model) = (self.machine, self.contents.model());
        let [mut fast, mut host, mut others] = [Bytes::ZERO; 3];
        for (id, form) in self.copies {
            let block = model.blocks.get(id.index());
            let bytes = block.map_or(Bytes::ZERO, |block| block.bytes(form.format));
            match machine.tiers.get(form.tier.index()) {
                Some(tier) if tier.class == Class::Fast => fast += bytes,
                Some(tier) if tier.backing == Backing::Device => others += bytes,
                Some(tier) if tier.backing != Backing::File => host += bytes,
                _ => {}
            }
        }
        let tier = machine.tiers_of(Class::Fast).next().unwrap_or_default();
        let copies = fast.max(self.budgets.get(tier.index()).copied().unwrap_or_default());
        let beside = model.resident_bytes() + self.cache + resident::activations(model, self.tokens);
        engine.room([copies + beside, host, others])
    }
}

/// What a device has finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// A chunk of this move.
    Chunk(MoveId),
    /// The oldest compute command of those that run where this part does.
    Compute(Part),
}

type Copy = (BlockId, Form);

struct Held {
    slot: SlotId,
    published: bool,
}

/// A machine's memories, links and compute, in reality.
pub struct Device {
    name: String,
    tiers: Vec<String>,
    contents: Arc<Contents>,
    arenas: Vec<Arena>,
    copies: BTreeMap<Copy, Held>,
    moves: BTreeMap<MoveId, Flight>,
    /// The accelerator's stream, and those of processors beside other memories.
    streams: Vec<Stream>,
    lanes: BTreeMap<(TierId, TierId), Lane>,
    done: Receiver<Done>,
    /// Jobs that the lanes have not reported on.
    under_way: u64,
    resident: Resident,
    recipes: Recipes,
    /// The tier that compute reads.
    fast: TierId,
    states: States,
    check_reads: bool,
    clock: Clock,
    totals: Totals,
}

impl Device {
    /// Sets aside the memories and writes the copies that exist before the run.
    pub fn new(engine: &dyn Engine, setup: Setup<'_>) -> Result<Device, DeviceError> {
        setup.fits(engine)?;
        let Setup { machine, contents, copies, budgets, cache, check_reads, .. } = setup;
        let (report, done) = channel();
        let lane = |kind| {
            let worker = engine.worker(kind, &contents)?;
            Lane::spawn(kind, worker, report.clone()).map_err(DeviceError::Thread)
        };
        let within = (0..machine.tiers.len() as u8).map(|tier| (TierId(tier), TierId(tier)));
        let paths = Paths::new(machine);
        let between = paths.iter().map(|path| (path.from, path.to));
        let mut lanes = BTreeMap::new();
        for (from, to) in within.chain(between) {
            lanes.insert((from, to), lane(LaneKind::Copy { from, to })?);
        }
        let budget = |index: usize, tier: &Tier| budgets.get(index).map_or(tier.capacity, |&budget| budget);
        let arena = |(index, tier)| engine.arena(tier, budget(index, tier));
        let near = (0..machine.near.len() as u8).map(|by| LaneKind::Near(ProcessorId(by)));
        let streams = std::iter::once(LaneKind::Compute).chain(near);
        let streams = streams.map(|kind| lane(kind).map(Stream::new)).collect::<Result<_, _>>()?;
        let mut device = Device {
            name: engine.name(),
            tiers: machine.tiers.iter().map(|tier| tier.name.clone()).collect(),
            arenas: machine.tiers.iter().enumerate().map(arena).collect::<Result<_, _>>()?,
            copies: BTreeMap::new(),
            moves: BTreeMap::new(),
            streams,
            lanes,
            done,
            under_way: 0,
            resident: Resident::new(engine, machine, &contents, cache)?,
            recipes: Recipes::new(engine, machine, &contents)?,
            fast: machine.tiers_of(Class::Fast).next().unwrap_or_default(),
            states: States::default(),
            check_reads,
            clock: Clock::default(),
            totals: Totals { peak: vec![Bytes::ZERO; machine.tiers.len()], ..Totals::default() },
            contents,
        };
        for (block, form) in copies {
            device.materialise(*block, *form)?;
        }
        Ok(device)
    }

    /// What it is, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the tiers ask for and this machine does not give: their timings may be others than elsewhere.
    pub fn notes(&self) -> impl Iterator<Item = String> + '_ {
        let of_tier = |(name, arena): (&String, &Arena)| {
            arena.notes().iter().map(|note| format!("{name}: {note}")).collect::<Vec<_>>()
        };
        self.tiers.iter().zip(&self.arenas).flat_map(of_tier)
    }

    /// What is in the blocks.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Checks a command and starts it. Waits only where it needs memory that a job is still using.
    pub fn submit(&mut self, command: &Command) -> Result<(), DeviceError> {
        match command {
            Command::Move(chunk) => self.carry(&Piece::of_block(chunk)),
            Command::Drop { block, form } => self.drop_copy((*block, *form)),
            Command::Cancel { id } => self.give_up(*id),
            Command::Compute { mixers, layer, part, batch, reads, .. } => {
                for layer in mixers.clone().map(LayerId) {
                    self.start_compute((layer, Part::Mixer), batch.clone(), &[], false)?;
                }
                self.start_compute((*layer, *part), batch.clone(), reads, true)
            }
            Command::MoveState(chunk) => self.carry(&Piece::of_state(chunk, self.fast)),
            Command::DropState { checkpoint, tier } => self.drop_state(*checkpoint, *tier),
            Command::HandOn(_) => Err(DeviceError::NoStages),
            // Requests have no memory of their own here, whoever keeps the time wakes the controller, and there is no directory of
            // one accelerator's copies.
            Command::Finish { .. } | Command::Wake { .. } | Command::Tell(_) => Ok(()),
        }
    }

    /// Waits until something more is done, and says what; it can then be waited for without delay. `None` when nothing is
    /// under way, or when nothing was done by `until`.
    pub fn next(&mut self, until: Option<Instant>) -> Result<Option<Finished>, DeviceError> {
        while self.under_way > 0 {
            let done = match until {
                None => self.done.recv().map_err(|_| DeviceError::LaneDied)?,
                Some(until) => match self.done.recv_timeout(until.saturating_duration_since(now())) {
                    Ok(done) => done,
                    Err(RecvTimeoutError::Timeout) => return Ok(None),
                    Err(RecvTimeoutError::Disconnected) => return Err(DeviceError::LaneDied),
                },
            };
            if let Some(finished) = self.take_in(done) {
                return Ok(Some(finished));
            }
        }
        Ok(None)
    }

    /// Whether a chunk of a move has been reported that nobody has waited for.
    pub fn is_over(&self, id: MoveId) -> bool {
        self.moves.get(&id).is_some_and(|flight| flight.has_arrived())
    }

    /// Sees what [`Device::next`] has named; how long it took.
    pub fn see(&mut self, finished: Finished) -> Result<Nanos, DeviceError> {
        Ok(match finished {
            Finished::Chunk(id) => self.wait(id)?.took,
            Finished::Compute(part) => self.wait_compute(part)?.took,
        })
    }

    /// Waits until the lanes are idle, then compares the bytes of every published copy with its block. Returns the
    /// published copies.
    pub fn audit(&mut self) -> Result<BTreeSet<(BlockId, Form)>, DeviceError> {
        while self.next(None)?.is_some() {}
        let published: Vec<Copy> = self.published().collect();
        for (block, form) in &published {
            let region = self.readable("audit", (*block, *form))?;
            verify::check(&self.contents, *block, *form, &region).map_err(|error| self.count(error))?;
            self.totals.verified_copies += 1;
        }
        self.audit_states()?;
        Ok(published.into_iter().collect())
    }

    /// The time of the run so far: real durations of jobs laid end to end as commands depend on each other, and no time of
    /// the controller, the simulator or the checks of bytes.
    pub fn elapsed(&self) -> Nanos {
        self.clock.now
    }

    /// Time passes in which nothing is waited for: a request has come in that much later.
    pub fn idle(&mut self, time: Nanos) {
        self.clock.now += time;
    }

    /// Time of copies from one tier to another, and how much of it the accelerator waited with nothing to do.
    pub fn transfer_time(&self) -> (Nanos, Nanos) {
        (self.clock.transfer, self.clock.exposed)
    }

    /// From here on, keeps what the lanes do.
    pub fn keep_spans(&mut self) {
        self.clock.keep_spans();
    }

    /// What the lanes have done since [`Device::keep_spans`].
    pub fn take_spans(&mut self) -> Vec<Span> {
        self.clock.take_spans()
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

    fn materialise(&mut self, block: BlockId, form: Form) -> Result<(), DeviceError> {
        self.check_names(block, form)?;
        let copy = (block, form);
        if self.copies.contains_key(&copy) {
            return Err(DeviceError::Exists { id: 0, copy: self.name_of(copy) });
        }
        let failed = |source| JobError::Content { block: block.0, form, source };
        let bytes = self.contents.bytes(block, form.format).map_err(failed)?;
        let slot = self.allocate(form.tier, Bytes(bytes.len() as u64))?;
        self.arenas[form.tier.index()].region(slot)?.write_at(0, &bytes)?;
        self.copies.insert(copy, Held { slot, published: true });
        Ok(())
    }

    fn drop_copy(&mut self, copy: Copy) -> Result<(), DeviceError> {
        let in_use = |reader| DeviceError::InUse { copy: self.name_of(copy), reader };
        self.readable("drop", copy)?;
        let mut computing = self.streams.iter().flat_map(|stream| &stream.computing);
        if computing.any(|reads| reads.contains(&copy)) {
            return Err(in_use("a compute command".into()));
        }
        let reads = |flight: &&Flight| match flight.what {
            What::Block(of) if flight.haul.is_some() => {
                of.from.copy().map(|form| (of.block, form)) == Some(copy)
            }
            _ => false,
        };
        if let Some(flight) = self.moves.values().find(reads) {
            return Err(in_use(format!("move {}", flight.id.0)));
        }
        let block = self.contents.block(copy.0);
        let whole = |other: Copy| other.0 == copy.0 && other.1.format.keeps(block.native);
        if block.recipe.is_none()
            && whole(copy)
            && !self.published().any(|other| other != copy && whole(other))
        {
            return Err(DeviceError::LastCopy { copy: self.name_of(copy) });
        }
        self.release(copy)?;
        self.totals.drops += 1;
        Ok(())
    }

    /// Takes in one report of a lane. Nobody waits for what belongs to a move that was given up.
    fn take_in(&mut self, done: Done) -> Option<Finished> {
        self.under_way -= 1;
        match done {
            Done::Compute(part, computed) => self.computed(part, computed).then_some(Finished::Compute(part)),
            Done::Chunk(id, arrived) => self.arrive(id, arrived).then_some(Finished::Chunk(id)),
        }
    }

    fn allocate(&mut self, tier: TierId, bytes: Bytes) -> Result<SlotId, DeviceError> {
        let slot = self.arenas[tier.index()].allocate(bytes)?;
        let peak = &mut self.totals.peak[tier.index()];
        *peak = (*peak).max(self.arenas[tier.index()].held());
        Ok(slot)
    }

    fn count(&mut self, error: JobError) -> DeviceError {
        if matches!(error, JobError::Mismatch { .. } | JobError::StateMismatch { .. }) {
            self.totals.mismatches += 1;
        }
        error.into()
    }

    fn release(&mut self, copy: Copy) -> Result<(), DeviceError> {
        match self.copies.remove(&copy) {
            Some(held) => Ok(self.arenas[copy.1.tier.index()].free(held.slot)?),
            None => Ok(()),
        }
    }

    /// Gives a slot back that no copy has yet.
    fn free(&mut self, tier: TierId, slot: SlotId) {
        // It was taken just now.
        let _ = self.arenas[tier.index()].free(slot);
    }

    /// The bytes of a published copy.
    fn readable(&self, command: &'static str, copy: Copy) -> Result<Arc<Region>, DeviceError> {
        self.check_names(copy.0, copy.1)?;
        match self.copies.get(&copy) {
            Some(held) if held.published => Ok(self.arenas[copy.1.tier.index()].region(held.slot)?),
            _ => Err(DeviceError::NotPublished { command, copy: self.name_of(copy) }),
        }
    }

    fn check_names(&self, block: BlockId, form: Form) -> Result<(), DeviceError> {
        let unknown = |what, number| Err(DeviceError::Unknown { what, number });
        match (self.contents.model().blocks.len(), self.tiers.len(), FORMATS.len()) {
            (blocks, ..) if block.index() >= blocks => unknown("block", block.0.into()),
            (_, tiers, _) if form.tier.index() >= tiers => unknown("tier", form.tier.0.into()),
            (.., formats) if form.format.0 as usize >= formats => unknown("format", form.format.0.into()),
            _ => Ok(()),
        }
    }

    fn name_of(&self, (block, form): Copy) -> CopyName {
        let tier = self.tiers.get(form.tier.index()).cloned().unwrap_or_default();
        CopyName { block, form, tier }
    }
}

#[cfg(test)]
mod tests;
