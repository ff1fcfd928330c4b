//! A copy that is far is read into a staging tier and brought to fast memory from there, where that is sooner: meanwhile the last
//! link carries what is nearer.

use crate::control::Proposal;
use crate::event::{Form, MoveClass};
use crate::flight::Flight;
use crate::id::BlockId;
use crate::orchestrator::Orchestrator;
use crate::refused::Refused;
use crate::schedule::Added;
use crate::staging::guests::Lent;

impl Orchestrator {
    /// Begins to read a block that is demanded into a staging tier, if it arrives sooner that way. The demand asks again when it is
    /// there.
    pub(crate) fn begin_first_leg(&mut self, proposal: &Proposal) -> Result<bool, Refused> {
        let Proposal { block, route, .. } = *proposal;
        let (costs, now) = (&self.context.costs, self.context.signals.now);
        let Some(from) = route.from.copy().filter(|_| proposal.class == MoveClass::Demand) else {
            return Ok(false);
        };
        let Some(&first) = costs.nearer(block, from) else { return Ok(false) };
        self.tally.read_ahead.waited += route.crossing;
        let Some(second) = costs.made_of(block, first.to, route.to.format) else { return Ok(false) };
        if self.schedule.arrival_by(&first, second, now) >= self.schedule.arrival(&route, now) {
            return Ok(false);
        }
        let Some(lent) = self.room_for_guest(block, first.to, 0) else { return Ok(false) };
        self.bring_in(&Proposal { route: first, ..*proposal }, lent, false)?;
        Ok(true)
    }

    pub(super) fn room_for_guest(&self, block: BlockId, to: Form, ahead: u32) -> Option<Lent> {
        self.staging.room_for_guest(&self.context, self.policy.as_ref(), (block, to), ahead)
    }

    /// Begins to read a block into the place that a guest is lent; `ahead` of demand, or for one.
    pub(super) fn bring_in(&mut self, proposal: &Proposal, lent: Lent, ahead: bool) -> Result<(), Refused> {
        let Proposal { block, route, class, .. } = *proposal;
        for (block, form) in lent.placing.victims {
            self.give_back(block, form)?;
        }
        self.staging.welcome(&self.context, (block, route.to), ahead);
        let deadline = self.deadline(proposal);
        let flight = Flight::new(block, route.from, route.to, class, route.crossing);
        let id = self.context.ledger.begin(Flight { deadline, ..flight })?;
        self.schedule.add(id, Added { in_turn: true, ..Added::by(&route, class) }, self.context.signals.now);
        Ok(())
    }
}
