//! States in every format that checkpoints are kept in (`policy::state_format`), as bytes: `rows` by `columns` numbers in, exactly
//! [`StateFormat::bytes`] out. What has a scale a column beside its groups is a [`Tile`]; a format with a scale a row takes the state
//! by columns, so that its rows are the state's columns; all others are the codec's own.

use super::RecurrentError;
use super::quantised::{Bits, Tile};
use super::shape::Shape;
use crate::codec;
use policy::format::Scale;
use policy::model::Matrix;
use policy::state_format::StateFormat;

/// Rows and columns of a state.
pub type Sides = (usize, usize);

/// Bytes of a state in a format.
pub fn bytes(format: StateFormat, (rows, columns): Sides) -> usize {
    format.bytes((rows * columns) as u64, columns as u64).0 as usize
}

/// Writes a state, row by row, in a format.
pub fn encode(format: StateFormat, sides: Sides, state: &[f32], to: &mut [u8]) -> Result<(), RecurrentError> {
    let (rows, columns) = sides;
    super::check("state", rows * columns, state.len())?;
    super::check("bytes of a state", bytes(format, sides), to.len())?;
    if let Some(bits) = tile(format) {
        Tile::quantise(Shape::new(1, rows, columns, 1)?, bits, state)?.write(to);
    } else if by_columns(format) {
        let mut turned = vec![0.0; state.len()];
        transpose(sides, state, &mut turned);
        codec::encode(format.numbers(), &turned, &matrix((columns, rows)), to)?;
    } else {
        codec::encode(format.numbers(), state, &matrix(sides), to)?;
    }
    Ok(())
}

/// Reads a state back, row by row.
pub fn decode(
    format: StateFormat,
    sides: Sides,
    from: &[u8],
    state: &mut [f32],
) -> Result<(), RecurrentError> {
    let (rows, columns) = sides;
    super::check("state", rows * columns, state.len())?;
    super::check("bytes of a state", bytes(format, sides), from.len())?;
    if let Some(bits) = tile(format) {
        let shape = Shape::new(1, rows, columns, 1)?;
        Tile::read(shape, bits, from)?.dequantise(shape, state)?;
    } else if by_columns(format) {
        let mut turned = vec![0.0; state.len()];
        codec::decode(format.numbers(), from, &matrix((columns, rows)), &mut turned)?;
        transpose((columns, rows), &turned, state);
    } else {
        codec::decode(format.numbers(), from, &matrix(sides), state)?;
    }
    Ok(())
}

/// The bits of a format that scales columns beside groups.
fn tile(format: StateFormat) -> Option<Bits> {
    Bits::of(format.numbers()).filter(|_| format.scales_columns())
}

fn by_columns(format: StateFormat) -> bool {
    matches!(format.numbers().get().scale, Scale::Row { .. })
}

fn matrix((rows, columns): Sides) -> [Matrix; 1] {
    [Matrix { rows: rows as u64, columns: columns as u64 }]
}

/// Turns rows into columns.
fn transpose((rows, columns): Sides, from: &[f32], to: &mut [f32]) {
    for (row, numbers) in from.chunks_exact(columns).enumerate() {
        for (column, number) in numbers.iter().enumerate() {
            to[column * rows + row] = *number;
        }
    }
}
