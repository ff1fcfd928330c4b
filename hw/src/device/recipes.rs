//! What recipes take, in fast memory beside the managed blocks: a base for each layer, and the factors of every block.

use crate::arena::Arena;
use crate::content::{ContentError, Contents};
use crate::engine::Engine;
use crate::merge::Merge;
use crate::refusal::DeviceError;
use crate::region::Region;
use policy::machine::Class;
use policy::units::Bytes;
use policy::{BlockId, Machine, TierId};
use std::sync::Arc;

/// A block's base and its factors; nothing for a block without a recipe.
type Parts = Option<(Arc<Region>, Arc<Region>)>;

pub(super) struct Recipes {
    fast: TierId,
    parts: Vec<Parts>,
    /// Slots live as long as their arena.
    _arena: Option<Arena>,
}

impl Recipes {
    /// Sets aside and writes what the recipes of a model take.
    pub(super) fn new(
        engine: &dyn Engine,
        machine: &Machine,
        contents: &Contents,
    ) -> Result<Recipes, DeviceError> {
        let blocks = &contents.model().blocks;
        let mut recipes = Recipes {
            fast: machine.tiers_of(Class::Fast).next().unwrap_or_default(),
            parts: vec![None; blocks.len()],
            _arena: None,
        };
        let tier = machine.tier(recipes.fast);
        let taken = |bytes: Bytes| bytes.round_up(tier.granularity);
        let needed = blocks.iter().filter_map(|block| {
            let factors = taken(block.recipe?.bytes(&block.matrices, block.native));
            let base = if block.index == 0 { taken(block.bytes(block.native)) } else { Bytes::ZERO };
            Some(factors + base)
        });
        let needed = needed.sum();
        if needed == Bytes::ZERO {
            return Ok(recipes);
        }
        let mut arena = engine.arena(tier, needed)?;
        let mut write = |bytes: Result<Vec<u8>, ContentError>| -> Result<Arc<Region>, DeviceError> {
            let bytes = bytes.map_err(|source| DeviceError::Ingredients { source })?;
            let slot = arena.allocate(Bytes(bytes.len() as u64))?;
            let region = arena.region(slot)?;
            region.write_at(0, &bytes)?;
            Ok(region)
        };
        let mut base = None;
        for (id, block) in (0..).map(BlockId).zip(blocks) {
            if block.recipe.is_none() {
                continue;
            }
            let of_layer = match base.take().filter(|_| block.index > 0) {
                Some(region) => region,
                None => write(contents.base(block.layer))?,
            };
            recipes.parts[id.index()] = Some((of_layer.clone(), write(contents.factors(id))?));
            base = Some(of_layer);
        }
        recipes._arena = Some(arena);
        Ok(recipes)
    }

    /// What a block is made of in a tier, if that is where its recipe is followed.
    pub(super) fn of(&self, contents: &Contents, id: BlockId, tier: TierId) -> Option<Merge> {
        let block = contents.block(id);
        let (base, factors) = self.parts.get(id.index())?.clone()?;
        let recipe = block.recipe.filter(|_| tier == self.fast)?;
        Some(Merge::new(block, recipe, base, factors))
    }
}
