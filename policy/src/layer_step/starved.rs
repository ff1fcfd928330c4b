//! A layer step that has blocks left, and room for none of them.

use super::{HOSTED, LayerStep, READY, UNSERVED, WAITING};
use crate::id::BlockId;
use crate::orchestrator::{ControlError, Orchestrator};

impl LayerStep {
    /// Whether blocks are left and none of them could be placed.
    pub(super) fn starved(&self) -> bool {
        self.counts[UNSERVED] > 0 && self.counts[READY] + self.counts[WAITING] == 0
    }

    /// Blocks that stand so, the last first.
    fn those(&self, kind: usize) -> impl Iterator<Item = BlockId> + '_ {
        let those = self.members.iter().rev().filter(move |member| member.standing.kind() == kind);
        those.map(|member| member.routed.block)
    }
}

impl Orchestrator {
    /// A step in which nothing could be placed tries again when a move has ended.
    pub(crate) fn resume_starved(&mut self) -> Result<(), ControlError> {
        let starved = self.running.as_ref().is_some_and(|step| !step.computing && step.starved());
        if starved { self.serve_wave() } else { Ok(()) }
    }

    /// Gives up one fast copy that takes the room, and that the step does not read: it came for a block that is computed in place by now,
    /// it cannot be read as it is, or the policy would keep it for good.
    pub(super) fn make_way(&mut self, step: &mut LayerStep) -> Result<(), ControlError> {
        self.hand_to_near(step);
        let is_fast = |block: &BlockId| self.context.ledger.is_fast(*block);
        let holder = step.those(HOSTED).chain(step.those(UNSERVED)).find(is_fast);
        if let Some(holder) = holder {
            self.give_way(holder)?;
        } else if !self.yield_one()? {
            let block = step.those(UNSERVED).last().unwrap_or_default();
            return Err(ControlError::DoesNotFit { layer: step.layer, block });
        }
        Ok(())
    }
}
