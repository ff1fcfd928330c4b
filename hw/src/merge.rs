//! Blocks by their recipes: a base and a product of low rank, added up. Every sum is taken in the order of the rank, each
//! product and each addition rounded, so the bytes are the same on every device.

use crate::arena::ArenaError;
use crate::codec::{self, CodecError};
use crate::region::Region;
use fearless_simd::{Level, dispatch};
use policy::FormatId;
use policy::model::{Block, Matrix};
use policy::recipe::Recipe;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use thiserror::Error;

/// Why a block could not be made.
#[derive(Debug, Error)]
pub enum MergeError {
    /// Its numbers cannot be coded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Its base or its factors cannot be read.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

/// What a block is made of: the base of its layer, and its factors.
pub struct Merge {
    /// The native bytes of the base.
    pub base: Arc<Region>,
    /// For each matrix its left factor, `rows x rank`, then its right one, `rank x columns`, in the native format.
    pub factors: Arc<Region>,
    /// The recipe.
    pub recipe: Recipe,
    native: FormatId,
    matrices: Arc<[Matrix]>,
    /// The factors as numbers, once a processor has asked for them.
    numbers: OnceLock<Vec<f32>>,
}

impl Merge {
    /// What `block` is made of.
    pub fn new(block: &Block, recipe: Recipe, base: Arc<Region>, factors: Arc<Region>) -> Merge {
        let (native, matrices) = (block.native, block.matrices.clone());
        Merge { base, factors, recipe, native, matrices, numbers: OnceLock::new() }
    }

    /// Makes the elements of which some byte is among `len` from `offset`, but for one that ends later; returns the offset of
    /// the first and their bytes.
    pub fn made(&self, offset: u64, len: u64) -> Result<(u64, Vec<u8>), MergeError> {
        let size = self.native.bytes(1, 0).0;
        let elements = offset / size..(offset + len) / size;
        let mut out = vec![0; ((elements.end - elements.start) * size) as usize];
        let first = elements.start * size;
        if self.numbers.get().is_none() {
            let numbers = self.factors.with_bytes(|bytes| decoded(self.native, bytes))??;
            // Another thread may have been as far.
            let _ = self.numbers.set(numbers);
        }
        let factors = self.numbers.get().map_or(&[][..], Vec::as_slice);
        self.base.with_bytes(|base| {
            merge(self.native, &self.matrices, self.recipe, base, factors, elements, &mut out)
        })??;
        Ok((first, out))
    }
}

/// Numbers of a format without scales.
fn decoded(native: FormatId, bytes: &[u8]) -> Result<Vec<f32>, CodecError> {
    let row = [Matrix { rows: 1, columns: bytes.len() as u64 / native.bytes(1, 0).0 }];
    let mut numbers = vec![0.0; row[0].columns as usize];
    codec::decode(native, bytes, &row, &mut numbers)?;
    Ok(numbers)
}

/// Makes `elements` of a block. `base` holds all of the base, `factors` all of the factors, and `out` has room for what is made.
pub fn merge(
    native: FormatId,
    matrices: &[Matrix],
    recipe: Recipe,
    base: &[u8],
    factors: &[f32],
    elements: Range<u64>,
    out: &mut [u8],
) -> Result<(), CodecError> {
    let size = native.bytes(1, 0).0 as usize;
    let mut sums = decoded(native, &base[elements.start as usize * size..elements.end as usize * size])?;
    let (level, rank) = (Level::new(), recipe.rank as usize);
    let (mut begin, mut rest) = (0, factors);
    for matrix in matrices {
        let (left, others) = rest.split_at(matrix.rows as usize * rank);
        let (right, others) = others.split_at(rank * matrix.columns as usize);
        let end = begin + matrix.elements();
        let (from, to) = (elements.start.max(begin), elements.end.min(end));
        if from < to {
            let target = &mut sums[(from - elements.start) as usize..(to - elements.start) as usize];
            let (columns, first) = (matrix.columns as usize, (from - begin) as usize);
            dispatch!(level, _simd => add_product(left, right, columns, first, target));
        }
        (begin, rest) = (end, others);
    }
    let row = [Matrix { rows: 1, columns: sums.len() as u64 }];
    codec::encode(native, &sums, &row, out)
}

/// Adds elements of `left x right` to `sums`, from the element `first` of the product on.
#[inline(always)]
fn add_product(left: &[f32], right: &[f32], columns: usize, first: usize, sums: &mut [f32]) {
    let rank = right.len() / columns.max(1);
    let mut done = 0;
    while done < sums.len() {
        let (row, column) = ((first + done) / columns, (first + done) % columns);
        let width = (columns - column).min(sums.len() - done);
        let line = &mut sums[done..done + width];
        for (k, by) in left[row * rank..][..rank].iter().enumerate() {
            let right = &right[k * columns + column..][..width];
            for (sum, value) in line.iter_mut().zip(right) {
                *sum += by * value;
            }
        }
        done += width;
    }
}
