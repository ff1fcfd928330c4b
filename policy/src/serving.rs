//! Requests: admission, continuous batching and chunked prefill. A batch changes only between steps.

use crate::event::Slice;
use crate::id::RequestId;
use crate::tally::{RequestTimes, Tally};
use crate::units::Time;
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Clone, Debug)]
struct Active {
    times: RequestTimes,
    /// Tokens in its cache.
    cached: u32,
    /// Tokens the running step computes for it.
    computing: u32,
    /// Tokens still to be put out.
    left: u32,
    last_token: Time,
}

impl Active {
    /// Tokens of its prompt that are not in its cache yet.
    fn prompt_left(&self) -> u32 {
        self.times.context.saturating_sub(self.cached)
    }

    /// Whether the running step gives it a token: its prompt is complete with it.
    fn emits(&self) -> bool {
        self.computing > 0 && self.cached + self.computing >= self.times.context
    }
}

/// The requests of a run that are not finished.
#[derive(Clone, Debug)]
pub struct Serving {
    max_batch: usize,
    /// The most tokens of one step, where prompts are computed.
    chunk: Option<u32>,
    queue: VecDeque<Active>,
    running: Vec<Active>,
    batch: Arc<[Slice]>,
}

impl Serving {
    /// No requests yet; at most `max_batch` run together. With a `chunk`, prompts are computed too, in steps of at most so
    /// many tokens, the decoding requests' included; without one, prompts are in the cache when a request is admitted.
    pub fn new(max_batch: usize, chunk: Option<u32>) -> Serving {
        let max_batch = max_batch.max(1);
        Serving { max_batch, chunk, queue: VecDeque::new(), running: Vec::new(), batch: [].into() }
    }

    /// A request comes in.
    pub fn arrive(&mut self, request: RequestId, context: u32, tokens: u32, now: Time) {
        let times = RequestTimes { request, arrived: now, context, ..RequestTimes::default() };
        let cached = if self.chunk.is_some() { 0 } else { context };
        self.queue.push_back(Active { times, cached, computing: 0, left: tokens, last_token: now });
    }

    /// Fills the batch from the queue, first come first served, and forms the next step: a token of every request that
    /// decodes, then prompts in order of admission. Returns whether there is anything to compute.
    pub fn form_step(&mut self, now: Time) -> bool {
        while self.running.len() < self.max_batch {
            let Some(mut next) = self.queue.pop_front() else { break };
            next.times.admitted = now;
            self.running.push(next);
        }
        for active in &mut self.running {
            active.computing = u32::from(active.prompt_left() == 0);
        }
        let decoding: u32 = self.running.iter().map(|active| active.computing).sum();
        let mut room = self.chunk.unwrap_or(0).saturating_sub(decoding);
        // Where decoding alone fills the step, prompts still get on, a token at a time.
        if decoding > 0 && room == 0 && self.chunk.is_some() {
            room = 1;
        }
        for active in &mut self.running {
            let tokens = active.prompt_left().min(room);
            active.computing += tokens;
            room -= tokens;
        }
        let slice = |active: &Active| {
            let Active { times, cached, computing, .. } = active;
            Slice { request: times.request, cached: *cached, tokens: *computing }
        };
        self.batch = self.running.iter().filter(|active| active.computing > 0).map(slice).collect();
        !self.batch.is_empty()
    }

    /// Whether a step is running or could.
    pub fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// What the running step computes.
    pub fn batch(&self) -> Arc<[Slice]> {
        self.batch.clone()
    }

    /// Requests in the batch.
    pub fn batch_len(&self) -> usize {
        self.batch.len()
    }

    /// Tokens that the running step computes.
    pub fn step_tokens(&self) -> u32 {
        self.batch.iter().map(|slice| slice.tokens).sum()
    }

    /// Whether the running step gives any request a token.
    pub fn emits(&self) -> bool {
        self.running.iter().any(Active::emits)
    }

    /// The step is computed. Finished requests leave and are returned.
    pub fn step_done(&mut self, now: Time, tally: &mut Tally) -> Vec<RequestId> {
        let mut finished = Vec::new();
        for active in &mut self.running {
            tally.prompt_tokens += u64::from(active.prompt_left().min(active.computing));
            let emits = active.emits();
            active.cached += active.computing;
            if !emits {
                continue;
            }
            let times = &mut active.times;
            if times.tokens == 0 {
                times.first_token = now;
            } else {
                tally.gaps.push(now.since(active.last_token));
            }
            times.tokens += 1;
            tally.output_tokens += 1;
            active.last_token = now;
            active.left = active.left.saturating_sub(1);
            if active.left == 0 {
                times.finished = now;
                finished.push(times.request);
                tally.requests.push(times.clone());
            }
        }
        if !finished.is_empty() {
            self.running.retain(|active| active.left > 0);
        }
        finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(serving: &mut Serving, tally: &mut Tally, now: u64) -> Vec<(u32, u32, u32)> {
        assert!(serving.form_step(Time(now)));
        let slices = serving.batch().iter().map(|s| (s.request.0, s.cached, s.tokens)).collect();
        serving.step_done(Time(now + 1), tally);
        slices
    }

    #[test]
    fn prompts_are_computed_in_chunks_beside_decoding_requests() {
        let (mut serving, mut tally) = (Serving::new(2, Some(4)), Tally::default());
        serving.arrive(RequestId(0), 6, 3, Time(0));
        assert_eq!(step(&mut serving, &mut tally, 0), [(0, 0, 4)]);
        assert_eq!(tally.output_tokens, 0);
        serving.arrive(RequestId(1), 5, 1, Time(1));
        // The first prompt's rest and the beginning of the second; the first request has its first token.
        assert_eq!(step(&mut serving, &mut tally, 1), [(0, 4, 2), (1, 0, 2)]);
        assert_eq!(tally.output_tokens, 1);
        assert_eq!(step(&mut serving, &mut tally, 2), [(0, 6, 1), (1, 2, 3)]);
        assert_eq!(step(&mut serving, &mut tally, 3), [(0, 7, 1)]);
        assert!(!serving.form_step(Time(9)));
        assert_eq!((tally.prompt_tokens, tally.output_tokens, tally.requests.len()), (11, 4, 2));
    }

    #[test]
    fn without_prefill_a_request_decodes_at_once() {
        let (mut serving, mut tally) = (Serving::new(2, None), Tally::default());
        serving.arrive(RequestId(0), 6, 2, Time(0));
        assert_eq!(step(&mut serving, &mut tally, 0), [(0, 6, 1)]);
        assert_eq!(step(&mut serving, &mut tally, 1), [(0, 7, 1)]);
        assert_eq!((tally.prompt_tokens, tally.requests[0].tokens), (0, 2));
    }
}
