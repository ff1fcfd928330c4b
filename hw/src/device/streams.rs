//! Compute on a device: the accelerator's commands, and those of each processor beside other memories, in streams of their own. A
//! processor beside a memory is done by the host's cores, whatever it would be on the machine that is stood for: the products are
//! real, and so are the bytes.

use super::{Copy, Deed, Device};
use crate::engine::{ComputeReport, Job, JobError, LaneKind, Reading, Work};
use crate::lane::Lane;
use crate::refusal::DeviceError;
use policy::LayerId;
use policy::event::{Part, Read, Slice};
use policy::units::Nanos;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// Compute commands run in order on one of several streams: the accelerator's, and that of each processor beside other memories.
pub(crate) fn stream_of(part: Part) -> usize {
    match part {
        Part::Near(by) => 1 + by.index(),
        _ => 0,
    }
}

fn lane_of(part: Part) -> LaneKind {
    match part {
        Part::Near(by) => LaneKind::Near(by),
        _ => LaneKind::Compute,
    }
}

/// What the jobs of one command came to: the report of the last, with the time of all, or the first failure.
fn together(
    before: Option<Result<ComputeReport, JobError>>,
    last: Result<ComputeReport, JobError>,
) -> Result<ComputeReport, JobError> {
    match before {
        None => last,
        Some(before) => {
            let before = before?;
            last.map(|last| ComputeReport { took: before.took + last.took, ..last })
        }
    }
}

/// Compute commands that run in order.
pub(super) struct Stream {
    lane: Lane,
    /// The copies that each command reads, until it has been waited for.
    pub(super) computing: VecDeque<BTreeSet<Copy>>,
    computed: VecDeque<(Nanos, Result<ComputeReport, JobError>)>,
    /// For each job that is not done, whether a command ends with it; and what the jobs of that command that are done came to.
    ends: VecDeque<bool>,
    so_far: Option<Result<ComputeReport, JobError>>,
}

impl Stream {
    pub(super) fn new(lane: Lane) -> Stream {
        let (computing, computed) = Default::default();
        Stream { lane, computing, computed, ends: VecDeque::new(), so_far: None }
    }
}

impl Device {
    /// How many streams compute commands run on.
    pub(crate) fn streams(&self) -> Range<usize> {
        0..self.streams.len()
    }

    /// Where a part runs.
    fn stream(&mut self, part: Part) -> Result<&mut Stream, DeviceError> {
        self.streams.get_mut(stream_of(part)).ok_or(DeviceError::NoProcessor)
    }

    /// Waits for the oldest compute command that has not been waited for, of those that run where `part` does.
    pub fn wait_compute(&mut self, part: Part) -> Result<ComputeReport, DeviceError> {
        while self.stream(part)?.computed.is_empty() {
            if self.stream(part)?.computing.is_empty() {
                return Err(DeviceError::NoCompute);
            }
            self.next(None)?;
        }
        let stream = self.stream(part)?;
        stream.computing.pop_front();
        let (ended, computed) = stream.computed.pop_front().ok_or(DeviceError::NoCompute)?;
        self.clock.see(ended, false);
        computed.map_err(|error| self.count(error))
    }

    pub(super) fn start_compute(
        &mut self,
        (layer, part): (LayerId, Part),
        batch: Arc<[Slice]>,
        reads: &[Read],
        ends: bool,
    ) -> Result<(), DeviceError> {
        let mut regions = Vec::with_capacity(reads.len());
        for &Read { block, form, tokens } in reads {
            regions.push(Reading { block, form, region: self.readable("compute", (block, form))?, tokens });
        }
        let stream = self.stream(part)?;
        stream.ends.push_back(ends);
        if ends {
            stream.computing.push_back(reads.iter().map(|read| (read.block, read.form)).collect());
        }
        self.under_way += 1;
        self.clock.submit(lane_of(part), Deed::Compute(layer, part));
        let (dense, cache) = self.resident.of(layer, part, &batch);
        let work = Work { layer, part, batch, reads: regions, dense, cache, check: self.check_reads };
        let sent = self.stream(part)?.lane.submit(Job::Compute(work));
        if sent { Ok(()) } else { Err(DeviceError::LaneDied) }
    }

    /// A job of a stream is done; returns whether that was the end of its command.
    pub(super) fn computed(&mut self, part: Part, computed: Result<ComputeReport, JobError>) -> bool {
        self.totals.computes += 1;
        let took = computed.as_ref().ok().map(|report| report.took);
        let ended = self.clock.done(lane_of(part), took);
        let stream = &mut self.streams[stream_of(part)];
        let computed = together(stream.so_far.take(), computed);
        if stream.ends.pop_front() == Some(false) {
            stream.so_far = Some(computed);
            return false;
        }
        stream.computed.push_back((ended, computed));
        true
    }
}
