//! The shares of a layer step that processors beside other memories have: blocks that each computes where they are, beside the
//! accelerator, the links, and the others.

use super::{HOSTED, LayerStep, Standing, UNSERVED};
use crate::control::{Proposal, StepWork};
use crate::event::{Part, Read};
use crate::id::{ProcessorId, TierId};
use crate::orchestrator::{ControlError, Orchestrator};
use crate::record::Action;
use crate::score::Costs;
use crate::tally::Cause;
use crate::units::Nanos;

/// What a layer step has given to links and to each of these processors to do.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares {
    links: Nanos,
    near: Vec<Nanos>,
    /// When all are done.
    end: Nanos,
}

impl Shares {
    /// What a proposal finds there: of links, or of the processor that would compute.
    pub(super) fn found_by(&self, by: Option<ProcessorId>) -> StepWork {
        let of = |by: ProcessorId| self.near.get(by.index()).copied().unwrap_or_default();
        StepWork { before: by.map_or(self.links, of), end: self.end }
    }

    /// A proposal is carried out.
    pub(super) fn take(&mut self, proposal: &Proposal, costs: &Costs) {
        let Proposal { action, route, work, .. } = proposal;
        let done = work.before + route.time;
        match costs.beside(route.to.tier).filter(|_| *action == Action::InPlace) {
            Some(by) => {
                self.near.resize(self.near.len().max(by.index() + 1), Nanos::ZERO);
                self.near[by.index()] = done;
            }
            None => self.links = done,
        }
        self.end = self.end.max(done);
    }
}

impl Orchestrator {
    /// Has each processor compute what was decided for it since the last time.
    pub(super) fn hand_to_near(&mut self, step: &mut LayerStep) {
        if step.counts[HOSTED] == 0 {
            return;
        }
        for by in (0..self.context.machine.near.len() as u8).map(ProcessorId) {
            let mut reads = Vec::new();
            for member in step.members.iter_mut().filter(|member| !member.handed_over) {
                let Standing::Hosted(form) = member.standing else { continue };
                if self.context.costs.beside(form.tier) == Some(by) {
                    member.handed_over = true;
                    let block = member.routed.block;
                    self.context.ledger.read_in_place.push((block, form));
                    reads.push(Read { block, form, tokens: member.routed.tokens });
                }
            }
            if !reads.is_empty() {
                step.hosting += 1;
                self.compute(step.layer, Part::Near(by), reads);
            }
        }
    }

    /// A processor has answered a command. Returns whether that was the end of the layer step.
    pub(crate) fn near_done(&mut self) -> Result<bool, ControlError> {
        let Some(step) = self.running.as_mut().filter(|step| step.hosting > 0) else {
            return Err(ControlError::Unexpected("the end of a share"));
        };
        step.hosting -= 1;
        if step.hosting > 0 {
            return Ok(false);
        }
        self.context.ledger.read_in_place.clear();
        for index in 0..step.members.len() {
            let member = &mut step.members[index];
            if !member.handed_over || !matches!(member.standing, Standing::Hosted(_)) {
                continue;
            }
            let lost = std::mem::take(&mut member.lost);
            member.handed_over = !lost;
            if !lost {
                self.context.ledger.unpin(member.routed.block);
            }
            step.put(index, if lost { Standing::Unserved } else { Standing::Done });
        }
        let (again, waits) = (step.counts[UNSERVED] > 0, step.waits_for_near.take());
        let computing = step.computing;
        if let Some(since) = waits {
            self.tally.stalled(Cause::InPlace, self.context.signals.now.since(since));
        }
        // What was given back while it was read, or has failed, goes now.
        self.shed_staged()?;
        if again && !computing {
            self.serve_wave()?;
        } else if waits.is_some() {
            self.end_layer()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// A memory has failed: what was being computed from it counts for nothing, and is served otherwise once its processor answers.
    pub(crate) fn lose_shares(&mut self, tier: TierId) {
        for member in self.running.iter_mut().flat_map(|step| &mut step.members) {
            let reads_it = matches!(member.standing, Standing::Hosted(form) if form.tier == tier);
            member.lost |= reads_it && member.handed_over;
        }
    }
}
