//! Kernels of the accelerator in virtual time: one after the other, each reading fast memory beside whatever else does.
//!
//! Where nothing else flows, nothing can slow a kernel down: the end of a command is known when it begins, however many
//! kernels it has, and one event stands for all of them. When something begins to flow meanwhile, the kernel that runs then
//! is taken up where it is.

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
    batch: Arc<[Slice]>,
    kernels: Vec<Option<Kernel>>,
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
        Mixers { like: like.collect(), batch: [].into(), kernels: vec![None; model.layers.len()] }
    }
}

/// The compute command that is running.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// The layers whose mixers it begins with.
    mixers: Range<u16>,
    /// What it ends with.
    last: (LayerId, Part),
    last_kernel: Kernel,
    batch: Arc<[Slice]>,
    /// Which of these kernels runs, since when, and how long its operations take.
    place: usize,
    since: Time,
    operations: Nanos,
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
        self.compute_time + running
    }

    pub(super) fn begin_compute(
        &mut self,
        mixers: Range<u16>,
        last: (LayerId, Part),
        batch: Arc<[Slice]>,
        reads: &[Read],
    ) -> Result<(), WorldError> {
        for read in reads {
            self.memory.expect(read.block, read.form)?;
            self.memory.compute_reads(read.block, read.form);
        }
        if last.1 == Part::Host {
            return self.begin_host(last.0, reads);
        }
        if self.running.is_some() {
            return Err(WorldError::Busy);
        }
        let last_kernel = match last.1 {
            Part::Mixer => self.mixer(last.0, &batch),
            _ => self.kernel(last, &batch, reads),
        };
        let (since, operations) = (self.now, Nanos::ZERO);
        self.run(Running { mixers, last, last_kernel, batch, place: 0, since, operations, alone: None });
        Ok(())
    }

    fn kernel_of(&mut self, running: &Running, place: usize) -> Kernel {
        match running.part(place) {
            (layer, Part::Mixer) => self.mixer(layer, &running.batch),
            _ => running.last_kernel,
        }
    }

    fn mixer(&mut self, layer: LayerId, batch: &Arc<[Slice]>) -> Kernel {
        if !Arc::ptr_eq(&self.mixers.batch, batch) {
            self.mixers.batch = batch.clone();
            self.mixers.kernels.fill(None);
        }
        let like = usize::from(self.mixers.like[layer.index()]);
        if let Some(kernel) = self.mixers.kernels[like] {
            return kernel;
        }
        let kernel = self.kernel((layer, Part::Mixer), batch, &[]);
        self.mixers.kernels[like] = Some(kernel);
        kernel
    }

    fn kernel(&self, part: (LayerId, Part), batch: &[Slice], reads: &[Read]) -> Kernel {
        let emits = |slice: &&Slice| {
            slice.cached + slice.tokens >= self.workload.requests()[slice.request.index()].context
        };
        let emitting = if part.1 == Part::Head { batch.iter().filter(emits).count() as u64 } else { 0 };
        Kernel::of(&self.machine, &self.model, &self.sizes, part, batch, emitting, reads)
    }

    /// Begins the kernel that is at hand, and all that follow it where nothing else flows.
    fn run(&mut self, mut running: Running) {
        if self.fabric.is_idle() {
            let mut end = self.now;
            for place in running.place..=running.mixers.len() {
                let kernel = self.kernel_of(&running, place);
                end = self.ends(end, kernel);
            }
            running.alone = Some(self.queue.push(end, Rank::Completion, Tick::Computed));
        } else {
            let kernel = self.kernel_of(&running, running.place);
            running.operations = kernel.operations;
            self.fabric.read(self.now, ACCELERATOR, self.fast, kernel.bytes, self.machine.accelerator.read);
        }
        self.running = Some(running);
    }

    /// When a kernel that begins then has read its bytes, if nothing else reads or writes.
    fn read_alone(&self, since: Time, kernel: Kernel) -> Time {
        let rate = self.machine.accelerator.read.min(self.machine.tier(self.fast).read);
        since + rate.time_for(kernel.bytes)
    }

    fn ends(&self, since: Time, kernel: Kernel) -> Time {
        self.read_alone(since, kernel).max(since + kernel.operations) + self.machine.accelerator.launch
    }

    /// Passes the kernels that have ended by `now` of a command that runs alone, but for the last.
    fn pass(&mut self, running: &mut Running, now: Time) {
        while running.place < running.mixers.len() {
            let kernel = self.kernel_of(running, running.place);
            let end = self.ends(running.since, kernel);
            if end > now {
                break;
            }
            self.book(running, end);
            (running.place, running.since) = (running.place + 1, end);
        }
    }

    /// Something else is about to flow: the command that ran alone goes on beside it.
    pub(super) fn share(&mut self) {
        let Some(mut running) = self.running.take_if(|running| running.alone.is_some()) else { return };
        running.alone.take().map(|end| self.queue.cancel(end));
        self.pass(&mut running, self.now);
        let kernel = self.kernel_of(&running, running.place);
        running.operations = kernel.operations;
        if self.read_alone(running.since, kernel) > self.now {
            let rate = self.machine.accelerator.read.min(self.machine.tier(self.fast).read);
            let read = u128::from(rate.0) * u128::from(self.now.since(running.since).0) / 1_000_000_000;
            let left = kernel.bytes.saturating_sub(Bytes(u64::try_from(read).unwrap_or(u64::MAX)));
            self.fabric.read(self.now, ACCELERATOR, self.fast, left, self.machine.accelerator.read);
        } else {
            self.queue.push(self.ends(running.since, kernel), Rank::Completion, Tick::Computed);
        }
        self.running = Some(running);
    }

    /// A kernel that reads beside others has read its bytes.
    pub(super) fn kernel_read(&mut self) {
        let Some(running) = &self.running else { return };
        let end = self.now.max(running.since + running.operations) + self.machine.accelerator.launch;
        self.queue.push(end, Rank::Completion, Tick::Computed);
    }

    /// A kernel has ended, or all of its command.
    pub(super) fn computed(&mut self) -> Option<EventKind> {
        let mut running = self.running.take()?;
        if running.alone.is_some() {
            self.pass(&mut running, self.now);
        }
        self.book(&running, self.now);
        if running.place < running.mixers.len() {
            (running.place, running.since) = (running.place + 1, self.now);
            self.run(running);
            return None;
        }
        let Running { last: (layer, part), batch, .. } = running;
        Some(match part {
            Part::Mixer => {
                self.due.extend(self.workload.foresee(&batch, layer));
                let routed = self.workload.route(&batch, layer);
                self.due.push_back(EventKind::LayerRouted { layer, routed });
                return self.due.pop_front();
            }
            Part::Experts | Part::Host => EventKind::LayerDone { layer },
            Part::Head => EventKind::HeadDone,
        })
    }

    /// Notes that the kernel at hand ended then.
    fn book(&mut self, running: &Running, end: Time) {
        let took = end.since(running.since);
        self.compute_time += took;
        if let Some(timeline) = &mut self.timeline {
            let (layer, part) = running.part(running.place);
            timeline.compute(layer, part, running.since, took);
        }
    }
}
