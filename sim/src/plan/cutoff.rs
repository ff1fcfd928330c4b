//! When a run is over before its end: once so many of its requests have passed a limit that no request still to come can
//! bring the percentile back.

use super::figures::{Figures, REJECTED, TPOT, TTFT};
use super::goal::Bound;
use crate::world::World;
use policy::tally::RequestTimes;
use policy::{Nanos, Orchestrator, Sketch, Time, Watch};
use serde::Serialize;

/// What a run comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Run {
    /// It went on to its end.
    Whole(Figures),
    /// It was stopped.
    Stopped(Stopped),
}

impl Run {
    /// Its figures, if it went on to its end.
    pub fn figures(&self) -> Option<&Figures> {
        match self {
            Run::Whole(figures) => Some(figures),
            Run::Stopped(_) => None,
        }
    }

    /// Why it was stopped, if it was.
    pub fn stopped(&self) -> Option<Stopped> {
        match self {
            Run::Whole(_) => None,
            Run::Stopped(stopped) => Some(*stopped),
        }
    }
}

/// Why a run was stopped, and when.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stopped {
    /// What is beyond its limit: `ttft` or `tpot` at the objective's percentile, or `requests_rejected`.
    pub metric: &'static str,
    /// The limit, in milliseconds or requests.
    pub limit: f64,
    /// The share of the run's requests that had left.
    pub after: f64,
}

/// Looks on, and ends the run as soon as one of the limits is passed for certain.
pub(super) struct Cutoff {
    percent: f64,
    limits: Vec<Limit>,
    /// Requests that have left, and all that there are.
    left: u64,
    all: u64,
    stopped: Option<Stopped>,
}

/// A limit, and the requests beyond it.
struct Limit {
    bound: Bound,
    /// In nanoseconds or requests.
    most: f64,
    beyond: u64,
}

impl Cutoff {
    /// With limits on latencies at a percentile, or on refused requests.
    pub(super) fn new(until: &[Bound], percent: f64) -> Cutoff {
        // A percentile is read from a sketch: what counts as beyond the limit is beyond it there too.
        let sure = 1.0 + 2.0 * Sketch::default().error();
        let limit = |bound: &Bound| Limit { bound: *bound, most: bound.limit_ms * 1e6 * sure, beyond: 0 };
        Cutoff { percent, limits: until.iter().map(limit).collect(), left: 0, all: 0, stopped: None }
    }

    /// Why the run was stopped, if it was.
    pub(super) fn stopped(&self) -> Option<Stopped> {
        self.stopped
    }

    /// So many requests beyond a limit put the percentile there. Requests that are refused or put out one token have no
    /// sample; with fewer samples fewer would do.
    fn enough_of(&self, figure: usize) -> u64 {
        let rank = (self.percent / 100.0).clamp(0.0, 1.0) * self.all.saturating_sub(1) as f64;
        if figure == REJECTED { 1 } else { self.all - rank.floor() as u64 }
    }
}

impl Watch<World> for Cutoff {
    fn request(&mut self, request: RequestTimes) {
        self.left += 1;
        for Limit { bound, most, beyond } in &mut self.limits {
            let time = match bound.figure {
                REJECTED => Some(Nanos(u64::from(request.refused))),
                _ if request.refused => None,
                TTFT => Some(request.ttft()),
                TPOT => request.tpot(),
                _ => None,
            };
            *beyond += u64::from(time.is_some_and(|time| time.0 as f64 > *most));
        }
    }

    fn event(&mut self, _: Time, _: &mut Orchestrator, world: &World) {
        if self.all == 0 {
            self.all = world.requests().len() as u64;
        }
        let passed = self.limits.iter().find(|limit| limit.beyond >= self.enough_of(limit.bound.figure));
        if let Some(Limit { bound, .. }) = passed {
            let after = self.left as f64 / self.all.max(1) as f64;
            self.stopped = Some(Stopped { metric: bound.metric, limit: bound.limit_ms, after });
        }
    }

    fn enough(&self) -> bool {
        self.stopped.is_some()
    }
}
