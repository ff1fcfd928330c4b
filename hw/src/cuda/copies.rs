//! The copy engines: a stream for each path, with several chunks under way so that it never waits for the next one.

mod making;

use super::coder::{Coder, whole};
use super::error::CudaError;
use super::gpu::{Gpu, Mark};
use super::launch::Place;
use super::memory::{Pinned, Slab};
use crate::content::Contents;
use crate::engine::{Change, ChunkReport, Done, Haul, Job, JobError, Material, Worker};
use crate::lane::{now, since};
use crate::region::{Addresses, Region};
use policy::MoveId;
use policy::units::{Bytes, Nanos};
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Weak};

/// Chunks handed to the driver ahead of the one that is being copied: enough that the engine never runs dry.
const DEPTH: usize = 4;

/// Bytes of a file that are read or written while others are copied.
const WINDOW: usize = 4 << 20;

/// Does the jobs of one path.
pub(super) struct CopyWorker {
    coder: Coder,
    /// Checks go beside the copies of the next moves, not behind them.
    checker: Coder,
    /// Two windows for the bytes of files, made when first needed.
    windows: Option<Pinned>,
    contents: Arc<Contents>,
    /// Copies on their way from one format to another, in the device's memory.
    staged: BTreeMap<MoveId, (Weak<Haul>, Slab)>,
    pending: VecDeque<Pending>,
}

/// A chunk that the driver has.
struct Pending {
    haul: Arc<Haul>,
    len: Bytes,
    last: bool,
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

impl CopyWorker {
    pub(super) fn new(gpu: &Arc<Gpu>, contents: Arc<Contents>) -> Result<CopyWorker, CudaError> {
        Ok(CopyWorker {
            coder: Coder::new(gpu, true)?,
            checker: Coder::new(gpu, true)?,
            windows: None,
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
                    self.start_job(haul, offset, len, last, report);
                }
                Ok(Job::Compute(_)) => {}
                Err(TryRecvError::Disconnected) if self.pending.is_empty() => return,
                Err(_) => self.finish_oldest(report),
            }
        }
    }
}

impl CopyWorker {
    fn start_job(
        &mut self,
        haul: Arc<Haul>,
        offset: Bytes,
        len: Bytes,
        last: bool,
        report: &mut dyn FnMut(Done),
    ) {
        self.forget_given_up();
        let started = self.start(&haul, offset.0, len.0, last);
        if let Ok(Started::Pending(begun, ended)) = started {
            return self.pending.push_back(Pending { haul, len, last, begun, ended });
        }
        // What was started before something failed has ended when the memory is used again.
        if started.is_err() {
            // An error of its own says what the first one says: the device is lost.
            let _ = self.coder.stream().finish();
        }
        // Reports come in the order of the jobs.
        while !self.pending.is_empty() {
            self.finish_oldest(report);
        }
        let took = started.map(|started| if let Started::Done(took) = started { took } else { Nanos::ZERO });
        let arrived = took.and_then(|took| self.arrived(&haul, len, last, took));
        report(Done::Chunk(haul.id, arrived));
    }

    fn finish_oldest(&mut self, report: &mut dyn FnMut(Done)) {
        let Some(Pending { haul, len, last, begun, ended }) = self.pending.pop_front() else { return };
        let took = ended.wait().and_then(|()| ended.since(&begun)).map_err(JobError::from);
        let arrived = took.and_then(|took| self.arrived(&haul, len, last, took));
        report(Done::Chunk(haul.id, arrived));
    }

    /// A chunk is there; with the last one the copy is complete and checked.
    fn arrived(&self, haul: &Haul, len: Bytes, last: bool, took: Nanos) -> Result<ChunkReport, JobError> {
        let checked = last
            .then(|| self.checker.verify(&self.contents, (haul.block, haul.to), &haul.target))
            .transpose()?;
        Ok(ChunkReport { bytes: len, took, published: checked })
    }

    /// Nobody says that a move has been given up; its haul is gone then.
    fn forget_given_up(&mut self) {
        let gone: Vec<MoveId> =
            self.staged.iter().filter(|(_, (haul, _))| haul.strong_count() == 0).map(|(id, _)| *id).collect();
        for (_, slab) in gone.iter().filter_map(|id| self.staged.remove(id)) {
            self.coder.give(slab);
        }
    }

    fn start(&mut self, haul: &Arc<Haul>, offset: u64, len: u64, last: bool) -> Result<Started, JobError> {
        let source = match &haul.source {
            Material::Copy(source) => source,
            Material::Recipe(merge) => return self.make(haul, merge, offset, len, last),
        };
        let (from, to) = (kind(source)?, kind(&haul.target)?);
        match haul.change {
            Change::Nowhere if carries(from, to) => self.timed(|worker| {
                let (from, to) = (places(source, offset, len)?, places(&haul.target, offset, len)?);
                worker.carry(from, to)
            }),
            Change::BeforeLink if from == Kind::Device && to != Kind::File => self.timed(|worker| {
                let staged = worker.coded_ahead(haul, source, offset == 0)? + offset;
                worker.carry((Kind::Device, vec![(staged, len)]), places(&haul.target, offset, len)?)
            }),
            Change::AfterLink if to == Kind::Device && from != Kind::File => self.timed(|worker| {
                let staged = worker.staged(haul, source.len())?;
                let to = (Kind::Device, vec![(staged + offset, len)]);
                worker.carry(places(source, offset, len)?, to)?;
                if last { worker.code_behind(haul, staged) } else { Ok(()) }
            }),
            _ => {
                let start = now();
                match (haul.change, from, to) {
                    (Change::Nowhere, Kind::File, Kind::Device) => {
                        self.load(source, places(&haul.target, offset, len)?, offset)?;
                    }
                    (Change::Nowhere, Kind::Device, Kind::File) => {
                        self.save(places(source, offset, len)?, &haul.target, offset)?;
                    }
                    _ => haul.copy(&self.contents, offset, len, last)?,
                }
                Ok(Started::Done(since(start)))
            }
        }
    }

    fn windows(&mut self) -> Result<&mut Pinned, CudaError> {
        let pinned = match self.windows.take() {
            Some(pinned) => pinned,
            None => Pinned::new(self.coder.stream().gpu(), 2 * WINDOW)?,
        };
        Ok(self.windows.insert(pinned))
    }

    /// From a file: a window is read while the one before it is copied.
    fn load(&mut self, source: &Region, to: Places, mut offset: u64) -> Result<(), JobError> {
        let mut copied: [Option<Mark>; 2] = [None, None];
        for (turn, window) in windows(&to.1).into_iter().enumerate() {
            let (half, len) = (turn % 2, window.iter().map(|(_, len)| len).sum::<u64>());
            if let Some(mark) = copied[half].take() {
                mark.wait()?;
            }
            let begin = half * WINDOW;
            let pinned = self.windows()?;
            source.read_at(offset, pinned.bytes(begin..begin + len as usize))?;
            let from = (Kind::Host, vec![(pinned.address(begin), len)]);
            self.carry(from, (Kind::Device, window))?;
            copied[half] = Some(self.coder.stream().mark()?);
            offset += len;
        }
        Ok(self.coder.stream().finish()?)
    }

    /// To a file: a window is copied while the one before it is written.
    fn save(&mut self, from: Places, target: &Region, mut offset: u64) -> Result<(), JobError> {
        let windows = windows(&from.1);
        let mut copied: VecDeque<(usize, u64, Mark)> = VecDeque::new();
        for turn in 0..=windows.len() {
            if let Some(window) = windows.get(turn) {
                let (half, len) = (turn % 2, window.iter().map(|(_, len)| len).sum::<u64>());
                let to = (Kind::Host, vec![(self.windows()?.address(half * WINDOW), len)]);
                self.carry((Kind::Device, window.clone()), to)?;
                copied.push_back((half, len, self.coder.stream().mark()?));
            }
            if turn > 0
                && let Some((half, len, mark)) = copied.pop_front()
            {
                mark.wait()?;
                let begin = half * WINDOW;
                target.write_at(offset, self.windows()?.bytes(begin..begin + len as usize))?;
                offset += len;
            }
        }
        Ok(())
    }

    fn timed(
        &mut self,
        work: impl FnOnce(&mut CopyWorker) -> Result<(), JobError>,
    ) -> Result<Started, JobError> {
        let begun = self.coder.stream().mark()?;
        work(self)?;
        Ok(Started::Pending(begun, self.coder.stream().mark()?))
    }

    /// Starts copies from piece to piece.
    #[allow(unsafe_code)]
    fn carry(&self, from: Places, to: Places) -> Result<(), JobError> {
        let stream = self.coder.stream();
        for (source, target, len) in pairs(&from.1, &to.1) {
            // SAFETY: the pieces are of regions that the haul holds, or of memory of ours that is given back after the
            // move; a device promises that nobody writes what is read or reads what is written meanwhile.
            unsafe {
                match (from.0, to.0) {
                    (Kind::Host, _) => {
                        stream.upload(target, std::ptr::with_exposed_provenance(source as usize), len)
                    }
                    (_, Kind::Host) => {
                        stream.download(std::ptr::with_exposed_provenance_mut(target as usize), source, len)
                    }
                    _ => stream.copy(target, source, len),
                }
            }?;
        }
        Ok(())
    }

    /// Memory for a move's bytes beside the tiers, the same for all of its chunks.
    fn staged(&mut self, haul: &Arc<Haul>, len: u64) -> Result<u64, JobError> {
        if let Some((_, slab)) = self.staged.get(&haul.id) {
            return Ok(slab.start());
        }
        let slab = self.coder.take(len)?;
        let address = slab.start();
        self.staged.insert(haul.id, (Arc::downgrade(haul), slab));
        Ok(address)
    }

    /// The move's copy, coded before it crosses.
    fn coded_ahead(&mut self, haul: &Arc<Haul>, source: &Region, first: bool) -> Result<u64, JobError> {
        let staged = self.staged(haul, haul.target.len())?;
        if first {
            let mut kept = Vec::new();
            let source = self.coder.readable(source, &mut kept)?;
            self.recode(haul, source, staged)?;
            kept.into_iter().for_each(|slab| self.coder.give(slab));
        }
        Ok(staged)
    }

    /// Codes what has crossed.
    fn code_behind(&mut self, haul: &Arc<Haul>, staged: u64) -> Result<(), JobError> {
        if let Some(target) = whole(&haul.target)? {
            return self.recode(haul, staged, target);
        }
        let len = haul.target.len();
        let slab = self.coder.take(len)?;
        self.recode(haul, staged, slab.start())?;
        self.carry((Kind::Device, vec![(slab.start(), len)]), places(&haul.target, 0, len)?)?;
        self.coder.stream().finish()?;
        self.coder.give(slab);
        Ok(())
    }

    fn recode(&mut self, haul: &Haul, from: u64, to: u64) -> Result<(), JobError> {
        let matrices = &self.contents.block(haul.block).matrices;
        let from = Place { format: haul.before, address: from };
        let to = Place { format: haul.to.format, address: to };
        if self.coder.recode(from, to, matrices)? {
            return Ok(());
        }
        // The host's codec refuses what the kernels do, and says why.
        let mut coded = vec![0; haul.target.len() as usize];
        haul.read_whole(|bytes| haul.recode(&self.contents, bytes, &mut coded))?
    }
}

/// What a region's bytes are in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Host,
    Device,
    File,
}

type Places = (Kind, Vec<(u64, u64)>);

fn places(region: &Region, offset: u64, len: u64) -> Result<Places, JobError> {
    Ok(match region.addresses(offset, len)? {
        Addresses::Host(pieces) => (Kind::Host, pieces),
        Addresses::Device(pieces) => (Kind::Device, pieces),
        Addresses::File => (Kind::File, Vec::new()),
    })
}

fn kind(region: &Region) -> Result<Kind, JobError> {
    Ok(places(region, 0, 0)?.0)
}

/// Whether the driver copies from one kind to the other.
fn carries(from: Kind, to: Kind) -> bool {
    from != Kind::File && to != Kind::File && (from, to) != (Kind::Host, Kind::Host)
}

/// Pieces cut so that those of a window follow each other and fit it.
fn windows(pieces: &[(u64, u64)]) -> Vec<Vec<(u64, u64)>> {
    let mut windows: Vec<Vec<(u64, u64)>> = Vec::new();
    let mut room = 0;
    for &(mut at, mut left) in pieces {
        while left > 0 {
            if room == 0 {
                windows.push(Vec::new());
                room = WINDOW as u64;
            }
            let len = left.min(room);
            if let Some(window) = windows.last_mut() {
                window.push((at, len));
            }
            (at, left, room) = (at + len, left - len, room - len);
        }
    }
    windows
}

/// Two lists of pieces of the same bytes as copies: from, to, length.
fn pairs(from: &[(u64, u64)], to: &[(u64, u64)]) -> Vec<(u64, u64, u64)> {
    let (mut from, mut to) = (from.iter().copied(), to.iter().copied());
    let (mut source, mut target) = (from.next(), to.next());
    let mut pairs = Vec::with_capacity(1);
    while let (Some((read, left)), Some((written, room))) = (source, target) {
        let len = left.min(room);
        pairs.push((read, written, len));
        source = if left > len { Some((read + len, left - len)) } else { from.next() };
        target = if room > len { Some((written + len, room - len)) } else { to.next() };
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::{WINDOW, pairs, windows};

    #[test]
    fn windows_hold_all_bytes_in_order_and_no_more_than_fit() {
        let window = WINDOW as u64;
        assert_eq!(
            windows(&[(0, window - 1), (1 << 40, window + 3)]),
            [
                vec![(0, window - 1), (1 << 40, 1)],
                vec![((1 << 40) + 1, window)],
                vec![((1 << 40) + 1 + window, 2)]
            ]
        );
    }

    #[test]
    fn pieces_are_paired_up_to_the_shorter_one() {
        assert_eq!(
            pairs(&[(0, 10), (100, 5)], &[(1000, 3), (2000, 12)]),
            [(0, 1000, 3), (3, 2000, 7), (100, 2007, 5)]
        );
    }
}
