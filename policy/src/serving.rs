//! Requests: admission, continuous batching, chunked prefill, and the key-value cache that they hold. A batch changes only
//! between steps.

pub mod cache;
mod phases;

use crate::checkpoints::{CheckpointUse, Checkpoints, Passage};
use crate::event::{Slice, StateMove};
use crate::id::{MoveId, RequestId};
use crate::phase::{Phase, Work};
use crate::tally::{CacheUse, RequestTimes, Tally};
use crate::units::{Bytes, Nanos, Time};
use cache::{Cache, Lease};
use phases::Outputs;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A request that comes in.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// Its number, in order of arrival.
    pub request: RequestId,
    /// Tokens of its prompt.
    pub context: u32,
    /// Tokens to put out.
    pub tokens: u32,
    /// Higher ones are admitted first, and pre-empted last.
    pub priority: u8,
    /// Numbers of its prompt's blocks, where they are known.
    pub prefix: Arc<[u64]>,
    /// The model that it is for, where several share the machine.
    pub tenant: u16,
}

#[derive(Clone, Debug)]
struct Active {
    times: RequestTimes,
    priority: u8,
    /// Tokens in its cache.
    cached: u32,
    /// Tokens that must be there before it decodes: its prompt, and what it had put out when it was pre-empted.
    prompt: u32,
    /// Tokens the running step computes for it.
    computing: u32,
    /// The phase that it is in, and the steps that it has left there where they are known.
    phase: usize,
    steps_left: u32,
    /// Tokens still to be put out.
    left: u32,
    last_token: Time,
    /// Whether it has been admitted before.
    admitted: bool,
    /// Its first so many tokens have been computed or found once, though the cache may not have them any more.
    known: u32,
    lease: Lease,
    /// The checkpoints of its recurrent state that it goes on from and leaves behind.
    passage: Passage,
}

impl Active {
    /// Tokens that are not in its cache yet, and must be before it decodes.
    fn prompt_left(&self) -> u32 {
        self.prompt.saturating_sub(self.cached)
    }

    /// As much of its prompt as the step has tokens left for.
    fn prefill(&mut self, room: &mut u32) {
        if self.computing == 0 && !self.passage.is_restoring() {
            self.computing = self.prompt_left().min(*room);
            *room -= self.computing;
        }
    }

    /// Puts out what it was for, which is one thing, and leaves.
    fn put_out(&mut self, now: Time, tally: &mut Tally) {
        self.times.first_token = now;
        tally.first_token(&self.times);
        tally.output_tokens += 1;
        (self.times.tokens, self.left) = (1, 0);
    }

    /// Whether the running step gives it a token: its prompt is complete with it.
    fn emits(&self) -> bool {
        self.computing > 0 && self.cached + self.computing >= self.prompt
    }

    /// Books the part of its prompt that the running step computes: what is new of it, and what had been computed before.
    fn book_prompt(&mut self, tally: &mut Tally) {
        let until = self.cached + self.computing;
        tally.recomputed_tokens += u64::from(until.min(self.known).saturating_sub(self.cached));
        tally.prompt_tokens += u64::from(until.min(self.times.context).saturating_sub(self.known));
        self.known = self.known.max(until);
    }

    /// Its place in the queue: a pre-empted request came in before all that wait.
    fn rank(&self) -> Rank {
        (Reverse(self.priority), self.times.request)
    }
}

type Rank = (Reverse<u8>, RequestId);

/// The requests of a run that are not finished.
#[derive(Debug, Default)]
pub struct Serving {
    max_batch: usize,
    /// The most tokens of one step, where prompts are computed.
    chunk: Option<u32>,
    /// The cache, where it is kept in pages; else there is room for every request that is admitted.
    cache: Option<Cache>,
    /// Checkpoints of recurrent states, where prefixes of a model that has them are kept.
    checkpoints: Option<Checkpoints>,
    queue: BTreeMap<Rank, Active>,
    /// In order of admission.
    running: Vec<Active>,
    /// The phases of the model, where it has several, and that of the running step.
    phases: Vec<Phase>,
    phase: usize,
    outputs: Outputs,
    batch: Arc<[Slice]>,
    used: CacheUse,
}

impl Serving {
    /// No requests yet; at most `max_batch` run together. With a `chunk`, prompts are computed too, in steps of at most so
    /// many tokens, the decoding requests' included; without one, prompts are in the cache when a request is admitted.
    pub fn new(max_batch: usize, chunk: Option<u32>, cache: Option<Cache>) -> Serving {
        Serving { max_batch: max_batch.max(1), chunk, cache, ..Serving::default() }
    }

    /// The same, with checkpoints of recurrent states.
    pub fn with_checkpoints(self, checkpoints: Option<Checkpoints>) -> Serving {
        Serving { checkpoints, ..self }
    }

    /// A request comes in. False if it can never be served: the cache is too small for it.
    pub fn arrive(&mut self, arrival: Arrival, now: Time) -> bool {
        let Arrival { request, context, tokens, priority, prefix, tenant } = arrival;
        self.cache.iter_mut().for_each(|cache| cache.advance(now));
        if self.cache.as_ref().is_some_and(|cache| !cache.can_hold(context.saturating_add(tokens))) {
            self.used.rejected += 1;
            return false;
        }
        let times =
            RequestTimes { request, arrived: now, context, priority, tenant, ..RequestTimes::default() };
        let cached = if self.chunk.is_some() { 0 } else { context };
        let mut active = Active {
            times,
            priority,
            cached,
            prompt: context,
            computing: 0,
            phase: 0,
            steps_left: 0,
            left: tokens,
            last_token: now,
            admitted: false,
            known: cached,
            lease: Lease::new(prefix),
            passage: Passage::default(),
        };
        active.enter(self.entry(tenant), &self.phases);
        self.queue.insert(active.rank(), active);
        true
    }

    /// Forms the next step, of the phase whose turn it is. Returns whether there is anything to compute. `grow` says whether
    /// the cache may take so many bytes.
    ///
    /// # Errors
    /// What `grow` reports.
    pub fn form_step<E>(
        &mut self,
        now: Time,
        grow: &mut impl FnMut(Bytes) -> Result<bool, E>,
    ) -> Result<bool, E> {
        // A phase may have nobody that can go on, such as a request that waits for room in the cache.
        for _ in 0..self.phases.len().max(1) {
            self.phase = self.turn();
            self.running.iter_mut().for_each(|active| active.computing = 0);
            match self.work() {
                Work::Tokens => self.form_tokens(now, grow)?,
                Work::Steps { tokens, .. } => {
                    let here = self.running.iter_mut().filter(|active| active.phase == self.phase);
                    here.for_each(|active| active.computing = tokens);
                    self.admit(now, &mut 1, grow)?;
                }
            }
            self.lose_checkpoints();
            let (work, computing) = (self.work(), |active: &&Active| active.computing > 0);
            self.batch =
                self.running.iter().filter(computing).flat_map(|active| active.slices(work)).collect();
            if !self.batch.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A token of every request that decodes, then prompts in order of admission, then requests from the queue.
    fn form_tokens<E>(
        &mut self,
        now: Time,
        grow: &mut impl FnMut(Bytes) -> Result<bool, E>,
    ) -> Result<(), E> {
        let preempted = self.decode(grow)?;
        let decoding: u32 = self.running.iter().map(|active| active.computing).sum();
        let mut room = self.chunk.unwrap_or(0).saturating_sub(decoding);
        // Where decoding alone fills the step, prompts still get on, a token at a time.
        if decoding > 0 && room == 0 && self.chunk.is_some() {
            room = 1;
        }
        let here = self.running.iter_mut().filter(|active| active.phase == self.phase);
        here.for_each(|active| active.prefill(&mut room));
        // What was given up in this step is for those that run.
        if preempted { Ok(()) } else { self.admit(now, &mut room, grow) }
    }

    /// A token for every request whose prompt is complete; where the cache is full, the one admitted last gives way. Returns
    /// whether one did.
    fn decode<E>(&mut self, grow: &mut impl FnMut(Bytes) -> Result<bool, E>) -> Result<bool, E> {
        let mut preempted = false;
        let mut place = 0;
        while place < self.running.len() {
            let active = &mut self.running[place];
            if active.phase == self.phase && active.prompt_left() == 0 {
                let fits = match &mut self.cache {
                    Some(cache) => cache.grow(&mut active.lease, active.cached + 1, grow)?,
                    None => true,
                };
                if !fits && self.running.len() > 1 {
                    let last = self.last();
                    self.preempt(last);
                    preempted = true;
                    place -= usize::from(last < place);
                    continue;
                }
                self.running[place].computing = u32::from(fits);
            }
            place += 1;
        }
        Ok(preempted)
    }

    /// Fills the batch from the queue, higher priorities first, then first come first served, while the next one can begin:
    /// while the step has tokens left and the cache has room for its whole prompt, which it takes at once. So no two prompts
    /// hold the cache from each other.
    fn admit<E>(
        &mut self,
        now: Time,
        room: &mut u32,
        grow: &mut impl FnMut(Bytes) -> Result<bool, E>,
    ) -> Result<(), E> {
        while self.has_room(self.tenant_of(self.phase)) && (*room > 0 || self.chunk.is_none()) {
            let first = self.queue.iter().find(|(_, next)| next.phase == self.phase).map(|(rank, _)| *rank);
            let Some((rank, mut next)) = first.and_then(|rank| self.queue.remove_entry(&rank)) else { break };
            if let Some(cache) = &mut self.cache {
                let mut kept = 0;
                if self.chunk.is_some() {
                    kept = cache.begin(&mut next.lease, next.prompt);
                    next.cached = kept;
                }
                let blocks = next.lease.blocks();
                let hit = self.checkpoints.as_ref().and_then(|known| known.find(&blocks, kept, next.prompt));
                if self.checkpoints.is_some() {
                    next.cached = hit.map_or(0, |hit| hit.tokens);
                    cache.clamp(&mut next.lease, next.cached);
                }
                if !cache.grow(&mut next.lease, next.prompt.max(next.cached + 1), grow)? {
                    cache.end(&mut next.lease);
                    next.cached = 0;
                    self.queue.insert(rank, next);
                    break;
                }
                if let Some(checkpoints) = &mut self.checkpoints {
                    checkpoints.advance(now);
                    next.passage = checkpoints.begin(&blocks, next.prompt, hit);
                }
            }
            if !std::mem::replace(&mut next.admitted, true) {
                next.times.admitted = now;
            }
            let found = next.cached.saturating_sub(next.known);
            next.known += found;
            next.times.prefix_tokens += found;
            self.used.prefix_tokens += u64::from(found);
            match (self.work(), next.prompt_left()) {
                (Work::Steps { tokens, .. }, _) => next.computing = tokens,
                (Work::Tokens, 0) => next.computing = 1,
                (Work::Tokens, _) => next.prefill(room),
            }
            self.running.push(next);
        }
        Ok(())
    }

    /// The place of the running request that is pre-empted first: of the lowest priority, the one that came in last.
    fn last(&self) -> usize {
        let ranked = self.running.iter().enumerate().max_by_key(|(_, active)| active.rank());
        ranked.map_or(0, |(place, _)| place)
    }

    /// Puts a running request back into the queue without its cache, which it computes again when its turn comes.
    fn preempt(&mut self, place: usize) {
        let mut active = self.running.remove(place);
        if let Some(cache) = &mut self.cache {
            cache.end(&mut active.lease);
        }
        active.prompt = active.times.context + active.times.tokens;
        active.known = active.known.max(active.cached);
        active.times.preemptions += 1;
        (active.cached, active.computing) = (0, 0);
        self.used.preemptions += 1;
        self.queue.insert(active.rank(), active);
    }

    /// A move of states has ended: the request that waited for it goes on.
    pub fn state_moved(&mut self, id: MoveId, now: Time) {
        let Some(checkpoints) = &mut self.checkpoints else { return };
        checkpoints.advance(now);
        if checkpoints.moved(id) {
            self.running.iter_mut().for_each(|active| Checkpoints::restored(&mut active.passage, id));
        }
    }

    /// What is to be moved of recurrent states.
    pub fn take_state_moves(&mut self) -> Vec<StateMove> {
        self.checkpoints.as_mut().map(Checkpoints::take_moves).unwrap_or_default()
    }

    /// Whether recurrent states are on their way.
    pub fn moves_states(&self) -> bool {
        self.checkpoints.as_ref().is_some_and(Checkpoints::is_moving)
    }

    /// Checkpoints of recurrent states, where there are any.
    pub fn checkpoints(&self) -> Option<&Checkpoints> {
        self.checkpoints.as_ref()
    }

    /// What they were used for.
    pub fn checkpoint_use(&self) -> Option<CheckpointUse> {
        self.checkpoints.as_ref().map(Checkpoints::figures)
    }

    /// Checkpoints behind blocks that the cache has given up go too.
    fn lose_checkpoints(&mut self) {
        let gone = self.cache.as_mut().map(Cache::take_gone).unwrap_or_default();
        if let Some(checkpoints) = &mut self.checkpoints {
            gone.into_iter().for_each(|block| checkpoints.lost(block));
        }
    }

    /// Whether a step is running or could.
    pub fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether requests wait to be admitted.
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Requests that have been admitted and are not finished.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests that wait to be admitted, pre-empted ones among them.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Bytes that the cache takes, where it is kept in pages.
    pub fn cache_bytes(&self) -> Option<Bytes> {
        self.cache.as_ref().map(Cache::taken)
    }

    /// What the cache was used for, where it is kept in pages.
    pub fn cache_use(&self) -> Option<CacheUse> {
        self.cache.as_ref().map(|cache| CacheUse { peak: cache.peak(), ..self.used })
    }

    /// What the running step computes.
    pub fn batch(&self) -> Arc<[Slice]> {
        self.batch.clone()
    }

    /// Requests in the batch.
    pub fn batch_len(&self) -> usize {
        match self.work() {
            Work::Tokens => self.batch.len(),
            Work::Steps { sequences, .. } => self.batch.len() / sequences.max(1) as usize,
        }
    }

    /// Tokens that the running step computes.
    pub fn step_tokens(&self) -> u32 {
        self.batch.iter().map(|slice| slice.tokens).sum()
    }

    /// Whether the running step gives any request a token.
    pub fn emits(&self) -> bool {
        self.computes_tokens() && self.running.iter().any(Active::emits)
    }

    /// The step is computed. Finished requests leave and are returned.
    pub fn step_done(&mut self, now: Time, tally: &mut Tally) -> Vec<RequestId> {
        self.cache.iter_mut().for_each(|cache| cache.advance(now));
        self.checkpoints.iter_mut().for_each(|checkpoints| checkpoints.advance(now));
        match self.work() {
            Work::Tokens => self.tokens_done(now, tally),
            Work::Steps { .. } => self.phase_done(now, tally),
        }
        let finished = self.take_finished(now, tally);
        self.lose_checkpoints();
        finished
    }

    /// The prompts and tokens of the running step are computed.
    fn tokens_done(&mut self, now: Time, tally: &mut Tally) {
        // Most requests of a batch have had their last token at the same time.
        let (mut gap, mut gaps) = (Nanos::ZERO, 0);
        for active in &mut self.running {
            let computes_prompt = active.prompt_left() > 0;
            if computes_prompt {
                active.book_prompt(tally);
            }
            let emits = active.emits();
            active.cached += std::mem::take(&mut active.computing);
            if let Some(cache) = &mut self.cache {
                cache.computed(&mut active.lease, active.cached, active.times.context);
            }
            if let Some(checkpoints) = self.checkpoints.as_mut().filter(|_| computes_prompt) {
                let Active { lease, passage, cached, times, .. } = active;
                checkpoints.computed(passage, &lease.blocks(), *cached, times.context);
            }
            if !emits {
                continue;
            }
            let times = &mut active.times;
            if times.tokens == 0 {
                times.first_token = now;
                tally.first_token(times);
            } else if now.since(active.last_token) == gap {
                gaps += 1;
            } else {
                tally.gaps(gap, gaps);
                (gap, gaps) = (now.since(active.last_token), 1);
            }
            times.tokens += 1;
            tally.output_tokens += 1;
            active.last_token = now;
            active.left = active.left.saturating_sub(1);
        }
        tally.gaps(gap, gaps);
    }

    /// Requests that have put out all they were for leave.
    fn take_finished(&mut self, now: Time, tally: &mut Tally) -> Vec<RequestId> {
        let mut finished = Vec::new();
        for active in self.running.iter_mut().filter(|active| active.left == 0) {
            active.times.finished = now;
            self.outputs.record(active.times.tokens);
            finished.push(active.times.request);
            tally.served(active.times.clone());
            if let Some(cache) = &mut self.cache {
                cache.end(&mut active.lease);
            }
        }
        if !finished.is_empty() {
            self.running.retain(|active| active.left > 0);
        }
        finished
    }
}

#[cfg(test)]
mod tests;
