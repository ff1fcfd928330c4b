//! The NPZ pair of routed experts: an archive of NumPy arrays, and a JSON file that describes its traces.
//!
//! `experts.npy` is uint8 `[tokens, layers, k]` in C order, `offsets.npy` int64 `[traces + 1]`: trace i is rows
//! `offsets[i]..offsets[i+1]`. `NAME.meta.json` beside `NAME.npz` is a list with one object a trace: `path`, `dataset`,
//! `repetition`, `prompt_tokens`, `decode_tokens`, all optional. Without that file nothing is known of the traces, and none
//! counts as repetition. The experts of a layer are not stored: see [`crate::Options::experts`].

use crate::error::{At, JsonFlaw, Problem, TraceError};
use crate::import::{Options, Source, experts_for};
use crate::npy;
use crate::routing::{RoutingTrace, Shape, TraceInfo};
use serde::Deserialize;
use std::io::{Cursor, Read};
use zip::ZipArchive;
use zip::result::ZipError;

const EXPERTS: &str = "experts.npy";
const OFFSETS: &str = "offsets.npy";

/// What the metadata says of a trace; other keys are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct TraceMeta {
    path: Option<String>,
    dataset: Option<String>,
    #[serde(default)]
    repetition: bool,
    prompt_tokens: Option<u32>,
    decode_tokens: Option<u64>,
}

/// Reads the metadata file.
pub(crate) fn decode_metadata(bytes: &[u8]) -> Result<Vec<TraceMeta>, TraceError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let flaw = JsonFlaw::from(error);
        TraceError::at(At::Line(flaw.line, Some(flaw.column)), Problem::Metadata(flaw))
    })
}

/// Reads a whole archive.
pub(crate) fn decode(
    source: &Source,
    metadata: Option<Vec<TraceMeta>>,
    options: &Options,
) -> Result<RoutingTrace, TraceError> {
    let mut archive = ZipArchive::new(Cursor::new(source.bytes)).map_err(archive_problem)?;
    let experts = read_entry(&mut archive, EXPERTS, options.max_decoded_bytes)?;
    let offsets = read_entry(&mut archive, OFFSETS, options.max_decoded_bytes)?;
    let (dimensions, ids) = npy::decode(&experts, "|u1", 1).map_err(in_entry(EXPERTS))?;
    let &[tokens, layers, top_k] = dimensions.as_slice() else {
        return Err(shape_problem(dimensions, "[tokens, layers, k]"));
    };
    if tokens == 0 {
        return Err(TraceError::at(At::Entry(EXPERTS.into()), Problem::Empty));
    }
    let largest_id = ids.iter().copied().max().unwrap_or(0);
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let shape = Shape::new(narrow(layers), experts_for(options.experts, largest_id as u16), narrow(top_k))
        .map_err(|error| TraceError::at(At::Entry(EXPERTS.into()), *error.problem))?;
    let traces = traces(&decode_offsets(&offsets, tokens)?, metadata)?;
    RoutingTrace::new(shape, ids.iter().map(|&id| id as u16).collect(), None, traces)
}

fn read_entry(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    name: &'static str,
    limit: u64,
) -> Result<Vec<u8>, TraceError> {
    let entry = archive.by_name(name).map_err(|error| match error {
        ZipError::FileNotFound => TraceError::from(Problem::MissingArray(name)),
        error => in_entry(name)(Problem::Archive(error.to_string())),
    })?;
    let declared = entry.size();
    if declared > limit {
        return Err(in_entry(name)(Problem::TooLarge { what: "bytes", size: declared, limit }));
    }
    // The buffer grows with what is really there: a false declaration cannot make it large.
    let mut bytes = Vec::new();
    entry
        .take(declared.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| in_entry(name)(Problem::Archive(error.to_string())))?;
    if bytes.len() as u64 != declared {
        return Err(in_entry(name)(Problem::Size { declared, actual: bytes.len() as u64 }));
    }
    Ok(bytes)
}

fn decode_offsets(file: &[u8], tokens: u64) -> Result<Vec<usize>, TraceError> {
    let (dimensions, data) = npy::decode(file, "<i8", 8).map_err(in_entry(OFFSETS))?;
    if dimensions.len() != 1 || dimensions[0] < 2 {
        return Err(in_entry(OFFSETS)(Problem::Shape {
            found: dimensions,
            expected: "[traces + 1], at least [2]",
        }));
    }
    let mut offsets: Vec<usize> = Vec::new();
    let last = data.len() / 8 - 1;
    for (index, word) in data.as_chunks::<8>().0.iter().enumerate() {
        let value = i64::from_le_bytes(*word);
        let before = offsets.last().map(|&before| before as i64);
        let (good, expected) = match before {
            None => (value == 0, "0".to_owned()),
            Some(_) if index == last => (value == tokens as i64, format!("{tokens}, the number of tokens")),
            Some(before) => {
                (value > before && value < tokens as i64, format!("{} to {}", before + 1, tokens - 1))
            }
        };
        if !good || before.is_some_and(|before| value <= before) {
            return Err(in_entry(OFFSETS)(Problem::Boundary { index, value, expected }));
        }
        offsets.push(value as usize);
    }
    Ok(offsets)
}

fn traces(offsets: &[usize], metadata: Option<Vec<TraceMeta>>) -> Result<Vec<TraceInfo>, TraceError> {
    let count = offsets.len() - 1;
    let metadata = metadata.unwrap_or_else(|| vec![TraceMeta::default(); count]);
    if metadata.len() != count {
        return Err(Problem::MetadataCount { found: metadata.len(), expected: count }.into());
    }
    let mut traces = Vec::with_capacity(count);
    for (bounds, meta) in offsets.windows(2).zip(metadata) {
        let rows = bounds[0]..bounds[1];
        if let Some(found) = meta.decode_tokens.filter(|&found| found != rows.len() as u64) {
            let problem = Problem::MetadataTokens { found, expected: rows.len() as u64 };
            return Err(TraceError::at(At::Trace(traces.len()), problem));
        }
        traces.push(TraceInfo {
            rows,
            prompt_rows: 0,
            name: meta.path.unwrap_or_default(),
            dataset: meta.dataset,
            request_id: None,
            repetition: meta.repetition,
            prompt_tokens: meta.prompt_tokens,
        });
    }
    Ok(traces)
}

fn in_entry(name: &'static str) -> impl Fn(Problem) -> TraceError {
    move |problem| TraceError::at(At::Entry(name.into()), problem)
}

fn shape_problem(found: Vec<u64>, expected: &'static str) -> TraceError {
    in_entry(EXPERTS)(Problem::Shape { found, expected })
}

fn archive_problem(error: ZipError) -> TraceError {
    Problem::Archive(error.to_string()).into()
}
