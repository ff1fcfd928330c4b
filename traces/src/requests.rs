//! Request traces: when requests came in and how long they were, without what their tokens selected.
//!
//! Readers are streaming: of a file only the line at hand and what is kept of each request are in memory, 16 bytes a
//! request, 8 more and 8 for each block where prompts are hashed.

mod columns;
mod info;
mod lines;
mod mooncake;
mod open;
mod problem;
mod vllm;

pub use info::{Lengths, RequestInfo, request_info};
pub use open::{
    REQUEST_FORMATS, RequestFormat, detect_requests, open_requests, read_requests, write_requests,
};
pub use problem::RequestProblem;

use policy::{Nanos, Time};
use std::num::NonZero;
use std::ops::ControlFlow;

/// Tokens of a prompt or of an output, at most: more than any model's context.
pub const MOST_TOKENS: u32 = 1 << 24;

/// A request: when it comes in and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it comes in, from the trace's start.
    pub at: Time,
    /// Tokens of its prompt, 1 to [`MOST_TOKENS`].
    pub prompt_tokens: u32,
    /// Tokens it puts out, 1 to [`MOST_TOKENS`].
    pub output_tokens: u32,
}

/// Requests in order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestTrace {
    requests: Vec<Request>,
    prefixes: Option<Prefixes>,
    priorities: Vec<u8>,
    failed: u64,
}

/// What prompts begin with, as numbers: two prompts are alike as far as the numbers of their blocks are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Prefixes {
    block_tokens: NonZero<u32>,
    /// Where each request's blocks end.
    ends: Vec<usize>,
    blocks: Vec<u64>,
}

/// Which part of a trace is taken, and how fast it is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// Requests before are left out; the trace then starts here.
    pub from: Nanos,
    /// Requests from here on are left out.
    pub until: Option<Nanos>,
    /// The most requests.
    pub limit: Option<u32>,
    /// How much faster requests come than in the file; more than 0.
    pub rate_scale: f64,
}

impl FromIterator<Request> for RequestTrace {
    /// Requests that are in order of arrival, with nothing else known of them.
    fn from_iter<I: IntoIterator<Item = Request>>(requests: I) -> RequestTrace {
        RequestTrace { requests: requests.into_iter().collect(), ..RequestTrace::default() }
    }
}

impl Default for Cut {
    /// All of it, as fast as it was.
    fn default() -> Cut {
        Cut { from: Nanos::ZERO, until: None, limit: None, rate_scale: 1.0 }
    }
}

impl RequestTrace {
    /// Requests that are in order of arrival, with the numbers of their prompts' blocks of so many tokens.
    pub fn with_prefixes(
        block_tokens: NonZero<u32>,
        requests: impl IntoIterator<Item = (Request, Vec<u64>)>,
    ) -> RequestTrace {
        let mut prefixes = Prefixes { block_tokens, ends: Vec::new(), blocks: Vec::new() };
        let mut trace = RequestTrace::default();
        for (request, blocks) in requests {
            trace.requests.push(request);
            prefixes.blocks.extend(blocks);
            prefixes.ends.push(prefixes.blocks.len());
        }
        RequestTrace { prefixes: Some(prefixes), ..trace }
    }

    /// The requests, in order of arrival.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Tokens that a block of [`RequestTrace::prefix`] stands for; `None` if prompts are not hashed.
    pub fn block_tokens(&self) -> Option<NonZero<u32>> {
        self.prefixes.as_ref().map(|prefixes| prefixes.block_tokens)
    }

    /// The hashes of a request's prompt, block by block, the last one perhaps not full. Two prompts share as many tokens
    /// at their beginning as the blocks that are alike from the first on. Empty where prompts are not hashed.
    pub fn prefix(&self, request: usize) -> &[u64] {
        let Some(Prefixes { ends, blocks, .. }) = &self.prefixes else { return &[] };
        let begin = request.checked_sub(1).map_or(0, |before| ends[before]);
        &blocks[begin..ends[request]]
    }

    /// A request's priority, higher before lower; 0 where the trace has none.
    pub fn priority(&self, request: usize) -> u8 {
        self.priorities.get(request).copied().unwrap_or(0)
    }

    /// Whether the trace has priorities.
    pub fn has_priorities(&self) -> bool {
        !self.priorities.is_empty()
    }

    /// Requests of the file that failed, and were left out: they have no output.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// What the first of so many machines gets of it where they take turns: the first request and every so-many-th after it.
    pub fn every(&self, nth: NonZero<usize>) -> RequestTrace {
        let mut part = Builder::new(&Cut::default());
        let mut turns = (0..self.requests.len()).step_by(nth.get());
        // Nothing is left out of a part without bounds.
        let _ = turns.try_for_each(|index| self.keep_in(&mut part, index));
        part.trace
    }

    /// A part of it.
    ///
    /// # Errors
    /// [`RequestProblem::NothingLeft`].
    pub fn cut(&self, cut: &Cut) -> Result<RequestTrace, RequestProblem> {
        let mut part = Builder::new(cut);
        part.trace.failed = self.failed;
        for index in 0..self.requests.len() {
            if self.keep_in(&mut part, index).is_break() {
                break;
            }
        }
        part.finish()
    }

    /// Hands a request to a part of the trace, with all that is known of it.
    fn keep_in(&self, part: &mut Builder, index: usize) -> ControlFlow<()> {
        let priority = self.has_priorities().then(|| self.priority(index));
        let block_tokens = self.block_tokens();
        let prefix = block_tokens.map(|block_tokens| Prefix { block_tokens, blocks: self.prefix(index) });
        part.keep(self.requests[index], prefix, priority)
    }
}

/// The hashes of one prompt.
#[derive(Clone, Copy)]
struct Prefix<'a> {
    block_tokens: NonZero<u32>,
    blocks: &'a [u64],
}

/// A request as a file has it.
struct Row<'a> {
    /// Nanoseconds from where the file counts.
    at: i64,
    prompt_tokens: u64,
    output_tokens: u64,
    prefix: Option<Prefix<'a>>,
    priority: Option<u8>,
}

/// A trace that is being read.
struct Builder {
    trace: RequestTrace,
    cut: Cut,
    read: u64,
    latest: Option<i64>,
}

impl Builder {
    fn new(cut: &Cut) -> Builder {
        Builder { trace: RequestTrace::default(), cut: *cut, read: 0, latest: None }
    }

    /// A request that failed.
    fn fail(&mut self) {
        self.trace.failed += 1;
    }

    /// Takes the next request; breaks when no later one is wanted.
    fn push(&mut self, row: Row<'_>) -> Result<ControlFlow<()>, RequestProblem> {
        let after = row.at.saturating_sub(self.latest.unwrap_or(row.at));
        if after < 0 {
            return Err(RequestProblem::Unsorted { earlier: Nanos(after.unsigned_abs()) });
        }
        let at = u64::try_from(row.at).map_err(|_| RequestProblem::Negative)?;
        self.latest = Some(row.at);
        let prompt_tokens = tokens("prompt", row.prompt_tokens)?;
        let output_tokens = tokens("output", row.output_tokens)?;
        if let Some(Prefix { block_tokens, blocks }) = row.prefix {
            let most = prompt_tokens.div_ceil(block_tokens.get());
            if blocks.len() > most as usize {
                let (hashes, block_tokens) = (blocks.len(), block_tokens.get());
                return Err(RequestProblem::Hashes { hashes, prompt_tokens, block_tokens });
            }
        }
        Ok(self.keep(Request { at: Time(at), prompt_tokens, output_tokens }, row.prefix, row.priority))
    }

    /// The same, of what has been checked.
    fn keep(
        &mut self,
        request: Request,
        prefix: Option<Prefix<'_>>,
        priority: Option<u8>,
    ) -> ControlFlow<()> {
        let Cut { from, until, limit, rate_scale } = self.cut;
        self.read += 1;
        let late = until.is_some_and(|until| request.at.0 >= until.0);
        if late || limit.is_some_and(|limit| self.trace.requests.len() >= limit as usize) {
            return ControlFlow::Break(());
        }
        if request.at.0 < from.0 {
            return ControlFlow::Continue(());
        }
        let since = request.at.0 - from.0;
        // Left as it is where nothing changes: floating-point numbers do not hold every nanosecond.
        let at = if rate_scale == 1.0 { since } else { (since as f64 / rate_scale).round() as u64 };
        self.trace.requests.push(Request { at: Time(at), ..request });
        if let Some(Prefix { block_tokens, blocks }) = prefix {
            let none = || Prefixes { block_tokens, ends: Vec::new(), blocks: Vec::new() };
            let prefixes = self.trace.prefixes.get_or_insert_with(none);
            prefixes.blocks.extend_from_slice(blocks);
            prefixes.ends.push(prefixes.blocks.len());
        }
        self.trace.priorities.extend(priority);
        ControlFlow::Continue(())
    }

    fn finish(self) -> Result<RequestTrace, RequestProblem> {
        match (self.read, self.trace.requests.is_empty()) {
            (0, _) => Err(RequestProblem::Empty { failed: self.trace.failed }),
            (read, true) => Err(RequestProblem::NothingLeft { read }),
            _ => Ok(self.trace),
        }
    }
}

fn tokens(what: &'static str, tokens: u64) -> Result<u32, RequestProblem> {
    match u32::try_from(tokens) {
        Ok(0) => Err(RequestProblem::NoTokens { what }),
        Ok(count) if count <= MOST_TOKENS => Ok(count),
        _ => Err(RequestProblem::TooManyTokens { what, tokens }),
    }
}
