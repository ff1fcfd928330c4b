//! A routing trace in memory: which experts each token selected at each layer, and with which weights.

use crate::error::{At, Problem, TraceError};
use policy::Demands;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Fills the unused places of a selection shorter than `top_k`. No expert has this id.
pub const PADDING: u16 = u16::MAX;

/// Dimensions of a routing trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Routed layers.
    pub layers: u32,
    /// Experts of each layer.
    pub experts: u32,
    /// Most experts one token selects at one layer.
    pub top_k: u32,
}

/// The most blocks of a model: a thousand times those of the largest there are. Statistics and policies keep some bytes
/// for each block, whether a trace uses it or not.
const MOST_BLOCKS: u64 = 1 << 24;

impl Shape {
    /// Checked dimensions: 1 to 65535 each, `top_k` at most `experts`, at most 16,777,216 blocks.
    pub fn new(layers: u32, experts: u32, top_k: u32) -> Result<Shape, TraceError> {
        let within = |n: u32| (1..=u16::MAX as u32).contains(&n);
        if !(within(layers) && within(experts) && within(top_k) && top_k <= experts) {
            return Err(Problem::Dimensions { layers, experts, top_k }.into());
        }
        let blocks = layers as u64 * experts as u64;
        if blocks > MOST_BLOCKS {
            return Err(Problem::TooLarge {
                what: "experts over all layers",
                size: blocks,
                limit: MOST_BLOCKS,
            }
            .into());
        }
        Ok(Shape { layers, experts, top_k })
    }

    /// Places of one token: `layers * top_k`.
    pub fn places(self) -> usize {
        self.layers as usize * self.top_k as usize
    }

    /// Distinct blocks there can be: `layers * experts`. A block's id is `layer * experts + expert`.
    pub fn blocks(self) -> u32 {
        self.layers * self.experts
    }
}

/// One request's part of a routing trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceInfo {
    /// The token rows that were decoded, at least one.
    pub rows: Range<usize>,
    /// How many rows of its prompt are recorded. They stand right before `rows`, and are the last ones of the prompt:
    /// what a prefix cache served was not routed.
    pub prompt_rows: usize,
    /// What the source calls it: a path or a name. Empty if it says nothing.
    pub name: String,
    /// The dataset its prompt is from.
    pub dataset: Option<String>,
    /// The id of the request in the system that recorded it.
    pub request_id: Option<String>,
    /// The generation loops, which inflates locality. False where the source does not say.
    pub repetition: bool,
    /// Tokens of the prompt, which `rows` does not include.
    pub prompt_tokens: Option<u32>,
}

impl TraceInfo {
    /// The recorded token rows of the prompt, in order; empty where none were recorded.
    pub fn prompt(&self) -> Range<usize> {
        self.rows.start.saturating_sub(self.prompt_rows)..self.rows.start
    }
}

/// Where gate weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateOrigin {
    /// Recorded with the trace.
    Trace,
    /// Drawn from a distribution fitted to recorded ones: see [`crate::gates`].
    Synthetic,
}

/// The gate weights of a trace: one for each place of its selections, 0 at padding places.
#[derive(Clone, Debug, PartialEq)]
pub struct Gates {
    /// `[token][layer][k]`, as the source gives them: not normalised.
    pub weights: Vec<f32>,
    /// Where they come from.
    pub origin: GateOrigin,
}

/// Selections of every token at every layer, in stored order, for one or more requests.
///
/// What holds of every value: at least one token; every selection has 1 to `top_k` distinct experts, all in range,
/// padding only at its end; gate weights are finite, none negative, not all zero in a selection; the rows of the
/// traces, those of their prompts first, follow each other and cover all tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutingTrace {
    shape: Shape,
    selections: Vec<u16>,
    gates: Option<Gates>,
    traces: Vec<TraceInfo>,
}

impl RoutingTrace {
    /// Builds a trace from `selections` (`[token][layer][k]`, padded with [`PADDING`]) and checks all of it.
    pub fn new(
        shape: Shape,
        selections: Vec<u16>,
        gates: Option<Gates>,
        traces: Vec<TraceInfo>,
    ) -> Result<RoutingTrace, TraceError> {
        let shape = Shape::new(shape.layers, shape.experts, shape.top_k)?;
        if selections.is_empty() {
            return Err(Problem::Empty.into());
        }
        let tokens = selections.len() / shape.places();
        if !selections.len().is_multiple_of(shape.places()) {
            let declared = (tokens + 1) * shape.places() * 2;
            return Err(
                Problem::Size { declared: declared as u64, actual: selections.len() as u64 * 2 }.into()
            );
        }
        check_rows(&traces, tokens)?;
        check_selections(shape, &selections)?;
        if let Some(gates) = &gates {
            check_gates(shape, &selections, &gates.weights)?;
        }
        Ok(RoutingTrace { shape, selections, gates, traces })
    }

    /// The dimensions.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Tokens of all traces together, recorded prompts included: the number of rows.
    pub fn tokens(&self) -> usize {
        self.selections.len() / self.shape.places()
    }

    /// The number of traces (requests).
    pub fn trace_count(&self) -> usize {
        self.traces.len()
    }

    /// One trace.
    ///
    /// # Panics
    /// If there are not that many.
    pub fn trace(&self, index: usize) -> &TraceInfo {
        &self.traces[index]
    }

    /// Every trace, in order.
    pub fn traces(&self) -> &[TraceInfo] {
        &self.traces
    }

    /// The indices of the traces to use: all, or those not marked as repetition.
    pub fn kept(&self, include_repetition: bool) -> impl Iterator<Item = usize> + '_ {
        (0..self.traces.len()).filter(move |&index| include_repetition || !self.traces[index].repetition)
    }

    /// The experts selected by a token at a layer, in stored order, padding removed.
    ///
    /// # Panics
    /// If the row or the layer is out of range.
    #[inline]
    pub fn selection(&self, token_row: usize, layer: usize) -> &[u16] {
        let places = &self.selections[self.places(token_row, layer)];
        match places {
            [.., last] if *last != PADDING => places,
            _ => &places[..places.iter().position(|&id| id == PADDING).unwrap_or(places.len())],
        }
    }

    /// The gate weights of [`RoutingTrace::selection`], place by place, as the source gave them.
    ///
    /// # Panics
    /// If the row or the layer is out of range.
    #[inline]
    pub fn gates(&self, token_row: usize, layer: usize) -> Option<&[f32]> {
        let gates = self.gates.as_ref()?;
        let len = self.selection(token_row, layer).len();
        Some(&gates.weights[self.places(token_row, layer)][..len])
    }

    /// Where the gate weights come from; `None` where there are none.
    pub fn gate_origin(&self) -> Option<GateOrigin> {
        self.gates.as_ref().map(|gates| gates.origin)
    }

    /// Every selection, `[token][layer][k]`, padding included.
    pub fn raw_selections(&self) -> &[u16] {
        &self.selections
    }

    /// Every gate weight, `[token][layer][k]`, padding included.
    pub fn raw_gates(&self) -> Option<&[f32]> {
        self.gates.as_ref().map(|gates| gates.weights.as_slice())
    }

    /// The traces that are not marked as repetition, as a trace of its own. An error if none is left.
    pub fn without_repetition(&self) -> Result<RoutingTrace, TraceError> {
        let places = self.shape.places();
        let mut selections = Vec::new();
        let mut weights = Vec::new();
        let mut traces = Vec::new();
        for index in self.kept(false) {
            let info = &self.traces[index];
            let from = selections.len() / places + info.prompt_rows;
            let cells = info.prompt().start * places..info.rows.end * places;
            selections.extend_from_slice(&self.selections[cells.clone()]);
            if let Some(gates) = &self.gates {
                weights.extend_from_slice(&gates.weights[cells]);
            }
            traces.push(TraceInfo { rows: from..from + info.rows.len(), ..info.clone() });
        }
        if traces.is_empty() {
            return Err(Problem::OnlyRepetition.into());
        }
        let gates = self.gates.as_ref().map(|gates| Gates { weights, origin: gates.origin });
        Ok(RoutingTrace { shape: self.shape, selections, gates, traces })
    }

    /// One trace after the other. Layers, experts and `top_k` must agree, and all or none must have gate weights;
    /// weights are synthetic as a whole where any are.
    pub fn concat(parts: Vec<RoutingTrace>) -> Result<RoutingTrace, TraceError> {
        let mut parts = parts.into_iter();
        let mut all = parts.next().ok_or(Problem::Empty)?;
        for (index, part) in parts.enumerate() {
            if part.shape != all.shape || part.gates.is_some() != all.gates.is_some() {
                let problem = Problem::NotAlike { found: part.dimensions(), expected: all.dimensions() };
                return Err(TraceError::at(At::Trace(index + 1), problem));
            }
            let from = all.tokens();
            all.selections.extend_from_slice(&part.selections);
            if let (Some(gates), Some(more)) = (&mut all.gates, part.gates) {
                gates.weights.extend_from_slice(&more.weights);
                if more.origin == GateOrigin::Synthetic {
                    gates.origin = GateOrigin::Synthetic;
                }
            }
            all.traces.extend(
                part.traces
                    .into_iter()
                    .map(|info| TraceInfo { rows: info.rows.start + from..info.rows.end + from, ..info }),
            );
        }
        Ok(all)
    }

    /// What a replay reads: one step for each (decoded token, layer), ids `layer * experts + expert`, a new trace
    /// marked at the start of each request.
    pub fn demands(&self, include_repetition: bool) -> Demands {
        let experts = self.shape.experts;
        let mut demands = Demands::of_layers(self.shape.layers, experts);
        for index in self.kept(include_repetition) {
            demands.begin_trace();
            for row in self.traces[index].rows.clone() {
                for layer in 0..self.shape.layers {
                    let selection = self.selection(row, layer as usize);
                    demands.push_step(selection.iter().map(|&expert| layer * experts + expert as u32));
                }
            }
        }
        demands
    }

    fn places(&self, token_row: usize, layer: usize) -> Range<usize> {
        let top_k = self.shape.top_k as usize;
        assert!(layer < self.shape.layers as usize, "layer {layer} of {}", self.shape.layers);
        let from = token_row * self.shape.places() + layer * top_k;
        from..from + top_k
    }

    fn dimensions(&self) -> String {
        let Shape { layers, experts, top_k } = self.shape;
        let gates = if self.gates.is_some() { "with" } else { "without" };
        format!("{layers} layers, {experts} experts, top {top_k}, {gates} gate weights")
    }
}

fn check_rows(traces: &[TraceInfo], tokens: usize) -> Result<(), TraceError> {
    let mut next = 0;
    for (index, info) in traces.iter().enumerate() {
        let Range { start, end } = info.rows;
        let first = start.checked_sub(info.prompt_rows);
        let boundary = |value: usize, expected: String| {
            let problem = Problem::Boundary { index, value: value as i64, expected };
            TraceError::at(At::Trace(index), problem)
        };
        if first != Some(next) {
            return Err(boundary(start, next.saturating_add(info.prompt_rows).to_string()));
        }
        if let Some(tokens) = info.prompt_tokens.filter(|&tokens| info.prompt_rows > tokens as usize) {
            let problem = Problem::PromptRows { rows: info.prompt_rows, tokens };
            return Err(TraceError::at(At::Trace(index), problem));
        }
        if end <= start || end > tokens {
            return Err(boundary(end, format!("{} to {tokens}", start.saturating_add(1))));
        }
        next = end;
    }
    if next != tokens {
        let (index, value) = (traces.len(), next as i64);
        return Err(Problem::Boundary { index, value, expected: tokens.to_string() }.into());
    }
    Ok(())
}

fn check_selections(shape: Shape, selections: &[u16]) -> Result<(), TraceError> {
    // A mark per expert holds the number of the last selection that chose it: no clearing between selections.
    let mut last_seen = vec![0_usize; shape.experts as usize];
    for (index, places) in selections.chunks_exact(shape.top_k as usize).enumerate() {
        check_selection(shape.experts, places, index + 1, &mut last_seen)
            .map_err(|problem| TraceError::at(selection_at(shape, index), problem))?;
    }
    Ok(())
}

/// Checks one padded selection. `last_seen` has a mark for every expert; `stamp` is new with every call.
pub(crate) fn check_selection(
    experts: u32,
    places: &[u16],
    stamp: usize,
    last_seen: &mut [usize],
) -> Result<(), Problem> {
    let mut padded = false;
    for &id in places {
        if id == PADDING {
            padded = true;
            continue;
        }
        if padded {
            return Err(Problem::PaddingInside);
        }
        match last_seen.get_mut(id as usize) {
            None => return Err(Problem::ExpertOutOfRange { id: id as u64, experts }),
            Some(seen) if *seen == stamp => return Err(Problem::RepeatedExpert(id)),
            Some(seen) => *seen = stamp,
        }
    }
    if places.first() == Some(&PADDING) { Err(Problem::NoExpert) } else { Ok(()) }
}

/// Finite, none negative, not all zero.
pub(crate) fn are_weights(gates: &[f32]) -> bool {
    gates.iter().all(|&gate| gate.is_finite() && gate >= 0.0) && gates.iter().any(|&gate| gate > 0.0)
}

fn check_gates(shape: Shape, selections: &[u16], weights: &[f32]) -> Result<(), TraceError> {
    if weights.len() != selections.len() {
        return Err(Problem::GateCount { gates: weights.len(), experts: selections.len() }.into());
    }
    let top_k = shape.top_k as usize;
    for (index, (ids, weights)) in selections.chunks_exact(top_k).zip(weights.chunks_exact(top_k)).enumerate()
    {
        let len = ids.iter().position(|&id| id == PADDING).unwrap_or(top_k);
        let (given, padding) = weights.split_at(len);
        if !are_weights(given) || padding.iter().any(|&w| w != 0.0) {
            return Err(TraceError::at(selection_at(shape, index), Problem::BadGates(weights.to_vec())));
        }
    }
    Ok(())
}

fn selection_at(shape: Shape, index: usize) -> At {
    let layers = shape.layers as usize;
    At::Selection { row: index / layers, layer: index % layers }
}
