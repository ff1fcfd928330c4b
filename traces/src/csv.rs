//! The CSV of routed experts: `token,layer,e0,e1,...` and optionally `p0,p1,...`, one row for each (token, layer).
//!
//! `e*` are expert ids in stored order, `p*` the router's probabilities of the same places, taken as gate weights. Any
//! number of places; a shorter selection leaves its last cells empty. A column `request_id` separates requests;
//! without it, the file is one trace. Rows may come in any order.

use crate::error::{At, Problem, TraceError};
use crate::import::{Options, Source};
use crate::routing::{RoutingTrace, TraceInfo};
use crate::rows::{Key, Rows};
use csv::{ByteRecord, ReaderBuilder, Trim};
use std::collections::BTreeMap;
use std::str::FromStr;

struct Columns {
    names: Vec<String>,
    token: usize,
    layer: usize,
    request: Option<usize>,
    ids: Vec<usize>,
    gates: Vec<usize>,
}

/// Reads a whole file.
pub(crate) fn decode(source: &Source, options: &Options) -> Result<RoutingTrace, TraceError> {
    let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(source.bytes);
    let columns = Columns::of(reader.byte_headers().map_err(located)?)?;
    let mut rows = Rows::new(options);
    let mut requests = BTreeMap::new();
    let (mut ids, mut gates) = (Vec::new(), Vec::new());
    let mut record = ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(located)? {
        let line = record.position().map_or(0, |position| position.line());
        let row = CsvRow { line, record: &record, columns: &columns };
        let id = columns.request.map(|column| row.text(column));
        let request = *requests.entry(id.clone()).or_insert_with(|| {
            rows.requests.push(TraceInfo {
                request_id: id,
                name: source.name.to_owned(),
                ..TraceInfo::default()
            });
            rows.requests.len() - 1
        });
        row.filled(&columns.ids, "an expert id", &mut ids)?;
        row.filled(&columns.gates, "a probability", &mut gates)?;
        let key = Key {
            request,
            token: row.number(columns.token, "a token index")?,
            layer: row.number(columns.layer, "a layer index")?,
        };
        rows.push(line, key, &ids, (!columns.gates.is_empty()).then_some(gates.as_slice()))?;
    }
    rows.finish()
}

/// Whether a first line is the header of such a file.
pub(crate) fn is_header(line: &[u8]) -> bool {
    let mut names = line.split(|&byte| byte == b',').map(|name| name.trim_ascii());
    names.clone().any(|name| name == b"layer") && names.any(|name| name == b"e0")
}

impl Columns {
    fn of(header: &ByteRecord) -> Result<Columns, TraceError> {
        let names: Vec<String> =
            header.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let find = |wanted: &str| names.iter().position(|name| name == wanted);
        let need = |wanted: &str| {
            find(wanted)
                .ok_or_else(|| TraceError::at(At::Line(1, None), Problem::MissingColumn(wanted.to_owned())))
        };
        let numbered = |prefix: char| {
            (0..names.len()).map_while(|place| find(&format!("{prefix}{place}"))).collect::<Vec<_>>()
        };
        let (ids, gates) = (numbered('e'), numbered('p'));
        need("e0")?;
        if !gates.is_empty() && gates.len() != ids.len() {
            let problem = Problem::GateCount { gates: gates.len(), experts: ids.len() };
            return Err(TraceError::at(At::Line(1, None), problem));
        }
        Ok(Columns {
            token: need("token")?,
            layer: need("layer")?,
            request: find("request_id"),
            ids,
            gates,
            names,
        })
    }
}

struct CsvRow<'a> {
    line: u64,
    record: &'a ByteRecord,
    columns: &'a Columns,
}

impl CsvRow<'_> {
    fn text(&self, column: usize) -> String {
        String::from_utf8_lossy(self.record.get(column).unwrap_or_default()).into_owned()
    }

    fn number<T: FromStr>(&self, column: usize, expected: &'static str) -> Result<T, TraceError> {
        let cell = self.record.get(column).unwrap_or_default();
        std::str::from_utf8(cell).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
            let column_name = self.columns.names.get(column).cloned().unwrap_or_default();
            let problem = Problem::Cell { column: column_name, text: self.text(column), expected };
            TraceError::at(At::Line(self.line, None), problem)
        })
    }

    /// The numbers in `columns` up to the last cell that is not empty.
    fn filled<T: FromStr>(
        &self,
        columns: &[usize],
        expected: &'static str,
        out: &mut Vec<T>,
    ) -> Result<(), TraceError> {
        out.clear();
        let is_filled = |&&column: &&usize| self.record.get(column).is_some_and(|cell| !cell.is_empty());
        let len = columns.iter().rposition(|column| is_filled(&column)).map_or(0, |last| last + 1);
        for &column in &columns[..len] {
            out.push(self.number(column, expected)?);
        }
        Ok(())
    }
}

pub(crate) fn located(error: csv::Error) -> TraceError {
    let line = error.position().map(|position| position.line());
    let problem = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} cells, but the header has {expected_len}")
        }
        _ => error.to_string(),
    };
    match line {
        Some(line) => TraceError::at(At::Line(line, None), Problem::Csv(problem)),
        None => Problem::Csv(problem).into(),
    }
}
