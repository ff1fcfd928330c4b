//! Staged copies come and go: kept in passing, written from fast memory, given back, lost.

use super::Placing;
use crate::control::Victim;
use crate::event::{EncodeAt, Form, MoveClass};
use crate::flight::Flight;
use crate::id::{BlockId, MoveId, TierId};
use crate::orchestrator::{ControlError, Orchestrator};
use crate::record::Action;
use crate::refused::Refused;
use crate::schedule::Added;
use crate::score::Route;
use crate::units::Bytes;
use crate::veto::Verdict;

impl Orchestrator {
    /// A block is about to be fetched: the copy to keep in a memory that its bytes pass through, if one is worth it.
    pub(crate) fn keep_in_passing(&mut self, block: BlockId, route: &Route) -> Result<Option<Form>, Refused> {
        let Some(from) = route.from.copy().filter(|from| from.tier != route.to.tier) else { return Ok(None) };
        if self.staging.is_empty() {
            return Ok(None);
        }
        if self.staging.fetched(&self.context, block) {
            self.tally.read_ahead.used += 1;
            self.tally.read_ahead.hidden += self.context.costs.bytes(block, from.format);
        }
        if route.encode_at == EncodeAt::Source && from.format != route.to.format {
            return Ok(None);
        }
        let placing = self.staging.place(&self.context, block, from, Some(route.to.tier));
        placing.map(|placing| self.make_place(block, from, placing)).transpose()
    }

    /// A block has been fetched into fast memory: it is written to a memory that its bytes did not pass through, if that is worth it.
    pub(crate) fn stage(&mut self, flight: &Flight) -> Result<(), Refused> {
        let Some(from) = flight.from.copy().filter(|_| flight.to.tier == self.context.costs.fast) else {
            return Ok(());
        };
        let block = flight.block;
        if self.staging.is_empty() || from.tier == flight.to.tier || self.context.ledger.is_moving(block) {
            return Ok(());
        }
        // What is being written holds its place in fast memory: one block at a time for each tier.
        let writes = |tier| self.context.ledger.flights().any(|(_, flight)| flight.to.tier == tier);
        // A guest that goes soon is looked at as if its bytes had come from home.
        let spent = self.staging.is_spent(block, from);
        let place_of = if spent { Form { tier: self.context.home.of(block), ..from } } else { from };
        let placing = self.staging.place(&self.context, block, place_of, None);
        let Some(placing) = placing.filter(|placing| !writes(placing.to.tier)) else { return Ok(()) };
        let (ledger, bytes) = (&self.context.ledger, self.context.costs.bytes(block, from.format));
        let Some(route) = self.staging.way(ledger, block, placing.to, bytes) else { return Ok(()) };
        let to = self.make_place(block, from, placing)?;
        let id = self.context.ledger.begin(Flight::new(block, route.from, to, MoveClass::Spill, bytes))?;
        self.schedule.add(id, Added::by(&route, MoveClass::Spill), self.context.signals.now);
        Ok(())
    }

    /// Lets the victims of a copy to be made go.
    fn make_place(&mut self, block: BlockId, from: Form, placing: Placing) -> Result<Form, Refused> {
        for (block, form) in placing.victims {
            self.give_back(block, form)?;
        }
        self.staging.took(&self.context, block, placing.to);
        self.log(block, Action::Stage, Verdict::Pass, None, |decision| {
            (decision.from, decision.to) = (Some(from), Some(placing.to));
        });
        Ok(placing.to)
    }

    pub(super) fn give_back(&mut self, block: BlockId, form: Form) -> Result<(), Refused> {
        self.staging.left(&self.context, block, form);
        self.evict(Victim { block, form, terms: None })
    }

    /// A move was given up: what it would have staged will not come.
    pub(crate) fn forget_staged(&mut self, flight: &Flight) {
        for form in flight.keep.into_iter().chain([flight.to]) {
            self.staging.left(&self.context, flight.block, form);
        }
    }

    /// Others take so much of a tier of staged copies from here on.
    pub(crate) fn reclaim(&mut self, tier: TierId, reserved: Bytes) -> Result<(), ControlError> {
        let budget = self.staging.budget(tier).ok_or(ControlError::Unexpected("pressure on a home tier"))?;
        self.context.ledger.set_capacity(tier, budget.saturating_sub(reserved));
        self.shed_staged()?;
        self.give_up_excess(tier)
    }

    /// A tier of staged copies has failed.
    pub(crate) fn lose(&mut self, tier: TierId) -> Result<(), ControlError> {
        self.lose_shares(tier);
        self.reclaim(tier, Bytes(u64::MAX))
    }

    /// Gives copies back until no staging tier holds more than it may; those that moves read or make stay until these end.
    pub(crate) fn shed_staged(&mut self) -> Result<(), Refused> {
        for tier in self.staging.tiers().collect::<Vec<_>>() {
            while self.beyond(tier) {
                let ledger = &self.context.ledger;
                let settled = |&(block, form): &(BlockId, Form)| super::is_settled(ledger, block, form);
                let Some((block, form)) = self.staging.held(tier).find(settled) else { break };
                self.give_back(block, form)?;
            }
        }
        Ok(())
    }

    fn beyond(&self, tier: TierId) -> bool {
        let usage = self.context.ledger.usage(tier);
        usage.used > usage.capacity
    }

    /// Moves that read or make copies which a tier has no more room for end with the chunks on their links; who waits for one of
    /// them is served otherwise.
    fn give_up_excess(&mut self, tier: TierId) -> Result<(), ControlError> {
        if !self.beyond(tier) {
            return Ok(());
        }
        let flights = self.context.ledger.flights().filter(|(_, flight)| flight.involves(tier));
        let moves: Vec<(MoveId, BlockId)> = flights.map(|(id, flight)| (id, flight.block)).collect();
        for (id, block) in moves {
            if !self.beyond(tier) {
                break;
            }
            if self.abandoned.contains(&id) {
                continue;
            }
            self.cancel(id)?;
            self.shed_staged()?;
            if self.context.ledger.flight(id).is_none() {
                self.move_ended(block)?;
            }
        }
        Ok(())
    }
}
