//! Requests: admission, continuous batching, chunked prefill, and the key-value cache that they hold. A batch changes only
//! between steps.

mod admission;
mod attendance;
pub mod cache;
mod micro_batches;
mod phases;

use crate::checkpoints::{CheckpointUse, Checkpoints, Passage};
use crate::event::Slice;
use crate::id::{MoveId, RequestId};
use crate::phase::{Phase, Work};
use crate::pipeline::{Batch, Stage};
use crate::refused::Refused;
use crate::tally::{CacheUse, RequestTimes, Tally};
use crate::units::{Bytes, Nanos, Time};
pub use attendance::Abandoned;
use attendance::Attendance;
use cache::{Cache, Lease};
use micro_batches::MicroBatches;
use phases::Outputs;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
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
    /// The micro-batch it is in, once it is admitted.
    micro_batch: u32,
    /// The accelerator that attends to it, once it is admitted.
    rank: u32,
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
    /// The parts of them that are computed beside each other.
    micro_batches: MicroBatches,
    stage: Stage,
    attendance: Attendance,
    /// The phases of the model, where it has several, and that of the running step.
    phases: Vec<Phase>,
    phase: usize,
    outputs: Outputs,
    /// What the stage before has computed, in the order in which it came.
    handed: VecDeque<Batch>,
    /// What the running step computes.
    batch: Batch,
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

    /// The same for a stage of a pipeline, of which the first forms so many micro-batches, which have the requests that run
    /// together between them.
    pub fn staged(self, stage: Stage, micro_batches: u32) -> Serving {
        Serving { stage, micro_batches: MicroBatches::new(micro_batches), ..self }
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
            micro_batch: 0,
            rank: 0,
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

    /// The next step of a stage: of the first, the next micro-batch that has anything to compute; of the others, what has come.
    /// Returns whether there is any.
    ///
    /// # Errors
    /// What `grow` reports.
    pub fn form_step<E>(
        &mut self,
        now: Time,
        grow: &mut impl FnMut(Bytes) -> Result<bool, E>,
    ) -> Result<bool, E> {
        if let Some(batch) = self.handed.pop_front() {
            self.batch = batch;
            return Ok(true);
        }
        let mut place = 0;
        while let Some(which) = self.micro_batches.free(place) {
            if self.form(which, now, grow)? {
                self.micro_batches.begin(which);
                return Ok(true);
            }
            place += 1;
        }
        Ok(false)
    }

    /// What the stage before has computed is here.
    pub fn hand(&mut self, batch: Batch) {
        self.handed.push_back(batch);
    }

    /// The running step of a stage is computed, and goes on to the next one.
    pub fn hand_on(&mut self) -> Batch {
        std::mem::take(&mut self.batch)
    }

    /// Whether later stages compute what this one has formed.
    pub fn is_under_way(&self) -> bool {
        self.micro_batches.any_under_way()
    }

    /// Forms the next step of a micro-batch, of the phase whose turn it is. `grow` says whether the cache may take so many bytes.
    /// Returns whether there is anything to compute.
    fn form<E>(
        &mut self,
        which: u32,
        now: Time,
        grow: &mut impl FnMut(Bytes) -> Result<bool, E>,
    ) -> Result<bool, E> {
        // A phase may have nobody that can go on, such as a request that waits for room in the cache.
        for _ in 0..self.phases.len().max(1) {
            self.phase = self.turn();
            let own = |active: &&mut Active| active.micro_batch == which;
            self.running.iter_mut().filter(own).for_each(|active| active.computing = 0);
            match self.work() {
                Work::Tokens => self.form_tokens(which, now, grow)?,
                Work::Steps { tokens, .. } => {
                    let here = self.running.iter_mut().filter(|active| active.phase == self.phase);
                    here.for_each(|active| active.computing = tokens);
                    self.admit(which, now, &mut 1, grow)?;
                }
            }
            self.lose_checkpoints();
            let work = self.work();
            let computing = || self.members(which).filter(|active| active.computing > 0);
            let emitting = computing().filter(|active| work == Work::Tokens && active.emits()).count() as u32;
            let slices = computing().flat_map(|active| active.slices(work)).collect();
            self.batch = Batch { slices, emitting };
            if !self.batch.slices.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A token of every request that decodes, then prompts in order of admission, then requests from the queue.
    fn form_tokens<E>(
        &mut self,
        which: u32,
        now: Time,
        grow: &mut impl FnMut(Bytes) -> Result<bool, E>,
    ) -> Result<(), E> {
        let preempted = self.decode(which, grow)?;
        let decoding: u32 = self.members(which).map(|active| active.computing).sum();
        let mut room = self.chunk.unwrap_or(0).saturating_sub(decoding);
        // Where decoding alone fills the step, prompts still get on, a token at a time.
        if decoding > 0 && room == 0 && self.chunk.is_some() {
            room = 1;
        }
        let here = |active: &&mut Active| active.micro_batch == which && active.phase == self.phase;
        self.running.iter_mut().filter(here).for_each(|active| active.prefill(&mut room));
        // What was given up in this step is for those that run.
        if preempted { Ok(()) } else { self.admit(which, now, &mut room, grow) }
    }

    /// The requests of a micro-batch, in order of admission.
    fn members(&self, which: u32) -> impl Iterator<Item = &Active> {
        self.running.iter().filter(move |active| active.micro_batch == which)
    }

    /// A token for every request whose prompt is complete; where the cache is full, the one admitted last gives way. Returns
    /// whether one did.
    fn decode<E>(&mut self, which: u32, grow: &mut impl FnMut(Bytes) -> Result<bool, E>) -> Result<bool, E> {
        let mut preempted = false;
        let mut place = 0;
        while place < self.running.len() {
            let active = &mut self.running[place];
            if active.micro_batch == which && active.phase == self.phase && active.prompt_left() == 0 {
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

    /// A chunk of a move of states has arrived: a request that waited for the last of it goes on. Returns whether one does.
    ///
    /// # Errors
    /// The move is not under way.
    pub fn state_landed(&mut self, id: MoveId, len: Bytes, now: Time) -> Result<bool, Refused> {
        let checkpoints = self.checkpoints.as_mut().ok_or(Refused::NoSuchMove(id))?;
        checkpoints.advance(now);
        let restored = checkpoints.landed(id, len)?;
        if let Some(number) = restored {
            self.running.iter_mut().for_each(|active| Checkpoints::restored(&mut active.passage, number));
        }
        Ok(restored.is_some())
    }

    /// Checkpoints, to take what they ask for.
    pub(crate) fn checkpoints_mut(&mut self) -> Option<&mut Checkpoints> {
        self.checkpoints.as_mut()
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
        match self.stage.is_first() {
            true => !self.running.is_empty(),
            false => !self.batch.slices.is_empty(),
        }
    }

    /// Whether requests wait to be admitted, or what the stage before has computed waits for this one.
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty() || !self.handed.is_empty()
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
        self.batch.slices.clone()
    }

    /// Requests in the batch.
    pub fn batch_len(&self) -> usize {
        match self.work() {
            Work::Tokens => self.batch.slices.len(),
            Work::Steps { sequences, .. } => self.batch.slices.len() / sequences.max(1) as usize,
        }
    }

    /// Tokens that the running step computes.
    pub fn step_tokens(&self) -> u32 {
        self.batch.slices.iter().map(|slice| slice.tokens).sum()
    }

    /// Whether the running step gives any request a token.
    pub fn emits(&self) -> bool {
        self.batch.emitting > 0
    }

    /// The step that was formed first of those under way is computed. Finished requests leave and are returned.
    pub fn step_done(&mut self, now: Time, tally: &mut Tally) -> Vec<RequestId> {
        let Some(which) = self.micro_batches.end() else { return Vec::new() };
        self.cache.iter_mut().for_each(|cache| cache.advance(now));
        self.checkpoints.iter_mut().for_each(|checkpoints| checkpoints.advance(now));
        match self.work() {
            Work::Tokens => self.tokens_done(which, now, tally),
            Work::Steps { .. } => self.phase_done(now, tally),
        }
        let finished = self.take_finished(now, tally);
        self.lose_checkpoints();
        finished
    }

    /// The prompts and tokens of a micro-batch are computed.
    fn tokens_done(&mut self, which: u32, now: Time, tally: &mut Tally) {
        // Most requests of a batch have had their last token at the same time.
        let (mut gap, mut gaps) = (Nanos::ZERO, 0);
        for active in self.running.iter_mut().filter(|active| active.micro_batch == which) {
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
