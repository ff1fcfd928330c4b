//! Copies of one path that follow each other on one engine, while nothing else flows: each takes as long as if it were alone,
//! so nobody has to share anything out. Most of what a step waits for comes this way.

use policy::{Nanos, Time};
use std::collections::VecDeque;

/// See the module. Empty if there is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Train {
    /// The jobs, the first of them under way.
    jobs: VecDeque<u32>,
    class: u16,
    /// When the first one ends.
    end: Time,
}

impl Train {
    /// When the first copy ends, if there is one.
    pub(super) fn next_end(&self) -> Option<Time> {
        (!self.jobs.is_empty()).then_some(self.end)
    }

    /// Whether copies of this class are under way.
    pub(super) fn is_of(&self, class: u16) -> bool {
        self.class == class && !self.jobs.is_empty()
    }

    /// A copy that nothing goes before: it begins now.
    pub(super) fn begin(&mut self, now: Time, class: u16, job: u32, takes: Nanos) {
        self.class = class;
        self.jobs.push_front(job);
        self.end = now + takes;
    }

    /// A copy goes behind those that are under way.
    pub(super) fn follow(&mut self, job: u32) {
        self.jobs.push_back(job);
    }

    /// Takes out the first copy if it has ended by `now`, and the one that follows it, which is to [`Train::begin`].
    pub(super) fn take_ended(&mut self, now: Time) -> Option<(u32, Option<u32>)> {
        if self.end > now {
            return None;
        }
        let ended = self.jobs.pop_front()?;
        Some((ended, self.jobs.pop_front()))
    }

    /// Gives its copies up to be carried otherwise, in order.
    pub(super) fn dissolve(&mut self) -> VecDeque<u32> {
        std::mem::take(&mut self.jobs)
    }
}
