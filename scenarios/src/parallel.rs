//! The key `parallel`: accelerators that serve the same requests. What is described of machine and model is the share of one.

use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::Whole;
use crate::keys::{Key, Table};
use crate::pressure::loses_accelerators;
use crate::reader::{Field, Keys};
use crate::scenario::{Cap, Kv, Parallel};
use crate::units::{at_most, whole};
use policy::machine::Class;
use policy::parallel::{ParallelError, share_of_experts, share_of_machine, share_of_model};
use policy::{Bytes, Machine, Model};
use std::collections::BTreeMap;

/// The most accelerators that work together: more than one NVLink domain has.
pub(crate) const MOST_RANKS: u64 = 256;
/// The most replicas a layer.
const MOST_REPLICAS: u64 = 1 << 16;

pub(crate) static PARALLEL: Table = Table {
    name: "parallel",
    about: "Accelerators that work on the same requests: `tensor` times `expert` times `pipeline` of them; memory of the fast tier is of each",
    open: false,
    keys: &[
        Key::default(
            "tensor",
            Whole(1, MOST_RANKS),
            "1",
            "Accelerators that compute each layer together, each with its share of every matrix",
        ),
        Key::default(
            "expert",
            Whole(1, MOST_RANKS),
            "1",
            "Groups of accelerators that have experts of their own, whole, and attend to requests of their own; all are simulated",
        ),
        Key::default(
            "replicas",
            Whole(0, MOST_REPLICAS),
            "0",
            "Copies of a layer's hottest experts that further groups may fetch, chosen from what routers chose; `expert` groups share their tokens",
        ),
        Key::default(
            "pipeline",
            Whole(1, MOST_RANKS),
            "1",
            "Stages of a pipeline, each with layers of its own; all are simulated",
        ),
        Key::optional(
            "micro_batches",
            Whole(1, MOST_RANKS),
            "4",
            "Batches that a pipeline computes side by side, with the requests of `batch` between them; left out, one for each stage",
        ),
    ],
};

/// Reads `parallel`: how many accelerators do what.
pub(crate) fn ranks(report: &mut Report, keys: &Keys<'_>) -> Option<Parallel> {
    let pressure = keys.get("pressure");
    let Some(field) = keys.get("parallel") else { return Some(Parallel::default()) };
    let keys = field.keys(report, &PARALLEL)?;
    let tensor = keys.or_default(report, "tensor", at_most(MOST_RANKS));
    let expert = keys.or_default(report, "expert", at_most(MOST_RANKS));
    let replicas = keys.or_default(report, "replicas", |text| match whole(text)? {
        number @ 0..=MOST_REPLICAS => Ok(number as u32),
        _ => Err(Wrong::new(format!("{text} replicas a layer"), format!("at most {MOST_REPLICAS}"))),
    });
    let pipeline = keys.or_default(report, "pipeline", at_most(MOST_RANKS));
    let micro_batches = keys.optional(report, "micro_batches", at_most(MOST_RANKS))?.or(pipeline);
    let (pipeline, micro_batches) = (pipeline?, micro_batches?);
    let losable = pressure.is_some_and(loses_accelerators);
    let parallel =
        Parallel { tensor: tensor?, expert: expert?, replicas: replicas?, losable, pipeline, micro_batches };
    if u64::from(parallel.accelerators()) > MOST_RANKS {
        let message = format!("{} accelerators together", parallel.accelerators());
        let hint = format!("`tensor` times `expert` times `pipeline` is at most {MOST_RANKS}");
        field.error(report, Wrong::new(message, hint));
        return None;
    }
    if parallel.replicas > 0 && parallel.expert == 1 {
        let message = "`replicas` of experts at one accelerator";
        field.error(report, Wrong::new(message, "write `expert: 4` or more too, or leave `replicas` out"));
        return None;
    }
    if parallel.expert > 1 && pipeline > 1 {
        let message = "`expert` and `pipeline` parallelism at once";
        field.error(report, Wrong::new(message, "one of them, beside `tensor` if need be"));
        return None;
    }
    Some(parallel)
}

/// What one accelerator has of the machine and of the model, where there are several.
pub(crate) fn shares(
    report: &mut Report,
    field: Option<&Field<'_>>,
    parallel: Parallel,
    (machine, model): (Option<Machine>, Option<Model>),
) -> (Option<Machine>, Option<Model>) {
    let Some(field) = field.filter(|_| parallel.accelerators() > 1) else { return (machine, model) };
    let Parallel { tensor, expert, pipeline, .. } = parallel;
    if model.as_ref().is_some_and(|model| model.blocks.iter().any(|block| block.recipe.is_some())) {
        field.error(
            report,
            Wrong::new("blocks made by recipes are not cut", "leave out `recipe` or `parallel`"),
        );
        return (None, None);
    }
    let machine = machine.and_then(|machine| {
        let hint = "a machine whose accelerator has `peers`, and whose memories are no other accelerator's";
        taken(report, field, hint, share_of_machine(&machine, tensor, expert, pipeline, parallel.is_common()))
    });
    let model = model.and_then(|model| match tensor {
        1 => Some(model),
        _ => {
            let hint = "a number of accelerators that divides the model's heads and the experts' width";
            taken(report, field, hint, share_of_model(&model, tensor))
        }
    });
    let model = model.and_then(|model| match expert {
        1 => Some(model),
        _ => {
            let hint = "a model with experts, and a number that divides those of a layer";
            let share = taken(report, field, hint, share_of_experts(&model, expert));
            // Where any expert may be anywhere, all have all of them, and each computes its own.
            if parallel.is_common() { share.map(|_| model) } else { share }
        }
    });
    (machine, model)
}

/// A share, unless it cannot be cut.
pub(crate) fn taken<T>(
    report: &mut Report,
    field: &Field<'_>,
    hint: &str,
    share: Result<T, ParallelError>,
) -> Option<T> {
    share.map_err(|error| field.error(report, Wrong::new(error.to_string(), hint))).ok()
}

/// Whether expert or pipeline parallelism goes with the rest: the accelerators must agree on every batch, which pages of a cache
/// would keep them from, and loads of their own those that end every step together.
pub(crate) fn agrees(report: &mut Report, keys: &Keys<'_>, parallel: Parallel, kv: Option<Kv>) -> bool {
    let kind = if parallel.expert > 1 { "expert" } else { "pipeline" };
    let several = parallel.expert > 1 || parallel.pipeline > 1;
    let Some(field) = keys.get("parallel").filter(|_| several) else { return true };
    let wrong = match kv {
        Some(Kv::Paged(_)) => {
            ("pages of a cache are given by each accelerator on its own", "a size for `kv`")
        }
        _ if keys.get("checkpoints").is_some() => {
            ("checkpoints are moved by each accelerator on its own", "no `checkpoints`")
        }
        _ if parallel.expert > 1 && keys.get("load").is_some() => {
            ("accelerators load their weights in times of their own", "no `load`")
        }
        _ => return true,
    };
    let (message, hint) = (format!("{} with `{kind}` parallelism", wrong.0), format!("write {}", wrong.1));
    field.error(report, Wrong::new(message, hint));
    false
}

/// Caps on what accelerators have in common, as each of them has it.
pub(crate) fn share_caps(caps: &mut BTreeMap<String, Cap>, machine: &Machine, parallel: Parallel) {
    if parallel.is_common() {
        return;
    }
    let common = machine.tiers.iter().filter(|tier| tier.class != Class::Fast);
    for tier in common {
        if let Some(Cap::Size(size)) = caps.get_mut(&tier.name) {
            *size = Bytes(size.0 / u64::from(parallel.accelerators()));
        }
    }
}
