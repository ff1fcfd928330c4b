//! A trace whose token is a batch: what several requests demand when they decode side by side.

use crate::error::{Problem, TraceError};
use crate::routing::{PADDING, RoutingTrace, Shape, TraceInfo};
use std::ops::Range;

impl RoutingTrace {
    /// The decoded tokens of `batch` requests at a time, merged: a selection is the distinct experts of all of them, in
    /// order of first choice. As in continuous batching, the next request takes the place of one that ends; towards
    /// the end fewer are left. Requests marked as repetition are batched among themselves, after the others. Neither
    /// prompts nor gate weights are kept: weights are a token's. For replays and statistics; a simulation makes its own
    /// batches from the requests ([`crate::BatchSource`]).
    pub fn in_batches(&self, batch: u32) -> Result<RoutingTrace, TraceError> {
        if batch == 0 {
            let (name, value) = ("batch", "0".to_owned());
            return Err(Problem::Parameter { name, value, expected: "at least 1".to_owned() }.into());
        }
        let mut steps = Steps::new(self);
        let mut traces = Vec::new();
        for repetition in [false, true] {
            let first = steps.tokens();
            let of_kind = self.traces().iter().filter(|info| info.repetition == repetition);
            steps.run(of_kind.map(|info| info.rows.clone()), batch as usize);
            if steps.tokens() > first {
                let (rows, name) = (first..steps.tokens(), format!("batches of {batch}"));
                traces.push(TraceInfo { rows, name, repetition, ..TraceInfo::default() });
            }
        }
        steps.finish(traces)
    }
}

/// Merged selections, one after the other.
struct Steps<'a> {
    trace: &'a RoutingTrace,
    ids: Vec<u16>,
    ends: Vec<usize>,
    /// The number of the last selection that each expert was in.
    last: Vec<usize>,
}

impl<'a> Steps<'a> {
    fn new(trace: &'a RoutingTrace) -> Steps<'a> {
        let last = vec![0; trace.shape().experts as usize];
        Steps { trace, ids: Vec::new(), ends: Vec::new(), last }
    }

    fn tokens(&self) -> usize {
        self.ends.len() / self.trace.shape().layers as usize
    }

    /// Merges requests, `batch` at a time.
    fn run(&mut self, mut waiting: impl Iterator<Item = Range<usize>>, batch: usize) {
        let mut running: Vec<_> = waiting.by_ref().take(batch).collect();
        while !running.is_empty() {
            let rows: Vec<usize> = running.iter_mut().filter_map(Iterator::next).collect();
            self.push(&rows);
            // A place whose request has ended goes to the next one, or away.
            running.retain_mut(|rows| match rows.start < rows.end {
                true => true,
                false => waiting.next().map(|next| *rows = next).is_some(),
            });
        }
    }

    fn push(&mut self, rows: &[usize]) {
        for layer in 0..self.trace.shape().layers as usize {
            let stamp = self.ends.len() + 1;
            for &expert in rows.iter().flat_map(|&row| self.trace.selection(row, layer)) {
                if std::mem::replace(&mut self.last[expert as usize], stamp) != stamp {
                    self.ids.push(expert);
                }
            }
            self.ends.push(self.ids.len());
        }
    }

    fn finish(self, traces: Vec<TraceInfo>) -> Result<RoutingTrace, TraceError> {
        let starts = || std::iter::once(0).chain(self.ends.iter().copied());
        let top_k = starts().zip(&self.ends).map(|(start, end)| end - start).max().unwrap_or(0);
        let mut selections = vec![PADDING; top_k * self.ends.len()];
        let places = selections.chunks_exact_mut(top_k.max(1));
        for (places, (start, &end)) in places.zip(starts().zip(&self.ends)) {
            places[..end - start].copy_from_slice(&self.ids[start..end]);
        }
        RoutingTrace::new(Shape { top_k: top_k as u32, ..self.trace.shape() }, selections, None, traces)
    }
}
