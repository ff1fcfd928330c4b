//! The key `resident`: what fast memory holds from the beginning of a run to its end.

use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::{Flag, Fraction, Quantity};
use crate::keys::{Key, Table};
use crate::reader::{Field, flag};
use crate::scenario::Resident;
use crate::units::{SIZE, fraction, size};
use policy::BlockId;
use policy::model::{Layer, Model};

/// The keys of `resident`.
pub(crate) static RESIDENT: Table = Table {
    name: "resident",
    about: "What fast memory holds that never moves, beside key-value caches",
    open: false,
    keys: &[
        Key::default("activations", Quantity(&SIZE), "0 B", "Activations and workspaces"),
        Key::default(
            "fragmentation",
            Fraction,
            "0 %",
            "The share of the fast tier's capacity, under its cap, that allocators lose; less than 100 %",
        ),
        Key::default(
            "dense",
            Flag,
            "false",
            "Keep all layers of a dense model in fast memory from the beginning to the end: nothing is decided for them",
        ),
    ],
};

/// Reads `resident`, and keeps there what it says of the model.
pub(crate) fn resident(
    report: &mut Report,
    field: &Field<'_>,
    model: Option<Model>,
) -> (Option<Resident>, Option<Model>) {
    let Some(keys) = field.keys(report, &RESIDENT) else { return (None, model) };
    let activations = keys.or_default(report, "activations", size);
    let fragmentation = keys.or_default(report, "fragmentation", |text| match fraction(text)? {
        lost if lost < 1.0 => Ok(lost),
        _ => Err(Wrong::new("nothing is left", "less than `100 %`, such as `3 %`")),
    });
    let dense = keys.or_default(report, "dense", flag);
    let kept = match (&model, keys.get("dense").filter(|_| dense == Some(true))) {
        (Some(model), Some(field)) if !model.phases.is_empty() => {
            let message = "a model with phases cannot be kept as a whole: rows of its blocks differ";
            field.error(report, Wrong::new(message, "leave it out, and give it memory enough"));
            return (None, None);
        }
        (Some(model), Some(field)) => {
            let kept = kept(model);
            if kept == *model {
                let message = "there is no layer to keep: those without experts never move as it is";
                field.error(report, Wrong::new(message, "leave it out, or take a dense model"));
            }
            Some(kept)
        }
        _ => model,
    };
    let resident = activations
        .zip(fragmentation)
        .map(|(activations, fragmentation)| Resident { activations, fragmentation });
    (resident.filter(|_| dense.is_some()), kept)
}

/// The model with the blocks of its layers without experts among what never moves.
fn kept(model: &Model) -> Model {
    let mut kept = Model { layers: Vec::new(), blocks: Vec::new(), ..model.clone() };
    for original in &model.layers {
        let blocks = &model.blocks[original.first_block.index()..][..original.blocks as usize];
        let mut layer = Layer { first_block: BlockId(kept.blocks.len() as u32), ..original.clone() };
        if model.is_routed(original) {
            kept.blocks.extend_from_slice(blocks);
        } else {
            for block in blocks {
                layer.resident += block.bytes(block.native);
                layer.flops_per_token += 2 * block.elements();
            }
            (layer.blocks, layer.selected) = (0, 0);
        }
        kept.layers.push(layer);
    }
    kept
}
