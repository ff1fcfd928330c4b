//! The `.hrt` file: a routing trace, compact, checked, little-endian, ready to be mapped into memory.
//!
//! Everything needed to read it in another language, versions 1 and 2. All numbers are little-endian and unsigned.
//!
//! # Header, 192 bytes
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic: `89 48 52 54 0d 0a 1a 0a` (`\x89HRT\r\n\x1a\n`, so that a transfer as text is noticed) |
//! | 8 | 2 | version, 1 or 2: 2 only where a prompt is recorded |
//! | 10 | 1 | bytes of an expert id: 1 if there are at most 255 experts a layer, else 2 |
//! | 11 | 1 | gate weights: 0 none, 1 IEEE binary16, 2 IEEE binary32 |
//! | 12 | 1 | gate origin: 0 recorded (or no gates), 1 synthetic |
//! | 13 | 3 | 0 |
//! | 16 | 4 | layers, 1 to 65535 |
//! | 20 | 4 | experts a layer, 1 to 65535 |
//! | 24 | 4 | top_k, 1 to experts |
//! | 28 | 4 | 0 |
//! | 32 | 8 | tokens, at least 1 |
//! | 40 | 8 | traces, at least 1 |
//! | 48 | 4 x 24 | sections `ids`, `gates`, `traces`, `metadata`, each: offset (8), length in bytes (8), CRC-32 (4), 0 (4) |
//! | 144 | 44 | 0 |
//! | 188 | 4 | CRC-32 of bytes 0..188 |
//!
//! CRC-32 is that of zlib, gzip and PNG. Sections start at multiples of 64, in this order, without overlap; bytes
//! between them are 0; the file ends with the last one. Without gate weights that section has length 0.
//!
//! # Sections
//!
//! - `ids`: `[token][layer][k]` expert ids in stored order. A selection with fewer than top_k experts is filled up at
//!   its end with the largest number of its width (255 or 65535), which no expert has.
//! - `gates`: `[token][layer][k]` weights, as the source gave them (not normalised), 0 where the id is filling.
//! - `traces`: 16 bytes a trace: first token row (8), flags (4: bit 0 repetition, bit 1 prompt tokens known, others
//!   0), prompt tokens (4). A trace ends where the next begins, the last one at the number of tokens. In version 2, 24
//!   bytes: 8 more for the number of its first rows that are of the prompt, fewer than it has.
//! - `metadata`: UTF-8 JSON, `{"traces": [{"name": "...", "dataset": "...", "request_id": "..."}, ...]}`, one object a
//!   trace. `dataset` and `request_id` may be absent; readers ignore other keys.

use crate::error::{At, Problem, TraceError};
use crate::routing::{GateOrigin, Gates, PADDING, RoutingTrace, Shape, TraceInfo};
use half::f16;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The first bytes of every `.hrt` file.
pub const MAGIC: [u8; 8] = *b"\x89HRT\r\n\x1a\n";
/// The newest version. A file is written in the oldest one that can hold it, and every version is read.
pub const VERSION: u16 = 2;

const HEADER: usize = 192;
const HEADER_CRC: usize = 188;
const SECTION_TABLE: usize = 48;
const SECTION_ENTRY: usize = 24;
const ALIGN: usize = 64;
/// Bytes of an entry in the table of traces, by version.
const TRACE_ENTRY: [usize; VERSION as usize] = [16, 24];
const SECTIONS: [&str; 4] = ["ids", "gates", "traces", "metadata"];
const REPETITION: u32 = 1;
const PROMPT_KNOWN: u32 = 2;

/// The width of gate weights in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateWidth {
    /// 2 bytes, rounded to 11 significant bits.
    F16,
    /// 4 bytes, exact.
    F32,
}

impl GateWidth {
    /// The smallest width that holds every gate weight of the trace exactly.
    pub fn exact(trace: &RoutingTrace) -> GateWidth {
        let fits = |&weight: &f32| f16::from_f32(weight).to_f32() == weight;
        if trace.raw_gates().is_none_or(|gates| gates.iter().all(fits)) {
            GateWidth::F16
        } else {
            GateWidth::F32
        }
    }

    fn bytes(self) -> usize {
        match self {
            GateWidth::F16 => 2,
            GateWidth::F32 => 4,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    traces: Vec<TraceMetadata>,
}

#[derive(Serialize, Deserialize)]
struct TraceMetadata {
    #[serde(default)]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dataset: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

/// The bytes of the file. Weights that are not exact in the given width are rounded to the nearest; one that would
/// become 0 or infinite is an error.
pub fn encode(trace: &RoutingTrace, width: GateWidth) -> Result<Vec<u8>, TraceError> {
    let sections = [
        encode_ids(trace),
        encode_gates(trace, width)?,
        encode_trace_table(trace),
        serde_json::to_vec(&metadata(trace)).map_err(|error| Problem::Metadata(error.into()))?,
    ];
    let mut file = encode_header(trace, width);
    for (index, section) in sections.iter().enumerate() {
        file.resize(file.len().next_multiple_of(ALIGN), 0);
        let entry = SECTION_TABLE + index * SECTION_ENTRY;
        let offset = file.len() as u64;
        put(&mut file, entry, &offset.to_le_bytes());
        put(&mut file, entry + 8, &(section.len() as u64).to_le_bytes());
        put(&mut file, entry + 16, &crc32fast::hash(section).to_le_bytes());
        file.extend_from_slice(section);
    }
    let crc = crc32fast::hash(&file[..HEADER_CRC]);
    put(&mut file, HEADER_CRC, &crc.to_le_bytes());
    Ok(file)
}

fn encode_header(trace: &RoutingTrace, width: GateWidth) -> Vec<u8> {
    let shape = trace.shape();
    let mut header = vec![0; HEADER];
    put(&mut header, 0, &MAGIC);
    put(&mut header, 8, &version_of(trace).to_le_bytes());
    header[10] = id_bytes(shape.experts) as u8;
    header[11] = match (trace.gate_origin(), width) {
        (None, _) => 0,
        (Some(_), GateWidth::F16) => 1,
        (Some(_), GateWidth::F32) => 2,
    };
    header[12] = (trace.gate_origin() == Some(GateOrigin::Synthetic)) as u8;
    put(&mut header, 16, &shape.layers.to_le_bytes());
    put(&mut header, 20, &shape.experts.to_le_bytes());
    put(&mut header, 24, &shape.top_k.to_le_bytes());
    put(&mut header, 32, &(trace.tokens() as u64).to_le_bytes());
    put(&mut header, 40, &(trace.trace_count() as u64).to_le_bytes());
    header
}

/// The oldest version that holds the trace.
fn version_of(trace: &RoutingTrace) -> u16 {
    if trace.traces().iter().any(|info| info.prompt_rows > 0) { 2 } else { 1 }
}

fn put(file: &mut [u8], offset: usize, bytes: &[u8]) {
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn id_bytes(experts: u32) -> usize {
    if experts <= u8::MAX as u32 { 1 } else { 2 }
}

fn encode_ids(trace: &RoutingTrace) -> Vec<u8> {
    let ids = trace.raw_selections();
    match id_bytes(trace.shape().experts) {
        // The cast turns the padding 0xffff into 0xff and keeps every id, which is below 255.
        1 => ids.iter().map(|&id| id as u8).collect(),
        _ => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
    }
}

fn encode_gates(trace: &RoutingTrace, width: GateWidth) -> Result<Vec<u8>, TraceError> {
    let Some(weights) = trace.raw_gates() else { return Ok(Vec::new()) };
    match width {
        GateWidth::F32 => Ok(weights.iter().flat_map(|weight| weight.to_le_bytes()).collect()),
        GateWidth::F16 => {
            let mut bytes = Vec::with_capacity(weights.len() * 2);
            for &weight in weights {
                let short = f16::from_f32(weight);
                if !short.is_finite() || (short == f16::ZERO && weight != 0.0) {
                    return Err(Problem::GateWidth(weight).into());
                }
                bytes.extend_from_slice(&short.to_le_bytes());
            }
            Ok(bytes)
        }
    }
}

fn encode_trace_table(trace: &RoutingTrace) -> Vec<u8> {
    let version = version_of(trace);
    let mut bytes = Vec::new();
    for info in trace.traces() {
        let repetition = if info.repetition { REPETITION } else { 0 };
        let known = if info.prompt_tokens.is_some() { PROMPT_KNOWN } else { 0 };
        bytes.extend_from_slice(&(info.prompt().start as u64).to_le_bytes());
        bytes.extend_from_slice(&(repetition | known).to_le_bytes());
        bytes.extend_from_slice(&info.prompt_tokens.unwrap_or(0).to_le_bytes());
        if version > 1 {
            bytes.extend_from_slice(&(info.prompt_rows as u64).to_le_bytes());
        }
    }
    bytes
}

fn metadata(trace: &RoutingTrace) -> Metadata {
    let describe = |info: &TraceInfo| TraceMetadata {
        name: info.name.clone(),
        dataset: info.dataset.clone(),
        request_id: info.request_id.clone(),
    };
    Metadata { traces: trace.traces().iter().map(describe).collect() }
}

struct Header {
    shape: Shape,
    trace_entry: usize,
    id_bytes: usize,
    gates: Option<(GateWidth, GateOrigin)>,
    tokens: u64,
    traces: u64,
    sections: [Section; 4],
}

#[derive(Clone, Copy)]
struct Section {
    offset: u64,
    len: u64,
    crc: u32,
}

/// Reads a whole file. Nothing is used, and nothing larger than the file allocated, before it has been checked.
pub fn decode(file: &[u8]) -> Result<RoutingTrace, TraceError> {
    let header = decode_header(file)?;
    let [ids, gates, table, metadata] = check_sections(file, &header)?;
    let selections = match header.id_bytes {
        1 => ids.iter().map(|&id| if id == u8::MAX { PADDING } else { id as u16 }).collect(),
        _ => words(ids).map(u16::from_le_bytes).collect(),
    };
    let gates = header.gates.map(|(width, origin)| Gates {
        weights: match width {
            GateWidth::F16 => words(gates).map(|word| f16::from_le_bytes(word).to_f32()).collect(),
            GateWidth::F32 => words(gates).map(f32::from_le_bytes).collect(),
        },
        origin,
    });
    let traces = decode_traces(&header, table, metadata)?;
    RoutingTrace::new(header.shape, selections, gates, traces)
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}

fn decode_header(file: &[u8]) -> Result<Header, TraceError> {
    if !file.starts_with(&MAGIC) {
        return Err(TraceError::at(At::Byte(0), Problem::NotHrt));
    }
    if file.len() < HEADER {
        return Err(Problem::Size { declared: HEADER as u64, actual: file.len() as u64 }.into());
    }
    let version = u16::from_le_bytes(field(file, 8));
    let trace_entry = usize::from(version).checked_sub(1).and_then(|index| TRACE_ENTRY.get(index).copied());
    let Some(trace_entry) = trace_entry else {
        return Err(bad_field(8, "version", version as u64, format!("1 to {VERSION}")));
    };
    let expected = u32::from_le_bytes(field(file, HEADER_CRC));
    let found = crc32fast::hash(&file[..HEADER_CRC]);
    if found != expected {
        return Err(TraceError::at(At::Entry("header".into()), Problem::Checksum { found, expected }));
    }
    let dimension = |offset| u32::from_le_bytes(field(file, offset));
    let shape = Shape::new(dimension(16), dimension(20), dimension(24))?;
    let width = file[10] as usize;
    if width != id_bytes(shape.experts) {
        return Err(bad_field(
            10,
            "bytes of an expert id",
            width as u64,
            id_bytes(shape.experts).to_string(),
        ));
    }
    let origin = match file[12] {
        0 => GateOrigin::Trace,
        1 => GateOrigin::Synthetic,
        other => return Err(bad_field(12, "gate origin", other as u64, "0 or 1".into())),
    };
    let gates = match file[11] {
        0 => None,
        1 => Some((GateWidth::F16, origin)),
        2 => Some((GateWidth::F32, origin)),
        other => return Err(bad_field(11, "gate weights", other as u64, "0, 1 or 2".into())),
    };
    let number = |offset| u64::from_le_bytes(field(file, offset));
    let sections = std::array::from_fn(|index| {
        let entry = SECTION_TABLE + index * SECTION_ENTRY;
        Section { offset: number(entry), len: number(entry + 8), crc: dimension(entry + 16) }
    });
    Ok(Header {
        shape,
        trace_entry,
        id_bytes: width,
        gates,
        tokens: number(32),
        traces: number(40),
        sections,
    })
}

/// `N` bytes of the header, whose presence the caller has checked.
fn field<const N: usize>(file: &[u8], offset: usize) -> [u8; N] {
    std::array::from_fn(|index| file[offset + index])
}

fn bad_field(offset: u64, what: &'static str, found: u64, expected: String) -> TraceError {
    TraceError::at(At::Byte(offset), Problem::Field { what, found, expected })
}

fn check_sections<'a>(file: &'a [u8], header: &Header) -> Result<[&'a [u8]; 4], TraceError> {
    let places = header.tokens.checked_mul(header.shape.places() as u64);
    let of_places = |bytes: usize| places.and_then(|places| places.checked_mul(bytes as u64));
    let lengths = [
        of_places(header.id_bytes),
        of_places(header.gates.map_or(0, |(width, _)| width.bytes())),
        header.traces.checked_mul(header.trace_entry as u64),
        Some(header.sections[3].len),
    ];
    let mut slices: [&[u8]; 4] = [&[]; 4];
    let mut end = HEADER as u64;
    for (index, section) in header.sections.iter().enumerate() {
        let within = |problem| TraceError::at(At::Entry(format!("section '{}'", SECTIONS[index])), problem);
        let start = end.next_multiple_of(ALIGN as u64);
        if section.offset != start {
            let expected = start.to_string();
            return Err(within(Problem::Field { what: "offset", found: section.offset, expected }));
        }
        if Some(section.len) != lengths[index] {
            let expected = lengths[index].map_or("less".into(), |len| len.to_string());
            return Err(within(Problem::Field { what: "length", found: section.len, expected }));
        }
        let actual = (file.len() as u64).saturating_sub(start);
        let bytes = slice(file, start, section.len)
            .ok_or_else(|| within(Problem::Size { declared: section.len, actual }))?;
        let found = crc32fast::hash(bytes);
        if found != section.crc {
            return Err(within(Problem::Checksum { found, expected: section.crc }));
        }
        slices[index] = bytes;
        end = start + section.len;
    }
    if end != file.len() as u64 {
        return Err(Problem::Size { declared: end, actual: file.len() as u64 }.into());
    }
    Ok(slices)
}

fn slice(file: &[u8], start: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    file.get(start..end)
}

fn decode_traces(header: &Header, table: &[u8], metadata: &[u8]) -> Result<Vec<TraceInfo>, TraceError> {
    let section =
        |index: usize, problem| TraceError::at(At::Entry(format!("section '{}'", SECTIONS[index])), problem);
    let metadata: Metadata =
        serde_json::from_slice(metadata).map_err(|error| section(3, Problem::Metadata(error.into())))?;
    let entries = table.chunks_exact(header.trace_entry);
    if metadata.traces.len() != entries.len() {
        let (found, expected) = (metadata.traces.len(), entries.len());
        return Err(section(3, Problem::MetadataCount { found, expected }));
    }
    // A row that does not fit is out of range, which the check of the whole trace says.
    let row = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let first_row = |entry: &[u8]| row(u64::from_le_bytes(field(entry, 0)));
    let ends = entries.clone().skip(1).map(first_row).chain([row(header.tokens)]);
    let mut traces = Vec::with_capacity(entries.len());
    for ((entry, end), described) in entries.zip(ends).zip(metadata.traces) {
        let flags = u32::from_le_bytes(field(entry, 8));
        if flags & !(REPETITION | PROMPT_KNOWN) != 0 {
            let problem =
                Problem::Field { what: "flags", found: flags as u64, expected: "bits 0 and 1 only".into() };
            return Err(TraceError::at(At::Trace(traces.len()), problem));
        }
        let prompt_rows = match header.trace_entry {
            16 => 0,
            _ => row(u64::from_le_bytes(field(entry, 16))),
        };
        traces.push(TraceInfo {
            rows: Range { start: first_row(entry).saturating_add(prompt_rows), end },
            prompt_rows,
            name: described.name,
            dataset: described.dataset,
            request_id: described.request_id,
            repetition: flags & REPETITION != 0,
            prompt_tokens: (flags & PROMPT_KNOWN != 0).then(|| u32::from_le_bytes(field(entry, 12))),
        });
    }
    Ok(traces)
}
