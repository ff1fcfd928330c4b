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
    /// Of the block that is made.
    pub(crate) native: FormatId,
    pub(crate) matrices: Arc<[Matrix]>,
    /// The factors as numbers, once a processor has asked for them.
    numbers: OnceLock<Vec<f32>>,
}

impl Merge {
    /// What `block` is made of.
    pub fn new(block: &Block, recipe: Recipe, base: Arc<Region>, factors: Arc<Region>) -> Merge {
        let (native, matrices) = (block.native, block.matrices.clone());
        Merge { base, factors, recipe, native, matrices, numbers: OnceLock::new() }
    }

    /// Makes the elements of which some byte is among `len` from `offset`, but for one that ends later, and hands `put` their
    /// bytes piece by piece, each with its offset in the block.
    pub fn make<E: From<CodecError> + From<ArenaError>>(
        &self,
        offset: u64,
        len: u64,
        put: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let size = self.native.bytes(1, 0).0;
        let elements = offset / size..(offset + len) / size;
        if self.numbers.get().is_none() {
            let numbers = self.factors.with_bytes(|bytes| decoded(self.native, bytes))??;
            // Another thread may have been as far.
            let _ = self.numbers.set(numbers);
        }
        let factors = self.numbers.get().map_or(&[][..], Vec::as_slice);
        self.base.with_bytes(|base| {
            merge(self.native, &self.matrices, self.recipe, (base, factors), elements, put)
        })?
    }
}

/// Numbers of a format without scales.
fn decoded(native: FormatId, bytes: &[u8]) -> Result<Vec<f32>, CodecError> {
    let row = [Matrix { rows: 1, columns: bytes.len() as u64 / native.bytes(1, 0).0 }];
    let mut numbers = vec![0.0; row[0].columns as usize];
    codec::decode(native, bytes, &row, &mut numbers)?;
    Ok(numbers)
}

/// Elements that are made at a time: their sums stay in a core's second cache, and are several rows of any matrix.
const PIECE: usize = 1 << 17;

/// Makes `elements` of a block of all of its base's bytes and all of its factors' numbers, and hands `put` their bytes piece by
/// piece, each with its offset in the block.
pub fn merge<E: From<CodecError>>(
    native: FormatId,
    matrices: &[Matrix],
    recipe: Recipe,
    (base, factors): (&[u8], &[f32]),
    elements: Range<u64>,
    mut put: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let size = native.bytes(1, 0).0;
    let room = PIECE.min((elements.end - elements.start) as usize);
    let (mut sums, mut bytes) = (vec![0.0; room], vec![0; room * size as usize]);
    for begin in elements.clone().step_by(PIECE) {
        let end = (begin + PIECE as u64).min(elements.end);
        let row = [Matrix { rows: 1, columns: end - begin }];
        let sums = &mut sums[..(end - begin) as usize];
        let bytes = &mut bytes[..sums.len() * size as usize];
        codec::decode(native, &base[(begin * size) as usize..(end * size) as usize], &row, sums)?;
        add_products(matrices, recipe, factors, begin..end, sums);
        codec::encode(native, sums, &row, bytes)?;
        put(begin * size, bytes)?;
    }
    Ok(())
}

/// Adds elements of the products of a block's factors, matrix by matrix.
fn add_products(
    matrices: &[Matrix],
    recipe: Recipe,
    factors: &[f32],
    elements: Range<u64>,
    sums: &mut [f32],
) {
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
}

/// Rows and columns whose sums stay in registers.
const ROWS: usize = 4;
const COLUMNS: usize = 16;

/// Adds elements of `left x right` to `sums`, from the element `first` of the product on.
#[inline(always)]
fn add_product(left: &[f32], right: &[f32], columns: usize, first: usize, sums: &mut [f32]) {
    let mut done = 0;
    while done < sums.len() {
        let (row, column) = ((first + done) / columns, (first + done) % columns);
        let rest = &mut sums[done..];
        let width = (columns - column).min(rest.len());
        if width == columns && rest.len() >= ROWS * columns {
            add_rows::<ROWS>(left, right, columns, (row, column), &mut rest[..ROWS * width]);
            done += ROWS * width;
        } else {
            add_rows::<1>(left, right, columns, (row, column), &mut rest[..width]);
            done += width;
        }
    }
}

/// Adds to as many rows, one after another in `lines`, from a row and a column of the product on.
#[inline(always)]
fn add_rows<const R: usize>(
    left: &[f32],
    right: &[f32],
    columns: usize,
    (row, column): (usize, usize),
    lines: &mut [f32],
) {
    let (width, rank) = (lines.len() / R, right.len() / columns);
    let by = |line: usize| &left[(row + line) * rank..][..rank];
    let left: [&[f32]; R] = std::array::from_fn(by);
    for at in (0..width / COLUMNS).map(|chunk| chunk * COLUMNS) {
        let mut sums = [[0.0; COLUMNS]; R];
        for (line, sums) in sums.iter_mut().enumerate() {
            sums.copy_from_slice(&lines[line * width + at..][..COLUMNS]);
        }
        for k in 0..rank {
            let right = &right[k * columns + column + at..][..COLUMNS];
            for (sums, left) in sums.iter_mut().zip(left) {
                let by = left[k];
                for (sum, value) in sums.iter_mut().zip(right) {
                    *sum += by * value;
                }
            }
        }
        for (line, sums) in sums.iter().enumerate() {
            lines[line * width + at..][..COLUMNS].copy_from_slice(sums);
        }
    }
    for (line, left) in left.iter().enumerate() {
        for at in width / COLUMNS * COLUMNS..width {
            for (k, by) in left.iter().enumerate() {
                lines[line * width + at] += by * right[k * columns + column + at];
            }
        }
    }
}
