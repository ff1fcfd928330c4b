//! A step whose blocks hold fast memory with copies that it may not read still runs: it gives some of them up.

use crate::small::{self, Small};
use policy::control::{Proposal, Victim};
use policy::event::Routed;
use policy::orchestrator::Setup;
use policy::record::Action;
use policy::score::Terms;
use policy::tally::Objective;
use policy::{BlockId, Context, FormatId, LayerId, Orchestrator, Policy};
use sim::Case;

/// Takes int8 wherever the guard allows it, and gives int8 up last: so fast memory fills with it.
struct Hoarder {
    int8: FormatId,
}

impl Policy for Hoarder {
    fn observe(&mut self, _context: &Context, _layer: LayerId, _routed: &[Routed]) {}

    fn weigh(&mut self, _context: &Context, proposal: &Proposal) -> Option<Terms> {
        if matches!(proposal.action, Action::InPlace | Action::Skip) {
            return None;
        }
        let moving = if proposal.route.to.format == self.int8 { 0.0 } else { 1.0 };
        Some(Terms { moving, ..Terms::default() }.sum())
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        let ledger = &context.ledger;
        let blocks = (0..context.model.blocks.len() as u32).map(BlockId);
        let free = blocks.filter(|&block| !ledger.is_pinned(block) && ledger.flight_of(block).is_none());
        let copies = free.flat_map(|block| ledger.fast_copies(block).map(move |form| (block, form)));
        let (block, form) = copies.min_by_key(|&(block, form)| (form.format == self.int8, block))?;
        Some(Victim { block, form, terms: None })
    }
}

/// A controller of the case with a policy of a test's own.
pub(crate) fn controlled_by(case: &Case, policy: Box<dyn Policy>) -> Orchestrator {
    let setup = Setup {
        model: case.model.clone(),
        machine: case.machine.clone(),
        budgets: case.budgets.clone(),
        home: case.home.clone(),
        staging: case.staging.clone(),
        encoded: case.encoded.clone(),
        recode: case.recode.clone(),
        host_compute: case.host_compute,
        guard: case.guard.clone(),
        stage: case.stage,
        micro_batches: case.micro_batches,
        share: case.share,
        caches: case.caches,
        max_batch: case.max_batch,
        cache: case.cache,
        checkpoints: None,
        prefill_chunk: case.prefill_chunk,
        loading: false,
        pace: case.pace,
        record: true,
        objective: Objective::default(),
        recent: false,
    };
    Orchestrator::new(setup, policy).unwrap()
}

#[test]
fn copies_that_may_not_be_read_give_way_to_one_that_may() {
    let small = Small { layers: 1, experts: 4, selected: 3, slots: 2, ..Small::default() };
    // Enough for the least of three gates to be served in int8, not for all of them.
    let case = Small { encoded: &["int8"], drift_budget: 0.6, ..small }.case();
    let hoarder = Hoarder { int8: FormatId::named("int8").unwrap() };
    let controller = controlled_by(&case, Box::new(hoarder));
    let run = small::watch(&case, controller, case.world(false).unwrap()).unwrap();
    let tally = run.orchestrator.tally();
    assert_eq!(tally.output_tokens, 60);
    assert!(run.witness.gave_way > 0, "the case does not starve");
    assert!(run.orchestrator.context().guard.drift_max() <= case.guard.drift_budget);
}
