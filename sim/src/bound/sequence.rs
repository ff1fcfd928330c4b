//! The program of a run: its demands and the compute between them, written down in a run under a rule that knows nothing.
//!
//! Where requests come in as others finish, neither depends on the rule: what a batch is made of is a matter of steps, not
//! of time.

use super::program::{NEVER, Program, Use};
use super::terms::Terms;
use crate::compute::Kernel;
use crate::simulate::{Case, RunFailure};
use crate::world::{World, WorldError};
use policy::event::{Command, Event, EventKind, Part, Platform, Routed, Slice};
use policy::registry::{Entry, registry};
use policy::{LayerId, run};
use std::sync::Arc;

/// The program of a case; `None` where its demands depend on time, nothing is known to serve them, or other accelerators are
/// waited for.
///
/// # Errors
/// See [`RunFailure`].
pub(super) fn program(case: &Case) -> Result<Option<Program>, RunFailure> {
    let plain = |entry: &&Entry| {
        entry.simulate.is_some() && entry.params.is_empty() && !entry.clairvoyant && !entry.fitted
    };
    let alone = !case.share.is_part() && !case.stage.is_part();
    let rule = registry().iter().find(plain).filter(|_| case.is_closed() && alone);
    let (Some(rule), Some(terms)) = (rule, Terms::new(case)) else { return Ok(None) };
    let mut scout = Scout {
        world: case.world(false)?,
        program: terms.program(case),
        latest: vec![None; case.model.blocks.len()],
        terms,
        batch: [].into(),
        computed: 0.0,
    };
    let mut orchestrator = case.orchestrator(rule, &[], false)?;
    run(&mut orchestrator, &mut scout, |_| {})?;
    Ok(Some(scout.finish()))
}

/// A world that writes down what is asked of it.
struct Scout {
    world: World,
    terms: Terms,
    program: Program,
    /// The step of each block's last use.
    latest: Vec<Option<u32>>,
    batch: Arc<[Slice]>,
    /// Compute since the blocks of the last layer step began to be computed.
    computed: f64,
}

impl Scout {
    fn hear(&mut self, command: &Command) {
        let Command::Compute { mixers, layer, part, batch, .. } = command else { return };
        if *part == Part::Experts {
            return;
        }
        let begins = !mixers.is_empty() && mixers.start == 0 || *part == Part::Mixer && layer.0 == 0;
        if begins && self.program.steps() > 0 {
            self.program.rounds.push(self.program.uses.len());
        }
        self.batch = batch.clone();
        let before = mixers.clone().map(|layer| (LayerId(layer), Part::Mixer));
        for part in before.chain([(*layer, *part)]) {
            let kernel = self.terms.kernel(part, batch, &[]);
            self.computed += self.terms.longest(kernel);
        }
    }

    fn routed(&mut self, layer: LayerId, routed: &[Routed]) {
        let step = self.program.steps() as u32;
        let whole = self.terms.fits_whole(routed);
        self.program.free.push(std::mem::take(&mut self.computed));
        self.program.whole.push(whole);
        let tokens: u32 = self.batch.iter().map(|slice| slice.tokens).sum();
        for expert in routed {
            let previous = self.latest[expert.block.index()].replace(step).unwrap_or(NEVER);
            let weight = (f64::from(expert.gate_squared) / f64::from(tokens.max(1))) as f32;
            let block = expert.block.0;
            self.program.uses.push(Use { step, previous, block, weight: weight.next_down().max(0.0) });
        }
        let reads = self.terms.widest_reads(routed);
        let kernel: Kernel = self.terms.kernel((layer, Part::Experts), &self.batch, &reads);
        self.computed = if whole {
            self.terms.longest(kernel)
        } else {
            self.terms.longest_in_waves(kernel, routed.len())
        };
    }

    fn finish(mut self) -> Program {
        self.program.rounds.push(self.program.uses.len());
        // What follows the last layer step: its later waves may wait there.
        self.program.free.push(self.computed);
        self.program.whole.push(true);
        if let Some(first) = self.program.free.first_mut() {
            *first += self.world.loaded().0 as f64;
        }
        self.program.forget_what_drifts_too_far();
        self.program
    }
}

impl Platform for Scout {
    type Error = WorldError;

    fn next_event(&mut self) -> Result<Option<Event>, WorldError> {
        let event = self.world.next_event()?;
        if let Some(Event { kind: EventKind::LayerRouted { layer, routed }, .. }) = &event {
            self.routed(*layer, routed);
        }
        Ok(event)
    }

    fn submit(&mut self, command: Command) -> Result<(), WorldError> {
        self.hear(&command);
        self.world.submit(command.layer_by_layer())
    }
}
