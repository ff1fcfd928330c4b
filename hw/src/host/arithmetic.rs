//! What the host computes: the products of a step, read from the copies as they are stored.

use crate::branch;
use crate::codec;
use crate::compute::{ComputeError, Scratch, Weights};
use crate::content::Contents;
use crate::engine::{ComputeReport, Dense, JobError, Reading, Work};
use crate::lane::{now, since};
use crate::verify::check;
use policy::FormatId;
use policy::event::Part;
use policy::model::{Block, Matrix};
use policy::units::Nanos;
use std::sync::Arc;

/// One thread's buffers.
pub(super) struct Arithmetic {
    contents: Arc<Contents>,
    /// Activations of unit variance, as many as were ever needed.
    input: Vec<f32>,
    output: Vec<f32>,
    scratch: Scratch,
}

impl Arithmetic {
    pub(super) fn new(contents: Arc<Contents>) -> Arithmetic {
        Arithmetic { contents, input: Vec::new(), output: Vec::new(), scratch: Scratch::default() }
    }

    /// Carries a compute command out.
    pub(super) fn compute(&mut self, work: &Work) -> Result<ComputeReport, JobError> {
        let mut took = Nanos::ZERO;
        let batch = match work.part {
            Part::Head => work.batch.len() as u64,
            _ => work.batch.iter().map(|slice| u64::from(slice.tokens)).sum(),
        };
        // A query looks at its own cache: one vector, whatever the tokens.
        for (dense, tokens) in
            work.dense.iter().map(|dense| (dense, batch)).chain(work.cache.iter().map(|cache| (cache, 1)))
        {
            self.make_room(tokens * dense.columns, tokens * dense.rows);
            let start = now();
            self.multiply_dense(dense, tokens as usize)?;
            took += since(start);
        }
        let mut digests = Vec::with_capacity(work.reads.len());
        for reading in &work.reads {
            if work.check {
                check(&self.contents, reading.block, reading.form, &reading.region)?;
            }
            let contents = self.contents.clone();
            let block = contents.block(reading.block);
            let tokens = u64::from(reading.tokens);
            self.make_room(tokens * branch::inputs(block) as u64, tokens * block.rows());
            let start = now();
            let results = self.multiply(block, reading)?;
            took += since(start);
            digests.push(root_mean_square(&self.output[..results]));
        }
        Ok(ComputeReport { layer: work.layer, part: work.part, digests, took })
    }

    /// Grows the buffers, before the clock runs.
    fn make_room(&mut self, inputs: u64, outputs: u64) {
        if self.input.len() < inputs as usize {
            self.input = self.contents.input(inputs as usize);
        }
        if self.output.len() < outputs as usize {
            self.output.resize(outputs as usize, 0.0);
        }
    }

    fn multiply_dense(&mut self, dense: &Dense, tokens: usize) -> Result<(), JobError> {
        let Arithmetic { input, output, scratch, .. } = self;
        let matrices = [Matrix { rows: dense.rows, columns: dense.columns }];
        let bytes = FormatId::BF16.bytes(matrices[0].elements(), dense.rows).0 as usize;
        let (inputs, outputs) = (tokens * dense.columns as usize, tokens * dense.rows as usize);
        let product = |all: &[u8]| {
            let weights = Weights::new(FormatId::BF16, &all[..bytes], &matrices)?;
            weights.product(0, 0..dense.rows, tokens, &input[..inputs], &mut output[..outputs], scratch)
        };
        dense.region.with_bytes(product)?.map_err(JobError::Product)
    }

    /// Multiplies by a block; how many results there are.
    fn multiply(&mut self, block: &Block, reading: &Reading) -> Result<usize, JobError> {
        let Reading { block: id, form, region, tokens } = reading;
        let tokens = *tokens as usize;
        if !form.format.get().direct {
            let mut expanded = vec![0; block.bytes(block.native).0 as usize];
            let expand = |bytes: &[u8]| {
                codec::transcode(form.format, bytes, block.native, &block.matrices, &mut expanded)
            };
            let failed = |source| JobError::Codec { block: id.0, form: *form, source };
            region.with_bytes(expand)?.map_err(failed)?;
            return self.product(block, block.native, &expanded, tokens).map_err(JobError::Product);
        }
        region.with_bytes(|bytes| self.product(block, form.format, bytes, tokens))?.map_err(JobError::Product)
    }

    /// Multiplies by a copy in a format that is read as it is.
    fn product(
        &mut self,
        block: &Block,
        format: FormatId,
        bytes: &[u8],
        tokens: usize,
    ) -> Result<usize, ComputeError> {
        let Arithmetic { input, output, scratch, .. } = self;
        let weights = Weights::new(format, bytes, &block.matrices)?;
        if branch::is_gated(block) {
            let [gate, _, down] = [block.matrices[0], block.matrices[1], block.matrices[2]];
            let (inputs, outputs) = (tokens * gate.columns as usize, tokens * down.rows as usize);
            weights.expert(tokens, &input[..inputs], &mut output[..outputs], scratch)?;
            return Ok(outputs);
        }
        let mut first = 0;
        for (index, matrix) in block.matrices.iter().enumerate() {
            let (inputs, outputs) = (tokens * matrix.columns as usize, tokens * matrix.rows as usize);
            let output = &mut output[first..first + outputs];
            weights.product(index, 0..matrix.rows, tokens, &input[..inputs], output, scratch)?;
            first += outputs;
        }
        Ok(first)
    }
}

fn root_mean_square(values: &[f32]) -> f32 {
    let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
    (squares / values.len().max(1) as f64).sqrt() as f32
}
