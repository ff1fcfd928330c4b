//! Blocks that are made by recipes.

use super::bench::{Bench, FAST, plain};
use super::{CalibrateError, Steady};
use policy::event::{Form, Source};
use policy::model::Block;
use policy::recipe::Recipe;
use policy::units::FlopRate;
use policy::{BlockId, FormatId};

/// A rank at which the sums, not the memory, take the time.
pub(super) const RANK: u32 = 64;

/// The rate at which the products of recipes are summed.
pub(super) fn measure(bench: &Bench<'_>) -> Result<FlopRate, CalibrateError> {
    let size = bench.plan.large;
    let recipe = Some(Recipe { rank: RANK });
    let count = (bench.plan.cold.0 / size.0 / 2).clamp(2, 16) as u32;
    let ids: Vec<BlockId> = (0..count).map(BlockId).collect();
    let blocks: Vec<Block> = (0..count).map(|index| Block { recipe, ..plain(index, size) }).collect();
    let operations = 2 * u64::from(RANK) * blocks[0].elements();
    let mut device = bench.device(blocks, &[])?;
    let to = Form { tier: FAST, format: FormatId::BF16 };
    let making = Steady::measure(bench.plan.patience, || bench.round(&mut device, &ids, Source::Recipe, to))?;
    let rate = u128::from(operations) * 1_000_000_000 / u128::from(making.median().0.max(1));
    Ok(FlopRate(u64::try_from(rate).unwrap_or(u64::MAX)))
}
