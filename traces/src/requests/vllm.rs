//! What `vllm bench serve --save-result --save-detailed` writes: one JSON document with a list for each property of requests.
//!
//! Read are `input_lens`, `output_lens`, `start_times` (seconds of some clock) and `request_rate`; latencies are results, and
//! not part of the load. Older versions write no start times: then a run that sent everything at once can be read. Requests
//! without output are those that failed.

use super::columns::nanoseconds;
use super::{Builder, Cut, RequestProblem, RequestTrace, Row};
use crate::error::{At, JsonFlaw, TraceError};
use serde::Deserialize;
use std::io::BufRead;

#[derive(Deserialize)]
struct Bench {
    input_lens: Option<Vec<u64>>,
    output_lens: Option<Vec<u64>>,
    start_times: Option<Vec<f64>>,
    request_rate: Option<Rate>,
}

/// Requests a second, or `inf`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`request_rate` is neither a number nor \"inf\"")]
enum Rate {
    Number(f64),
    Text(String),
}

/// Reads a file.
pub(super) fn read(reader: impl BufRead, cut: &Cut) -> Result<RequestTrace, TraceError> {
    let bench: Bench = serde_json::from_reader(reader).map_err(|error| {
        let flaw = JsonFlaw::from(error);
        TraceError::at(At::Line(flaw.line, Some(flaw.column)), RequestProblem::Json(flaw))
    })?;
    let prompts = bench.input_lens.ok_or(RequestProblem::NotDetailed { missing: "input_lens" })?;
    let outputs = bench.output_lens.ok_or(RequestProblem::NotDetailed { missing: "output_lens" })?;
    let even = |what, found| match prompts.len() {
        expected if expected == found => Ok(()),
        expected => Err(RequestProblem::Uneven { what, found, expected }),
    };
    even("output_lens", outputs.len())?;
    let starts = match bench.start_times {
        Some(starts) => starts,
        None => all_at_once(bench.request_rate, prompts.len())?,
    };
    even("start_times", starts.len())?;
    let first = starts.iter().copied().fold(f64::INFINITY, f64::min);
    // As many requests at a time as the client had open: they are not listed in the order in which they began.
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by(|&a, &b| starts[a].total_cmp(&starts[b]));
    let mut builder = Builder::new(cut);
    for index in order {
        let row = Row {
            at: nanoseconds((starts[index] - first) * 1e9)?,
            prompt_tokens: prompts[index],
            output_tokens: outputs[index],
            prefix: None,
            priority: None,
        };
        if row.output_tokens == 0 {
            builder.fail();
        } else if builder.push(row).map_err(|problem| of_request(index, problem))?.is_break() {
            break;
        }
    }
    Ok(builder.finish()?)
}

fn of_request(index: usize, problem: RequestProblem) -> TraceError {
    TraceError::at(At::Entry(format!("request {index}")), problem)
}

fn all_at_once(rate: Option<Rate>, requests: usize) -> Result<Vec<f64>, RequestProblem> {
    let request_rate = match rate {
        Some(Rate::Text(rate)) if rate == "inf" => return Ok(vec![0.0; requests]),
        Some(Rate::Text(rate)) => rate,
        Some(Rate::Number(rate)) => rate.to_string(),
        None => "not given".to_owned(),
    };
    Err(RequestProblem::NoStartTimes { request_rate })
}
