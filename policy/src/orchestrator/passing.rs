//! Where nothing is to be decided: a platform may go through layers by itself, and says afterwards what it did.

use super::{ControlError, Orchestrator};
use crate::control::Rests;
use crate::id::LayerId;
use crate::passed::Passed;
use crate::state::State;

impl Orchestrator {
    /// The last layer with blocks of a step that ends before layer `end`, if the platform may go there from `first` by itself,
    /// as long as what the routers choose is there to be read.
    pub(super) fn through(&self, first: u16, end: u16) -> Option<LayerId> {
        let context = &self.context;
        let policy_rests = match self.policy.rests() {
            Rests::Never => false,
            Rests::AllResident => context.ledger.is_all_resident(),
            Rests::OnHits => true,
        };
        let rests = policy_rests
            && context.ledger.flights().next().is_none()
            && context.ledger.usage(context.costs.fast).fits()
            && self.staging.is_empty()
            && self.serving.checkpoints().is_none();
        let has_blocks = |layer: &u16| context.model.layer(LayerId(*layer)).blocks > 0;
        let last = || (first + 1..end).rev().find(has_blocks).map(LayerId);
        rests.then(last).flatten()
    }

    /// Takes in what it would have heard of layer by layer.
    pub(super) fn passed(&mut self, passed: &Passed) -> Result<(), ControlError> {
        for (at, layer, routed) in passed.iter() {
            self.context.signals.passed(at, layer, routed);
            self.tally.events += 1;
            match routed {
                Some(routed) => {
                    self.policy.observe(&self.context, layer, routed);
                    self.tally.layer_steps += 1;
                    self.tally.demanded += routed.len() as u64;
                    self.tally.hits_by_state[State::Full as usize] += routed.len() as u64;
                    self.context.signals.computing();
                }
                None => {
                    self.context.guard.spend_layer(0.0, 0.0);
                    // The mixers of layers without blocks follow.
                    let after = &self.context.model.layers[layer.index() + 1..];
                    self.tally.layer_steps +=
                        after.iter().take_while(|layer| layer.blocks == 0).count() as u64;
                }
            }
        }
        self.policy.failure().map_or(Ok(()), |failure| Err(ControlError::Policy(failure)))
    }
}
