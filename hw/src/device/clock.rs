//! The time a run takes on a device when the controller takes none: the real durations of jobs, laid end to end as the
//! commands depend on each other. A job begins when it was submitted or when its lane was free, whichever is later; the
//! controller is where it last saw a job end. The controller's own time, the simulator's in lockstep, and the checks of
//! bytes are not in it; that jobs slow each other down is, since their durations were measured while others ran.

use crate::engine::LaneKind;
use policy::LayerId;
use policy::event::{MoveChunk, Part, StateChunk};
use policy::units::Nanos;
use std::collections::{BTreeMap, VecDeque};

/// What a lane did, on this clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it began.
    pub from: Nanos,
    /// How long it took.
    pub took: Nanos,
    /// What it was.
    pub what: Deed,
}

/// A job that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A chunk of a move.
    Chunk(MoveChunk),
    /// A chunk of a move of states.
    State(StateChunk),
    /// A part of a layer.
    Compute(LayerId, Part),
}

#[derive(Default)]
pub(super) struct Clock {
    /// Where the controller is.
    pub(super) now: Nanos,
    /// When each lane is free, and its jobs that have not been reported: when they were submitted, and what they are.
    lanes: BTreeMap<LaneKind, (Nanos, VecDeque<(Nanos, Deed)>)>,
    /// Kept only where somebody asks for them.
    spans: Option<Vec<Span>>,
    /// Time of copies from one tier to another.
    pub(super) transfer: Nanos,
    /// Time the controller waited for copies while the accelerator had nothing to do.
    pub(super) exposed: Nanos,
}

impl Clock {
    pub(super) fn keep_spans(&mut self) {
        self.spans = Some(Vec::new());
    }

    pub(super) fn take_spans(&mut self) -> Vec<Span> {
        self.spans.take().unwrap_or_default()
    }

    /// A job goes to a lane.
    pub(super) fn submit(&mut self, lane: LaneKind, deed: Deed) {
        let now = self.now;
        self.lanes.entry(lane).or_default().1.push_back((now, deed));
    }

    /// The oldest job of a lane has been done, or has failed and counts for nothing. Returns when it ended.
    pub(super) fn done(&mut self, lane: LaneKind, took: Option<Nanos>) -> Nanos {
        let Some((free, queue)) = self.lanes.get_mut(&lane) else { return self.now };
        let Some((submitted, what)) = queue.pop_front() else { return self.now };
        let from = submitted.max(*free);
        let Some(took) = took else { return from };
        *free = from + took;
        if let LaneKind::Copy { from, to } = lane
            && from != to
        {
            self.transfer += took;
        }
        let ended = *free;
        if let Some(spans) = &mut self.spans {
            spans.push(Span { from, took, what });
        }
        ended
    }

    /// The controller sees something that ended then.
    pub(super) fn see(&mut self, ended: Nanos, exposed: bool) {
        if exposed {
            self.exposed += Nanos(ended.0.saturating_sub(self.now.0));
        }
        self.now = self.now.max(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LaneKind = LaneKind::Copy { from: policy::TierId(1), to: policy::TierId(0) };

    fn compute(layer: u16) -> Deed {
        Deed::Compute(LayerId(layer), Part::Mixer)
    }

    #[test]
    fn jobs_of_a_lane_follow_each_other_and_lanes_run_beside_each_other() {
        let mut clock = Clock::default();
        clock.keep_spans();
        clock.submit(LaneKind::Compute, compute(0));
        clock.submit(LINK, compute(1));
        clock.submit(LINK, compute(2));
        assert_eq!(clock.done(LINK, Some(Nanos(30))), Nanos(30));
        assert_eq!(clock.done(LaneKind::Compute, Some(Nanos(10))), Nanos(10));
        clock.see(Nanos(10), false);
        clock.submit(LaneKind::Compute, compute(3));
        assert_eq!(clock.done(LINK, Some(Nanos(5))), Nanos(35), "after the first on its lane");
        assert_eq!(clock.done(LaneKind::Compute, Some(Nanos(7))), Nanos(17), "from when it was submitted");
        clock.see(Nanos(17), false);
        clock.see(Nanos(35), true);
        assert_eq!((clock.now, clock.exposed, clock.transfer), (Nanos(35), Nanos(18), Nanos(35)));
        assert_eq!(clock.take_spans().len(), 4);
    }

    #[test]
    fn a_job_that_failed_leaves_its_lane_as_it_was() {
        let mut clock = Clock::default();
        clock.submit(LINK, compute(0));
        clock.submit(LINK, compute(1));
        assert_eq!(clock.done(LINK, None), Nanos(0));
        assert_eq!(clock.done(LINK, Some(Nanos(4))), Nanos(4));
    }
}
