//! Every policy at every capacity, on all cores.

use super::sizes::Size;
use crate::failure::Failure;
use crate::progress::Progress;
use policy::registry::Entry;
use policy::replay::{Order, ReplayInput, Reset};
use policy::{Bytes, Demands};
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use serde::Serialize;
use std::time::{Duration, Instant};

/// A policy and the values of its parameters, in the order of its entry.
pub(crate) struct Tuned {
    pub(crate) entry: &'static Entry,
    pub(crate) params: Vec<f64>,
}

/// What is replayed.
pub(crate) struct Grid<'a> {
    pub(crate) demands: &'a Demands,
    pub(crate) fit: Option<&'a Demands>,
    pub(crate) order: Order,
    pub(crate) reset: Reset,
    pub(crate) sizes: Vec<Size>,
    pub(crate) policies: Vec<Tuned>,
}

/// One replay, as it is printed.
#[derive(Serialize)]
pub(crate) struct Run {
    pub(crate) policy: &'static str,
    order: Order,
    pub(crate) capacity_slots: usize,
    pub(crate) capacity_bytes: Option<Bytes>,
    pub(crate) accesses: u64,
    pub(crate) hits: u64,
    pub(crate) hit_rate: f64,
    accesses_per_s: f64,
}

/// The runs of one policy, one for each capacity.
pub(crate) type Curve = Vec<Run>;

impl Grid<'_> {
    /// Replays all of it on `threads` threads, one for each core if 0. The curves are in the order of the policies,
    /// whichever run is done first.
    pub(crate) fn run(&self, threads: usize) -> Result<Vec<Curve>, Failure> {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().map_err(Failure::failed)?;
        let progress = Progress::new((self.policies.len() * self.sizes.len()) as u64, "replaying");
        let jobs: Vec<_> = self
            .policies
            .iter()
            .flat_map(|policy| self.sizes.iter().map(move |&size| (policy, size)))
            .collect();
        let run = |&(policy, size): &(&Tuned, Size)| {
            let run = self.replay(policy, size);
            progress.step();
            run
        };
        let runs: Vec<_> = pool.install(|| jobs.par_iter().with_max_len(1).map(run).collect());
        let mut runs = runs.into_iter();
        self.policies.iter().map(|_| runs.by_ref().take(self.sizes.len()).collect()).collect()
    }

    fn replay(&self, policy: &Tuned, size: Size) -> Result<Run, Failure> {
        let Grid { demands, fit, order, reset, .. } = *self;
        let input = ReplayInput { demands, fit, capacity: size.slots, order, reset, params: &policy.params };
        let (result, elapsed) = timed(|| policy.entry.run(&input));
        let result = result.map_err(Failure::refused)?;
        Ok(Run {
            policy: policy.entry.name,
            order,
            capacity_slots: size.slots,
            capacity_bytes: size.bytes,
            accesses: result.accesses,
            hits: result.hits,
            hit_rate: result.hit_rate(),
            accesses_per_s: result.accesses as f64 / elapsed.max(Duration::from_nanos(1)).as_secs_f64(),
        })
    }
}

/// How long something took: a rate to report, which nothing else depends on.
#[allow(clippy::disallowed_methods)]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
