//! The key `parallel`: accelerators that compute each layer together. What is simulated is one of them, with its shares.

use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::Whole;
use crate::keys::{Key, Table};
use crate::reader::{Field, Keys};
use crate::scenario::Cap;
use crate::units::at_most;
use policy::machine::Class;
use policy::parallel::{share_of_machine, share_of_model};
use policy::{Bytes, Machine, Model};
use std::collections::BTreeMap;

/// The most accelerators that compute together: more than one NVLink domain has.
const MOST_RANKS: u64 = 256;

pub(crate) static PARALLEL: Table = Table {
    name: "parallel",
    about: "Accelerators that work on the same requests; pipeline and expert parallelism are not there",
    open: false,
    keys: &[Key::default(
        "tensor",
        Whole(1, MOST_RANKS),
        "1",
        "Accelerators that compute each layer together, each with its share of every matrix; memory of the fast tier is of each",
    )],
};

/// Reads `parallel`: how many accelerators compute each layer.
pub(crate) fn ranks(report: &mut Report, keys: &Keys<'_>) -> Option<u32> {
    let Some(field) = keys.get("parallel") else { return Some(1) };
    field.keys(report, &PARALLEL)?.or_default(report, "tensor", at_most(MOST_RANKS))
}

/// What one accelerator has of the machine and of the model, where there are several.
pub(crate) fn shares(
    report: &mut Report,
    field: Option<&Field<'_>>,
    ranks: u32,
    (machine, model): (Option<Machine>, Option<Model>),
) -> (Option<Machine>, Option<Model>) {
    let Some(field) = field.filter(|_| ranks > 1) else { return (machine, model) };
    let refused = |report: &mut Report, error: policy::parallel::ParallelError, hint: &str| {
        field.error(report, Wrong::new(error.to_string(), hint));
    };
    if model.as_ref().is_some_and(|model| model.blocks.iter().any(|block| block.recipe.is_some())) {
        field.error(
            report,
            Wrong::new("blocks made by recipes are not cut", "leave out `recipe` or `parallel`"),
        );
        return (None, None);
    }
    let machine = machine.and_then(|machine| {
        let hint = "a machine whose accelerator has `peers`, and whose memories are no other accelerator's";
        share_of_machine(&machine, ranks).map_err(|error| refused(report, error, hint)).ok()
    });
    let model = model.and_then(|model| {
        let hint = "a number of accelerators that divides the model's heads and the experts' width";
        share_of_model(&model, ranks).map_err(|error| refused(report, error, hint)).ok()
    });
    (machine, model)
}

/// Caps on what accelerators have in common, as each of them has it.
pub(crate) fn share_caps(caps: &mut BTreeMap<String, Cap>, machine: &Machine, ranks: u32) {
    let common = machine.tiers.iter().filter(|tier| tier.class != Class::Fast);
    for tier in common {
        if let Some(Cap::Size(size)) = caps.get_mut(&tier.name) {
            *size = Bytes(size.0 / u64::from(ranks));
        }
    }
}
