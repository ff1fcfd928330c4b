//! The later stages of a pipeline, as a case has them.

use crate::simulate::Case;
use policy::homes::Homes;
use policy::pipeline::Stage;
use policy::{Bytes, Model, TierId};
use std::sync::Arc;

/// What a later stage has of its own.
#[derive(Clone, Debug)]
pub struct StageShare {
    /// Its layers, numbered from its first.
    pub model: Arc<Model>,
    /// Bytes of each tier that managed blocks may take.
    pub budgets: Vec<Bytes>,
    /// Bytes of the fast tier that they may not take.
    pub reserved: Bytes,
    /// The tiers of the home copies.
    pub home: Homes,
}

impl Case {
    /// The case as a later stage of its pipeline has it: itself, where there is no such stage.
    pub(crate) fn at_stage(&self, stage: Stage) -> Case {
        let share = stage.index.checked_sub(1).and_then(|later| self.later.get(later as usize));
        let Some(StageShare { model, budgets, reserved, home }) = share.cloned() else { return self.clone() };
        let before = self.models().take(stage.index as usize);
        let routers_before = before.map(|model| model.routed_layers().count()).sum();
        Case { stage, model, budgets, reserved, home, routers_before, later: vec![], ..self.clone() }
    }

    /// The models of all stages, in order: of the only one where there is no pipeline.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        std::iter::once(&self.model).chain(self.later.iter().map(|stage| &stage.model))
    }

    /// The most that any stage has of a tier: for blocks, and beside them.
    pub(crate) fn most(&self, tier: TierId) -> Bytes {
        let later = self.later.iter().map(|stage| (&stage.budgets, stage.reserved));
        let all = std::iter::once((&self.budgets, self.reserved)).chain(later);
        all.map(|(budgets, reserved)| budgets[tier.index()] + reserved).max().unwrap_or_default()
    }

    /// All stages with their budgets changed alike.
    pub(crate) fn with_budgets(&self, change: impl Fn(&mut Vec<Bytes>, Bytes)) -> Case {
        let mut case = self.clone();
        change(&mut case.budgets, case.reserved);
        for stage in &mut case.later {
            change(&mut stage.budgets, stage.reserved);
        }
        case
    }
}
