//! Reading ahead: while the links to a staging tier rest, copies that the policy expects to be asked for are read into it, where
//! a demand finds them at that memory's speed. Priced, paced and cut into chunks as all that goes ahead of demand is.

use crate::event::MoveClass;
use crate::id::MoveId;
use crate::orchestrator::Orchestrator;
use crate::refused::Refused;

impl Orchestrator {
    /// Begins to read what is likeliest to be worth it, one copy at a time.
    pub(crate) fn read_ahead(&mut self) -> Result<(), Refused> {
        if self.staging.is_empty() || self.is_reading_ahead() {
            return Ok(());
        }
        let mut proposals = std::mem::take(&mut self.proposals);
        self.policy.read_ahead(&self.context, &mut proposals);
        for mut proposal in proposals.drain(..) {
            let (block, to) = (proposal.block, proposal.route.to);
            let ahead = self.context.signals.layers_until(self.context.model.block(block).layer);
            let Some(lent) = self.room_for_guest(block, to, ahead) else {
                self.no_room(&proposal);
                continue;
            };
            proposal.terms.memory = lent.rent * proposal.terms.next_use;
            proposal.terms = proposal.terms.sum();
            if self.vetted(&proposal) {
                self.tally.read_ahead.copies += 1;
                self.bring_in(&proposal, lent, true)?;
                break;
            }
        }
        self.proposals = proposals;
        Ok(())
    }

    fn is_reading_ahead(&self) -> bool {
        let mut flights = self.context.ledger.flights();
        flights.any(|(_, flight)| {
            flight.class != MoveClass::Demand
                && flight.class != MoveClass::Spill
                && self.staging.budget(flight.to.tier).is_some()
        })
    }

    /// A demand takes over a move: if that was reading ahead, what is there of it was hidden. Returns whether it was.
    pub(crate) fn overtake(&mut self, id: MoveId) -> bool {
        let flight = self.context.ledger.flight(id).copied();
        let Some(flight) = flight.filter(|flight| self.staging.overtake(flight.block)) else { return false };
        let read_ahead = &mut self.tally.read_ahead;
        read_ahead.used += 1;
        read_ahead.hidden += flight.arrived;
        read_ahead.waited += flight.total.saturating_sub(flight.arrived);
        true
    }
}
