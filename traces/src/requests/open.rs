//! Opening a request trace of any format, and writing one.

use super::columns::{AZURE, BURSTGPT, PLAIN, SHAREGPT};
use super::lines::Lines;
use super::{Cut, RequestProblem, RequestTrace, mooncake, vllm};
use crate::error::{Problem, TraceError};
use crate::export::write_whole;
use crate::import::regular;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

/// A format of request traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestFormat {
    /// Azure's traces of 2023 and 2024: `TIMESTAMP,ContextTokens,GeneratedTokens`, dates.
    AzureCsv,
    /// Mooncake: JSON lines of `timestamp` (ms), `input_length`, `output_length`, `hash_ids`, 512 tokens each.
    MooncakeJsonl,
    /// BurstGPT: `Timestamp` (s), `Request tokens`, `Response tokens` and others. Requests without a response are left out.
    BurstgptCsv,
    /// Lengths of ShareGPT conversations: `arrival_time_ns,input_toks,output_toks`.
    SharegptCsv,
    /// The result of `vllm bench serve --save-result --save-detailed`. Requests without output are left out.
    VllmJson,
    /// `arrival_s` (or `arrival_ms`, `arrival_ns`), `prompt_tokens`, `output_tokens` and perhaps `priority`, in any order.
    Csv,
}

/// Every format of request traces, by name.
pub const REQUEST_FORMATS: [(&str, RequestFormat); 6] = [
    ("azure_csv", RequestFormat::AzureCsv),
    ("mooncake_jsonl", RequestFormat::MooncakeJsonl),
    ("burstgpt_csv", RequestFormat::BurstgptCsv),
    ("sharegpt_csv", RequestFormat::SharegptCsv),
    ("vllm_json", RequestFormat::VllmJson),
    ("csv", RequestFormat::Csv),
];

/// Reads a request trace, or the part of it that is asked for: what comes after it is not looked at.
///
/// # Errors
/// The file cannot be read, or is not of this format; requests are not sorted, or have lengths that are impossible.
pub fn read_requests(
    reader: impl BufRead,
    format: RequestFormat,
    cut: &Cut,
) -> Result<RequestTrace, TraceError> {
    match format {
        RequestFormat::AzureCsv => AZURE.read(reader, cut),
        RequestFormat::BurstgptCsv => BURSTGPT.read(reader, cut),
        RequestFormat::SharegptCsv => SHAREGPT.read(reader, cut),
        RequestFormat::Csv => PLAIN.read(reader, cut),
        RequestFormat::MooncakeJsonl => mooncake::read(reader, cut),
        RequestFormat::VllmJson => vllm::read(reader, cut),
    }
}

/// Opens a request trace: see [`read_requests`].
///
/// # Errors
/// The same, with the file.
pub fn open_requests(
    path: impl AsRef<Path>,
    format: RequestFormat,
    cut: &Cut,
) -> Result<RequestTrace, TraceError> {
    let path = path.as_ref();
    open(path).and_then(|file| read_requests(file, format, cut)).map_err(|error| error.in_file(path))
}

/// The format of a file, by its first line; `None` if it is no request trace.
///
/// # Errors
/// The file cannot be read.
pub fn detect_requests(path: impl AsRef<Path>) -> Result<Option<RequestFormat>, TraceError> {
    let path = path.as_ref();
    let detect = |mut file: BufReader<File>| {
        let start = file.fill_buf().map_err(Problem::Io)?.trim_ascii_start();
        // A benchmark's result may be one line, however long: its settings come before its lists.
        let has = |key: &[u8]| start.windows(key.len()).any(|at| at == key);
        if start.starts_with(b"{") && BENCH.iter().any(|key| has(key)) {
            return Ok(Some(RequestFormat::VllmJson));
        }
        let mut lines = Lines::new(file);
        let Ok(Some((_, line))) = lines.next() else { return Ok(None) };
        let tables = [
            (&AZURE, RequestFormat::AzureCsv),
            (&BURSTGPT, RequestFormat::BurstgptCsv),
            (&SHAREGPT, RequestFormat::SharegptCsv),
            (&PLAIN, RequestFormat::Csv),
        ];
        let table = tables.into_iter().find(|(columns, _)| columns.is_header(line));
        let mooncake = || mooncake::is_line(line).then_some(RequestFormat::MooncakeJsonl);
        Ok(table.map(|(_, format)| format).or_else(mooncake))
    };
    open(path).and_then(detect).map_err(|error: TraceError| error.in_file(path))
}

/// Keys at the start of a benchmark's result.
const BENCH: [&[u8]; 2] = [b"\"num_prompts\"", b"\"input_lens\""];

fn open(path: &Path) -> Result<BufReader<File>, TraceError> {
    regular(path)?;
    Ok(BufReader::with_capacity(1 << 16, File::open(path).map_err(Problem::Io)?))
}

/// Writes a trace as plain CSV, arrivals in nanoseconds; hashes of prompts are left out. The file appears whole or not at
/// all.
///
/// # Errors
/// The ending is not `.csv`, or the file system refuses.
pub fn write_requests(path: impl AsRef<Path>, trace: &RequestTrace) -> Result<(), TraceError> {
    let path = path.as_ref();
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if extension != "csv" {
        let written = RequestProblem::CannotWrite(format!(".{extension}"));
        return Err(TraceError::from(written).in_file(path));
    }
    let fill = |out: &mut dyn Write| {
        let priority = if trace.has_priorities() { ",priority" } else { "" };
        writeln!(out, "arrival_ns,prompt_tokens,output_tokens{priority}")?;
        for (index, request) in trace.requests().iter().enumerate() {
            write!(out, "{},{},{}", request.at.0, request.prompt_tokens, request.output_tokens)?;
            match trace.has_priorities() {
                true => writeln!(out, ",{}", trace.priority(index))?,
                false => writeln!(out)?,
            }
        }
        Ok(())
    };
    write_whole(path, |out| fill(out)).map_err(|error| error.in_file(path))
}
