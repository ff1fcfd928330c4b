//! What the rows of a step demand at each layer, added up: row by row, or by whole blocks of rows whose sums are kept. A prompt
//! of two thousand tokens then costs tens of additions an expert, not thousands of look-ups. All layers are added up at once: a
//! row's choices lie side by side in memory, those of one layer do not.

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
    /// Those of one row, where that would be too much to keep.
    scratch: Vec<f32>,
}

impl Choices {
    /// The experts and squared weights of a row, for each layer as many as the router can choose.
    #[inline]
    fn of(&mut self, row: usize) -> (&[u16], &[f32]) {
        let shape = self.trace.shape();
        let places = row * shape.places()..(row + 1) * shape.places();
        let experts = &self.trace.raw_selections()[places.clone()];
        let (squares, kept) = match self.squares.get_mut(places) {
            Some(squares) => (squares, true),
            None => (&mut self.scratch[..], false),
        };
        if !kept || squares.first() == Some(&0.0) {
            for (layer, squares) in squares.chunks_exact_mut(shape.top_k as usize).enumerate() {
                gates::gate_weights_or_synthetic(&self.trace, self.seed, row, layer, squares);
                squares.iter_mut().for_each(|weight| *weight *= *weight);
            }
        }
        (experts, squares)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    choices: Choices,
    /// Sums by block of rows, layer and expert, and which blocks are worked out. Empty until one is asked for.
    blocks: Vec<Sum>,
    known: Vec<bool>,
    /// Those of the step, by layer and expert, and each layer's experts in order of first choice.
    sums: Vec<Sum>,
    order: Vec<Vec<u16>>,
}

impl Demand {
    pub(super) fn new(trace: Arc<RoutingTrace>, seed: u64) -> Demand {
        let (kept, shape) = (trace.raw_selections().len(), trace.shape());
        let (layers, experts) = (shape.layers as usize, shape.experts as usize);
        Demand {
            blocks: Vec::new(),
            known: Vec::new(),
            sums: vec![Sum::default(); layers * experts],
            order: vec![Vec::new(); layers],
            choices: Choices {
                // Pages of zeros that nobody writes take no memory.
                squares: if kept <= MOST_KEPT { vec![0.0; kept] } else { Vec::new() },
                scratch: vec![0.0; shape.places()],
                trace,
                seed,
            },
        }
    }

    fn experts(&self) -> usize {
        self.choices.trace.shape().experts as usize
    }

    /// See [`super::BatchSource::step`].
    pub(super) fn step(&mut self, runs: impl IntoIterator<Item = Range<usize>>) {
        let experts = self.experts();
        for (sums, order) in self.sums.chunks_exact_mut(experts).zip(&mut self.order) {
            order.drain(..).for_each(|expert| sums[usize::from(expert)] = Sum::default());
        }
        runs.into_iter().for_each(|run| self.add_run(run));
    }

    /// See [`super::BatchSource::demand`].
    pub(super) fn at(&self, layer: usize, first_block: u32) -> Vec<Routed> {
        let sums = &self.sums[layer * self.experts()..];
        let routed = |&expert: &u16| {
            let Sum { tokens, squares } = sums[usize::from(expert)];
            Routed { block: BlockId(first_block + u32::from(expert)), tokens, gate_squared: squares }
        };
        self.order[layer].iter().map(routed).collect()
    }

    fn add_run(&mut self, run: Range<usize>) {
        let (first, last) = (run.start.div_ceil(BLOCK), run.end / BLOCK);
        if first >= last || !self.keeps_blocks() {
            return run.for_each(|row| self.add_row(row));
        }
        (run.start..first * BLOCK).for_each(|row| self.add_row(row));
        (first..last).for_each(|block| self.add_block(block));
        (last * BLOCK..run.end).for_each(|row| self.add_row(row));
    }

    #[inline]
    fn add_row(&mut self, row: usize) {
        let (experts, top_k) = (self.experts(), self.choices.trace.shape().top_k as usize);
        let (chosen, squares) = self.choices.of(row);
        let chosen = chosen.chunks_exact(top_k).zip(squares.chunks_exact(top_k));
        let layers = self.sums.chunks_exact_mut(experts).zip(&mut self.order);
        for ((chosen, squares), (sums, order)) in chosen.zip(layers) {
            for (&expert, square) in chosen.iter().zip(squares) {
                // What pads a selection is no expert, and comes last.
                let Some(sum) = sums.get_mut(usize::from(expert)) else { break };
                if sum.tokens == 0 {
                    order.push(expert);
                }
                sum.tokens += 1;
                sum.squares += square;
            }
        }
    }

    /// Whether the sums of all blocks of rows are few enough to be kept.
    fn keeps_blocks(&self) -> bool {
        let rows = self.choices.trace.tokens() / BLOCK;
        rows.saturating_mul(self.sums.len()) <= MOST_KEPT
    }

    fn add_block(&mut self, block: usize) {
        let (experts, place) = (self.experts(), self.block(block));
        let layers = self.sums.chunks_exact_mut(experts).zip(&mut self.order);
        for ((sums, order), more) in layers.zip(self.blocks[place].chunks_exact(experts)) {
            for (expert, (sum, more)) in (0u16..).zip(sums.iter_mut().zip(more)) {
                if sum.tokens == 0 && more.tokens > 0 {
                    order.push(expert);
                }
                sum.tokens += more.tokens;
                sum.squares += more.squares;
            }
        }
    }

    /// The places of a block's sums, worked out if they were not yet.
    fn block(&mut self, block: usize) -> Range<usize> {
        let (step, experts, top_k) =
            (self.sums.len(), self.experts(), self.choices.trace.shape().top_k as usize);
        if self.known.is_empty() {
            let blocks = self.choices.trace.tokens() / BLOCK;
            (self.known, self.blocks) = (vec![false; blocks], vec![Sum::default(); blocks * step]);
        }
        let place = block * step..(block + 1) * step;
        if !std::mem::replace(&mut self.known[block], true) {
            for row in block * BLOCK..(block + 1) * BLOCK {
                let (chosen, squares) = self.choices.of(row);
                let chosen = chosen.chunks_exact(top_k).zip(squares.chunks_exact(top_k));
                for ((chosen, squares), sums) in
                    chosen.zip(self.blocks[place.clone()].chunks_exact_mut(experts))
                {
                    for (&expert, square) in chosen.iter().zip(squares) {
                        let Some(sum) = sums.get_mut(usize::from(expert)) else { break };
                        sum.tokens += 1;
                        sum.squares += square;
                    }
                }
            }
        }
        place
    }
}
