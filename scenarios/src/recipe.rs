//! The key `recipe`: blocks that are made again where they are read, instead of being kept anywhere.

use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::{Map, Whole};
use crate::keys::{Choice, Key, Table};
use crate::reader::Field;
use crate::units::whole;
use policy::format::Scale;
use policy::model::{Block, Model};
use policy::recipe::Recipe;

/// The widest factor that a block may have.
const MOST_RANK: u64 = 1 << 16;

/// The kinds of recipes.
pub(crate) const RECIPES: &[Choice] = &[Choice {
    name: "low_rank",
    about: "Each block is its layer's base and a product of low rank (LoRA); both stay in fast memory, and the block has no home copy",
    takes: Map(&LOW_RANK),
}];

static LOW_RANK: Table = Table {
    name: "low_rank",
    about: "An update of low rank of the layer's base",
    open: false,
    keys: &[Key::required("rank", Whole(1, MOST_RANK), "64", "The rank of each matrix's update")],
};

/// Reads `recipe` and gives it to every block of the model.
pub(crate) fn recipe(report: &mut Report, field: &Field<'_>, model: Option<Model>) -> Option<Model> {
    let (_, chosen) = field.choice(report, RECIPES)?;
    let keys = chosen.keys(report, &LOW_RANK)?;
    let rank = keys.required(report, "rank", |text| match whole(text)? {
        rank @ 1..=MOST_RANK => Ok(Recipe { rank: rank as u32 }),
        _ => Err(Wrong::new(format!("{text} is no rank"), format!("1 to {MOST_RANK}"))),
    })?;
    let model = model?;
    if let Some(wrong) = unfit(&model, rank) {
        field.key_error(report, wrong);
        return None;
    }
    Some(merged(model, rank))
}

/// Why the blocks of a model cannot have such a recipe, if they cannot.
fn unfit(model: &Model, recipe: Recipe) -> Option<Wrong> {
    let first = model.blocks.first()?;
    let plain = |block: &Block| {
        let format = block.native.get();
        format.scale == Scale::None && format.lossless_of.is_none() && block.mixed.is_none()
    };
    if let Some(block) = model.blocks.iter().find(|block| !plain(block)) {
        let message = format!("the blocks are {}: a product cannot be added to it", block.native.name());
        return Some(Wrong::new(message, "a model in bf16, fp16 or fp32"));
    }
    let unlike = model.layers.iter().any(|layer| {
        let blocks = &model.blocks[layer.first_block.index()..][..layer.blocks as usize];
        blocks.iter().any(|block| (&block.matrices, block.native) != (&blocks[0].matrices, blocks[0].native))
    });
    if unlike {
        return Some(Wrong::new(
            "a layer's blocks are not alike: they have no base in common",
            "a model with experts",
        ));
    }
    let narrow = first.matrices.iter().map(|matrix| matrix.rows.min(matrix.columns)).min()?;
    (u64::from(recipe.rank) > narrow).then(|| {
        let message = format!("rank {} of matrices whose shorter side is {narrow}", recipe.rank);
        Wrong::new(message, format!("at most {narrow}"))
    })
}

/// The model with the recipe: each layer keeps its base and its blocks' factors.
fn merged(mut model: Model, recipe: Recipe) -> Model {
    for block in &mut model.blocks {
        if block.index == 0 {
            model.resident += block.bytes(block.native);
        }
        model.resident += recipe.bytes(&block.matrices, block.native);
        block.recipe = Some(recipe);
    }
    model
}
