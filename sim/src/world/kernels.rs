//! Kernels of the accelerator in virtual time: one after the other, each reading fast memory beside whatever else does.
//!
//! Where nothing else flows, nothing can slow a kernel down: the end of a command is known when it begins, however many
//! kernels it has, and one event stands for all of them. When something begins to flow meanwhile, the kernel that runs then
//! is taken up where it is.

use super::exchanges::flowed;
use super::ranks::Held;
use super::{ACCELERATOR, Tick, World, WorldError};
use crate::compute::Kernel;
use crate::queue::{Handle, Rank};
use policy::event::{EventKind, Part, Read, Slice};
use policy::model::Layer;
use policy::{BlockId, Bytes, LayerId, Model, Nanos, Time};
use std::ops::Range;
use std::sync::Arc;

/// Which mixers of a model are alike, and what they ask for in the step that was asked for last.
#[derive(Clone, Debug)]
pub(super) struct Mixers {
    /// For each layer, the first one whose mixer is like its own.
    like: Vec<u16>,
    /// And the first one after it whose mixer is not, or the end.
    until: Vec<u16>,
    batch: Arc<[Slice]>,
    kernels: Vec<Option<Alone>>,
}

impl Mixers {
    pub(super) fn new(model: &Model) -> Mixers {
        let of = |layer: &Layer| Layer { first_block: BlockId(0), blocks: 0, selected: 0, ..layer.clone() };
        let mut distinct: Vec<(u16, Layer)> = Vec::new();
        let like = (0..).zip(&model.layers).map(|(index, layer)| {
            let mixer = of(layer);
            if let Some((first, _)) = distinct.iter().find(|(_, known)| *known == mixer) {
                return *first;
            }
            distinct.push((index, mixer));
            index
        });
        let like: Vec<u16> = like.collect();
        let until = |layer: usize| {
            let same = like[layer..].iter().take_while(|&&other| other == like[layer]).count();
            (layer + same) as u16
        };
        Mixers {
            until: (0..like.len()).map(until).collect(),
            kernels: vec![None; like.len()],
            batch: [].into(),
            like,
        }
    }

    /// What is known of a layer's, in the step that was asked for last.
    pub(super) fn known(&self, layer: LayerId) -> Option<&Alone> {
        self.kernels[usize::from(self.like[layer.index()])].as_ref()
    }
}

/// A kernel, how long it reads if nothing else reads or writes, and how long it then takes in all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alone {
    pub(super) kernel: Kernel,
    read: Nanos,
    pub(super) whole: Nanos,
}

/// The compute command that is running.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// The layers whose mixers it begins with.
    mixers: Range<u16>,
    /// What it ends with.
    last: (LayerId, Part),
    last_kernel: Alone,
    batch: Arc<[Slice]>,
    /// Which of these kernels runs, since when, how long its operations take, and what follows them: its launch, and sums.
    place: usize,
    since: Time,
    operations: Nanos,
    then: Nanos,
    /// What then crosses links that blocks move on, at its end.
    exchanged: Bytes,
    /// The end of the command, where nothing else flows.
    alone: Option<Handle>,
}

impl Running {
    /// The part that a kernel of it is.
    fn part(&self, place: usize) -> (LayerId, Part) {
        if place < self.mixers.len() {
            (LayerId(self.mixers.start + place as u16), Part::Mixer)
        } else {
            self.last
        }
    }
}

impl World {
    /// Time the accelerator computed, the part of what is running included that is behind it.
    pub fn compute_time_so_far(&self) -> Nanos {
        let running = self.running.as_ref().map_or(Nanos::ZERO, |running| self.now.since(running.since));
        self.compute_time + running + self.passing_time()
    }

    pub(super) fn begin_compute(
        &mut self,
        mixers: Range<u16>,
        last: (LayerId, Part),
        batch: Arc<[Slice]>,
        reads: Vec<Read>,
    ) -> Result<(), WorldError> {
        if matches!(last.1, Part::Mixer | Part::Head) && self.away.is_some() {
            return self.hold(Held::Begins { mixers, last, batch });
        }
        for read in &reads {
            self.memory.expect(read.block, read.form)?;
            self.memory.compute_reads(read.block, read.form);
        }
        if let Part::Near(by) = last.1 {
            return self.begin_near(last.0, by, &reads);
        }
        if self.running.is_some() {
            return Err(WorldError::Busy);
        }
        let last_kernel = match last.1 {
            Part::Mixer => self.mixer(last.0, &batch),
            _ => self.alone(self.kernel(last, &batch, &reads)),
        };
        let (since, operations, then) = (self.now, Nanos::ZERO, Nanos::ZERO);
        let exchanged = Bytes::ZERO;
        self.run(Running {
            mixers,
            last,
            last_kernel,
            batch,
            place: 0,
            since,
            operations,
            then,
            exchanged,
            alone: None,
        });
        Ok(())
    }

    fn kernel_of(&mut self, running: &Running, place: usize) -> Alone {
        match running.part(place) {
            (layer, Part::Mixer) => self.mixer(layer, &running.batch),
            _ => running.last_kernel,
        }
    }

    /// How many kernels of a command from this one on are alike.
    fn alike(&self, running: &Running, place: usize) -> u64 {
        let (layer, _) = running.part(place);
        let until = if place < running.mixers.len() { self.mixers.until[layer.index()] } else { 0 };
        u64::from(until.min(running.mixers.end).saturating_sub(layer.0)).max(1)
    }

    pub(super) fn mixer(&mut self, layer: LayerId, batch: &Arc<[Slice]>) -> Alone {
        if !Arc::ptr_eq(&self.mixers.batch, batch) {
            self.mixers.batch = batch.clone();
            self.mixers.kernels.fill(None);
        }
        let like = usize::from(self.mixers.like[layer.index()]);
        if let Some(kernel) = self.mixers.kernels[like] {
            return kernel;
        }
        let kernel = self.alone(self.kernel((layer, Part::Mixer), batch, &[]));
        self.mixers.kernels[like] = Some(kernel);
        kernel
    }

    /// A kernel with the times that it takes if nothing else reads or writes.
    pub(super) fn alone(&self, kernel: Kernel) -> Alone {
        let rate = self.machine.accelerator.read.min(self.machine.tier(self.fast).read);
        let read = rate.time_for(kernel.bytes);
        Alone { kernel, read, whole: read.max(kernel.operations) + self.follows(kernel) }
    }

    fn kernel(&self, part: (LayerId, Part), batch: &[Slice], reads: &[Read]) -> Kernel {
        if self.share.is_part() && matches!(part.1, Part::Mixer | Part::Head) {
            return self.attended(part, batch);
        }
        self.kernel_of_all(part, batch, reads)
    }

    /// The mixer or the head for the requests that this rank attends to.
    fn attended(&self, part: (LayerId, Part), batch: &[Slice]) -> Kernel {
        let own: Vec<Slice> = batch.iter().filter(|slice| slice.rank == self.share.rank).copied().collect();
        let any = match part.1 {
            Part::Head => own.iter().any(|slice| self.emits(slice)),
            _ => !own.is_empty(),
        };
        if any { self.kernel_of_all(part, &own, &[]) } else { Kernel::default() }
    }

    /// Whether a step gives a request a token: its prompt is complete.
    fn emits(&self, slice: &Slice) -> bool {
        slice.cached + slice.tokens >= self.workload.requests()[slice.request.index()].context
    }

    fn kernel_of_all(&self, part: (LayerId, Part), batch: &[Slice], reads: &[Read]) -> Kernel {
        let emits = |slice: &&Slice| self.emits(slice);
        let emitting = if part.1 == Part::Head { batch.iter().filter(emits).count() as u64 } else { 0 };
        self.operators.kernel(part, batch, emitting, reads)
    }

    /// Begins the kernel that is at hand, and all that follow it where nothing else flows.
    fn run(&mut self, mut running: Running) {
        if self.fabric.is_idle() {
            let (mut end, mut place) = (self.now, running.place);
            while place <= running.mixers.len() {
                let (kernels, each) = (self.alike(&running, place), self.kernel_of(&running, place).whole);
                end = end + Nanos(each.0.saturating_mul(kernels));
                place += kernels as usize;
            }
            running.alone = Some(self.queue.push(end, Rank::Completion, Tick::Computed));
        } else {
            let Alone { kernel, .. } = self.kernel_of(&running, running.place);
            self.begin_beside(&mut running, kernel);
            self.fabric.read(self.now, ACCELERATOR, self.fast, kernel.bytes, self.machine.accelerator.read);
        }
        self.running = Some(running);
    }

    /// What follows the bytes and operations of a kernel: its launch, and sums over accelerators.
    fn follows(&self, kernel: Kernel) -> Nanos {
        self.machine.accelerator.launch + kernel.summing
    }

    /// Notes what a kernel that runs beside others does after its bytes are read.
    fn begin_beside(&self, running: &mut Running, kernel: Kernel) {
        running.operations = kernel.operations;
        running.exchanged = kernel.exchanged;
        running.then = self.follows(kernel).saturating_sub(self.exchange_alone(kernel.exchanged));
    }

    /// What comes when that is over.
    fn then(running: &Running) -> Tick {
        if running.exchanged > Bytes::ZERO { Tick::Sums } else { Tick::Computed }
    }

    /// The kernel that runs beside others adds up what the accelerators have.
    pub(super) fn sum_up(&mut self) {
        let bytes = self.running.as_ref().map_or(Bytes::ZERO, |running| running.exchanged);
        self.exchange_sums(bytes);
    }

    /// Passes the kernels that have ended by `now` of a command that runs alone, but for the last.
    fn pass(&mut self, running: &mut Running, now: Time) {
        while running.place < running.mixers.len() {
            let each = self.kernel_of(running, running.place).whole;
            let ended = now.since(running.since).0.checked_div(each.0).unwrap_or(u64::MAX);
            let kernels = self.alike(running, running.place).min(ended);
            if kernels == 0 {
                break;
            }
            self.book(running, kernels, each);
            let Alone { kernel, .. } = self.kernel_of(running, running.place);
            let (bytes, time) = (kernel.exchanged, self.exchange_alone(kernel.exchanged));
            self.exchanged_alone(Bytes(bytes.0 * kernels), Nanos(time.0 * kernels));
            running.place += kernels as usize;
            running.since = running.since + Nanos(each.0 * kernels);
        }
    }

    /// Something else is about to flow: the command that ran alone goes on beside it.
    pub(super) fn share(&mut self) {
        let Some(mut running) = self.running.take_if(|running| running.alone.is_some()) else { return };
        running.alone.take().map(|end| self.queue.cancel(end));
        self.pass(&mut running, self.now);
        let Alone { kernel, read, whole } = self.kernel_of(&running, running.place);
        self.begin_beside(&mut running, kernel);
        let sums = running.since + whole.saturating_sub(self.exchange_alone(kernel.exchanged));
        if running.since + read > self.now {
            let rate = self.machine.accelerator.read.min(self.machine.tier(self.fast).read);
            let left = kernel.bytes.saturating_sub(flowed(rate, running.since, self.now));
            self.fabric.read(self.now, ACCELERATOR, self.fast, left, self.machine.accelerator.read);
        } else if sums > self.now || running.exchanged == Bytes::ZERO {
            self.queue.push(sums, Rank::Completion, World::then(&running));
        } else {
            let rate = self.machine.peers.map_or(policy::Bandwidth(0), |peers| peers.rate);
            let behind = flowed(rate, sums, self.now).min(running.exchanged);
            self.exchanged_alone(behind, self.now.since(sums));
            self.exchange_sums(running.exchanged.saturating_sub(behind));
        }
        self.running = Some(running);
    }

    /// A kernel that reads beside others has read its bytes.
    pub(super) fn kernel_read(&mut self) {
        let Some(running) = &self.running else { return };
        let end = self.now.max(running.since + running.operations) + running.then;
        self.queue.push(end, Rank::Completion, World::then(running));
    }

    /// A kernel has ended, or all of its command.
    pub(super) fn computed(&mut self) -> Result<Option<EventKind>, WorldError> {
        let Some(mut running) = self.running.take() else { return Ok(None) };
        if running.alone.is_some() {
            self.pass(&mut running, self.now);
            let Alone { kernel, .. } = self.kernel_of(&running, running.place);
            self.exchanged_alone(kernel.exchanged, self.exchange_alone(kernel.exchanged));
        }
        self.book(&running, 1, self.now.since(running.since));
        if running.place < running.mixers.len() {
            (running.place, running.since) = (running.place + 1, self.now);
            self.run(running);
            return Ok(None);
        }
        let Running { last, batch, .. } = running;
        if self.share.is_part() && matches!(last.1, Part::Mixer | Part::Head) {
            return self.hold(Held::Ended { last, batch }).map(|()| None);
        }
        Ok(self.ended(last, &batch))
    }

    /// What follows the end of a command.
    pub(super) fn ended(
        &mut self,
        (layer, part): (LayerId, Part),
        batch: &Arc<[Slice]>,
    ) -> Option<EventKind> {
        Some(match part {
            Part::Mixer => {
                let leave = if self.share.is_part() { None } else { self.leave_from(layer) };
                if let Some(through) = leave {
                    self.set_out(self.now, layer, through, batch.clone());
                    return None;
                }
                self.due.extend(self.workload.foresee(batch, layer));
                let shared_out = self.share.is_part() && self.model.is_routed(self.model.layer(layer));
                let routed = match shared_out {
                    true => self.route_share(batch, layer),
                    false => self.workload.route(batch, layer),
                };
                self.away = shared_out.then(|| (layer, self.workload.most_gone()));
                self.due.push_back(EventKind::LayerRouted { layer, routed });
                return self.due.pop_front();
            }
            Part::Experts | Part::Near(_) => EventKind::LayerDone { layer },
            Part::Head => EventKind::HeadDone,
        })
    }

    /// Notes that the kernel at hand has ended, and others like it after it, each of which took so long.
    fn book(&mut self, running: &Running, kernels: u64, each: Nanos) {
        self.compute_time += Nanos(each.0 * kernels);
        let Alone { kernel, .. } = self.kernel_of(running, running.place);
        self.provenance.add(&kernel.booked, kernels);
        if let Some(timeline) = &mut self.timeline {
            for number in 0..kernels {
                let (layer, part) = running.part(running.place + number as usize);
                timeline.compute(layer, part, running.since + Nanos(each.0 * number), each);
            }
        }
    }
}
