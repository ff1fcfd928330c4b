//! The copy engines: a stream for each path, with several chunks under way so that it never waits for the next one.
//!
//! A path ends in the memory of the accelerator that computes, of another one, of the host, or in a file. Formats change
//! on the side that the command names: by the kernels of the accelerator that holds the bytes there, else by the host.

mod making;

use super::bounce::{Bounce, load, save};
use super::coder::{Coder, whole};
use super::error::CudaError;
use super::gpu::{Gpu, Mark};
use super::launch::Place;
use super::memory::Slab;
use super::places::{End, holder, pairs, pieces};
use crate::content::Contents;
use crate::engine::{Change, ChunkReport, Done, Haul, Job, JobError, Worker};
use crate::lane::{now, since};
use crate::store::Way;
use policy::MoveId;
use policy::units::{Bytes, Nanos};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Weak};

/// Chunks handed to the driver ahead of the one that is being copied: enough that the engine never runs dry.
const DEPTH: usize = 4;

/// Does the jobs of one path.
pub(super) struct CopyWorker {
    /// The accelerator that computes.
    gpu: Arc<Gpu>,
    /// By the number of the accelerator: of the one that computes, and of others that hold an end of the path.
    sides: BTreeMap<u32, Side>,
    bounce: Bounce,
    contents: Arc<Contents>,
    /// Copies on their way from one format to another, in the memory of an accelerator.
    staged: BTreeMap<MoveId, (Weak<Haul>, Slab)>,
    pending: VecDeque<Pending>,
}

/// What one accelerator does for a path.
struct Side {
    coder: Coder,
    /// Checks go beside the copies of the next moves, not behind them.
    checker: Coder,
}

/// A chunk of a move: where it begins among the bytes that cross, and how many it has.
#[derive(Clone, Copy)]
struct Chunk {
    offset: u64,
    len: u64,
    last: bool,
}

/// A chunk that the driver has.
struct Pending {
    haul: Arc<Haul>,
    chunk: Chunk,
    begun: Mark,
    ended: Mark,
}

/// How far a chunk is after it was started.
enum Started {
    /// The driver does it.
    Pending(Mark, Mark),
    /// It is done, and took this long.
    Done(Nanos),
}

impl Side {
    fn new(gpu: &Arc<Gpu>) -> Result<Side, CudaError> {
        Ok(Side { coder: Coder::new(gpu, true)?, checker: Coder::new(gpu, true)? })
    }
}

impl CopyWorker {
    pub(super) fn new(gpu: &Arc<Gpu>, contents: Arc<Contents>) -> Result<CopyWorker, CudaError> {
        Ok(CopyWorker {
            gpu: gpu.clone(),
            sides: BTreeMap::from([(gpu.ordinal(), Side::new(gpu)?)]),
            bounce: Bounce::default(),
            contents,
            staged: BTreeMap::new(),
            pending: VecDeque::new(),
        })
    }
}

impl Worker for CopyWorker {
    fn run(&mut self, jobs: &Receiver<Job>, report: &mut dyn FnMut(Done)) {
        loop {
            let next = if self.pending.is_empty() {
                jobs.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                jobs.try_recv()
            };
            match next {
                Ok(Job::Chunk { haul, offset, len, last }) => {
                    if self.pending.len() == DEPTH {
                        self.finish_oldest(report);
                    }
                    self.start_job(haul, Chunk { offset: offset.0, len: len.0, last }, report);
                }
                Ok(Job::Compute(_)) => {}
                Err(TryRecvError::Disconnected) if self.pending.is_empty() => return,
                Err(_) => self.finish_oldest(report),
            }
        }
    }
}

impl CopyWorker {
    fn start_job(&mut self, haul: Arc<Haul>, chunk: Chunk, report: &mut dyn FnMut(Done)) {
        self.forget_given_up();
        let started = self.start(&haul, chunk);
        if let Ok(Started::Pending(begun, ended)) = started {
            return self.pending.push_back(Pending { haul, chunk, begun, ended });
        }
        if started.is_err() {
            self.settle();
        }
        // Reports come in the order of the jobs.
        while !self.pending.is_empty() {
            self.finish_oldest(report);
        }
        let took = started.map(|started| if let Started::Done(took) = started { took } else { Nanos::ZERO });
        let arrived = took.and_then(|took| self.arrived(&haul, chunk, took));
        report(Done::Chunk(haul.id, arrived));
    }

    fn finish_oldest(&mut self, report: &mut dyn FnMut(Done)) {
        let Some(Pending { haul, chunk, begun, ended }) = self.pending.pop_front() else { return };
        let took = ended.wait().and_then(|()| ended.since(&begun)).map_err(JobError::from);
        let arrived = took.and_then(|took| self.arrived(&haul, chunk, took));
        report(Done::Chunk(haul.id, arrived));
    }

    /// What was started before something failed has ended when its memory is used again.
    fn settle(&self) {
        for side in self.sides.values() {
            // An error of its own says what the first one says: the device is lost.
            let _ = side.coder.stream().finish();
        }
    }

    /// A chunk is there; with the last one the copy is complete and checked where it lies.
    fn arrived(&mut self, haul: &Haul, chunk: Chunk, took: Nanos) -> Result<ChunkReport, JobError> {
        let mut published = None;
        if chunk.last {
            let gpu = holder(&haul.target)?.unwrap_or_else(|| self.gpu.clone());
            let checker = &side(&mut self.sides, &gpu)?.checker;
            published = Some(checker.verify(&self.contents, (haul.block, haul.to), &haul.target)?);
        }
        Ok(ChunkReport { bytes: Bytes(chunk.len), took, published })
    }

    /// Nobody says that a move has been given up; its haul is gone then.
    fn forget_given_up(&mut self) {
        let gone: Vec<MoveId> =
            self.staged.iter().filter(|(_, (haul, _))| haul.strong_count() == 0).map(|(id, _)| *id).collect();
        for (_, slab) in gone.iter().filter_map(|id| self.staged.remove(id)) {
            if let Some(side) = self.sides.get_mut(&slab.gpu().ordinal()) {
                side.coder.give(slab);
            }
        }
    }

    fn start(&mut self, haul: &Arc<Haul>, chunk: Chunk) -> Result<Started, JobError> {
        if let Some(recipe) = &haul.recipe {
            return self.make(haul, recipe, chunk);
        }
        let (from, to) = (holder(&haul.source)?, holder(&haul.target)?);
        let start = now();
        if from.is_some() || to.is_some() {
            haul.pass(chunk.offset, chunk.len)?;
        }
        let lane = match (&from, &to) {
            (None, None) => {
                haul.copy(&self.contents, chunk.offset, chunk.len, chunk.last)?;
                return Ok(Started::Done(since(start)));
            }
            // The one that computes has the stream, if it is an end of the path.
            (Some(one), Some(other)) if one.ordinal() != self.gpu.ordinal() => other.clone(),
            (Some(one), _) | (None, Some(one)) => one.clone(),
        };
        let begun = side(&mut self.sides, &lane)?.coder.stream().mark()?;
        let queued = match (&from, &to) {
            (_, Some(to)) => self.up(haul, chunk, (&lane, from.as_ref(), to))?,
            (Some(from), None) => self.down(haul, chunk, from)?,
            (None, None) => false,
        };
        if !queued {
            return Ok(Started::Done(since(start)));
        }
        Ok(Started::Pending(begun, side(&mut self.sides, &lane)?.coder.stream().mark()?))
    }

    /// Carries a chunk into an accelerator's memory, on the stream of `lane`: true if the driver has it, false if it is
    /// there.
    fn up(
        &mut self,
        haul: &Arc<Haul>,
        chunk: Chunk,
        (lane, from, to): (&Arc<Gpu>, Option<&Arc<Gpu>>, &Arc<Gpu>),
    ) -> Result<bool, JobError> {
        let Chunk { offset, len, last } = chunk;
        let target = match haul.change {
            Change::AfterLink => vec![(self.staged(haul, to, haul.source.len())? + offset, len)],
            Change::Nowhere | Change::BeforeLink => pieces(&haul.target, offset, len)?,
        };
        let mut coded;
        let source = match (haul.change, from) {
            (Change::BeforeLink, Some(from)) => {
                End::Device(from.clone(), vec![(self.coded_ahead(haul, from, offset == 0)? + offset, len)])
            }
            (Change::BeforeLink, None) => {
                coded = haul.coded_ahead(&self.contents, offset == 0)?;
                End::Coded(&mut coded[offset as usize..][..len as usize])
            }
            (Change::Nowhere | Change::AfterLink, _) => End::of(&haul.source, offset, len)?,
        };
        let queued = self.fill(lane, source, (to, &target))?;
        if haul.change == Change::AfterLink && last {
            if lane.ordinal() != to.ordinal() {
                side(&mut self.sides, lane)?.coder.stream().finish()?;
            }
            self.code_behind(haul, to)?;
        }
        Ok(queued)
    }

    /// Carries a chunk out of an accelerator's memory to the host's or a file, likewise.
    fn down(&mut self, haul: &Arc<Haul>, chunk: Chunk, from: &Arc<Gpu>) -> Result<bool, JobError> {
        let Chunk { offset, len, last } = chunk;
        let source = match haul.change {
            Change::BeforeLink => vec![(self.coded_ahead(haul, from, offset == 0)? + offset, len)],
            Change::Nowhere | Change::AfterLink => pieces(&haul.source, offset, len)?,
        };
        if haul.change != Change::AfterLink {
            return self.drain((from, &source), End::of(&haul.target, offset, len)?);
        }
        let mut crossed = haul.crossed();
        let queued =
            self.drain((from, &source), End::Coded(&mut crossed[offset as usize..][..len as usize]))?;
        if last {
            haul.code_behind(&self.contents, &crossed)?;
        }
        Ok(queued)
    }

    /// Fills pieces of the memory of `gpu`: true if the driver has yet to do it.
    #[allow(unsafe_code)]
    fn fill(
        &mut self,
        lane: &Arc<Gpu>,
        from: End<'_>,
        (gpu, to): (&Arc<Gpu>, &[(u64, u64)]),
    ) -> Result<bool, JobError> {
        let stream = side(&mut self.sides, lane)?.coder.stream();
        // SAFETY, here and in `drain`: the pieces are of regions that the haul holds, or of memory of ours that is given
        // back after the move; a device promises that nobody writes what is read or reads what is written meanwhile.
        match from {
            End::Host(from) => {
                for (source, target, len) in pairs(&from, to) {
                    unsafe {
                        stream.upload(target, std::ptr::with_exposed_provenance(source as usize), len)
                    }?;
                }
                Ok(true)
            }
            End::Device(holder, from) => {
                for (source, target, len) in pairs(&from, to) {
                    unsafe { stream.copy_across((gpu, target), (&holder, source), len) }?;
                }
                Ok(true)
            }
            End::File(region, offset) => {
                gpu.bind()?;
                if !unsafe { region.carry_directly(Way::Load, offset, to) }? {
                    let fetch = |at, window: &mut [u8]| Ok(region.read_at(offset + at, window)?);
                    load(self.bounce.cached(gpu)?, stream, to, fetch)?;
                }
                Ok(false)
            }
            End::Coded(coded) => {
                load(self.bounce.coded(gpu)?, stream, to, |at, window| {
                    window.copy_from_slice(&coded[at as usize..][..window.len()]);
                    Ok(())
                })?;
                Ok(false)
            }
        }
    }

    /// Empties pieces of the memory of `gpu` likewise.
    #[allow(unsafe_code)]
    fn drain(&mut self, (gpu, from): (&Arc<Gpu>, &[(u64, u64)]), to: End<'_>) -> Result<bool, JobError> {
        let stream = side(&mut self.sides, gpu)?.coder.stream();
        match to {
            End::Host(to) => {
                for (source, target, len) in pairs(from, &to) {
                    unsafe {
                        stream.download(std::ptr::with_exposed_provenance_mut(target as usize), source, len)
                    }?;
                }
                Ok(true)
            }
            End::Device(holder, to) => {
                for (source, target, len) in pairs(from, &to) {
                    unsafe { stream.copy_across((&holder, target), (gpu, source), len) }?;
                }
                Ok(true)
            }
            End::File(region, offset) => {
                gpu.bind()?;
                if !unsafe { region.carry_directly(Way::Save, offset, from) }? {
                    let put = |at, window: &[u8]| Ok(region.write_at(offset + at, window)?);
                    save(self.bounce.cached(gpu)?, stream, from, put)?;
                }
                Ok(false)
            }
            End::Coded(crossed) => {
                save(self.bounce.cached(gpu)?, stream, from, |at, window| {
                    crossed[at as usize..][..window.len()].copy_from_slice(window);
                    Ok(())
                })?;
                Ok(false)
            }
        }
    }

    /// Memory of an accelerator's for a move's bytes beside the tiers, the same for all of its chunks.
    fn staged(&mut self, haul: &Arc<Haul>, gpu: &Arc<Gpu>, len: u64) -> Result<u64, JobError> {
        if let Some((_, slab)) = self.staged.get(&haul.id) {
            return Ok(slab.start());
        }
        let slab = side(&mut self.sides, gpu)?.coder.take(len)?;
        let address = slab.start();
        self.staged.insert(haul.id, (Arc::downgrade(haul), slab));
        Ok(address)
    }

    /// The move's copy, coded before it crosses by the accelerator that has it.
    fn coded_ahead(&mut self, haul: &Arc<Haul>, gpu: &Arc<Gpu>, first: bool) -> Result<u64, JobError> {
        let staged = self.staged(haul, gpu, haul.target.len())?;
        if first {
            let mut kept = Vec::new();
            let coder = &mut side(&mut self.sides, gpu)?.coder;
            let source = coder.readable(&haul.source, &mut kept)?;
            recode(coder, &self.contents, haul, (source, staged))?;
            kept.into_iter().for_each(|slab| coder.give(slab));
        }
        Ok(staged)
    }

    /// Codes what has crossed, by the accelerator that it has come to.
    #[allow(unsafe_code)]
    fn code_behind(&mut self, haul: &Arc<Haul>, gpu: &Arc<Gpu>) -> Result<(), JobError> {
        let staged = self.staged(haul, gpu, haul.source.len())?;
        let coder = &mut side(&mut self.sides, gpu)?.coder;
        if let Some(target) = whole(&haul.target, gpu)? {
            return recode(coder, &self.contents, haul, (staged, target));
        }
        let len = haul.target.len();
        let slab = coder.take(len)?;
        recode(coder, &self.contents, haul, (staged, slab.start()))?;
        for (source, target, len) in pairs(&[(slab.start(), len)], &pieces(&haul.target, 0, len)?) {
            // SAFETY: from memory of ours to a region that the haul holds, which nobody reads before it is published.
            unsafe { coder.stream().copy(target, source, len) }?;
        }
        coder.stream().finish()?;
        coder.give(slab);
        Ok(())
    }
}

/// What an accelerator has for the path, made when it is first an end of it.
fn side<'a>(sides: &'a mut BTreeMap<u32, Side>, gpu: &Arc<Gpu>) -> Result<&'a mut Side, CudaError> {
    Ok(match sides.entry(gpu.ordinal()) {
        Entry::Occupied(side) => side.into_mut(),
        Entry::Vacant(place) => place.insert(Side::new(gpu)?),
    })
}

/// Changes the format of a move's copy from one address of the coder's device to another.
fn recode(
    coder: &mut Coder,
    contents: &Contents,
    haul: &Haul,
    (from, to): (u64, u64),
) -> Result<(), JobError> {
    let matrices = &contents.block(haul.block).matrices;
    let from = Place { format: haul.before, address: from };
    let to = Place { format: haul.to.format, address: to };
    if coder.recode(from, to, matrices)? {
        return Ok(());
    }
    // The host's codec refuses what the kernels do, and says why.
    let mut coded = vec![0; haul.target.len() as usize];
    haul.read_whole(|bytes| haul.recode(contents, bytes, &mut coded))?
}
