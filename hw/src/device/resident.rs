//! What is in fast memory beside the managed blocks: the weights that never move, and the key-value cache. Their bytes
//! are there and are read by every step as a model's would be. They are made up: the mixer is one matrix of the layer's
//! resident bytes, attention is the product of the cache with one query.

use crate::arena::Arena;
use crate::branch;
use crate::content::Contents;
use crate::engine::{Dense, Engine};
use crate::refusal::DeviceError;
use crate::region::Region;
use policy::event::{Part, Slice};
use policy::machine::Class;
use policy::model::Layer;
use policy::units::Bytes;
use policy::{LayerId, Machine, Model};
use std::sync::Arc;

/// Columns of the matrices of a model without blocks.
const COLUMNS: u64 = 4096;
/// A number in bf16.
const BYTES: u64 = 2;
/// A number that goes into a product or comes out of one.
const ACTIVATION: u64 = 4;
/// The accelerator and the host compute at the same time, each in buffers of its own.
const BUFFERS: u64 = 2;

pub(super) struct Resident {
    layers: Vec<Layer>,
    mixers: Vec<Option<Arc<Region>>>,
    head: Option<Arc<Region>>,
    cache: Option<Arc<Region>>,
    columns: u64,
    /// Slots live as long as their arena.
    _arena: Option<Arena>,
}

impl Resident {
    /// Sets aside and fills the resident weights of a model and `cache` bytes of key-value cache.
    pub(super) fn new(
        engine: &dyn Engine,
        machine: &Machine,
        contents: &Contents,
        cache: Bytes,
    ) -> Result<Resident, DeviceError> {
        let model = contents.model();
        let columns = columns(model);
        let whole = |bytes: Bytes| Bytes(bytes.0 / (BYTES * columns) * (BYTES * columns));
        let mixers: Vec<Bytes> = model.layers.iter().map(|layer| whole(layer.resident)).collect();
        let (head, cache) = (whole(model.head_read), whole(cache));
        let sizes = mixers.iter().chain([&head, &cache]);
        let fast = machine.tiers_of(Class::Fast).next().map(|fast| machine.tier(fast));
        let total = sizes.map(|bytes| bytes.round_up(fast.map_or(Bytes(1), |fast| fast.granularity))).sum();
        let mut arena = match fast.filter(|_| total > Bytes::ZERO) {
            Some(fast) => Some(engine.arena(fast, total)?),
            None => None,
        };
        let mut stream = 0;
        let mut region = |bytes: Bytes| -> Result<Option<Arc<Region>>, DeviceError> {
            let Some(arena) = arena.as_mut().filter(|_| bytes > Bytes::ZERO) else { return Ok(None) };
            let slot = arena.allocate(bytes)?;
            let region = arena.region(slot)?;
            fill(&region, &contents.filler(stream))?;
            stream += 1;
            Ok(Some(region))
        };
        let mixers = mixers.into_iter().map(&mut region).collect::<Result<_, _>>()?;
        let (head, cache) = (region(head)?, region(cache)?);
        Ok(Resident { layers: model.layers.clone(), mixers, head, cache, columns, _arena: arena })
    }

    /// The resident weights and the part of the cache that a compute command reads.
    pub(super) fn of(&self, layer: LayerId, part: Part, batch: &[Slice]) -> (Option<Dense>, Option<Dense>) {
        let dense = |region: &Arc<Region>, bytes: u64| Dense {
            region: region.clone(),
            rows: bytes.min(region.len()) / (BYTES * self.columns),
            columns: self.columns,
        };
        let whole = |region: &Option<Arc<Region>>| region.as_ref().map(|region| dense(region, region.len()));
        match part {
            Part::Mixer => {
                let data = &self.layers[layer.index()];
                let seen = batch.iter().map(|slice| slice.seen(data.window)).sum::<u64>();
                let bytes = seen.saturating_mul(data.kv_per_token.0);
                let cache = self.cache.as_ref().map(|region| dense(region, bytes));
                (whole(&self.mixers[layer.index()]), cache.filter(|cache| cache.rows > 0))
            }
            Part::Head => (whole(&self.head), None),
            Part::Experts | Part::Near(_) => (None, None),
        }
    }
}

/// Columns of the matrices that are made up.
fn columns(model: &Model) -> u64 {
    let first = model.blocks.first().and_then(|block| block.matrices.first());
    first.map_or(COLUMNS, |matrix| matrix.columns.max(1))
}

/// What the inputs and outputs of a step of `tokens` take: those of the widest block or mixer. The head's are few, one
/// token of each request.
pub(super) fn activations(model: &Model, tokens: u32) -> Bytes {
    let columns = columns(model);
    let blocks = model.blocks.iter().map(|block| (branch::inputs(block) as u64).saturating_add(block.rows()));
    let mixers =
        model.layers.iter().map(|layer| columns.saturating_add(layer.resident.0 / (BYTES * columns)));
    let widest = blocks.chain(mixers).max().unwrap_or(0);
    Bytes(widest.saturating_mul(BUFFERS * ACTIVATION).saturating_mul(u64::from(tokens)))
}

/// Writes `pattern` over and over.
fn fill(region: &Region, pattern: &[u8]) -> Result<(), DeviceError> {
    for offset in (0..region.len()).step_by(pattern.len().max(1)) {
        let len = (region.len() - offset).min(pattern.len() as u64);
        region.write_at(offset, &pattern[..len as usize])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::FormatId;
    use policy::model::{Block, BlockKind, Matrix};

    #[test]
    fn activations_are_those_of_the_widest_block_or_mixer() {
        let matrices = [Matrix { rows: 6, columns: 4 }, Matrix { rows: 6, columns: 4 }];
        let block = Block {
            kind: BlockKind::Dense,
            layer: LayerId(0),
            index: 0,
            matrices: matrices.into(),
            native: FormatId::BF16,
            mixed: None,
            recipe: None,
        };
        let mixer = |rows: u64| Layer { resident: Bytes(rows * 4 * 2), ..Layer::default() };
        let of = |rows, tokens| {
            let model = Model { layers: vec![mixer(rows)], blocks: vec![block.clone()], ..Model::default() };
            activations(&model, tokens)
        };
        assert_eq!(of(11, 3), Bytes(2 * 4 * 3 * (4 + 12)), "the block's");
        assert_eq!(of(13, 3), Bytes(2 * 4 * 3 * (4 + 13)), "the mixer's");
        assert_eq!(of(13, 0), Bytes::ZERO);
    }
}
