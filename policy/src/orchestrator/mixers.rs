//! The way of a step through its layers: mixers from one layer with blocks to the next, and the head at its end.

use super::{ControlError, Orchestrator};
use crate::event::{Command, Part};
use crate::id::LayerId;
use crate::units::Time;

impl Orchestrator {
    /// Tells everyone which phase the step belongs to, and returns its first layer.
    pub(super) fn begin_phase(&mut self) -> u16 {
        let Some(phase) = self.serving.phase() else { return 0 };
        self.context.signals.begin_step(self.serving.running_phase(), self.serving.next_steps());
        self.context.guard.begin_step(phase.len(), self.serving.tolerance());
        phase.layers.start
    }

    pub(super) fn next_layer(&mut self, done: LayerId, now: Time) -> Result<(), ControlError> {
        self.run_mixers(done.0 + 1, now)
    }

    /// Runs the mixers from a layer on, up to the next that has blocks to decide on, or to the end of the step.
    pub(super) fn run_mixers(&mut self, first: u16, now: Time) -> Result<(), ControlError> {
        let all = self.context.model.layers.len() as u16;
        let layers = self.serving.phase().map_or(all, |phase| phase.layers.end);
        let has_blocks = |layer: &u16| self.context.model.layer(LayerId(*layer)).blocks > 0;
        let (upto, part) = match (first..layers).find(has_blocks) {
            Some(next) => (next, Part::Mixer),
            None if self.runs_head() => (layers, Part::Head),
            None if first < layers => (layers - 1, Part::Mixer),
            None => return self.end_step(now),
        };
        let passed = u64::from(upto - first);
        self.tally.layer_steps += passed + u64::from(part == Part::Mixer && !has_blocks(&upto));
        let (layer, batch) = (LayerId(upto.min(layers - 1)), self.serving.batch());
        let through = if part == Part::Mixer { self.through(upto, layers) } else { None };
        let (mixers, reads) = (first..upto, Vec::new());
        self.commands.push(Command::Compute { mixers, layer, part, batch, reads, through });
        Ok(())
    }

    /// Whether the running step ends with the head: where it gives anybody a token. Accelerators that have experts of their own
    /// end their steps together, so there every step ends with a command.
    fn runs_head(&self) -> bool {
        let is_one_of_groups = self.context.machine.peers.is_some_and(|peers| peers.groups > 1);
        self.stage.is_last() && (self.serving.emits() || is_one_of_groups)
    }
}
