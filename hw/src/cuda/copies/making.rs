//! Copies that are made by a recipe, where they will be.

use super::{Chunk, CopyWorker, Haul, JobError, Started, pairs, pieces, side, whole};
use crate::cuda::error::CudaError;
use crate::cuda::gpu::Gpu;
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
        chunk: Chunk,
    ) -> Result<Started, JobError> {
        let gpu = self.gpu.clone();
        let (Some(base), Some(factors)) = (whole(&recipe.base, &gpu)?, whole(&recipe.factors, &gpu)?) else {
            let start = now();
            haul.copy(&self.contents, chunk.offset, chunk.len, chunk.last)?;
            return Ok(Started::Done(since(start)));
        };
        let begun = side(&mut self.sides, &gpu)?.coder.stream().mark()?;
        let direct = whole(&haul.target, &gpu)?.filter(|_| haul.change == Change::Nowhere);
        let out = match direct {
            Some(target) => target,
            None => self.staged(haul, &gpu, recipe.base.len())?,
        };
        let size = recipe.native.bytes(1, 0).0;
        let elements = chunk.offset / size..(chunk.offset + chunk.len) / size;
        let (first, made) = (elements.start * size, (elements.end - elements.start) * size);
        self.merge(recipe, (base, factors, out), elements)?;
        match (haul.change, direct) {
            (Change::Nowhere, None) => {
                self.place(&gpu, (out + first, made), &pieces(&haul.target, first, made)?)?
            }
            (Change::BeforeLink | Change::AfterLink, _) if chunk.last => self.code_behind(haul, &gpu)?,
            _ => {}
        }
        Ok(Started::Pending(begun, side(&mut self.sides, &gpu)?.coder.stream().mark()?))
    }

    /// Makes elements of a block.
    #[allow(unsafe_code)]
    fn merge(
        &mut self,
        recipe: &Merge,
        (base, factors, out): (u64, u64, u64),
        elements: Range<u64>,
    ) -> Result<(), JobError> {
        let base = Place { format: recipe.native, address: base };
        let of = Ingredients { base, factors, recipe: recipe.recipe };
        let launches = merge(of, out, &recipe.matrices, elements).map_err(CudaError::from)?;
        let gpu = self.gpu.clone();
        // SAFETY: base and factors are whole and held by the recipe; `out` is the move's target, or memory of its own that is as
        // large, and nobody else uses it before the move is published.
        Ok(unsafe { side(&mut self.sides, &gpu)?.coder.run(&launches) }?)
    }

    /// Puts what was made beside its target into the target's pieces.
    #[allow(unsafe_code)]
    fn place(&mut self, gpu: &Arc<Gpu>, made: (u64, u64), to: &[(u64, u64)]) -> Result<(), JobError> {
        let stream = side(&mut self.sides, gpu)?.coder.stream();
        for (source, target, len) in pairs(&[made], to) {
            // SAFETY: from memory of ours to a region that the haul holds, which nobody reads before it is published.
            unsafe { stream.copy(target, source, len) }?;
        }
        Ok(())
    }
}
