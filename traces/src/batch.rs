//! What a batch demands: the selections of several requests' tokens at one layer, merged.

mod demand;

use crate::error::{Problem, TraceError};
use crate::gates;
use crate::routing::{GateOrigin, RoutingTrace, Shape, TraceInfo};
use demand::Demand;
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
    weights: Vec<f32>,
    demand: Demand,
}

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
            weights: vec![0.0; shape.top_k as usize],
            demand: Demand::new(trace.clone(), seed),
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

    /// Begins a step of these token rows, given in runs, be they decoded tokens ([`BatchSource::row`]) or a chunk of a prompt
    /// ([`BatchSource::prompt_rows`]).
    ///
    /// # Panics
    /// If a row is out of range.
    pub fn step(&mut self, runs: impl IntoIterator<Item = Range<usize>>) {
        self.demand.step(runs);
    }

    /// What the step demands at a layer: the distinct blocks, from `first_block` on, with the tokens that chose each and the sum
    /// of their squared gate weights, in stored order of first choice. Long runs are added up 32 rows at a time, where that is
    /// how they lie in the trace; blocks chosen there for the first time come in order of their numbers.
    ///
    /// # Panics
    /// If the layer is out of range.
    pub fn demand(&self, layer: usize, first_block: u32) -> Vec<Routed> {
        self.demand.at(layer, first_block)
    }
}
