//! What a batch demands: the selections of several requests' tokens at one layer, merged.

use crate::error::{Problem, TraceError};
use crate::gates;
use crate::routing::{GateOrigin, RoutingTrace, Shape, TraceInfo};
use policy::BlockId;
use policy::event::Routed;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;
use std::ops::Range;
use std::sync::Arc;

/// Selections and gate weights by (request, token, layer), for a simulator or a real machine. Requests are the traces
/// of a routing trace, numbered from 0 without those left out. Cloning shares the trace.
#[derive(Clone, Debug)]
pub struct BatchSource {
    trace: Arc<RoutingTrace>,
    requests: Vec<usize>,
    seed: u64,
    marks: Vec<Mark>,
    merges: u64,
    weights: Vec<f32>,
    /// Weights that were drawn, by row, layer and place; zero where that is still to be done. A row is asked for again and
    /// again where many requests follow few rows, and a draw takes longer than all that is done with it.
    drawn: Vec<f32>,
}

/// Where an expert stands in the merge with this number.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    merge: u64,
    place: usize,
}

/// The most weights that are kept once drawn: 256 MB.
const MOST_DRAWN: usize = 1 << 26;
/// Stream of the order of requests, apart from those of gates and arrivals.
const ORDER_STREAM: u64 = 0x7265_6f72_6465_7265;

impl BatchSource {
    /// A source over the traces of `trace`, without those marked as repetition unless asked for. `seed` is for the
    /// gate weights, if they must be drawn. An error if no trace is left.
    pub fn new(
        trace: Arc<RoutingTrace>,
        include_repetition: bool,
        seed: u64,
    ) -> Result<BatchSource, TraceError> {
        let requests: Vec<usize> = trace.kept(include_repetition).collect();
        if requests.is_empty() {
            return Err(Problem::OnlyRepetition.into());
        }
        let shape = trace.shape();
        Ok(BatchSource {
            marks: vec![Mark::default(); shape.experts as usize],
            merges: 0,
            weights: vec![0.0; shape.top_k as usize],
            // Pages of zeros that nobody writes take no memory.
            drawn: match trace.gate_origin() {
                None if trace.raw_selections().len() <= MOST_DRAWN => vec![0.0; trace.raw_selections().len()],
                _ => Vec::new(),
            },
            trace,
            requests,
            seed,
        })
    }

    /// The same requests in an order drawn from the source's seed, apart from the gate weights.
    #[must_use]
    pub fn shuffled(mut self) -> BatchSource {
        let mut random = Pcg64Mcg::new(u128::from(self.seed) << 64 | u128::from(ORDER_STREAM));
        self.requests.shuffle(&mut random);
        self
    }

    /// The dimensions.
    pub fn shape(&self) -> Shape {
        self.trace.shape()
    }

    /// The number of requests.
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// What is known of a request.
    ///
    /// # Panics
    /// If there are not that many.
    pub fn request(&self, request: usize) -> &TraceInfo {
        self.trace.trace(self.requests[request])
    }

    /// The tokens a request decodes.
    ///
    /// # Panics
    /// If there are not that many requests.
    pub fn tokens(&self, request: usize) -> usize {
        self.request(request).rows.len()
    }

    /// The token rows of the underlying trace that hold a request's prompt, for [`BatchSource::merge_rows`]. They are
    /// the last tokens of the prompt, all of it where nothing was served from a prefix cache; empty where prompts
    /// were not recorded.
    ///
    /// # Panics
    /// If there are not that many requests.
    pub fn prompt_rows(&self, request: usize) -> Range<usize> {
        self.request(request).prompt()
    }

    /// The token row of the underlying trace that holds a decoded token.
    ///
    /// # Panics
    /// If one of the indices is out of range.
    #[inline]
    pub fn row(&self, request: usize, token: usize) -> usize {
        let rows = &self.request(request).rows;
        assert!(token < rows.len(), "token {token} of {}", rows.len());
        rows.start + token
    }

    /// Where gate weights come from.
    pub fn gate_origin(&self) -> GateOrigin {
        gates::origin(&self.trace)
    }

    /// The experts that a token of a request selects at a layer, in stored order.
    ///
    /// # Panics
    /// If one of the indices is out of range.
    #[inline]
    pub fn selection(&self, request: usize, token: usize, layer: usize) -> &[u16] {
        self.trace.selection(self.row(request, token), layer)
    }

    /// The gate weights of that selection, normalised to sum to 1.
    ///
    /// # Panics
    /// If one of the indices is out of range.
    #[inline]
    pub fn gates(&mut self, request: usize, token: usize, layer: usize) -> &[f32] {
        let row = self.row(request, token);
        let len = gates::gate_weights_or_synthetic(&self.trace, self.seed, row, layer, &mut self.weights);
        &self.weights[..len]
    }

    /// What a batch of (request, token) demands at a layer: see [`BatchSource::merge_rows`].
    ///
    /// # Panics
    /// If one of the indices is out of range.
    pub fn merge(&mut self, members: &[(usize, usize)], layer: usize, out: &mut Vec<Routed>) {
        self.begin_merge(out);
        for &(request, token) in members {
            let row = self.row(request, token);
            self.add_row(row, layer, out);
        }
    }

    /// What a batch of token rows demands at a layer, be they decoded tokens ([`BatchSource::row`]) or a chunk of a
    /// prompt ([`BatchSource::prompt_rows`]): `out` becomes the distinct blocks, in stored order of first choice, with
    /// the tokens that chose each and the sum of their squared gate weights.
    ///
    /// # Panics
    /// If a row or the layer is out of range.
    pub fn merge_rows(&mut self, rows: impl IntoIterator<Item = usize>, layer: usize, out: &mut Vec<Routed>) {
        self.begin_merge(out);
        rows.into_iter().for_each(|row| self.add_row(row, layer, out));
    }

    fn begin_merge(&mut self, out: &mut Vec<Routed>) {
        out.clear();
        self.merges += 1;
    }

    fn add_row(&mut self, row: usize, layer: usize, out: &mut Vec<Routed>) {
        let first_block = layer as u32 * self.shape().experts;
        let chosen = self.trace.selection(row, layer);
        let shape = self.trace.shape();
        let first = (row * shape.layers as usize + layer) * shape.top_k as usize;
        let weights = match self.drawn.get_mut(first..first + chosen.len()) {
            Some(drawn) => {
                if drawn.first() == Some(&0.0) {
                    gates::synthetic(self.seed, row as u64, layer as u32, drawn);
                }
                &*drawn
            }
            None => {
                gates::gate_weights_or_synthetic(&self.trace, self.seed, row, layer, &mut self.weights);
                &self.weights
            }
        };
        for (&expert, &weight) in chosen.iter().zip(weights) {
            let mark = &mut self.marks[expert as usize];
            if mark.merge == self.merges {
                out[mark.place].tokens += 1;
                out[mark.place].gate_squared += weight * weight;
            } else {
                *mark = Mark { merge: self.merges, place: out.len() };
                let block = BlockId(first_block + expert as u32);
                out.push(Routed { block, tokens: 1, gate_squared: weight * weight });
            }
        }
    }
}
