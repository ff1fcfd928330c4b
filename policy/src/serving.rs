//! Requests: admission and continuous batching. A batch changes only between token steps.

use crate::id::RequestId;
use crate::tally::{RequestTimes, Tally};
use crate::units::Time;
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Clone, Debug)]
struct Active {
    times: RequestTimes,
    left: u32,
    last_token: Time,
}

/// The requests of a run that are not finished.
#[derive(Clone, Debug)]
pub struct Serving {
    max_batch: usize,
    queue: VecDeque<Active>,
    running: Vec<Active>,
    /// The requests of `running`.
    batch: Arc<[RequestId]>,
}

impl Serving {
    /// No requests yet; at most `max_batch` decode together.
    pub fn new(max_batch: usize) -> Serving {
        Serving { max_batch: max_batch.max(1), queue: VecDeque::new(), running: Vec::new(), batch: [].into() }
    }

    /// A request comes in.
    pub fn arrive(&mut self, request: RequestId, context: u32, tokens: u32, now: Time) {
        let times = RequestTimes { request, arrived: now, context, ..RequestTimes::default() };
        self.queue.push_back(Active { times, left: tokens, last_token: now });
    }

    /// Fills the batch from the queue, first come first served; returns whether anything is running.
    pub fn admit(&mut self, now: Time) -> bool {
        let before = self.running.len();
        while self.running.len() < self.max_batch {
            let Some(mut next) = self.queue.pop_front() else { break };
            next.times.admitted = now;
            self.running.push(next);
        }
        if self.running.len() != before {
            self.regroup();
        }
        !self.running.is_empty()
    }

    /// Whether a step is running or could.
    pub fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// The batch, in order of admission.
    pub fn batch(&self) -> Arc<[RequestId]> {
        self.batch.clone()
    }

    /// Requests in the batch.
    pub fn batch_len(&self) -> usize {
        self.running.len()
    }

    /// Every running request has one more token. Finished ones leave and are returned.
    pub fn token(&mut self, now: Time, tally: &mut Tally) -> Vec<RequestId> {
        let mut finished = Vec::new();
        for active in &mut self.running {
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
            self.regroup();
        }
        finished
    }

    fn regroup(&mut self) {
        self.batch = self.running.iter().map(|active| active.times.request).collect();
    }
}
