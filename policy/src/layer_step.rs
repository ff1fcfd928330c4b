//! One layer step: its demand, the copies it will read, what it waits for, and its waves.

mod near;
mod starved;

use self::near::Shares;
use crate::control::Proposal;
use crate::event::{Form, MoveClass, Part, Read, Routed, Source};
use crate::id::{BlockId, LayerId};
use crate::orchestrator::{ControlError, Orchestrator};
use crate::record::Action;
use crate::score::{Costs, Route, Terms};
use crate::tally::Cause;
use crate::units::{Bytes, Time};
use crate::veto::error_of;

/// Where one block of the demand stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    /// Nothing is decided: it waits for room, and so for a later wave.
    Unserved,
    /// It waits for a copy.
    Waiting(Cause),
    /// It will be read from this copy.
    Ready(Form),
    /// The processor beside this copy computes it from there.
    Hosted(Form),
    /// It is computed, or left out.
    Done,
}

impl Standing {
    /// Its place among the counts of a layer step.
    fn kind(&self) -> usize {
        match self {
            Standing::Unserved => UNSERVED,
            Standing::Waiting(_) => WAITING,
            Standing::Ready(_) => READY,
            Standing::Hosted(_) => HOSTED,
            Standing::Done => DONE,
        }
    }
}

const UNSERVED: usize = 0;
const WAITING: usize = 1;
const READY: usize = 2;
const HOSTED: usize = 3;
const DONE: usize = 4;

#[derive(Clone, Debug)]
pub(crate) struct Member {
    routed: Routed,
    standing: Standing,
    /// Squared drift it adds, at the mean and at the upper bound.
    drift: (f64, f64),
    /// Whether the processor beside its copy was told of it.
    handed_over: bool,
    /// Whether that copy was lost while it was read there.
    lost: bool,
}

/// What was decided for a block: where it stands, and the squared drift it adds (at the mean and at the upper bound).
struct Served {
    standing: Standing,
    drift: (f64, f64),
    proposal: Proposal,
}

/// The running layer step.
#[derive(Clone, Debug)]
pub(crate) struct LayerStep {
    layer: LayerId,
    asked_at: Time,
    members: Vec<Member>,
    /// Members by where they stand.
    counts: [u32; DONE + 1],
    computing: bool,
    work: Shares,
    /// Compute commands that processors beside other memories have not answered.
    hosting: u32,
    /// Since when nothing but these is waited for.
    waits_for_near: Option<Time>,
    later_wave: bool,
    last_cause: Option<Cause>,
}

impl LayerStep {
    fn put(&mut self, index: usize, standing: Standing) {
        let before = std::mem::replace(&mut self.members[index].standing, standing);
        self.counts[before.kind()] -= 1;
        self.counts[standing.kind()] += 1;
    }
}

impl Orchestrator {
    pub(crate) fn layer_routed(&mut self, layer: LayerId, routed: Vec<Routed>) -> Result<(), ControlError> {
        self.policy.observe(&self.context, layer, &routed);
        self.tally.layer_steps += 1;
        for expert in &routed {
            self.context.ledger.pin(expert.block);
            self.tally.demanded += 1;
            let state = self.context.ledger.state(expert.block);
            if state.is_fast() {
                self.tally.hits_by_state[state as usize] += 1;
            }
        }
        self.cancel_missed(layer)?;
        let fresh = |routed| Member {
            routed,
            standing: Standing::Unserved,
            drift: (0.0, 0.0),
            handed_over: false,
            lost: false,
        };
        let mut members = std::mem::take(&mut self.members);
        members.extend(routed.into_iter().map(fresh));
        let mut counts = [0; DONE + 1];
        counts[UNSERVED] = members.len() as u32;
        self.running = Some(LayerStep {
            layer,
            asked_at: self.context.signals.now,
            members,
            counts,
            computing: false,
            work: Shares::default(),
            hosting: 0,
            waits_for_near: None,
            later_wave: false,
            last_cause: None,
        });
        self.serve_wave()?;
        self.staging.passed(&self.context, layer);
        Ok(self.read_ahead()?)
    }

    /// Background moves to this layer that were not asked for have missed their chance.
    fn cancel_missed(&mut self, layer: LayerId) -> Result<(), ControlError> {
        let model = &self.context.model;
        let missed: Vec<_> = self
            .context
            .ledger
            .flights()
            .filter(|(_, flight)| {
                let ahead = matches!(flight.class, MoveClass::Prefetch | MoveClass::Speculation);
                ahead && model.block(flight.block).layer == layer
            })
            .filter(|(id, flight)| {
                let ledger = &self.context.ledger;
                // A better copy for a block that has one is as welcome at its next visit.
                let wanted = ledger.is_pinned(flight.block) || ledger.is_fast(flight.block);
                !wanted && !self.abandoned.contains(id)
            })
            .map(|(id, _)| id)
            .collect();
        missed.into_iter().try_for_each(|id| self.cancel(id).map_err(ControlError::from))
    }

    /// Serves every block that has no copy decided yet, then computes if nothing is waited for.
    fn serve_wave(&mut self) -> Result<(), ControlError> {
        let Some(mut step) = self.running.take() else { return Ok(()) };
        self.serve_unserved(&mut step)?;
        while step.starved() && self.context.ledger.flights().next().is_none() {
            self.make_way(&mut step)?;
            self.serve_unserved(&mut step)?;
        }
        self.hand_to_near(&mut step);
        self.compute_if_ready(&mut step);
        self.running = Some(step);
        Ok(())
    }

    /// What is far comes last, so that what is near does not wait behind it.
    fn serve_unserved(&mut self, step: &mut LayerStep) -> Result<(), ControlError> {
        for far in [false, true] {
            for index in 0..step.members.len() {
                let Member { routed, standing, .. } = &step.members[index];
                let is_far = || self.context.costs.is_far(&self.context.ledger, routed.block);
                if *standing == Standing::Unserved && (far || !is_far()) {
                    self.serve(step, index)?;
                }
            }
        }
        Ok(())
    }

    /// A move has ended: whoever waited for it looks again.
    pub(crate) fn move_ended(&mut self, block: BlockId) -> Result<(), ControlError> {
        let Some(mut step) = self.running.take() else { return Ok(()) };
        let waiting =
            |member: &Member| member.routed.block == block && matches!(member.standing, Standing::Waiting(_));
        if let Some(index) = step.members.iter().position(waiting) {
            if let Standing::Waiting(cause) = step.members[index].standing {
                step.last_cause = Some(cause);
            }
            self.serve(&mut step, index)?;
            self.hand_to_near(&mut step);
            self.compute_if_ready(&mut step);
        }
        self.running = Some(step);
        Ok(())
    }

    /// Decides which copy a block is read from, and begins what it takes.
    fn serve(&mut self, step: &mut LayerStep, index: usize) -> Result<(), ControlError> {
        let block = step.members[index].routed.block;
        if let Some(form) = self.context.ledger.full_copy(block) {
            step.put(index, Standing::Ready(form));
            step.members[index].drift = (0.0, 0.0);
            return Ok(());
        }
        if let Some((id, flight)) = self.context.ledger.flight_of(block) {
            let left = flight.total.saturating_sub(flight.arrived).0 as f64 / flight.total.0.max(1) as f64;
            let wait = self.context.costs.fetch(&self.context.ledger, block, flight.to.format);
            let wait = wait.map_or(0.0, |route| route.time.0 as f64 * left);
            if !self.serve_meanwhile(step, index, wait) {
                step.put(index, Standing::Waiting(self.hasten(id)?));
            }
            return Ok(());
        }
        step.members[index].drift = (0.0, 0.0);
        let mut options = std::mem::take(&mut self.proposals);
        self.options(step, index, &mut options);
        options.sort_by(|a, b| a.terms.total.total_cmp(&b.terms.total).then(a.route.to.cmp(&b.route.to)));
        let taken = self.first_possible(step, &options);
        options.clear();
        self.proposals = options;
        step.put(index, Standing::Unserved);
        let Some(Served { standing, drift, proposal }) = taken? else { return Ok(()) };
        if standing == Standing::Done {
            self.context.ledger.unpin(block);
        }
        step.work.take(&proposal, &self.context.costs);
        step.put(index, standing);
        step.members[index].drift = drift;
        Ok(())
    }

    /// Serves a block without the copy that is under way to it, if the guard lets it and that costs less than `wait`
    /// nanoseconds: from a lesser copy that is there, or by the processor beside one.
    fn serve_meanwhile(&mut self, step: &mut LayerStep, index: usize, wait: f64) -> bool {
        let mut options = std::mem::take(&mut self.proposals);
        self.options(step, index, &mut options);
        options.retain(|proposal| {
            matches!(proposal.action, Action::Read | Action::InPlace) && proposal.terms.total <= wait
        });
        options.sort_by(|a, b| a.terms.total.total_cmp(&b.terms.total).then(a.route.to.cmp(&b.route.to)));
        let taken = options.iter().find(|proposal| self.vetted(proposal)).copied();
        options.clear();
        self.proposals = options;
        if let Some(proposal) = taken {
            let hosted = proposal.action == Action::InPlace;
            self.tally.hosted += u64::from(hosted);
            step.work.take(&proposal, &self.context.costs);
            let form = proposal.route.to;
            step.put(index, if hosted { Standing::Hosted(form) } else { Standing::Ready(form) });
            step.members[index].drift = self.drift_of(&proposal);
        }
        taken.is_some()
    }

    /// Carries out the first way to serve a block that the guard allows and that there is room for; returns where the
    /// block then stands and the drift it adds.
    fn first_possible(
        &mut self,
        step: &LayerStep,
        options: &[Proposal],
    ) -> Result<Option<Served>, ControlError> {
        for proposal in options {
            let chosen_among_many = self.context.costs.formats.len() > 1 || proposal.action != Action::Read;
            if chosen_among_many && !self.vetted(proposal) {
                continue;
            }
            let needs_room = !matches!(proposal.action, Action::InPlace | Action::Skip);
            if needs_room
                && !proposal.route.to.format.get().direct
                && !self.leaves_room_to_expand(step, proposal)
            {
                self.no_room(proposal);
                continue;
            }
            if let Some(standing) = self.act(proposal)? {
                let drift = self.drift_of(proposal);
                return Ok(Some(Served { standing, drift, proposal: *proposal }));
            }
        }
        Ok(None)
    }

    /// Turns a move that is under way into a demand; returns what the step will have waited for.
    fn hasten(&mut self, id: crate::id::MoveId) -> Result<Cause, ControlError> {
        let background = self.context.ledger.flight(id).is_some_and(|f| f.class != MoveClass::Demand);
        if self.abandoned.contains(&id) || !background {
            return Ok(Cause::DemandFetch);
        }
        if !self.overtake(id) {
            self.tally.speculations_used += 1;
        }
        self.context.ledger.reclass(id, MoveClass::Demand)?;
        Ok(Cause::LatePrefetch)
    }

    /// Adds every way to serve a block now, weighed by the policy.
    fn options(&mut self, step: &LayerStep, index: usize, all: &mut Vec<Proposal>) {
        let routed = step.members[index].routed;
        let block = routed.block;
        let taken: f64 = step.members.iter().map(|member| member.drift.1).sum();
        let tokens = f64::from(self.context.signals.step_tokens.max(1));
        let propose = |action, route| Proposal {
            block,
            action,
            route,
            class: MoveClass::Demand,
            work: step.work.found_by(None),
            tokens: routed.tokens,
            gate_squared: f64::from(routed.gate_squared) / tokens,
            layer_drift: taken,
            observations: 0,
            terms: Terms::default(),
        };
        let context = &self.context;
        let ledger = &context.ledger;
        let resident = ledger.is_fast(block);
        for form in ledger.fast_copies(block).filter(|form| form.format.get().direct) {
            all.push(propose(Action::Read, Costs::stay(form)));
        }
        for &format in &context.costs.formats {
            if ledger.has(block, Form { tier: context.costs.fast, format }) {
                continue;
            }
            if format.get().direct {
                all.extend(
                    context.costs.recode(ledger, block, format).map(|route| propose(Action::Expand, route)),
                );
            }
            let action = if resident { Action::Upgrade } else { Action::Fetch };
            let arrival = |route: &Route| self.schedule.arrival(route, context.signals.now);
            let fetch = context.costs.first_to_arrive(ledger, block, format, arrival);
            all.extend(fetch.map(|route| propose(action, route)));
        }
        if !resident {
            let in_place = context.costs.in_place(ledger, block, routed.tokens);
            all.extend(in_place.map(|route| {
                let work = step.work.found_by(context.costs.beside(route.to.tier));
                Proposal { work, ..propose(Action::InPlace, route) }
            }));
            if context.guard.budget() > 0.0 {
                let native = Form { tier: context.costs.fast, format: context.model.block(block).native };
                let copy = ledger.copies(block).next().unwrap_or(native);
                all.push(propose(Action::Skip, Costs::stay(copy)));
            }
        }
        let policy = &mut self.policy;
        all.retain_mut(|proposal| match policy.weigh(context, proposal) {
            Some(terms) => {
                proposal.terms = terms;
                true
            }
            None => false,
        });
    }

    /// Whether a copy that must be expanded can be, beside all that the step holds. Otherwise the step could fill fast
    /// memory with copies of which it can read none.
    fn leaves_room_to_expand(&self, step: &LayerStep, proposal: &Proposal) -> bool {
        let ledger = &self.context.ledger;
        let held = |member: &Member| -> Bytes {
            let block = member.routed.block;
            let coming = ledger.flight_of(block).map(|(_, flight)| flight.to);
            ledger.fast_copies(block).chain(coming).map(|form| ledger.footprint(block, form)).sum()
        };
        let pinned = step.members.iter().filter(|member| member.standing != Standing::Done);
        let tier = proposal.route.to.tier;
        let native = Form { tier, format: self.context.model.block(proposal.block).native };
        let wanted = [proposal.route.to, native].map(|form| ledger.footprint(proposal.block, form));
        let total: Bytes = pinned.map(held).chain(wanted).sum();
        total <= ledger.usage(tier).capacity
    }

    /// Carries out one way to serve a block; `None` if there is no room for it.
    fn act(&mut self, proposal: &Proposal) -> Result<Option<Standing>, ControlError> {
        let cause = match proposal.action {
            Action::Read => return Ok(Some(Standing::Ready(proposal.route.to))),
            Action::InPlace => {
                self.tally.hosted += 1;
                return Ok(Some(Standing::Hosted(proposal.route.to)));
            }
            Action::Skip => {
                self.tally.skipped += 1;
                return Ok(Some(Standing::Done));
            }
            Action::Expand => Cause::Decode,
            _ if proposal.route.from == Source::Recipe => Cause::Recompute,
            _ => Cause::DemandFetch,
        };
        Ok(self.begin(proposal)?.then_some(Standing::Waiting(cause)))
    }

    fn drift_of(&self, proposal: &Proposal) -> (f64, f64) {
        error_of(proposal, &self.context).map_or((0.0, 0.0), |error| {
            (
                proposal.gate_squared * error.mean * error.mean,
                proposal.gate_squared * error.upper * error.upper,
            )
        })
    }

    fn compute_if_ready(&mut self, step: &mut LayerStep) {
        let nothing_ready = step.counts[READY] == 0 && step.counts[UNSERVED] > 0;
        if step.computing || step.waits_for_near.is_some() || step.counts[WAITING] > 0 || nothing_ready {
            return;
        }
        let wait = self.context.signals.now.since(step.asked_at);
        let cause = if step.later_wave { Some(Cause::Wave) } else { step.last_cause };
        if let Some(cause) = cause {
            self.tally.stalled(cause, wait);
        }
        let mut reads = Vec::with_capacity(step.counts[READY] as usize);
        reads.extend(step.members.iter().filter_map(|member| match member.standing {
            Standing::Ready(form) => {
                Some(Read { block: member.routed.block, form, tokens: member.routed.tokens })
            }
            _ => None,
        }));
        step.computing = true;
        self.compute(step.layer, Part::Experts, reads);
        self.context.signals.computing();
        self.speculate();
    }

    /// Whether no layer step waits for a copy.
    pub(crate) fn waits_for_no_move(&self) -> bool {
        self.running.as_ref().is_none_or(|step| step.computing)
    }

    /// A wave is computed. Returns whether it was the last of its layer step.
    pub(crate) fn wave_done(&mut self) -> Result<bool, ControlError> {
        let Some(step) = self.running.as_mut().filter(|step| step.computing) else {
            return Err(ControlError::Unexpected("the end of a layer"));
        };
        step.computing = false;
        for index in 0..step.members.len() {
            if matches!(step.members[index].standing, Standing::Ready(_)) {
                step.put(index, Standing::Done);
                self.context.ledger.unpin(step.members[index].routed.block);
            }
        }
        if step.counts[UNSERVED] > 0 {
            step.later_wave = true;
            step.last_cause = None;
            step.asked_at = self.context.signals.now;
            self.tally.extra_waves += 1;
            self.serve_wave()?;
            return Ok(false);
        }
        if step.hosting > 0 {
            step.waits_for_near = Some(self.context.signals.now);
            return Ok(false);
        }
        self.end_layer()?;
        Ok(true)
    }

    /// Every block of the layer step is computed: its drift is booked, and what memory was short of meanwhile is given up.
    fn end_layer(&mut self) -> Result<(), ControlError> {
        let Some(mut step) = self.running.take() else { return Ok(()) };
        let drift = step.members.iter().fold((0.0, 0.0), |sum, m| (sum.0 + m.drift.0, sum.1 + m.drift.1));
        step.members.clear();
        self.members = step.members;
        self.context.guard.spend_layer(drift.0, drift.1);
        self.release()?;
        self.shed()?;
        Ok(())
    }
}
