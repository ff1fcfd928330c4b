//! Who attends to a request, where accelerators that have experts of their own share the requests out: one of them has its cache.

use super::Serving;
use crate::id::RequestId;
use crate::parallel::ExpertShare;

/// The accelerators that there are, and those of them that are lost.
#[derive(Clone, Debug)]
pub(super) struct Attendance {
    share: ExpertShare,
    lost: Vec<bool>,
}

impl Default for Attendance {
    /// There is one.
    fn default() -> Attendance {
        Attendance::new(ExpertShare::default())
    }
}

impl Attendance {
    /// All are there.
    fn new(share: ExpertShare) -> Attendance {
        Attendance { share, lost: vec![false; share.of as usize] }
    }
}

/// What is computed again since an accelerator was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abandoned {
    /// Requests that it attended to.
    pub requests: u32,
    /// The tokens that were in their caches.
    pub tokens: u64,
}

impl Serving {
    /// The same for accelerators that share the requests out.
    pub fn attended(self, share: ExpertShare) -> Serving {
        Serving { attendance: Attendance::new(share), ..self }
    }

    /// Who attends to a request that is admitted now: each in its turn, and in place of the lost whoever has the fewest requests, of
    /// equals the first.
    pub(super) fn attends_to(&self, request: RequestId) -> u32 {
        let Attendance { share, lost } = &self.attendance;
        let own = share.attends_to(request);
        if !lost[own as usize] {
            return own;
        }
        let of = |rank: u32| self.running.iter().filter(|active| active.rank == rank).count();
        let there = (0..share.of).filter(|&rank| !lost[rank as usize]);
        there.min_by_key(|&rank| of(rank)).unwrap_or(own)
    }

    /// What the running step gives is thrown away.
    pub(crate) fn spoil(&mut self) {
        if self.micro_batches.end().is_some() {
            self.running.iter_mut().for_each(|active| active.computing = 0);
        }
    }

    /// An accelerator is lost, with the caches of the requests that it attended to: they are computed again, as if they were
    /// pre-empted, before whatever has not begun. Called while no step is running.
    pub(crate) fn lose(&mut self, rank: u32) -> Abandoned {
        self.attendance.lost[rank as usize] = true;
        let mut abandoned = Abandoned::default();
        while let Some(place) = self.running.iter().position(|active| active.rank == rank) {
            abandoned.requests += 1;
            abandoned.tokens += u64::from(self.running[place].cached);
            self.preempt(place);
        }
        abandoned
    }

    /// An accelerator is back, with nothing.
    pub(crate) fn regain(&mut self, rank: u32) {
        self.attendance.lost[rank as usize] = false;
    }
}
