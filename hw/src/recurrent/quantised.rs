//! States in eight or four bits: a scale a column of a head's state, its root mean square in f16, then groups of 32 numbers of what
//! that leaves, as the codec's `int8_g32` and `int4_g32` code them. Columns differ by how strongly `b` writes them; one scale for
//! each takes half of the error of int4 away (measured on random states: 14.5 % to 7.9 %).

use super::RecurrentError;
use super::shape::Shape;
use crate::codec;
use half::f16;
use policy::FormatId;
use policy::model::Matrix;

/// Bits of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bits {
    /// `int4_g32`.
    Four,
    /// `int8_g32`.
    Eight,
}

impl Bits {
    /// How the codec calls the groups.
    pub fn format(self) -> FormatId {
        let name = match self {
            Bits::Four => "int4_g32",
            Bits::Eight => "int8_g32",
        };
        FormatId::named(name).unwrap_or(FormatId::BF16)
    }

    /// Bytes of one head's state, its scales with it.
    pub fn tile_bytes(self, shape: Shape) -> usize {
        self.coded_bytes(shape) + 2 * shape.state_dim()
    }

    fn coded_bytes(self, shape: Shape) -> usize {
        self.format().bytes(shape.tile() as u64, shape.head_dim() as u64).0 as usize
    }
}

/// A head's state as a matrix of the codec's.
pub(super) fn matrix(shape: Shape) -> [Matrix; 1] {
    [Matrix { rows: shape.head_dim() as u64, columns: shape.state_dim() as u64 }]
}

/// One head's state in fewer bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Tile {
    bits: Bits,
    /// A scale for each column.
    columns: Vec<f16>,
    /// The numbers over their column's scale, as the codec's format.
    coded: Vec<u8>,
}

impl Tile {
    /// Codes a head's state, `[head_dim][state_dim]`.
    pub fn quantise(shape: Shape, bits: Bits, state: &[f32]) -> Result<Tile, RecurrentError> {
        super::check("state", shape.tile(), state.len())?;
        let columns = column_scales(shape.state_dim(), state);
        // A column of zeros, or one that underflows, is stored as zeros.
        let inverse = |scale: &f16| if *scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
        let inverses: Vec<f32> = columns.iter().map(inverse).collect();
        let rows = state.chunks_exact(shape.state_dim());
        let scaled: Vec<f32> =
            rows.flat_map(|row| row.iter().zip(&inverses).map(|(number, by)| number * by)).collect();
        let mut coded = vec![0; bits.coded_bytes(shape)];
        codec::encode(bits.format(), &scaled, &matrix(shape), &mut coded)?;
        Ok(Tile { bits, columns, coded })
    }

    /// Reads the state back.
    pub fn dequantise(&self, shape: Shape, state: &mut [f32]) -> Result<(), RecurrentError> {
        super::check("state", shape.tile(), state.len())?;
        codec::decode(self.bits.format(), &self.coded, &matrix(shape), state)?;
        for row in state.chunks_exact_mut(shape.state_dim()) {
            row.iter_mut().zip(&self.columns).for_each(|(number, scale)| *number *= scale.to_f32());
        }
        Ok(())
    }

    /// The scale of each column.
    pub fn columns(&self) -> &[f16] {
        &self.columns
    }

    /// The codes and their groups' scales, as the codec writes them.
    pub fn coded(&self) -> &[u8] {
        &self.coded
    }

    /// How many bits a number has.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Bytes of it all.
    pub fn bytes(&self) -> usize {
        self.coded.len() + 2 * self.columns.len()
    }
}

/// The root mean square of each column, at most what f16 holds.
fn column_scales(columns: usize, state: &[f32]) -> Vec<f16> {
    let mut squares = vec![0.0f32; columns];
    for row in state.chunks_exact(columns) {
        squares.iter_mut().zip(row).for_each(|(sum, number)| *sum += number * number);
    }
    let rows = (state.len() / columns).max(1) as f32;
    squares.iter().map(|sum| f16::from_f32((sum / rows).sqrt().min(f16::MAX.to_f32()))).collect()
}
