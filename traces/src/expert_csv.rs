//! The CSV that forks of llama.cpp write: `layer_id,expert_ids`, the ids of one selection separated by spaces.
//!
//! Nothing marks a token: a layer number smaller than the one before starts the next forward pass. Where a layer stands
//! several times in a row, the pass had several tokens, and the rows of each layer are these in order. Layers without
//! experts are not there; the others are numbered from 0. The file is one trace.

use crate::csv::located;
use crate::error::{At, Problem, TraceError};
use crate::import::{Options, Source};
use crate::routing::{RoutingTrace, TraceInfo};
use crate::rows::{Key, LARGEST, Rows, number_of};
use csv::{ByteRecord, Reader, ReaderBuilder, Trim};

const LAYER: &str = "layer_id";
const EXPERTS: &str = "expert_ids";

/// Reads a whole file.
pub(crate) fn decode(source: &Source, options: &Options) -> Result<RoutingTrace, TraceError> {
    let mut layers = Vec::new();
    each(source.bytes, |line, layer, _| match layers.binary_search(&layer) {
        Ok(_) => Ok(()),
        Err(place) if layers.len() < LARGEST as usize => {
            layers.insert(place, layer);
            Ok(())
        }
        Err(_) => {
            let (size, limit) = (LARGEST as u64 + 1, LARGEST as u64);
            Err(TraceError::at(At::Line(line, None), Problem::TooLarge { what: "layers", size, limit }))
        }
    })?;
    let mut rows = Rows::new(options);
    rows.requests.push(TraceInfo { name: source.name.to_owned(), ..TraceInfo::default() });
    let mut ids = Vec::new();
    let (mut first, mut tokens, mut repeats, mut last) = (0, 0, 0, None);
    each(source.bytes, |line, layer, cell| {
        match last.replace(layer) {
            Some(before) if layer == before => repeats += 1,
            Some(before) if layer < before => (first, repeats) = (tokens, 0),
            _ => repeats = 0,
        }
        tokens = tokens.max(first + repeats + 1);
        ids.clear();
        for id in cell.split_ascii_whitespace() {
            ids.push(number(line, EXPERTS, id, "an expert id")?);
        }
        rows.push(
            line,
            Key { request: 0, token: first + repeats, layer: number_of(&layers, layer) },
            &ids,
            None,
        )
    })?;
    rows.finish()
}

/// Whether a first line is the header of such a file.
pub(crate) fn is_header(line: &[u8]) -> bool {
    let mut names = line.split(|&byte| byte == b',').map(|name| name.trim_ascii());
    names.next() == Some(LAYER.as_bytes()) && names.next() == Some(EXPERTS.as_bytes())
}

/// Calls `take` with the line, the layer and the ids of every row.
fn each(
    bytes: &[u8],
    mut take: impl FnMut(u64, u32, &str) -> Result<(), TraceError>,
) -> Result<(), TraceError> {
    let mut reader: Reader<&[u8]> = ReaderBuilder::new().trim(Trim::All).from_reader(bytes);
    let headers = reader.byte_headers().map_err(located)?.clone();
    let column = |name: &'static str| {
        let missing = || TraceError::at(At::Line(1, None), Problem::MissingColumn(name.to_owned()));
        headers.iter().position(|header| header == name.as_bytes()).ok_or_else(missing)
    };
    let (layer, experts) = (column(LAYER)?, column(EXPERTS)?);
    let mut record = ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(located)? {
        let line = record.position().map_or(0, |position| position.line());
        let text = |column: usize| String::from_utf8_lossy(record.get(column).unwrap_or_default());
        take(line, number(line, LAYER, &text(layer), "a layer index")?, &text(experts))?;
    }
    Ok(())
}

fn number<T: std::str::FromStr>(
    line: u64,
    column: &str,
    text: &str,
    expected: &'static str,
) -> Result<T, TraceError> {
    text.parse().map_err(|_| {
        let problem = Problem::Cell { column: column.to_owned(), text: text.to_owned(), expected };
        TraceError::at(At::Line(line, None), problem)
    })
}
