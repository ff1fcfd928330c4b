//! The host's matrix products, read from the bytes of a copy as they are: an element becomes a number in a register,
//! just before it is multiplied.
//!
//! Sums are taken in a fixed order whatever the processor, its vectors, the number of tokens and how rows are split:
//! column `c` goes to lane `c % 32`, in order; then the upper half of the lanes is added to the lower one until one is
//! left. No operation is fused.

mod kernel;
mod panel;

use crate::codec::{self, CodecError};
use fearless_simd::Level;
pub(crate) use kernel::Kernel;
use kernel::{Rows, Sums};
use panel::Panel;
use policy::FormatId;
use policy::model::Matrix;
use std::ops::Range;
use thiserror::Error;

/// Why a product could not be computed.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ComputeError {
    /// The bytes are not a copy of these matrices.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A format that must be expanded first.
    #[error("{0} is not read as it is: expand the copy first")]
    NotDirect(&'static str),
    /// A matrix, or rows of one, that the block does not have.
    #[error("the block has no rows {}..{} of matrix {matrix}", rows.start, rows.end)]
    NoRows {
        /// The matrix.
        matrix: usize,
        /// Its rows.
        rows: Range<u64>,
    },
    /// Activations or results of another size than the matrix asks for.
    #[error("{what} are {expected} numbers here, the buffer has {got}")]
    WrongLength {
        /// Which.
        what: &'static str,
        /// What the matrix asks for.
        expected: u64,
        /// What is there.
        got: u64,
    },
    /// Matrices that are not those of an expert.
    #[error("an expert is gate and up of one shape and down of the transposed one, not {0:?}")]
    NotAnExpert(Vec<Matrix>),
}

/// A copy of a block in a format that is read as it is.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    kernel: Kernel,
    matrices: &'a [Matrix],
    payload: &'a [u8],
    scales: &'a [u8],
}

/// Buffers that grow to what the largest product needs and are used again.
#[derive(Default)]
pub struct Scratch {
    panel: Panel,
    sums: Sums,
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl<'a> Weights<'a> {
    /// The copy `bytes` of `matrices` in `format`.
    pub fn new(
        format: FormatId,
        bytes: &'a [u8],
        matrices: &'a [Matrix],
    ) -> Result<Weights<'a>, ComputeError> {
        let kernel = codec::kernel(format, bytes, matrices)?.ok_or(ComputeError::NotDirect(format.name()))?;
        let (payload, scales) = bytes.split_at(kernel.payload_bytes(codec::elements(matrices)));
        Ok(Weights { kernel, matrices, payload, scales })
    }

    /// `y[t][r] = sum over c of W[r][c] * x[t][c]` for rows `rows` of matrix `matrix`: `x` is `tokens` times its
    /// columns, `y` is `tokens` times as many rows as asked for.
    pub fn product(
        &self,
        matrix: usize,
        rows: Range<u64>,
        tokens: usize,
        x: &[f32],
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), ComputeError> {
        self.multiply(Level::new(), matrix, rows, tokens, x, y, scratch)
    }

    #[allow(clippy::too_many_arguments)] // The same, on given vectors.
    fn multiply(
        &self,
        level: Level,
        matrix: usize,
        rows: Range<u64>,
        tokens: usize,
        x: &[f32],
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), ComputeError> {
        let found =
            self.matrices.get(matrix).filter(|found| rows.start <= rows.end && rows.end <= found.rows);
        let shape = found.ok_or_else(|| ComputeError::NoRows { matrix, rows: rows.clone() })?;
        check_length("activations", tokens, shape.columns, x.len())?;
        check_length("results", tokens, rows.end - rows.start, y.len())?;
        let before = &self.matrices[..matrix];
        let columns = shape.columns as usize;
        scratch.panel.fill(x, tokens, columns);
        let first_row = before.iter().map(|matrix| matrix.rows).sum::<u64>() + rows.start;
        let first = codec::elements(before) + rows.start as usize * columns;
        let count = (rows.end - rows.start) as usize;
        let rows = Rows {
            payload: self.payload,
            scales: self.scales,
            sharing: self.kernel.sharing(),
            first_row: first_row as usize,
            first,
            columns,
            count,
        };
        self.kernel.multiply(level, &rows, &scratch.panel, &mut scratch.sums, y);
        Ok(())
    }

    /// `y = W2 (silu(W0 x) * (W1 x))` for each of `tokens` tokens: what an expert with the matrices gate, up and down
    /// computes.
    pub fn expert(
        &self,
        tokens: usize,
        x: &[f32],
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), ComputeError> {
        let [gate, up, down] = *self.matrices else {
            return Err(ComputeError::NotAnExpert(self.matrices.to_vec()));
        };
        if gate != up || gate.rows != down.columns {
            return Err(ComputeError::NotAnExpert(self.matrices.to_vec()));
        }
        check_length("activations", tokens, gate.columns, x.len())?;
        check_length("results", tokens, down.rows, y.len())?;
        let (mut hidden, mut raised) = (std::mem::take(&mut scratch.gate), std::mem::take(&mut scratch.up));
        hidden.resize(tokens * gate.rows as usize, 0.0);
        raised.resize(hidden.len(), 0.0);
        self.product(0, 0..gate.rows, tokens, x, &mut hidden, scratch)?;
        self.product(1, 0..up.rows, tokens, x, &mut raised, scratch)?;
        for (gate, up) in hidden.iter_mut().zip(&raised) {
            *gate = silu(*gate) * up;
        }
        let done = self.product(2, 0..down.rows, tokens, &hidden, y, scratch);
        (scratch.gate, scratch.up) = (hidden, raised);
        done
    }
}

/// `x` times the logistic function of `x`.
fn silu(x: f32) -> f32 {
    x / (1.0 + libm::expf(-x))
}

fn check_length(what: &'static str, tokens: usize, each: u64, got: usize) -> Result<(), ComputeError> {
    let expected = (tokens as u64).saturating_mul(each);
    if expected == got as u64 {
        Ok(())
    } else {
        Err(ComputeError::WrongLength { what, expected, got: got as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_arrives_at_the_same_bits() {
        let matrices = [Matrix { rows: 3, columns: 64 }, Matrix { rows: 3, columns: 75 }];
        let values: Vec<f32> = (0..417).map(|at| ((at * 7919 % 1009) - 504) as f32 * 0.00037).collect();
        for format in codec::coded() {
            let mut bytes = vec![0; format.bytes(417, 6).0 as usize];
            codec::encode(format, &values, &matrices, &mut bytes).ok();
            let Ok(weights) = Weights::new(format, &bytes, &matrices) else { continue };
            for (matrix, tokens) in [(0, 1), (0, 3), (0, 6), (1, 1), (1, 5)] {
                let x = &values[..tokens * matrices[matrix].columns as usize];
                let mut results = codec::levels().map(|level| {
                    let mut y = vec![f32::NAN; tokens * 3];
                    weights
                        .multiply(level, matrix, 0..3, tokens, x, &mut y, &mut Scratch::default())
                        .unwrap();
                    y
                });
                let widest = results.next().unwrap();
                assert!(results.all(|y| y == widest), "{}: matrix {matrix}, {tokens} tokens", format.name());
            }
        }
    }
}
