//! Copies that are made by a recipe, where they will be.

use super::{CopyWorker, Haul, JobError, Kind, Started, places};
use crate::cuda::coder::whole;
use crate::cuda::error::CudaError;
use crate::cuda::launch::{Ingredients, Place, merge};
use crate::engine::Change;
use crate::lane::{now, since};
use crate::merge::Merge;
use std::ops::Range;
use std::sync::Arc;

impl CopyWorker {
    /// Makes a chunk, and codes the block with the last one if its copy is in another format.
    pub(super) fn make(
        &mut self,
        haul: &Arc<Haul>,
        recipe: &Merge,
        offset: u64,
        len: u64,
        last: bool,
    ) -> Result<Started, JobError> {
        let direct = whole(&haul.target)?.filter(|_| haul.change == Change::Nowhere);
        let (Some(base), Some(factors)) = (whole(&recipe.base)?, whole(&recipe.factors)?) else {
            let start = now();
            haul.copy(&self.contents, offset, len, last)?;
            return Ok(Started::Done(since(start)));
        };
        self.timed(|worker| {
            let out = match direct {
                Some(target) => target,
                None => worker.staged(haul, recipe.base.len())?,
            };
            let size = haul.before.bytes(1, 0).0;
            let elements = offset / size..(offset + len) / size;
            let (first, made) = (elements.start * size, (elements.end - elements.start) * size);
            worker.merge(haul, recipe, (base, factors, out), elements)?;
            match (haul.change, direct) {
                (_, Some(_)) => Ok(()),
                (Change::Nowhere, None) => {
                    let to = places(&haul.target, first, made)?;
                    worker.carry((Kind::Device, vec![(out + first, made)]), to)
                }
                _ if last => worker.code_behind(haul, out),
                _ => Ok(()),
            }
        })
    }

    #[allow(unsafe_code)]
    fn merge(
        &self,
        haul: &Haul,
        recipe: &Merge,
        (base, factors, out): (u64, u64, u64),
        elements: Range<u64>,
    ) -> Result<(), JobError> {
        let base = Place { format: haul.before, address: base };
        let of = Ingredients { base, factors, recipe: recipe.recipe };
        let matrices = &self.contents.block(haul.block).matrices;
        let launches = merge(of, out, matrices, elements).map_err(CudaError::from)?;
        // SAFETY: base and factors are whole and held by the recipe; `out` is the move's target, or memory of its own that is as
        // large, and nobody else uses it before the move is published.
        Ok(unsafe { self.coder.run(&launches) }?)
    }
}
