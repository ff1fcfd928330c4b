//! The host's share of a layer step: blocks it computes where they are, beside the accelerator.

use super::{HOSTED, LayerStep, Standing};
use crate::event::{Part, Read};
use crate::orchestrator::{ControlError, Orchestrator};
use crate::tally::Cause;

impl Orchestrator {
    /// Has the host compute what was decided for it since the last time.
    pub(super) fn hand_to_host(&mut self, step: &mut LayerStep) {
        if step.counts[HOSTED] == 0 {
            return;
        }
        let fresh = step.members.iter_mut().filter(|member| !member.handed_over);
        let reads: Vec<Read> = fresh
            .filter_map(|member| {
                let Standing::Hosted(form) = member.standing else { return None };
                member.handed_over = true;
                Some(Read { block: member.routed.block, form, tokens: member.routed.tokens })
            })
            .collect();
        if !reads.is_empty() {
            step.hosting += 1;
            self.compute(step.layer, Part::Host, reads);
        }
    }

    /// The host has answered a command. Returns whether that was the end of the layer step.
    pub(crate) fn host_done(&mut self) -> Result<bool, ControlError> {
        let Some(step) = self.running.as_mut().filter(|step| step.hosting > 0) else {
            return Err(ControlError::Unexpected("the end of the host's share"));
        };
        step.hosting -= 1;
        if step.hosting > 0 {
            return Ok(false);
        }
        for index in 0..step.members.len() {
            let member = &step.members[index];
            if member.handed_over && matches!(member.standing, Standing::Hosted(_)) {
                self.context.ledger.unpin(member.routed.block);
                step.put(index, Standing::Done);
            }
        }
        let Some(since) = step.waits_for_host else { return Ok(false) };
        self.tally.stalled(Cause::Host, self.context.signals.now.since(since));
        self.end_layer()?;
        Ok(true)
    }
}
