//! Phase five: what was decided becomes changes of the ledger and commands to the platform. A copy is published only
//! when its last byte has arrived; room that a move is still writing to is not given to anybody else.

use crate::control::{Proposal, Victim};
use crate::event::{Command, MoveClass};
use crate::flight::Flight;
use crate::id::{BlockId, LayerId, MoveId};
use crate::ledger::Usage;
use crate::orchestrator::Orchestrator;
use crate::record::{Action, Decision};
use crate::refused::Refused;
use crate::schedule::Added;
use crate::score::Terms;
use crate::units::{Bytes, Nanos, Time};
use crate::veto::{Reason, Verdict, check};

impl Orchestrator {
    /// Asks the guard, and writes the answer down.
    pub(crate) fn vetted(&mut self, proposal: &Proposal) -> bool {
        let verdict = check(proposal, &self.context);
        match verdict {
            Verdict::Pass => {}
            Verdict::Reject(reason) => self.tally.veto(reason),
            Verdict::Defer(_) => self.tally.veto(Reason::Evidence),
        }
        self.log_proposal(proposal, verdict);
        verdict == Verdict::Pass
    }

    /// Begins the move of a proposal that has passed, making room for it. Returns whether there was room.
    pub(crate) fn begin(&mut self, proposal: &Proposal) -> Result<bool, Refused> {
        let Proposal { block, route, class, .. } = *proposal;
        if self.begin_first_leg(proposal)? {
            return Ok(true);
        }
        if !self.make_room(self.context.ledger.footprint(block, route.to))? {
            self.no_room(proposal);
            return Ok(false);
        }
        let had_none = !self.context.ledger.is_fast(block);
        let deadline = self.deadline(proposal);
        let keep = self.keep_in_passing(block, &route)?;
        let flight = Flight::new(block, route.from, route.to, class, route.crossing);
        let id = self.context.ledger.begin(Flight { keep, deadline, ..flight })?;
        let latest_start = deadline.map(|deadline| Time(deadline.0.saturating_sub(route.time.0)));
        let transient = self.context.machine.tier(route.from.tier(route.to)).transient;
        let added = Added { latest_start, transient, ..Added::by(&route, class) };
        self.schedule.add(id, added, self.context.signals.now);
        if had_none {
            self.policy.admitted(&self.context, block);
        }
        if class != MoveClass::Demand {
            self.tally.speculations += 1;
        }
        Ok(true)
    }

    /// What the idle links could do meanwhile.
    pub(crate) fn speculate(&mut self) {
        let mut proposals = std::mem::take(&mut self.proposals);
        self.policy.speculate(&self.context, &mut proposals);
        for proposal in proposals.drain(..) {
            if self.vetted(&proposal) && !matches!(self.begin(&proposal), Ok(true)) {
                break;
            }
        }
        self.proposals = proposals;
    }

    /// Writes down that a proposal which has passed could not be placed.
    pub(crate) fn no_room(&mut self, proposal: &Proposal) {
        self.tally.veto(Reason::Capacity);
        self.log_proposal(proposal, Verdict::Reject(Reason::Capacity));
    }

    /// Gives up the copies that the policy does not want to keep.
    pub(crate) fn release(&mut self) -> Result<(), Refused> {
        while let Some(victim) = self.policy.release(&self.context) {
            self.evict(victim)?;
        }
        Ok(())
    }

    /// Gives up copies until fast memory holds no more than it may; those that are in use stay.
    pub(crate) fn shed(&mut self) -> Result<(), Refused> {
        self.make_room(Bytes::ZERO).map(|_| ())
    }

    /// Frees fast memory until `wanted` bytes fit; `false` if that cannot be done now.
    pub(crate) fn make_room(&mut self, wanted: Bytes) -> Result<bool, Refused> {
        let fast = self.context.costs.fast;
        let fits = |usage: &Usage| usage.used + wanted <= usage.capacity;
        while !fits(self.context.ledger.usage(fast)) {
            if let Some(victim) = self.policy.victim(&self.context) {
                self.evict(victim)?;
            } else if !(self.cancel_background()? || (self.is_pressed() && self.yield_one()?)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives up a copy that the policy would keep for good, because others or the key-value cache have taken the room that it was
    /// meant for. Returns whether there was one.
    pub(crate) fn yield_one(&mut self) -> Result<bool, Refused> {
        let ledger = &self.context.ledger;
        let layers = (0..self.context.model.layers.len() as u16).map(LayerId);
        let copy = |block| ledger.fast_copies(block).next().map(|form| (block, form));
        let Some((block, form)) = layers.flat_map(|layer| ledger.idle(layer)).find_map(copy) else {
            return Ok(false);
        };
        self.evict(Victim { block, form, terms: None })?;
        if !self.context.ledger.is_fast(block) {
            self.policy.lost(&self.context, block);
        }
        Ok(true)
    }

    pub(crate) fn evict(&mut self, victim: Victim) -> Result<(), Refused> {
        let Victim { block, form, terms } = victim;
        self.log(block, Action::Evict, Verdict::Pass, terms, |decision| decision.from = Some(form));
        self.context.ledger.drop_copy(block, form)?;
        self.commands.push(Command::Drop { block, form });
        Ok(())
    }

    /// Takes a fast copy from a block that the running step needs, but cannot serve as things are.
    pub(crate) fn give_way(&mut self, block: BlockId) -> Result<(), Refused> {
        let copy = self.context.ledger.fast_copies(block).next();
        self.context.ledger.unpin(block);
        copy.map_or(Ok(()), |form| self.evict(Victim { block, form, terms: None }))?;
        self.context.ledger.pin(block);
        if !self.context.ledger.is_fast(block) {
            self.policy.lost(&self.context, block);
        }
        Ok(())
    }

    /// Gives up the youngest background move that holds fast memory and has nothing on its link.
    fn cancel_background(&mut self) -> Result<bool, Refused> {
        let fast = self.context.costs.fast;
        let youngest = self
            .context
            .ledger
            .flights()
            .filter(|(_, flight)| flight.class != MoveClass::Demand && flight.involves(fast))
            .filter(|(id, _)| !self.schedule.has_outstanding(*id))
            .map(|(id, _)| id)
            .max();
        match youngest {
            Some(id) => self.cancel(id).map(|()| true),
            None => Ok(false),
        }
    }

    /// Gives a move up, at once or as soon as the chunk on its link has landed.
    pub(crate) fn cancel(&mut self, id: MoveId) -> Result<(), Refused> {
        if self.schedule.forget(id) {
            self.abandoned.push(id);
            return Ok(());
        }
        self.abandoned.retain(|&abandoned| abandoned != id);
        let Some(flight) = self.context.ledger.flight(id).copied() else {
            return Err(Refused::NoSuchMove(id));
        };
        self.log(flight.block, Action::Cancel, Verdict::Pass, None, |decision| decision.to = Some(flight.to));
        self.context.ledger.cancel(id)?;
        self.forget_staged(&flight);
        // A move of which nothing was handed over is not known to the platform.
        if flight.sent > Bytes::ZERO {
            self.commands.push(Command::Cancel { id });
        }
        if flight.to.tier == self.context.costs.fast && !self.context.ledger.is_fast(flight.block) {
            self.policy.lost(&self.context, flight.block);
        }
        Ok(())
    }

    /// A chunk has not arrived, and will not: its move is given up. Returns its block.
    pub(crate) fn failed(&mut self, id: MoveId) -> Result<BlockId, Refused> {
        let landed = self.schedule.landed(id, self.context.signals.now);
        let (Some(_), Some(flight)) = (landed, self.context.ledger.flight(id).copied()) else {
            return Err(Refused::NoSuchMove(id));
        };
        self.cancel(id)?;
        Ok(flight.block)
    }

    /// A chunk has arrived; returns the block whose move has ended with it, by publication or because it was given up.
    pub(crate) fn landed(&mut self, id: MoveId) -> Result<Option<BlockId>, Refused> {
        let (Some(len), Some(flight)) =
            (self.schedule.landed(id, self.context.signals.now), self.context.ledger.flight(id).copied())
        else {
            return Err(Refused::NoSuchMove(id));
        };
        let complete = flight.arrived + len == flight.total;
        if !complete && self.abandoned.contains(&id) && !self.schedule.has_outstanding(id) {
            self.cancel(id)?;
            return Ok(Some(flight.block));
        }
        self.context.ledger.arrive(id, len)?;
        if complete {
            self.abandoned.retain(|&abandoned| abandoned != id);
            self.stage(&flight)?;
        }
        Ok(complete.then_some(flight.block))
    }

    /// When a proposal's copy is wanted: a demand now, anything else when its layer comes round.
    pub(crate) fn deadline(&self, proposal: &Proposal) -> Option<Time> {
        let signals = &self.context.signals;
        if proposal.class == MoveClass::Demand {
            return Some(signals.now);
        }
        let ahead = signals.layers_until(self.context.model.block(proposal.block).layer);
        Some(signals.now + Nanos(signals.layer_period.0.saturating_mul(u64::from(ahead))))
    }

    fn log_proposal(&mut self, proposal: &Proposal, verdict: Verdict) {
        let route = proposal.route;
        self.log(proposal.block, proposal.action, verdict, Some(proposal.terms), |decision| {
            decision.from = route.from.copy();
            decision.to = Some(route.to);
        });
    }

    pub(crate) fn log(
        &mut self,
        block: BlockId,
        action: Action,
        verdict: Verdict,
        terms: Option<Terms>,
        fill: impl FnOnce(&mut Decision),
    ) {
        let Some(log) = &mut self.log else { return };
        let signals = &self.context.signals;
        let mut decision = Decision {
            seq: self.decisions,
            step: signals.step,
            layer: signals.layer,
            block,
            action,
            from: None,
            to: None,
            state: self.context.ledger.state(block),
            verdict,
            terms,
            observed: signals.digest,
            at: signals.now,
        };
        fill(&mut decision);
        log.push(decision);
        self.decisions += 1;
    }
}
