//! Lanes: a thread each, doing one job after the other, as a copy engine or a stream of an accelerator does. A lane
//! knows nothing of the controller; its worker holds the regions of its jobs until they are done.

use crate::engine::{Done, Job, LaneKind, Worker};
use policy::units::Nanos;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

/// A thread that does jobs in the order they come.
pub(crate) struct Lane {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    pub(crate) fn spawn(kind: LaneKind, mut worker: Box<dyn Worker>, done: Sender<Done>) -> io::Result<Lane> {
        let (jobs, queue) = channel();
        // Nobody listens any more when the device is being dropped.
        let work = move || worker.run(&queue, &mut |report| drop(done.send(report)));
        let name = match kind {
            LaneKind::Copy { from, to } => format!("lane-{}-{}", from.0, to.0),
            LaneKind::Compute => "lane-compute".into(),
            LaneKind::Near(by) => format!("lane-near-{}", by.0),
        };
        let thread = Builder::new().name(name).spawn(work)?;
        Ok(Lane { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a job; false if the thread has died.
    pub(crate) fn submit(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }
}

impl Drop for Lane {
    /// Finishes what is queued, then ends the thread.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// The present. Measured, never decided upon.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn since(start: Instant) -> Nanos {
    Nanos(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}
