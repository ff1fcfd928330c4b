//! What a block gives: the output of its branch for one input, from its numbers. The plain definition, in float32 on
//! expanded numbers; kernels are held to it, and errors of formats are measured with it.

use crate::codec;
use crate::content::{ContentError, Contents};
use policy::model::{Block, BlockKind, Matrix};
use policy::{BlockId, FormatId};

/// Whether the matrices are gate, up and down of a gated feed-forward.
pub fn is_gated(block: &Block) -> bool {
    let [gate, up, down] = &*block.matrices else { return false };
    let experts = matches!(block.kind, BlockKind::Expert | BlockKind::SharedExpert);
    experts && gate == up && (down.rows, down.columns) == (gate.columns, gate.rows)
}

/// Inputs that a block needs: the columns of its widest matrix.
pub fn inputs(block: &Block) -> usize {
    let widest = block.matrices.iter().map(|matrix| matrix.columns).max();
    widest.unwrap_or(0) as usize
}

/// The output of a block for one input: W2 (silu(W0 x) W1 x) of an expert, the products of any other, one after another.
pub fn output(block: &Block, values: &[f32], input: &[f32]) -> Vec<f32> {
    let mut rest = values;
    let mut product = |matrix: &Matrix, input: &[f32]| -> Vec<f32> {
        let (own, after) = rest.split_at(matrix.elements() as usize);
        rest = after;
        own.chunks(matrix.columns.max(1) as usize).map(|row| dot(row, input)).collect()
    };
    match &*block.matrices {
        [gate, up, down] if is_gated(block) => {
            let gate = product(gate, input);
            let up = product(up, input);
            let inner: Vec<f32> = gate.iter().zip(&up).map(|(gate, up)| silu(*gate) * up).collect();
            product(down, &inner)
        }
        matrices => matrices.iter().flat_map(|matrix| product(matrix, input)).collect(),
    }
}

/// The error of a block's output in `format` against its native one: the root mean square of the difference, as a
/// fraction of that of the output.
pub fn error(contents: &Contents, id: BlockId, format: FormatId) -> Result<f64, ContentError> {
    let block = contents.block(id);
    let of = |format| -> Result<Vec<f32>, ContentError> {
        let mut values = vec![0.0; block.elements() as usize];
        codec::decode(format, &contents.bytes(id, format)?, &block.matrices, &mut values)?;
        Ok(output(block, &values, &contents.input(inputs(block))))
    };
    let (full, reduced) = (of(block.native)?, of(format)?);
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let off = squares(&mut full.iter().zip(&reduced).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let whole = squares(&mut full.iter().map(|value| f64::from(*value)));
    Ok(if whole == 0.0 { 0.0 } else { (off / whole).sqrt() })
}

fn silu(value: f32) -> f32 {
    value / (1.0 + libm::expf(-value))
}

/// The inner product, summed in eight lanes so that the compiler may use the processor's vectors.
fn dot(row: &[f32], vector: &[f32]) -> f32 {
    let (rows, row_rest) = row.as_chunks::<8>();
    let (vectors, vector_rest) = vector[..row.len()].as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (row, vector) in rows.iter().zip(vectors) {
        for lane in 0..8 {
            sums[lane] += row[lane] * vector[lane];
        }
    }
    let rest: f32 = row_rest.iter().zip(vector_rest).map(|(value, weight)| value * weight).sum();
    sums.iter().sum::<f32>() + rest
}
