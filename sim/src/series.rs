//! How a run went over time: its figures for each of a bounded number of windows, however long it is.
//!
//! What is counted from the beginning is noted now and then; a window is the difference of two notes. When there are
//! [`MOST`] windows, each two become one, and windows are twice as wide from then on.

use crate::fabric::LinkCount;
use crate::world::World;
use policy::state::STATES;
use policy::tally::{CAUSES, Recent};
use policy::veto::REASONS;
use policy::{Bytes, Nanos, Sketch, Time};
use policy::{Orchestrator, Watch};

/// There are never more windows.
pub const MOST: usize = 128;
/// How wide windows are at first. The first event after that ends a window.
const FIRST: Nanos = Nanos(1_000_000);

/// What had been counted by an instant.
#[derive(Clone, Debug, Default)]
struct Note {
    at: Time,
    counts: Counts,
    stall: [Nanos; CAUSES.len()],
    compute: Nanos,
    stepping: Nanos,
    step_time: Nanos,
    batch_time: u128,
    queue_time: u128,
    states: [f64; STATES.len()],
    drift_sum: f64,
    steps: u64,
    vetoes: [u64; REASONS.len()],
    links: Vec<LinkCount>,
}

/// What happened in a window, as often as it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that came in.
    pub arrived: u64,
    /// Requests served to their end.
    pub completed: u64,
    /// Tokens put out.
    pub output_tokens: u64,
    /// Prompt tokens computed for the first time.
    pub prompt_tokens: u64,
    /// Tokens computed again after a pre-emption.
    pub recomputed_tokens: u64,
    /// Demanded (block, layer step) pairs.
    pub demanded: u64,
    /// Those that had a usable fast copy when the step asked.
    pub hits: u64,
}

impl Note {
    fn take(at: Time, orchestrator: &Orchestrator, world: &World) -> Note {
        let (tally, context) = (orchestrator.tally(), orchestrator.context());
        Note {
            at,
            counts: Counts {
                arrived: tally.arrived,
                completed: tally.completed,
                output_tokens: tally.output_tokens,
                prompt_tokens: tally.prompt_tokens,
                recomputed_tokens: tally.recomputed_tokens,
                demanded: tally.demanded,
                hits: tally.hits(),
            },
            stall: tally.stall,
            compute: world.compute_time_so_far(),
            stepping: orchestrator.step_time_so_far(),
            step_time: tally.step_time,
            batch_time: tally.batch_time,
            queue_time: tally.queue_time,
            states: context.ledger.states().byte_seconds(at),
            drift_sum: context.guard.drift_sum(),
            steps: context.guard.steps(),
            vetoes: tally.vetoes,
            links: world.links().map(|(_, count)| count).collect(),
        }
    }
}

/// A window as it is kept: what had been counted when it ended, and what cannot be had from differences.
#[derive(Clone, Debug)]
struct Kept {
    end: Note,
    recent: Recent,
    drift_max: f64,
    cache: Option<Bytes>,
}

/// What one link direction did in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkShare {
    /// Bytes carried.
    pub bytes: Bytes,
    /// Time in which it was busy.
    pub busy: Nanos,
}

/// A part of a run.
#[derive(Clone, Debug)]
pub struct Window {
    /// When it begins.
    pub from: Time,
    /// When it ends.
    pub to: Time,
    /// What happened.
    pub counts: Counts,
    /// Stall by cause, booked when it ended, in the order of [`CAUSES`].
    pub stall: [Nanos; CAUSES.len()],
    /// Time the accelerator computed.
    pub compute: Nanos,
    /// Time in steps: computing, or waiting for memory.
    pub stepping: Nanos,
    /// Requests in a step, on average over the time of the steps that ended; `None` without any.
    pub batch: Option<f64>,
    /// Requests waiting to be admitted, likewise.
    pub waiting: Option<f64>,
    /// Arrival to first token, of the requests whose first token came.
    pub ttft: Sketch,
    /// Gaps between two tokens of one request.
    pub itl: Sketch,
    /// Native bytes of blocks in each state, on average.
    pub states: [f64; STATES.len()],
    /// The mean drift of the steps that ended; `None` without any.
    pub drift_mean: Option<f64>,
    /// The largest drift of a step, at the upper confidence bound.
    pub drift_max: f64,
    /// Refusals by reason, in the order of [`REASONS`].
    pub vetoes: [u64; REASONS.len()],
    /// Link directions, in the machine's order.
    pub links: Vec<LinkShare>,
    /// Bytes of the key-value cache at the end, where it is kept in pages.
    pub cache: Option<Bytes>,
}

impl Window {
    /// How long it is.
    pub fn length(&self) -> Nanos {
        self.to.since(self.from)
    }

    /// The share of demanded pairs that had a usable fast copy; `None` without any.
    pub fn hit_rate(&self) -> Option<f64> {
        (self.counts.demanded > 0).then(|| self.counts.hits as f64 / self.counts.demanded as f64)
    }

    /// So much of something, a second.
    pub fn rate(&self, amount: u64) -> f64 {
        amount as f64 / self.length().as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// A time as a share of the window.
    pub fn share(&self, time: Nanos) -> f64 {
        time.0 as f64 / self.length().0.max(1) as f64
    }

    fn between(begin: &Note, kept: &Kept) -> Window {
        let Kept { end, recent, drift_max, cache } = kept;
        let steps = end.steps - begin.steps;
        let length = end.at.since(begin.at).as_secs_f64();
        let step_time = (end.step_time.0 - begin.step_time.0) as f64;
        let over_steps = |end: u128, begin: u128| (step_time > 0.0).then(|| (end - begin) as f64 / step_time);
        let link = |(index, end): (usize, &LinkCount)| {
            let begin = begin.links.get(index).copied().unwrap_or_default();
            LinkShare { bytes: Bytes(end.bytes - begin.bytes), busy: Nanos(end.busy.0 - begin.busy.0) }
        };
        Window {
            from: begin.at,
            to: end.at,
            counts: Counts {
                arrived: end.counts.arrived - begin.counts.arrived,
                completed: end.counts.completed - begin.counts.completed,
                output_tokens: end.counts.output_tokens - begin.counts.output_tokens,
                prompt_tokens: end.counts.prompt_tokens - begin.counts.prompt_tokens,
                recomputed_tokens: end.counts.recomputed_tokens - begin.counts.recomputed_tokens,
                demanded: end.counts.demanded - begin.counts.demanded,
                hits: end.counts.hits - begin.counts.hits,
            },
            stall: std::array::from_fn(|cause| Nanos(end.stall[cause].0 - begin.stall[cause].0)),
            compute: Nanos(end.compute.0 - begin.compute.0),
            stepping: Nanos(end.stepping.0 - begin.stepping.0),
            batch: over_steps(end.batch_time, begin.batch_time),
            waiting: over_steps(end.queue_time, begin.queue_time),
            ttft: recent.ttft.clone(),
            itl: recent.itl.clone(),
            states: std::array::from_fn(|state| (end.states[state] - begin.states[state]).max(0.0) / length),
            drift_mean: (steps > 0).then(|| (end.drift_sum - begin.drift_sum) / steps as f64),
            drift_max: *drift_max,
            vetoes: std::array::from_fn(|reason| end.vetoes[reason] - begin.vetoes[reason]),
            links: end.links.iter().enumerate().map(link).collect(),
            cache: *cache,
        }
    }
}

/// See the module. It looks on while a run goes on that keeps recent latencies.
#[derive(Clone, Debug)]
pub struct Series {
    kept: Vec<Kept>,
    width: Nanos,
    /// When the window ends that has begun.
    due: Time,
    steps: u64,
    drift_max: f64,
}

impl Default for Series {
    fn default() -> Series {
        Series { kept: Vec::new(), width: FIRST, due: Time(0) + FIRST, steps: 0, drift_max: 0.0 }
    }
}

impl Series {
    /// Ends the last window where the run has ended.
    pub fn finish(&mut self, orchestrator: &Orchestrator, world: &World) {
        let end = self.kept.last().map_or(Time(0), |last| last.end.at);
        if world.now() > end {
            let recent = orchestrator.tally().recent.as_deref().cloned();
            self.close(world.now(), recent.unwrap_or_default(), orchestrator, world);
        }
    }

    /// The windows, in order. Each begins where the one before it ends.
    pub fn windows(&self) -> Vec<Window> {
        let start = Note::default();
        let begins = std::iter::once(&start).chain(self.kept.iter().map(|kept| &kept.end));
        begins.zip(&self.kept).map(|(begin, kept)| Window::between(begin, kept)).collect()
    }

    fn close(&mut self, at: Time, recent: Recent, orchestrator: &Orchestrator, world: &World) {
        if self.kept.len() == MOST {
            self.widen();
        }
        self.kept.push(Kept {
            recent,
            end: Note::take(at, orchestrator, world),
            drift_max: std::mem::take(&mut self.drift_max),
            cache: orchestrator.serving().cache_bytes(),
        });
        self.due = at + self.width;
    }

    /// Makes one window of each two.
    fn widen(&mut self) {
        self.width = Nanos(self.width.0.saturating_mul(2));
        let mut rest = std::mem::take(&mut self.kept).into_iter();
        while let Some(first) = rest.next() {
            let Some(mut both) = rest.next() else {
                self.kept.push(first);
                break;
            };
            both.recent.ttft.merge(&first.recent.ttft);
            both.recent.itl.merge(&first.recent.itl);
            both.drift_max = both.drift_max.max(first.drift_max);
            self.kept.push(both);
        }
    }
}

impl Watch<World> for Series {
    #[inline]
    fn event(&mut self, at: Time, orchestrator: &mut Orchestrator, world: &World) {
        let guard = &orchestrator.context().guard;
        if guard.steps() != self.steps {
            self.steps = guard.steps();
            self.drift_max = self.drift_max.max(guard.last_drift());
        }
        if at >= self.due {
            self.close(at, orchestrator.take_recent(), orchestrator, world);
        }
    }
}
