//! What carries copies in virtual time: the links and memories of a machine, shared by everything that flows at once.
//!
//! A copy first takes an engine on every link of its path, in order of hand-over. It pays the submit cost, then its bytes
//! flow through all of its links at once. What flows shares links and memories max-min fairly; a kernel
//! that streams weights from a memory takes part in that. Flows of one path have one rate, so they form a *class*, and
//! the rates are worked out over classes.
//!
//! Exact integers: rates are bytes a second in fixed point, work is bytes in fixed point times 10^9, so that a rate times
//! a span in nanoseconds is work without rounding. An idle copy takes its submit cost and its bytes over its rate,
//! rounded up once.

mod class;
mod engines;
mod fill;
mod sharing;
#[cfg(test)]
mod tests;
mod train;

pub use engines::LinkCount;

use engines::Engines;
use policy::{Bandwidth, Bytes, LinkId, Machine, MoveId, Nanos, Path, Paths, TierId, Time};
use sharing::Sharing;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use thiserror::Error;
use train::Train;

/// No path leads from one memory to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no link leads from {from:?} to {to:?}")]
pub struct NoPath {
    /// Where the copy is.
    pub from: TierId,
    /// Where it was to go.
    pub to: TierId,
}

/// What flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// A copy from one memory to another.
    Copy {
        /// The move it belongs to.
        id: MoveId,
        /// Where it comes from.
        from: TierId,
        /// Where it goes.
        to: TierId,
    },
    /// A kernel that streams from a memory.
    Read {
        /// The caller's name for it.
        tag: u64,
        /// The memory.
        tier: TierId,
    },
}

/// A flow whose last byte has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Which.
    pub flow: Flow,
    /// Its bytes.
    pub bytes: Bytes,
    /// How long it waited before engines took it up.
    pub queued: Nanos,
    /// When they took it up.
    pub taken_up: Time,
}

/// What the fabric keeps of a flow until it is delivered.
#[derive(Clone, Copy, Debug)]
struct Job {
    flow: Flow,
    bytes: Bytes,
    /// How many were handed over before it.
    order: u64,
    asked: Time,
    taken_up: Time,
    class: u16,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Fabric {
    now: Time,
    tiers: usize,
    /// The path from a tier to a tier, as an index of `paths`; the class of its flows has the same index.
    between: Vec<Option<u16>>,
    paths: Vec<Path>,
    sharing: Sharing,
    engines: Engines,
    /// All that flows, where that is copies of one path one after the other.
    train: Train,
    /// Copies that pay their submit cost: when they begin to flow, their order, their job.
    starting: BinaryHeap<Reverse<(Time, u64, u32)>>,
    jobs: Vec<Job>,
    vacant: Vec<u32>,
    handed_over: u64,
    ended: Vec<u32>,
}

impl Fabric {
    /// The links and memories of a machine, idle.
    pub fn new(machine: &Machine) -> Fabric {
        let tiers = machine.tiers.len();
        let mut between = vec![None; tiers * tiers];
        let paths: Vec<Path> = Paths::new(machine).iter().cloned().collect();
        for (index, path) in (0u16..).zip(&paths) {
            between[path.from.index() * tiers + path.to.index()] = Some(index);
        }
        Fabric {
            now: Time(0),
            tiers,
            between,
            sharing: Sharing::new(machine, &paths),
            engines: Engines::new(machine, paths.len()),
            train: Train::default(),
            paths,
            starting: BinaryHeap::new(),
            jobs: Vec::new(),
            vacant: Vec::new(),
            handed_over: 0,
            ended: Vec::new(),
        }
    }

    /// Hands a copy over.
    ///
    /// # Errors
    /// No path leads there.
    pub fn submit(
        &mut self,
        now: Time,
        id: MoveId,
        from: TierId,
        to: TierId,
        bytes: Bytes,
    ) -> Result<(), NoPath> {
        let place = from.index() * self.tiers + to.index();
        let class = self.between.get(place).copied().flatten().ok_or(NoPath { from, to })?;
        self.advance(now);
        let alone = self.is_idle() && self.engines.are_single(&self.paths[usize::from(class)]);
        if !self.train.is_of(class) {
            self.dissolve();
        }
        let job = self.enter(Flow::Copy { id, from, to }, class, bytes);
        if alone {
            self.engines.take_at_once(self.now, &self.paths[usize::from(class)], &mut self.sharing);
            self.lead(job);
        } else if self.train.is_of(class) {
            self.train.follow(job);
        } else if self.engines.take_at_once(self.now, &self.paths[usize::from(class)], &mut self.sharing) {
            self.begin(job);
        } else {
            self.engines.wait(class, self.jobs[job as usize].order, job);
            self.take_up();
        }
        Ok(())
    }

    /// Begins to stream `bytes` from a memory to a kernel, at `most` at that rate.
    pub fn read(&mut self, now: Time, tag: u64, tier: TierId, bytes: Bytes, most: Bandwidth) {
        self.advance(now);
        self.dissolve();
        let class = self.sharing.reader(tier, most);
        let job = self.enter(Flow::Read { tag, tier }, class, bytes);
        self.sharing.join(self.now, class, bytes, job);
    }

    /// Whether nothing flows, or waits to.
    pub fn is_idle(&self) -> bool {
        self.jobs.len() == self.vacant.len()
    }

    /// When to collect next if nothing is handed over before: the next flow ends then, or a copy has paid its submit
    /// cost and begins to share. `None` if nothing flows.
    pub fn next_due(&mut self) -> Option<Time> {
        if let Some(end) = self.train.next_end() {
            return Some(end);
        }
        self.sharing.settle(self.now);
        let Some(&Reverse((start, _, place))) = self.starting.peek() else { return self.sharing.next_end() };
        match self.sharing.next_end() {
            Some(end) => Some(end.min(start)),
            // Nothing to share with: no need to stop where it begins.
            None if self.starting.len() == 1 => {
                let Job { class, bytes, .. } = self.jobs[place as usize];
                let path = &self.paths[usize::from(class)];
                Some(start + path.peak.time_for(path.work(bytes)))
            }
            None => Some(start),
        }
    }

    /// Appends the flows whose last byte has left by `now`, in order of hand-over, and takes up what waits for their
    /// engines. To be called at every [`Fabric::next_due`]; a flow collected later keeps its engines until then.
    pub fn collect(&mut self, now: Time, delivered: &mut Vec<Delivered>) {
        self.advance(now);
        if self.train.next_end().is_some() {
            return self.collect_train(delivered);
        }
        let mut ended = std::mem::take(&mut self.ended);
        self.sharing.take_ended(self.now, &mut ended);
        ended.sort_unstable_by_key(|&place| self.jobs[place as usize].order);
        for place in ended.drain(..) {
            self.deliver(place, delivered);
            self.release(place);
        }
        self.ended = ended;
        self.take_up();
    }

    /// [`Fabric::collect`] of a train: what follows takes the engine over.
    fn collect_train(&mut self, delivered: &mut Vec<Delivered>) {
        while let Some((place, next)) = self.train.take_ended(self.now) {
            self.deliver(place, delivered);
            match next {
                Some(next) => self.lead(next),
                None => self.release(place),
            }
        }
    }

    /// A flow has ended: it is counted, and its place is free.
    fn deliver(&mut self, place: u32, delivered: &mut Vec<Delivered>) {
        let Job { flow, bytes, asked, taken_up, class, .. } = self.jobs[place as usize];
        let queued = taken_up.since(asked);
        if let Some(path) = self.paths.get(usize::from(class)) {
            self.engines.carried(path, bytes, queued);
        }
        self.vacant.push(place);
        delivered.push(Delivered { flow, bytes, queued, taken_up });
    }

    /// Gives back the engines of a flow that has ended.
    fn release(&mut self, place: u32) {
        let class = self.jobs[place as usize].class;
        if let Some(path) = self.paths.get(usize::from(class)) {
            self.engines.release(self.now, path, &mut self.sharing);
        }
    }

    /// The next copy of a train begins: it has the engines, and all that it crosses to itself.
    fn lead(&mut self, place: u32) {
        let job = &mut self.jobs[place as usize];
        job.taken_up = self.now;
        let path = &self.paths[usize::from(job.class)];
        let takes = path.submit + self.sharing.alone(job.class, path.work(job.bytes));
        self.train.begin(self.now, job.class, place, takes);
    }

    /// Something else is about to flow: the first copy of the train shares with it from here on, and the others wait.
    fn dissolve(&mut self) {
        for (place, behind) in self.train.dissolve().into_iter().zip(0u32..) {
            let Job { class, bytes, order, taken_up, .. } = self.jobs[place as usize];
            let path = &self.paths[usize::from(class)];
            let start = taken_up + path.submit;
            if behind > 0 {
                self.engines.wait(class, order, place);
            } else if start > self.now {
                self.starting.push(Reverse((start, order, place)));
            } else {
                self.sharing.join(start, class, path.work(bytes), place);
                self.sharing.settle(start);
            }
        }
    }

    /// Others take so much of a link's rate, in both directions, from now on.
    pub fn take(&mut self, now: Time, links: [LinkId; 2], rate: Bandwidth) {
        self.advance(now);
        self.dissolve();
        for link in links {
            self.sharing.take(link, rate, self.engines.is_opposed(link));
        }
    }

    /// What a link direction has carried by `now`.
    pub fn count(&self, now: Time, link: LinkId) -> LinkCount {
        self.engines.count(now, link)
    }

    fn enter(&mut self, flow: Flow, class: u16, bytes: Bytes) -> u32 {
        let job = Job { flow, bytes, order: self.handed_over, asked: self.now, taken_up: self.now, class };
        self.handed_over += 1;
        match self.vacant.pop() {
            Some(place) => {
                self.jobs[place as usize] = job;
                place
            }
            None => {
                self.jobs.push(job);
                (self.jobs.len() - 1) as u32
            }
        }
    }

    /// Lets copies take engines, as far as they are free.
    fn take_up(&mut self) {
        while let Some(place) = self.engines.take_next(self.now, &self.paths, &mut self.sharing) {
            self.begin(place);
        }
    }

    /// A copy has its engines.
    fn begin(&mut self, place: u32) {
        let job = &mut self.jobs[place as usize];
        job.taken_up = self.now;
        let path = &self.paths[usize::from(job.class)];
        if path.submit == Nanos::ZERO {
            self.sharing.join(self.now, job.class, path.work(job.bytes), place);
        } else {
            self.starting.push(Reverse((self.now + path.submit, job.order, place)));
        }
    }

    /// Lets copies flow whose submit cost is paid by `now`.
    fn start(&mut self, now: Time) {
        while let Some(&Reverse((at, _, place))) = self.starting.peek().filter(|next| next.0.0 <= now) {
            self.starting.pop();
            self.move_to(at);
            let Job { class, bytes, .. } = self.jobs[place as usize];
            let work = self.paths[usize::from(class)].work(bytes);
            self.sharing.join(self.now, class, work, place);
        }
    }

    fn advance(&mut self, now: Time) {
        self.start(now);
        self.move_to(now);
    }

    fn move_to(&mut self, at: Time) {
        if at > self.now {
            self.sharing.settle(self.now);
            self.now = at;
        }
    }
}
