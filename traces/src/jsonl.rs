//! JSON lines of routed experts: one object for each (token, layer).
//!
//! ```text
//! {"layer_idx": 0, "token_idx": 0, "selected_ids": [3, 17], "gate_weights": [0.6, 0.4], "request_id": "a"}
//! ```
//!
//! `gate_weights` may be absent from all lines, `request_id` (text or a number) where there is one request only. Lines
//! may come in any order. A request's tokens may start at any number and count up by one; its layers are 0..n. Other
//! spellings in use are read too: `layer`, `token`, `topk_ids`, `topk_experts`, `topk_weights`, `req_id`. Unknown keys
//! are ignored. What is known of a whole request stands in its first line, where this crate writes it: `name`, `dataset`,
//! `repetition`, `prompt_tokens`, `prompt_rows` (how many of its first tokens are of the prompt), `num_experts`, and `"gates": "synthetic"` if the weights were not recorded.

use crate::error::{At, Problem, TraceError};
use crate::import::{Options, Source};
use crate::routing::{GateOrigin, RoutingTrace, TraceInfo};
use crate::rows::{Key, Rows};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

#[derive(Deserialize, Serialize)]
struct Record {
    #[serde(alias = "layer")]
    layer_idx: u32,
    #[serde(alias = "token")]
    token_idx: u64,
    #[serde(alias = "topk_ids", alias = "topk_experts")]
    selected_ids: Vec<u16>,
    #[serde(alias = "topk_weights", skip_serializing_if = "Option::is_none")]
    gate_weights: Option<Vec<f32>>,
    #[serde(alias = "req_id", skip_serializing_if = "Option::is_none")]
    request_id: Option<Id>,
    #[serde(flatten)]
    about: About,
}

/// What stands in the first line of a request.
#[derive(Default, Deserialize, Serialize)]
struct About {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repetition: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_rows: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_experts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gates: Option<GateOrigin>,
}

/// A request id, as text or as a number.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum Id {
    Number(u64),
    Text(String),
}

impl Id {
    pub(crate) fn text(self) -> String {
        match self {
            Id::Number(number) => number.to_string(),
            Id::Text(text) => text,
        }
    }
}

/// Reads a whole file.
pub(crate) fn decode(source: &Source, options: &Options) -> Result<RoutingTrace, TraceError> {
    let mut options = options.clone();
    let mut rows = None;
    let mut requests = BTreeMap::new();
    for (index, text) in source.bytes.split(|&byte| byte == b'\n').enumerate() {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let line = index as u64 + 1;
        let mut record: Record = serde_json::from_slice(text).map_err(|error| {
            let flaw = crate::error::JsonFlaw::from(error);
            TraceError::at(At::Line(line, Some(flaw.column)), Problem::Json(flaw))
        })?;
        check_experts(&mut options, &record.about, rows.is_none())
            .map_err(|problem| TraceError::at(At::Line(line, None), problem))?;
        let rows = rows.get_or_insert_with(|| Rows::new(&options));
        let id = record.request_id.map(Id::text);
        let request = *requests.entry(id.clone()).or_insert_with(|| {
            rows.requests.push(info(id, source.name, record.about.name.take()));
            rows.requests.len() - 1
        });
        rows.origin = record.about.gates.unwrap_or(rows.origin);
        note(&mut rows.requests[request], record.about);
        let key = Key { request, token: record.token_idx, layer: record.layer_idx };
        rows.push(line, key, &record.selected_ids, record.gate_weights.as_deref())?;
    }
    rows.ok_or(Problem::Empty)?.finish()
}

/// The file may say how many experts a layer has, in its first line; later lines and the caller must agree.
fn check_experts(options: &mut Options, about: &About, first: bool) -> Result<(), Problem> {
    match (about.num_experts, options.experts) {
        (Some(found), Some(asked)) if found != asked => Err(Problem::ExpertsDiffer { found, asked }),
        (Some(found), None) if first => {
            options.experts = Some(found);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn info(request_id: Option<String>, file: &str, name: Option<String>) -> TraceInfo {
    TraceInfo { name: name.unwrap_or_else(|| file.to_owned()), request_id, ..TraceInfo::default() }
}

fn note(info: &mut TraceInfo, about: About) {
    info.repetition |= about.repetition.unwrap_or(false);
    info.dataset = info.dataset.take().or(about.dataset);
    info.prompt_tokens = info.prompt_tokens.or(about.prompt_tokens);
    info.prompt_rows = info.prompt_rows.max(about.prompt_rows.unwrap_or(0));
}

/// Writes a trace as JSON lines, tokens numbered from 0 in each request, those of its prompt first. Requests whose ids are not all there and
/// distinct are numbered instead.
pub(crate) fn encode(trace: &RoutingTrace, out: &mut impl Write) -> io::Result<()> {
    let ids: BTreeSet<&String> = trace.traces().iter().filter_map(|info| info.request_id.as_ref()).collect();
    let keep_ids = ids.len() == trace.trace_count() || trace.trace_count() == 1;
    for (index, info) in trace.traces().iter().enumerate() {
        let request_id = if keep_ids { info.request_id.clone() } else { Some(index.to_string()) };
        let mut about = About {
            name: Some(info.name.clone()),
            dataset: info.dataset.clone(),
            repetition: info.repetition.then_some(true),
            prompt_tokens: info.prompt_tokens,
            prompt_rows: Some(info.prompt_rows).filter(|&rows| rows > 0),
            num_experts: Some(trace.shape().experts),
            gates: trace.gate_origin().filter(|&origin| origin == GateOrigin::Synthetic),
        };
        for (token, row) in (info.prompt().start..info.rows.end).enumerate() {
            for layer in 0..trace.shape().layers {
                let record = Record {
                    layer_idx: layer,
                    token_idx: token as u64,
                    selected_ids: trace.selection(row, layer as usize).to_vec(),
                    gate_weights: trace.gates(row, layer as usize).map(<[f32]>::to_vec),
                    request_id: request_id.clone().map(Id::Text),
                    about: std::mem::take(&mut about),
                };
                serde_json::to_writer(&mut *out, &record)?;
                out.write_all(b"\n")?;
            }
        }
    }
    Ok(())
}
