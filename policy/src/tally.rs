//! What a run counts: hits, stalls by cause, vetoes, and the times of every request.

use crate::id::RequestId;

use crate::units::{Bytes, Nanos, Time};
use crate::veto::{REASONS, Reason};

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
    /// Blocks that the host was still computing.
    Host,
}

/// All causes, in order, with their names in reports.
pub const CAUSES: [(Cause, &str); 6] = [
    (Cause::DemandFetch, "demand_fetch"),
    (Cause::LatePrefetch, "late_prefetch"),
    (Cause::Decode, "decode"),
    (Cause::Wave, "wave"),
    (Cause::Recompute, "recompute"),
    (Cause::Host, "host"),
];

/// The times of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestTimes {
    /// Its number.
    pub request: RequestId,
    /// When it came in.
    pub arrived: Time,
    /// When it joined the batch.
    pub admitted: Time,
    /// When its first token's compute was complete.
    pub first_token: Time,
    /// When its last token's compute was complete.
    pub finished: Time,
    /// Tokens put out.
    pub tokens: u32,
    /// Tokens of its prompt.
    pub context: u32,
}

/// What a key-value cache in pages was used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// The most bytes that it took.
    pub peak: Bytes,
    /// Tokens of prompts that were there when their request was admitted.
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
    /// Demanded (block, layer step) pairs.
    pub demanded: u64,
    /// Those that had a usable fast copy when the step asked, by state S1, S2, S3.
    pub hits_by_state: [u64; 3],
    /// Demanded pairs that the host computed where they were.
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
    /// Prompt tokens computed, all requests together.
    pub prompt_tokens: u64,
    /// Tokens put out, all requests together.
    pub output_tokens: u64,
    /// Finished requests, in the order they finished.
    pub requests: Vec<RequestTimes>,
    /// Every gap between two tokens of one request.
    pub gaps: Vec<Nanos>,
    /// Events handled.
    pub events: u64,
    /// Waves beyond the first.
    pub extra_waves: u64,
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
}
