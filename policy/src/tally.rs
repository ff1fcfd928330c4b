//! What a run counts: hits, stalls by cause, vetoes, and how long requests took.

use crate::id::RequestId;
use crate::orchestrator::group::Loss;
use crate::sketch::Sketch;
use crate::units::{Bytes, Nanos, Time};
use crate::veto::{REASONS, Reason};

/// What came of reading ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadAhead {
    /// Copies begun.
    pub copies: u64,
    /// Those that were then fetched from where they had been read to.
    pub used: u64,
    /// Bytes of copies in use that had been read before a step asked for them.
    pub hidden: Bytes,
    /// Bytes that were read when a step had asked for them.
    pub waited: Bytes,
}

impl ReadAhead {
    /// The share of what steps needed from far that had been read before they asked.
    pub fn hidden_share(&self) -> Option<f64> {
        let needed = self.hidden.0 + self.waited.0;
        (needed > 0).then(|| self.hidden.0 as f64 / needed as f64)
    }
}

/// Why the compute stream waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A block nobody had asked for before.
    DemandFetch,
    /// A block under way, but not there yet.
    LatePrefetch,
    /// A fast copy that had to be expanded.
    Decode,
    /// A demand larger than the room for it.
    Wave,
    /// A block that had to be made again.
    Recompute,
    /// Blocks that were still being computed where they are.
    InPlace,
}

/// All causes, in order, with their names in reports.
pub const CAUSES: [(Cause, &str); 6] = [
    (Cause::DemandFetch, "demand_fetch"),
    (Cause::LatePrefetch, "late_prefetch"),
    (Cause::Decode, "decode"),
    (Cause::Wave, "wave"),
    (Cause::Recompute, "recompute"),
    (Cause::InPlace, "in_place"),
];

/// One request that has left, served or refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestTimes {
    /// Its number.
    pub request: RequestId,
    /// When it came in.
    pub arrived: Time,
    /// When it joined the batch for the first time.
    pub admitted: Time,
    /// When its first token's compute was complete.
    pub first_token: Time,
    /// When its last token's compute was complete.
    pub finished: Time,
    /// Tokens put out.
    pub tokens: u32,
    /// Tokens of its prompt.
    pub context: u32,
    /// Higher ones are admitted first, and pre-empted last.
    pub priority: u8,
    /// How often it gave its cache up to others.
    pub preemptions: u32,
    /// Tokens of its prompt that it found in the cache and never computed.
    pub prefix_tokens: u32,
    /// The model that it is for, where several share the machine.
    pub tenant: u16,
    /// Whether it was refused, because the cache can never hold it; then it has no times but that of its arrival.
    pub refused: bool,
}

impl RequestTimes {
    /// From arrival to the first token.
    pub fn ttft(&self) -> Nanos {
        self.first_token.since(self.arrived)
    }

    /// From arrival to the last token.
    pub fn e2e(&self) -> Nanos {
        self.finished.since(self.arrived)
    }

    /// From arrival to the batch.
    pub fn queued(&self) -> Nanos {
        self.admitted.since(self.arrived)
    }

    /// Time for each token after the first, to the nearest nanosecond; `None` where there is none.
    pub fn tpot(&self) -> Option<Nanos> {
        let more = u64::from(self.tokens.checked_sub(2)?) + 1;
        let time = self.finished.since(self.first_token).0;
        Some(Nanos(time / more + u64::from(time % more >= more.div_ceil(2))))
    }
}

/// What a request must keep to for its tokens to count as good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Objective {
    /// The longest time to the first token.
    pub ttft: Option<Nanos>,
    /// The longest time for each token after it.
    pub tpot: Option<Nanos>,
}

impl Objective {
    /// Whether a request that was served kept to it.
    pub fn met(&self, request: &RequestTimes) -> bool {
        let within = |limit: Option<Nanos>, time: Option<Nanos>| {
            limit.zip(time).is_none_or(|(limit, time)| time <= limit)
        };
        within(self.ttft, Some(request.ttft())) && within(self.tpot, request.tpot())
    }
}

/// The times of all requests that were served.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latencies {
    /// Arrival to first token.
    pub ttft: Sketch,
    /// Time for each token after the first, a request at a time.
    pub tpot: Sketch,
    /// Every gap between two tokens of one request.
    pub itl: Sketch,
    /// Arrival to last token.
    pub e2e: Sketch,
    /// Arrival to batch.
    pub queue: Sketch,
}

/// What one of several models on a machine has put out, and how fast.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantUse {
    /// Requests served.
    pub completed: u64,
    /// Tokens, or other things, that they put out.
    pub output_tokens: u64,
    /// Their times; gaps between tokens are not told apart.
    pub latencies: Latencies,
}

/// The latencies of a part of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Recent {
    /// Arrival to first token, by when that came.
    pub ttft: Sketch,
    /// Gaps between two tokens of one request.
    pub itl: Sketch,
}

impl Default for Recent {
    /// Two significant digits: there are many of them.
    fn default() -> Recent {
        Recent { ttft: Sketch::new(2), itl: Sketch::new(2) }
    }
}

/// What a key-value cache in pages was used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// The most bytes that it took.
    pub peak: Bytes,
    /// Tokens of prompts that their request found there and never computed.
    pub prefix_tokens: u64,
    /// Requests that gave their cache up to others.
    pub preemptions: u64,
    /// Requests refused because the cache can never hold them.
    pub rejected: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Layer steps run.
    pub layer_steps: u64,
    /// Accelerators that were lost, in order.
    pub losses: Vec<Loss>,
    /// Demanded (block, layer step) pairs.
    pub demanded: u64,
    /// Those that had a usable fast copy when the step asked, by state S1, S2, S3.
    pub hits_by_state: [u64; 3],
    /// Demanded pairs that the host, or a processor of a memory, computed where they were.
    pub hosted: u64,
    /// Demanded pairs that were left out.
    pub skipped: u64,
    /// Stall by cause, in the order of [`CAUSES`].
    pub stall: [Nanos; CAUSES.len()],
    /// Time from the start of each step to its last token.
    pub step_time: Nanos,
    /// Refusals and deferrals by reason, in the order of [`REASONS`].
    pub vetoes: [u64; REASONS.len()],
    /// Speculative moves begun, and how many of them a step then asked for.
    pub speculations: u64,
    /// Speculative moves whose block was asked for while it was under way or before it was given up.
    pub speculations_used: u64,
    /// What came of reading ahead into staging tiers.
    pub read_ahead: ReadAhead,
    /// Prompt tokens computed for the first time, all requests together.
    pub prompt_tokens: u64,
    /// Tokens computed again after a pre-emption, of prompts and of outputs.
    pub recomputed_tokens: u64,
    /// Tokens put out, all requests together.
    pub output_tokens: u64,
    /// Requests that came in.
    pub arrived: u64,
    /// Requests served to their end.
    pub completed: u64,
    /// Those of them that met the objective.
    pub good: u64,
    /// What requests must keep to, to be good.
    pub objective: Objective,
    /// Times of the requests that were served.
    pub latencies: Latencies,
    /// The same by tenant, and tokens put out, where several models share the machine.
    pub tenants: Vec<TenantUse>,
    /// Those since they were last taken, where they are kept.
    pub recent: Option<Box<Recent>>,
    /// Requests that have left since they were last taken.
    pub left: Vec<RequestTimes>,
    /// Each step's time, as often as requests were in it.
    pub batch_time: u128,
    /// Each step's time, as often as requests waited at its end.
    pub queue_time: u128,
    /// Events handled.
    pub events: u64,
    /// Waves beyond the first.
    pub extra_waves: u64,
}

impl Latencies {
    /// Books what is known when a request has been served.
    fn served(&mut self, times: &RequestTimes) {
        if let Some(time) = times.tpot() {
            self.tpot.record(time, 1);
        }
        self.e2e.record(times.e2e(), 1);
        self.queue.record(times.queued(), 1);
    }
}

impl Tally {
    /// Demanded pairs that had a usable fast copy.
    pub fn hits(&self) -> u64 {
        self.hits_by_state.iter().sum()
    }

    /// All stall.
    pub fn stall_total(&self) -> Nanos {
        self.stall.iter().copied().sum()
    }

    /// Books a refusal.
    pub fn veto(&mut self, reason: Reason) {
        if let Some(index) = REASONS.iter().position(|&known| known == reason) {
            self.vetoes[index] += 1;
        }
    }

    /// Books stall.
    pub fn stalled(&mut self, cause: Cause, time: Nanos) {
        self.stall[cause as usize] += time;
    }

    /// Books the first token of a request.
    pub(crate) fn first_token(&mut self, times: &RequestTimes) {
        self.latencies.ttft.record(times.ttft(), 1);
        if let Some(recent) = &mut self.recent {
            recent.ttft.record(times.ttft(), 1);
        }
    }

    /// Books so many gaps of one length between two tokens of a request.
    #[inline]
    pub(crate) fn gaps(&mut self, gap: Nanos, times: u64) {
        self.latencies.itl.record(gap, times);
        if let Some(recent) = &mut self.recent {
            recent.itl.record(gap, times);
        }
    }

    /// Books a request that has been served.
    pub(crate) fn served(&mut self, times: RequestTimes) {
        self.completed += 1;
        self.good += u64::from(self.objective.met(&times));
        self.latencies.served(&times);
        if let Some(tenant) = self.tenants.get_mut(usize::from(times.tenant)) {
            tenant.completed += 1;
            tenant.output_tokens += u64::from(times.tokens);
            tenant.latencies.ttft.record(times.ttft(), 1);
            tenant.latencies.served(&times);
        }
        self.left.push(times);
    }

    /// Books a step: how long it took, with how many requests in it, and how many waiting.
    #[inline]
    pub(crate) fn stepped(&mut self, took: Nanos, batch: usize, waiting: usize) {
        self.step_time += took;
        self.batch_time += u128::from(took.0) * batch as u128;
        self.queue_time += u128::from(took.0) * waiting as u128;
    }
}
