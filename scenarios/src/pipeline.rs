//! Stages of a pipeline: what each accelerator has of the model, checked for each as it is for one alone.

use crate::check::place;
use crate::diagnostics::{Report, Wrong};
use crate::parallel::taken;
use crate::placement::{Ground, check_caps, kv_reserve};
use crate::reader::{Field, Keys};
use crate::scenario::{Scenario, StageShare};
use policy::Model;
use policy::pipeline::stages_of_model;

/// The model of the first stage, and those of the later ones.
pub(crate) fn stages(
    report: &mut Report,
    keys: &Keys<'_>,
    stages: u32,
    model: Option<Model>,
) -> (Option<Model>, Vec<Model>) {
    let (Some(field), Some(whole)) = (keys.get("parallel").filter(|_| stages > 1), &model) else {
        return (model, vec![]);
    };
    let hint = "at most as many stages as the model has layers";
    let cut = taken(report, &field, hint, stages_of_model(whole, stages));
    let mut parts = cut.unwrap_or_default().into_iter();
    (parts.next(), parts.collect())
}

/// Places the later stages of a scenario whose first stage is placed. A stage in which something is wrong says which it is,
/// and those behind it are left alone: mostly the same is wrong with them.
pub(crate) fn later(
    report: &mut Report,
    (keys, at): (&Keys<'_>, &Field<'_>),
    load: (u32, u32),
    mut scenario: Scenario,
    models: Vec<Model>,
) -> Option<Scenario> {
    for (index, model) in (1..).zip(models) {
        let kv = kv_reserve(report, keys.get("kv"), Some(&model), Some(load))?;
        let Scenario { machine, memory: caps, sensitivity, .. } = &scenario;
        let ground = Ground { machine, model: &model, caps, pools: &[], sensitivity: Some(sensitivity) };
        let placed = place(report, keys, at, &ground);
        if let Some((home, _)) = placed {
            scenario.later.push(StageShare { model, kv, home: home.tiers });
            check_caps(report, at, &scenario.at_stage(index));
        }
        if !report.is_clean() {
            let message = format!("stage {index} of the pipeline, counted from 0, does not fit");
            let hint = "more stages, or what is said of the stage above";
            at.key_error(report, Wrong::new(message, hint));
            return None;
        }
    }
    Some(scenario)
}
