//! Rows of (request, token, layer) in any order, as text formats give them, put together into a trace.

use crate::error::{At, Problem, TraceError};
use crate::import::{Options, experts_for};
use crate::routing::{
    GateOrigin, Gates, PADDING, RoutingTrace, Shape, TraceInfo, are_weights, check_selection,
};

/// A selection may be padded to this many times the experts that are really given, on the average: far above what a
/// router with a variable number of experts does, and a bound on what a small file can allocate.
const MOST_PADDING: u64 = 64;
/// The largest number of layers and of experts.
pub(crate) const LARGEST: u32 = u16::MAX as u32;

/// The place of a layer among the sorted layers of a file that does not number them from 0.
pub(crate) fn number_of(layers: &[u32], layer: u32) -> u32 {
    layers.partition_point(|&other| other < layer) as u32
}

/// Where a row belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) request: usize,
    pub(crate) token: u64,
    pub(crate) layer: u32,
}

struct Row {
    key: Key,
    line: u64,
    first: usize,
    len: usize,
}

/// The rows read so far.
pub(crate) struct Rows {
    asked_experts: Option<u32>,
    rows: Vec<Row>,
    ids: Vec<u16>,
    gates: Vec<f32>,
    last_seen: Vec<usize>,
    /// What is known of each request, prompt rows included; the row ranges are filled in at the end.
    pub(crate) requests: Vec<TraceInfo>,
    /// Where the weights come from, if there are any.
    pub(crate) origin: GateOrigin,
}

impl Rows {
    /// No row yet.
    pub(crate) fn new(options: &Options) -> Rows {
        Rows {
            asked_experts: options.experts,
            rows: Vec::new(),
            ids: Vec::new(),
            gates: Vec::new(),
            last_seen: vec![0; options.experts.unwrap_or(LARGEST).min(LARGEST) as usize],
            requests: Vec::new(),
            origin: GateOrigin::Trace,
        }
    }

    /// Adds a row of a known request, read from `line`. All but its relation to other rows is checked here.
    pub(crate) fn push(
        &mut self,
        line: u64,
        key: Key,
        ids: &[u16],
        gates: Option<&[f32]>,
    ) -> Result<(), TraceError> {
        self.check(key, ids, gates).map_err(|problem| TraceError::at(At::Line(line, None), problem))?;
        self.rows.push(Row { key, line, first: self.ids.len(), len: ids.len() });
        self.ids.extend_from_slice(ids);
        self.gates.extend_from_slice(gates.unwrap_or_default());
        Ok(())
    }

    fn check(&mut self, key: Key, ids: &[u16], gates: Option<&[f32]>) -> Result<(), Problem> {
        if key.layer >= LARGEST {
            return Err(Problem::TooLarge {
                what: "layers",
                size: key.layer as u64 + 1,
                limit: LARGEST as u64,
            });
        }
        if ids.is_empty() {
            return Err(Problem::NoExpert);
        }
        let experts = self.last_seen.len() as u32;
        if ids.contains(&PADDING) {
            return Err(Problem::ExpertOutOfRange { id: PADDING as u64, experts });
        }
        check_selection(experts, ids, self.rows.len() + 1, &mut self.last_seen)?;
        let first_row = self.rows.is_empty();
        match gates {
            Some(_) if !first_row && self.gates.is_empty() => Err(Problem::MixedGates),
            None if !self.gates.is_empty() => Err(Problem::MixedGates),
            Some(gates) if gates.len() != ids.len() => {
                Err(Problem::GateCount { gates: gates.len(), experts: ids.len() })
            }
            Some(gates) if !are_weights(gates) => Err(Problem::BadGates(gates.to_vec())),
            _ => Ok(()),
        }
    }

    /// The trace: requests in order of first appearance, tokens and layers in order, each exactly once.
    pub(crate) fn finish(mut self) -> Result<RoutingTrace, TraceError> {
        let top_k = self.rows.iter().map(|row| row.len).max().ok_or(Problem::Empty)?;
        let layers = self.rows.iter().map(|row| row.key.layer).max().unwrap_or(0) + 1;
        let largest_id = self.ids.iter().copied().max().unwrap_or(0);
        let shape = Shape::new(layers, experts_for(self.asked_experts, largest_id), top_k as u32)?;
        self.rows.sort_by_key(|row| row.key);
        self.check_complete(layers)?;

        let places = self.rows.len() as u64 * top_k as u64;
        let limit = self.ids.len() as u64 * MOST_PADDING;
        if places > limit {
            return Err(Problem::TooLarge { what: "places after padding", size: places, limit }.into());
        }
        let mut selections = vec![PADDING; places as usize];
        let mut weights = vec![0.0; if self.gates.is_empty() { 0 } else { places as usize }];
        for (index, row) in self.rows.iter().enumerate() {
            let to = index * top_k..index * top_k + row.len;
            let from = row.first..row.first + row.len;
            selections[to.clone()].copy_from_slice(&self.ids[from.clone()]);
            if !weights.is_empty() {
                weights[to].copy_from_slice(&self.gates[from]);
            }
        }
        let mut next = 0_usize;
        for (request, info) in self.requests.iter_mut().enumerate() {
            let end = self.rows.partition_point(|row| row.key.request <= request) / layers as usize;
            // A request of prompt rows only has no decoded row; the check of the whole trace refuses it.
            info.rows = next.saturating_add(info.prompt_rows)..end;
            next = end;
        }
        let gates = (!weights.is_empty()).then_some(Gates { weights, origin: self.origin });
        RoutingTrace::new(shape, selections, gates, self.requests)
    }

    /// Walks the sorted rows beside what they should be.
    fn check_complete(&self, layers: u32) -> Result<(), TraceError> {
        let id = |key: Key| self.requests[key.request].request_id.clone();
        let missing = |line, Key { request, token, layer }: Key| {
            let key = Key { request, token, layer };
            TraceError::at(
                At::Line(line, None),
                Problem::MissingRow { request: id(key), token, layer: layer as u64 },
            )
        };
        let next = |key: Key| match key.layer + 1 {
            layer if layer < layers => Key { layer, ..key },
            _ => Key { token: key.token.saturating_add(1), layer: 0, ..key },
        };
        let mut before: Option<&Row> = None;
        for row in &self.rows {
            let first_of_request = Key { layer: 0, ..row.key };
            let expected = match before {
                Some(last) if last.key.request == row.key.request => next(last.key),
                Some(last) if last.key.layer + 1 < layers => return Err(missing(last.line, next(last.key))),
                _ => first_of_request,
            };
            if let Some(last) = before.filter(|last| last.key == row.key) {
                let Key { token, layer, .. } = row.key;
                let problem = Problem::DuplicateRow {
                    request: id(row.key),
                    token,
                    layer: layer as u64,
                    first: last.line,
                };
                return Err(TraceError::at(At::Line(row.line, None), problem));
            }
            if row.key != expected {
                return Err(missing(row.line, expected));
            }
            before = Some(row);
        }
        match before {
            Some(last) if last.key.layer + 1 < layers => Err(missing(last.line, next(last.key))),
            _ => Ok(()),
        }
    }
}
