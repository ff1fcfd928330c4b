//! Opening a trace of any format.

use crate::error::{Problem, TraceError};
use crate::routing::RoutingTrace;
use crate::{batch_jsonl, csv, expert_csv, hrt, jsonl, npz, oracle_general, responses};
use memmap2::Mmap;
use policy::Demands;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::fs::File;
use std::path::Path;

/// How to read a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Experts of each layer. Where a file does not store the number (NPZ, CSV, JSON lines without `num_experts`), the
    /// default is the largest id + 1, rounded up to a power of two; where it does, the numbers must agree.
    pub experts: Option<u32>,
    /// Layers of each token, where a file does not say and it does not follow: see [`crate::responses`].
    pub layers: Option<u32>,
    /// Experts that a token selects at a layer, where a file does not say: see [`crate::responses`].
    pub top_k: Option<u32>,
    /// The format, where it is not to be found out: see [`detect`].
    pub format: Option<Format>,
    /// The most bytes that an array in a compressed file may expand to.
    pub max_decoded_bytes: u64,
}

impl Default for Options {
    /// Everything as stored or inferred; 1 GiB an array.
    fn default() -> Options {
        Options { experts: None, layers: None, top_k: None, format: None, max_decoded_bytes: 1 << 30 }
    }
}

/// A format that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// [`crate::hrt`].
    Hrt,
    /// [`crate::npz`].
    Npz,
    /// [`crate::csv`].
    Csv,
    /// [`crate::jsonl`].
    Jsonl,
    /// [`crate::responses`]: vLLM and SGLang.
    Responses,
    /// [`crate::expert_csv`]: llama.cpp forks.
    ExpertCsv,
    /// [`crate::batch_jsonl`].
    BatchJsonl,
    /// [`crate::oracle_general`]: libCacheSim.
    OracleGeneral,
}

/// Every format that can be read, by name, with what is in it.
pub const FORMATS: [(&str, Format, &str); 8] = [
    ("hrt", Format::Hrt, "This project's binary format"),
    ("npz", Format::Npz, "NumPy arrays, experts.npy and offsets.npy"),
    ("csv", Format::Csv, "token,layer,e0,e1,..."),
    ("jsonl", Format::Jsonl, "One object for each (token, layer)"),
    ("responses", Format::Responses, "Responses of vLLM or SGLang with routed experts, JSON or JSON lines"),
    ("expert-csv", Format::ExpertCsv, "layer_id,expert_ids, as forks of llama.cpp write it"),
    ("batch-jsonl", Format::BatchJsonl, "One object for each (batch, layer)"),
    ("oracle-general", Format::OracleGeneral, "Packed accesses of libCacheSim"),
];

/// The bytes of a file and the name its only trace gets.
pub(crate) struct Source<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) name: &'a str,
}

/// Opens a routing trace with default options.
///
/// The format is found as [`detect`] says. An `.npz` may have a `.meta.json` of the same stem beside it.
pub fn open(path: impl AsRef<Path>) -> Result<RoutingTrace, TraceError> {
    open_with(path, &Options::default())
}

/// Opens a routing trace: see [`open`].
pub fn open_with(path: impl AsRef<Path>, options: &Options) -> Result<RoutingTrace, TraceError> {
    let path = path.as_ref();
    read(path, options).map_err(|error| error.in_file(path))
}

/// Opens what a replay reads of a trace, see [`RoutingTrace::demands`]: without a routing trace in between where the
/// format is a list of accesses.
pub fn open_demands(
    path: impl AsRef<Path>,
    options: &Options,
    include_repetition: bool,
) -> Result<Demands, TraceError> {
    let path = path.as_ref();
    let demands = |bytes: Mmap| match options.format.or_else(|| detect(&bytes, extension(path))) {
        Some(Format::OracleGeneral) if !bytes.is_empty() => {
            oracle_general::decode_demands(&Source { bytes: &bytes, name: "" }, options)
        }
        _ => Ok(read(path, options)?.demands(include_repetition)),
    };
    open_bytes(path).and_then(demands).map_err(|error| error.in_file(path))
}

fn open_bytes(path: &Path) -> Result<Mmap, TraceError> {
    regular(path)?;
    map(&File::open(path).map_err(Problem::Io)?)
}

fn read(path: &Path, options: &Options) -> Result<RoutingTrace, TraceError> {
    let bytes = open_bytes(path)?;
    let format = options.format.or_else(|| detect(&bytes, extension(path)));
    let meta_path = path.with_extension("meta.json");
    let metadata = match format {
        Some(Format::Npz) if meta_path.exists() => {
            let bytes =
                regular(&meta_path).and_then(|()| Ok(std::fs::read(&meta_path).map_err(Problem::Io)?));
            Some(
                bytes
                    .and_then(|bytes| npz::decode_metadata(&bytes))
                    .map_err(|error| error.in_file(&meta_path))?,
            )
        }
        _ => None,
    };
    let name = path.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    decode(&Source { bytes: &bytes, name: &name }, format.ok_or(Problem::UnknownFormat)?, metadata, options)
}

/// The extension; what stands before it in `name.oracleGeneral.bin`, as libCacheSim's files are called.
fn extension(path: &Path) -> Option<&str> {
    let plain = path.extension().is_some_and(|extension| extension == "bin");
    let path = if plain { Path::new(path.file_stem()?) } else { path };
    path.extension()?.to_str()
}

/// Refuses what is no file before it is opened: opening a pipe waits for its writer.
pub(crate) fn regular(path: &Path) -> Result<(), TraceError> {
    let metadata = std::fs::metadata(path).map_err(Problem::Io)?;
    if metadata.is_dir() {
        return Err(Problem::Io(std::io::ErrorKind::IsADirectory.into()).into());
    }
    if metadata.is_file() { Ok(()) } else { Err(Problem::NotAFile.into()) }
}

/// Reads a trace from the bytes of a file, and the bytes of its metadata file if it is an NPZ that has one.
pub fn parse(
    bytes: &[u8],
    format: Format,
    metadata: Option<&[u8]>,
    options: &Options,
) -> Result<RoutingTrace, TraceError> {
    let metadata = metadata.map(npz::decode_metadata).transpose()?;
    decode(&Source { bytes, name: "" }, format, metadata, options)
}

fn decode(
    source: &Source,
    format: Format,
    metadata: Option<Vec<npz::TraceMeta>>,
    options: &Options,
) -> Result<RoutingTrace, TraceError> {
    if source.bytes.is_empty() {
        return Err(Problem::Empty.into());
    }
    let trace = match format {
        Format::Hrt => hrt::decode(source.bytes)?,
        Format::Npz => npz::decode(source, metadata, options)?,
        Format::Csv => csv::decode(source, options)?,
        Format::Jsonl => jsonl::decode(source, options)?,
        Format::Responses => responses::decode(source, options)?,
        Format::ExpertCsv => expert_csv::decode(source, options)?,
        Format::BatchJsonl => batch_jsonl::decode(source, options)?,
        Format::OracleGeneral => oracle_general::decode(source, options)?,
    };
    match options.experts.filter(|&asked| asked != trace.shape().experts) {
        Some(asked) => Err(Problem::ExpertsDiffer { found: trace.shape().experts, asked }.into()),
        None => Ok(trace),
    }
}

/// The format of a file: by its first bytes; in text by its header line or by the keys of its first object; else by
/// the extension, without which [`Format::OracleGeneral`] cannot be told.
pub fn detect(bytes: &[u8], extension: Option<&str>) -> Option<Format> {
    let by_extension = || match extension?.to_ascii_lowercase().as_str() {
        "hrt" => Some(Format::Hrt),
        "npz" => Some(Format::Npz),
        "csv" => Some(Format::Csv),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "json" => Some(Format::Responses),
        "oraclegeneral" => Some(Format::OracleGeneral),
        _ => None,
    };
    let first_line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
    match bytes {
        [b'P', b'K', 3 | 5, ..] => Some(Format::Npz),
        _ if bytes.starts_with(&hrt::MAGIC) => Some(Format::Hrt),
        _ if expert_csv::is_header(first_line) => Some(Format::ExpertCsv),
        _ => by_keys(bytes).or_else(by_extension).or_else(|| match first_line {
            [b'{', ..] => Some(Format::Jsonl),
            line if csv::is_header(line) => Some(Format::Csv),
            _ => None,
        }),
    }
}

/// By the keys of the first object, if the file is JSON.
fn by_keys(bytes: &[u8]) -> Option<Format> {
    #[derive(Deserialize)]
    struct Keys {
        choices: Option<IgnoredAny>,
        meta_info: Option<IgnoredAny>,
        batch_id: Option<IgnoredAny>,
        topk_experts: Option<IgnoredAny>,
    }
    // A list of objects is taken for one of responses: no other format is a list.
    let keys = match bytes.trim_ascii_start().first()? {
        b'[' => return Some(Format::Responses),
        b'{' => serde_json::Deserializer::from_slice(bytes).into_iter::<Keys>().next()?.ok()?,
        _ => return None,
    };
    match keys {
        Keys { choices: Some(_), .. } | Keys { meta_info: Some(_), .. } => Some(Format::Responses),
        Keys { batch_id: Some(_), topk_experts: Some(_), .. } => Some(Format::BatchJsonl),
        _ => None,
    }
}

/// Experts of a layer: as asked, else the largest id + 1 rounded up to a power of two.
pub(crate) fn experts_for(asked: Option<u32>, largest_id: u16) -> u32 {
    asked.unwrap_or_else(|| (largest_id as u32 + 1).next_power_of_two().min(u16::MAX as u32))
}

#[allow(unsafe_code)]
fn map(file: &File) -> Result<Mmap, TraceError> {
    // SAFETY: the map is read-only and private to this module, and everything read from it is checked and copied
    // before use. What no program can rule out is another one truncating the file meanwhile: that ends this process.
    unsafe { Mmap::map(file) }.map_err(|error| Problem::Io(error).into())
}
