//! States in eight or four bits: a scale a column of a head's state, its root mean square in f16, then groups of 32 numbers of what
//! that leaves, as the codec's `int8_g32` and `int4_g32` code them. Columns differ by how strongly `b` writes them; a scale for
//! each takes a third of the error away (on made-up states of Nemotron-H's shape 12.0 % to 8.4 % in four bits, 0.66 % to 0.46 % in eight).

use super::RecurrentError;
use super::number::expanded;
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
    /// The bits of numbers that the codec calls so.
    pub fn of(format: FormatId) -> Option<Bits> {
        [Bits::Four, Bits::Eight].into_iter().find(|bits| bits.format() == format)
    }

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
        let inverse = |scale: f32| if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let inverses: Vec<f32> = expanded(&columns).into_iter().map(inverse).collect();
        let mut scaled = state.to_vec();
        scale_columns(&inverses, &mut scaled);
        let mut coded = vec![0; bits.coded_bytes(shape)];
        codec::encode(bits.format(), &scaled, &matrix(shape), &mut coded)?;
        Ok(Tile { bits, columns, coded })
    }

    /// Reads the state back.
    pub fn dequantise(&self, shape: Shape, state: &mut [f32]) -> Result<(), RecurrentError> {
        super::check("state", shape.tile(), state.len())?;
        codec::decode(self.bits.format(), &self.coded, &matrix(shape), state)?;
        scale_columns(&expanded(&self.columns), state);
        Ok(())
    }

    /// Writes the tile as bytes: the scales of its columns, then what the codec wrote.
    pub(super) fn write(&self, to: &mut [u8]) {
        let (columns, coded) = to.split_at_mut(2 * self.columns.len());
        columns.copy_from_slice(bytemuck::cast_slice(&self.columns));
        coded.copy_from_slice(&self.coded);
    }

    /// The tile of such bytes.
    pub(super) fn read(shape: Shape, bits: Bits, from: &[u8]) -> Result<Tile, RecurrentError> {
        super::check("bytes of a tile", bits.tile_bytes(shape), from.len())?;
        let (scales, coded) = from.split_at(2 * shape.state_dim());
        let mut columns = vec![f16::ZERO; shape.state_dim()];
        bytemuck::cast_slice_mut::<f16, u8>(&mut columns).copy_from_slice(scales);
        Ok(Tile { bits, columns, coded: coded.to_vec() })
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

/// Multiplies each row, number by number.
fn scale_columns(by: &[f32], state: &mut [f32]) {
    for row in state.chunks_exact_mut(by.len()) {
        row.iter_mut().zip(by).for_each(|(number, by)| *number *= by);
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
