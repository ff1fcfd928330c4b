//! JSON lines of forward passes: `{"layer": 0, "batch_id": 7, "origin_rows": [...], "topk_experts": [[3, 1], [2, 3]]}`,
//! one line for each (layer, batch), one list of experts for each row of the batch.
//!
//! No line says which request a row belongs to, so one token of the trace is one batch: its selections are the distinct
//! experts of all rows, which is what the batch demands. Lines of the same layer and batch are joined, `topk_experts` may
//! also be one flat list, and layers and batches are numbered in their order. Other keys are ignored.

use crate::error::{At, JsonFlaw, Problem, TraceError};
use crate::import::{Options, Source};
use crate::routing::{RoutingTrace, TraceInfo};
use crate::rows::{Key, Rows, number_of};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Pass {
    layer: u32,
    batch_id: u64,
    topk_experts: Experts,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Experts {
    Rows(Vec<Vec<u16>>),
    Flat(Vec<u16>),
}

/// The first line of a (batch, layer), and the experts in order of first choice.
type Step = (u64, Vec<u16>);

/// Reads a whole file.
pub(crate) fn decode(source: &Source, options: &Options) -> Result<RoutingTrace, TraceError> {
    let mut steps: BTreeMap<(u64, u32), Step> = BTreeMap::new();
    for (index, text) in source.bytes.split(|&byte| byte == b'\n').enumerate() {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let line = index as u64 + 1;
        let pass: Pass = serde_json::from_slice(text).map_err(|error| {
            let flaw = JsonFlaw::from(error);
            TraceError::at(At::Line(line, Some(flaw.column)), Problem::Pass(flaw))
        })?;
        let (_, chosen) = steps.entry((pass.batch_id, pass.layer)).or_insert_with(|| (line, Vec::new()));
        match pass.topk_experts {
            Experts::Rows(rows) => chosen.extend(rows.into_iter().flatten()),
            Experts::Flat(ids) => chosen.extend(ids),
        }
    }
    let mut layers: Vec<u32> = steps.keys().map(|&(_, layer)| layer).collect();
    layers.sort_unstable();
    layers.dedup();
    let mut rows = Rows::new(options);
    rows.requests.push(TraceInfo { name: source.name.to_owned(), ..TraceInfo::default() });
    let (mut token, mut last) = (0, None);
    let mut seen = vec![0_usize; u16::MAX as usize + 1];
    for (stamp, ((batch, layer), (line, mut chosen))) in steps.into_iter().enumerate() {
        token += u64::from(last.replace(batch).is_some_and(|before| before != batch));
        chosen.retain(|&id| std::mem::replace(&mut seen[id as usize], stamp + 1) != stamp + 1);
        rows.push(line, Key { request: 0, token, layer: number_of(&layers, layer) }, &chosen, None)?;
    }
    rows.finish()
}
