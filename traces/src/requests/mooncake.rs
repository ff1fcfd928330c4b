//! Mooncake's traces: JSON lines with the hashes of prompts, 512 tokens each.

use super::columns::nanoseconds;
use super::lines::Lines;
use super::{Builder, Cut, Prefix, RequestProblem, RequestTrace, Row};
use crate::error::{At, JsonFlaw, TraceError};
use serde::Deserialize;
use std::io::BufRead;
use std::num::NonZero;

/// Tokens of a block.
const BLOCK_TOKENS: NonZero<u32> = NonZero::new(512).unwrap();

#[derive(Deserialize)]
struct Record {
    /// Milliseconds from the trace's start.
    timestamp: f64,
    input_length: u64,
    output_length: u64,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

/// Whether a line is one of such a file.
pub(super) fn is_line(line: &[u8]) -> bool {
    serde_json::from_slice::<Record>(line).is_ok()
}

/// Reads a file.
pub(super) fn read(reader: impl BufRead, cut: &Cut) -> Result<RequestTrace, TraceError> {
    let mut lines = Lines::new(reader);
    let mut builder = Builder::new(cut);
    while let Some((number, text)) = lines.next()? {
        let record: Record = serde_json::from_slice(text).map_err(|error| {
            let flaw = JsonFlaw::from(error);
            TraceError::at(At::Line(number, Some(flaw.column)), RequestProblem::Json(flaw))
        })?;
        let wrong = |problem| TraceError::at(At::Line(number, None), problem);
        let row = Row {
            at: nanoseconds(record.timestamp * 1e6).map_err(wrong)?,
            prompt_tokens: record.input_length,
            output_tokens: record.output_length,
            prefix: Some(Prefix { block_tokens: BLOCK_TOKENS, blocks: &record.hash_ids }),
            priority: None,
        };
        if builder.push(row).map_err(wrong)?.is_break() {
            break;
        }
    }
    Ok(builder.finish()?)
}
