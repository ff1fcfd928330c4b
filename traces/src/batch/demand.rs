//! What the rows of a step demand at a layer, added up: row by row, or by whole blocks of rows whose sums are kept. A prompt of
//! two thousand tokens then costs tens of additions an expert, not thousands of look-ups.

use crate::gates;
use crate::routing::RoutingTrace;
use policy::BlockId;
use policy::event::Routed;
use std::ops::Range;
use std::sync::Arc;

/// Rows whose sum is kept together.
const BLOCK: usize = 32;
/// The most squared weights that are kept, and the most sums: 256 MB and 512 MB.
const MOST_KEPT: usize = 1 << 26;

/// Tokens that chose an expert, and the sum of their squared gate weights.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    tokens: u32,
    squares: f32,
}

/// What each row chose, and with which squared weights. Cloning shares the trace.
#[derive(Clone, Debug)]
struct Choices {
    trace: Arc<RoutingTrace>,
    seed: u64,
    /// Squared gate weights by row, layer and place; zero where that is still to be worked out. A row is asked for again and
    /// again where many requests follow few rows, and a draw takes longer than all that is done with it.
    squares: Vec<f32>,
    /// Where that would be too much to keep.
    scratch: Vec<f32>,
}

impl Choices {
    #[inline]
    fn of(&mut self, row: usize, layer: usize) -> (&[u16], &[f32]) {
        let shape = self.trace.shape();
        let first = (row * shape.layers as usize + layer) * shape.top_k as usize;
        let experts = self.trace.selection(row, layer);
        let (squares, kept) = match self.squares.get_mut(first..first + experts.len()) {
            Some(squares) => (squares, true),
            None => (&mut self.scratch[..experts.len()], false),
        };
        if !kept || squares.first() == Some(&0.0) {
            gates::gate_weights_or_synthetic(&self.trace, self.seed, row, layer, squares);
            squares.iter_mut().for_each(|weight| *weight *= *weight);
        }
        (experts, squares)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    choices: Choices,
    /// Sums by block of rows, layer and expert, and whether they are worked out. Empty until a block is asked for.
    blocks: Vec<Sum>,
    known: Vec<bool>,
    /// Those of the running merge, and its experts in order of first choice.
    sums: Vec<Sum>,
    order: Vec<u16>,
}

impl Demand {
    pub(super) fn new(trace: Arc<RoutingTrace>, seed: u64) -> Demand {
        let kept = trace.raw_selections().len();
        Demand {
            blocks: Vec::new(),
            known: Vec::new(),
            sums: vec![Sum::default(); trace.shape().experts as usize],
            order: Vec::new(),
            choices: Choices {
                // Pages of zeros that nobody writes take no memory.
                squares: if kept <= MOST_KEPT { vec![0.0; kept] } else { Vec::new() },
                scratch: vec![0.0; trace.shape().top_k as usize],
                trace,
                seed,
            },
        }
    }

    /// See [`super::BatchSource::merge`].
    pub(super) fn merge(
        &mut self,
        runs: impl IntoIterator<Item = Range<usize>>,
        layer: usize,
        first_block: u32,
    ) -> Vec<Routed> {
        runs.into_iter().for_each(|run| self.add_run(run, layer));
        let sums = &mut self.sums;
        let routed = self.order.drain(..).map(|expert| {
            let block = BlockId(first_block + u32::from(expert));
            let Sum { tokens, squares } = std::mem::take(&mut sums[usize::from(expert)]);
            Routed { block, tokens, gate_squared: squares }
        });
        routed.collect()
    }

    fn add_run(&mut self, run: Range<usize>, layer: usize) {
        let (first, last) = (run.start.div_ceil(BLOCK), run.end / BLOCK);
        if first >= last || !self.keeps_blocks() {
            return run.for_each(|row| self.add_row(row, layer));
        }
        (run.start..first * BLOCK).for_each(|row| self.add_row(row, layer));
        (first..last).for_each(|block| self.add_block(block, layer));
        (last * BLOCK..run.end).for_each(|row| self.add_row(row, layer));
    }

    #[inline]
    fn add_row(&mut self, row: usize, layer: usize) {
        let (experts, squares) = self.choices.of(row, layer);
        for (&expert, square) in experts.iter().zip(squares) {
            let sum = &mut self.sums[usize::from(expert)];
            if sum.tokens == 0 {
                self.order.push(expert);
            }
            sum.tokens += 1;
            sum.squares += square;
        }
    }

    /// Whether the sums of all blocks of rows are few enough to be kept.
    fn keeps_blocks(&self) -> bool {
        let trace = &self.choices.trace;
        let shape = trace.shape();
        let rows = trace.tokens() / BLOCK;
        rows.saturating_mul(shape.layers as usize).saturating_mul(shape.experts as usize) <= MOST_KEPT
    }

    fn add_block(&mut self, block: usize, layer: usize) {
        let place = self.block(block, layer);
        for (expert, (sum, more)) in (0u16..).zip(self.sums.iter_mut().zip(&self.blocks[place])) {
            if sum.tokens == 0 && more.tokens > 0 {
                self.order.push(expert);
            }
            sum.tokens += more.tokens;
            sum.squares += more.squares;
        }
    }

    /// The places of a block's sums, worked out if they were not yet.
    fn block(&mut self, block: usize, layer: usize) -> Range<usize> {
        let shape = self.choices.trace.shape();
        let (layers, experts) = (shape.layers as usize, shape.experts as usize);
        let index = block * layers + layer;
        let place = index * experts..(index + 1) * experts;
        if self.known.is_empty() {
            let blocks = self.choices.trace.tokens() / BLOCK * layers;
            (self.known, self.blocks) = (vec![false; blocks], vec![Sum::default(); blocks * experts]);
        }
        if !std::mem::replace(&mut self.known[index], true) {
            for row in block * BLOCK..(block + 1) * BLOCK {
                let (chosen, squares) = self.choices.of(row, layer);
                for (&expert, square) in chosen.iter().zip(squares) {
                    let sum = &mut self.blocks[place.start + usize::from(expert)];
                    sum.tokens += 1;
                    sum.squares += square;
                }
            }
        }
        place
    }
}
