//! Requests on their way through a model's phases. A step belongs to one phase: phases that have work take turns, so that a
//! request in a short phase waits for one step of any other at most, and so do the requests of several models.

use super::{Active, Serving};
use crate::event::Slice;
use crate::phase::{Phase, Work};
use crate::tally::Tally;
use crate::units::Time;

/// Steps that are looked ahead at most to find when a phase comes next.
const FARTHEST: u32 = 4096;

impl Active {
    /// Comes to a phase.
    pub(super) fn enter(&mut self, number: usize, phases: &[Phase]) {
        self.phase = number;
        self.steps_left = phases.get(number).and_then(|phase| phase.work.steps()).unwrap_or(0);
    }

    /// What the running step computes of it in a phase.
    pub(super) fn slices(&self, work: Work) -> impl Iterator<Item = Slice> {
        let (cached, sequences) = match work {
            Work::Tokens => (self.cached, 1),
            Work::Steps { sequences, .. } => (0, sequences),
        };
        let (request, tokens, rank) = (self.times.request, self.computing, self.rank);
        let slice = Slice { request, cached, tokens, rank };
        std::iter::repeat_n(slice, sequences as usize)
    }
}

/// The phase after this one for the same request, if there is one.
fn after(phases: &[Phase], phase: usize) -> Option<usize> {
    let next = phases.get(phase + 1)?;
    (next.tenant == phases[phase].tenant).then_some(phase + 1)
}

impl Serving {
    /// The same, for requests that go through these phases; none is one phase of tokens.
    pub fn with_phases(self, phases: Vec<Phase>) -> Serving {
        Serving { phases, ..self }
    }

    /// The phase where a model's requests begin.
    pub(super) fn entry(&self, tenant: u16) -> usize {
        self.phases.iter().position(|phase| phase.tenant == tenant).unwrap_or(0)
    }

    /// What the running step is part of, where the model has phases.
    pub fn phase(&self) -> Option<&Phase> {
        self.phases.get(self.phase)
    }

    /// Its number.
    pub fn running_phase(&self) -> usize {
        self.phase
    }

    pub(super) fn work(&self) -> Work {
        self.phase().map_or(Work::Tokens, |phase| phase.work)
    }

    /// Whether the running step computes prompts and tokens, as a decoder does.
    pub fn computes_tokens(&self) -> bool {
        self.work() == Work::Tokens
    }

    /// The share of the drift budget that the running step may use: that of the request that tolerates least.
    pub fn tolerance(&self) -> f64 {
        let Some(phase) = self.phase() else { return 1.0 };
        let running = self.running.iter().filter(|active| active.computing > 0);
        running.map(|active| phase.tolerance(active.steps_left)).fold(1.0, f64::min)
    }

    /// Whose requests go through a phase.
    pub(super) fn tenant_of(&self, phase: usize) -> u16 {
        self.phases.get(phase).map_or(0, |phase| phase.tenant)
    }

    /// Whether another request of a tenant may run: the batch is each tenant's own.
    pub(super) fn has_room(&self, tenant: u16) -> bool {
        let running = self.running.iter().filter(|active| active.times.tenant == tenant);
        self.running.len() < self.max_batch || running.count() < self.max_batch
    }

    /// The phase whose turn it is: the next one after the last step's that has work.
    pub(super) fn turn(&self) -> usize {
        let phases = self.phases.len().max(1);
        let has_work = |&phase: &usize| {
            self.running.iter().any(|active| active.phase == phase)
                || self.has_room(self.tenant_of(phase)) && self.queue.values().any(|next| next.phase == phase)
        };
        (1..=phases).map(|ahead| (self.phase + ahead) % phases).find(has_work).unwrap_or(self.phase)
    }

    /// The running step of a phase without tokens is computed: its requests go on, and those at their end put out what they
    /// were for.
    pub(super) fn phase_done(&mut self, now: Time, tally: &mut Tally) {
        for active in self.running.iter_mut().filter(|active| active.computing > 0) {
            active.computing = 0;
            active.steps_left = active.steps_left.saturating_sub(1);
            if active.steps_left > 0 {
                continue;
            }
            match after(&self.phases, active.phase) {
                Some(next) => active.enter(next, &self.phases),
                None => active.put_out(now, tally),
            }
        }
    }

    /// For each phase, the layer steps from the first layer of the running step to the phase's next step after it: as the
    /// requests that there are now will go on, and as one that comes next would begin. How many tokens a request will put
    /// out is not known; it is taken to be as many as those before it, on average.
    pub fn next_steps(&self) -> Vec<u32> {
        let mut next = vec![None; self.phases.len()];
        let mut at = self.phases[self.phase].len();
        let mut left: Vec<(usize, u32)> =
            self.running.iter().map(|active| (active.phase, self.expected_steps(active))).collect();
        let mut turn = self.phase;
        let here = |active: &Active| active.computing > 0;
        let ran: Vec<bool> = self.running.iter().map(here).collect();
        self.advance(&mut left, &ran, 1);
        for _ in 0..FARTHEST {
            if left.is_empty() {
                let unseen = next.iter().position(Option::is_none);
                let Some(unseen) = unseen else { break };
                let entry = self.entry(self.phases[unseen].tenant);
                left.push((entry, self.steps_of(entry)));
            }
            let phases = self.phases.len();
            let has_work = |&phase: &usize| left.iter().any(|&(other, _)| other == phase);
            turn = (1..=phases).map(|ahead| (turn + ahead) % phases).find(has_work).unwrap_or(turn);
            next[turn].get_or_insert(at);
            // Where nobody else takes turns, nothing changes until somebody leaves.
            let alone = left.iter().all(|&(phase, _)| phase == turn);
            let shortest = left.iter().filter(|(phase, _)| *phase == turn).map(|(_, steps)| *steps).min();
            let steps = if alone { shortest.unwrap_or(1).max(1) } else { 1 };
            at = at.saturating_add(self.phases[turn].len().saturating_mul(steps));
            let ran: Vec<bool> = left.iter().map(|&(phase, _)| phase == turn).collect();
            self.advance(&mut left, &ran, steps);
            if next.iter().all(Option::is_some) {
                break;
            }
        }
        next.into_iter().map(|next| next.unwrap_or(at)).collect()
    }

    /// Takes so many steps off what is left of some requests; those that are through with a phase go on to the next.
    fn advance(&self, left: &mut Vec<(usize, u32)>, ran: &[bool], steps: u32) {
        let mut ran = ran.iter();
        left.retain_mut(|(phase, more)| {
            if !ran.next().copied().unwrap_or(false) {
                return true;
            }
            *more = more.saturating_sub(steps);
            if *more > 0 {
                return true;
            }
            let Some(next) = after(&self.phases, *phase) else { return false };
            (*phase, *more) = (next, self.steps_of(next));
            true
        });
    }

    /// Steps that a request is expected to take in a phase, from its first on.
    fn steps_of(&self, phase: usize) -> u32 {
        self.phases[phase].work.steps().unwrap_or_else(|| self.outputs.mean().max(1))
    }

    /// Steps that a request is expected to take still in its phase, the running one included.
    fn expected_steps(&self, active: &Active) -> u32 {
        match self.phases[active.phase].work {
            Work::Steps { .. } => active.steps_left,
            Work::Tokens => self.outputs.mean().saturating_sub(active.times.tokens).max(2),
        }
    }
}

/// How many tokens requests have put out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outputs {
    requests: u64,
    tokens: u64,
}

impl Outputs {
    pub(super) fn record(&mut self, tokens: u32) {
        self.requests += 1;
        self.tokens += u64::from(tokens);
    }

    /// The mean so far; nothing before the first.
    fn mean(self) -> u32 {
        self.tokens.checked_div(self.requests).map_or(0, |mean| u32::try_from(mean).unwrap_or(u32::MAX))
    }
}
