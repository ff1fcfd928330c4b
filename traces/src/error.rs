//! What can be wrong with a trace, where, and what to do about it.

use crate::requests::RequestProblem;
use std::fmt;
use std::path::{Path, PathBuf};

/// A trace could not be read, built or written: the file, the place in it, the problem and a hint.
#[derive(Debug)]
pub struct TraceError {
    /// The file, where there is one.
    pub path: Option<PathBuf>,
    /// The place in it, where one is known.
    pub at: Option<At>,
    /// What is wrong. Boxed, so that a `Result` stays small.
    pub problem: Box<Problem>,
}

/// A place in a file or in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// A line of text, both counted from 1; the column where it is known.
    Line(u64, Option<u64>),
    /// A byte offset from the start of the file.
    Byte(u64),
    /// An entry of an archive, or a section of a file.
    Entry(String),
    /// One selection, by token row and layer, counted from 0.
    Selection {
        /// Row of the token over all traces.
        row: usize,
        /// Layer.
        layer: usize,
    },
    /// A trace by its index, counted from 0.
    Trace(usize),
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A pipe, a device or a socket.
    #[error("not a file")]
    NotAFile,
    /// Neither content nor extension is one of a routing trace.
    #[error("not a routing trace that can be read")]
    UnknownFormat,
    /// The extension names no format that can be written.
    #[error("cannot write a trace as '{0}'")]
    CannotWrite(String),
    /// There is no token in it.
    #[error("no token in it")]
    Empty,
    /// Every trace is a repetition and repetitions were left out.
    #[error("nothing is left without the traces marked as repetition")]
    OnlyRepetition,
    /// The archive is damaged.
    #[error("damaged archive: {0}")]
    Archive(String),
    /// The archive lacks an array.
    #[error("the array '{0}' is missing")]
    MissingArray(&'static str),
    /// An array's header is damaged.
    #[error("damaged .npy header: {0}")]
    NpyHeader(&'static str),
    /// An array has another element type.
    #[error("elements of type '{found}', expected {expected}")]
    Dtype {
        /// As written in the file.
        found: String,
        /// What is read.
        expected: &'static str,
    },
    /// An array has another shape.
    #[error("shape {found:?}, expected {expected}")]
    Shape {
        /// As written in the file.
        found: Vec<u64>,
        /// What is read.
        expected: &'static str,
    },
    /// Declared and actual size differ.
    #[error("{declared} bytes declared, {actual} there")]
    Size {
        /// What the header says.
        declared: u64,
        /// What is there.
        actual: u64,
    },
    /// More than the reader takes.
    #[error("{size} {what}, more than the limit of {limit}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        size: u64,
        /// How many are taken.
        limit: u64,
    },
    /// Trace boundaries do not rise, do not start at 0 or do not end at the number of tokens.
    #[error("trace boundary {index} is {value}, expected {expected}")]
    Boundary {
        /// Which boundary, from 0.
        index: usize,
        /// Its value.
        value: i64,
        /// What it should be.
        expected: String,
    },
    /// Metadata that is not JSON of the expected form.
    #[error("metadata: {}", .0.message)]
    Metadata(JsonFlaw),
    /// Metadata for another number of traces.
    #[error("metadata for {found} traces, but the file has {expected}")]
    MetadataCount {
        /// Entries in the metadata.
        found: usize,
        /// Traces in the file.
        expected: usize,
    },
    /// Metadata for a trace of another length.
    #[error("metadata says {found} tokens, but the trace has {expected}")]
    MetadataTokens {
        /// Tokens in the metadata.
        found: u64,
        /// Tokens in the trace.
        expected: u64,
    },
    /// A line that is not a JSON object of the expected form.
    #[error("not a routing record: {}", .0.message)]
    Json(JsonFlaw),
    /// A document that is not a response with routed experts.
    #[error("not a response of an engine: {}", .0.message)]
    Response(JsonFlaw),
    /// A line that is not a forward pass.
    #[error("not a forward pass: {}", .0.message)]
    Pass(JsonFlaw),
    /// No response has routed experts.
    #[error("no routed experts in any response")]
    NoRoutedExperts,
    /// Text that is not base64.
    #[error("the routed experts are not base64: {0}")]
    Base64(String),
    /// A number that the file leaves out.
    #[error("the file does not say {what}")]
    Unsaid {
        /// Which number.
        what: &'static str,
    },
    /// A flat list of another length.
    #[error("{ids} expert ids, which {by} do not divide")]
    Ragged {
        /// Ids in the list.
        ids: usize,
        /// Ids of one row of it.
        by: usize,
    },
    /// Fewer tokens than were decoded.
    #[error("routed experts of {found} tokens, but {decoded} were decoded")]
    TokenCount {
        /// Tokens in the list.
        found: usize,
        /// Tokens that the response says it decoded.
        decoded: usize,
    },
    /// More recorded prompt rows than the prompt has tokens.
    #[error("{rows} rows of a prompt of {tokens} tokens")]
    PromptRows {
        /// Recorded rows.
        rows: usize,
        /// Tokens of the prompt.
        tokens: u32,
    },
    /// An access to an object of another size.
    #[error("an object of size {found}, but the first one has {expected}")]
    UnequalSizes {
        /// This size.
        found: u32,
        /// That of the first.
        expected: u32,
    },
    /// A line that is not CSV.
    #[error("{0}")]
    Csv(String),
    /// A cell that is not the number it should be.
    #[error("column '{column}': '{text}' is not {expected}")]
    Cell {
        /// Column name.
        column: String,
        /// The text in it.
        text: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A column is missing.
    #[error("column '{0}' is missing")]
    MissingColumn(String),
    /// A selection without an expert.
    #[error("no expert is selected")]
    NoExpert,
    /// An expert id that the layer does not have.
    #[error("expert {id} is out of range: the layer has {experts} experts")]
    ExpertOutOfRange {
        /// The id.
        id: u64,
        /// Experts a layer.
        experts: u32,
    },
    /// A negative id other than -1.
    #[error("expert {0}: the only number below 0 is -1, for no expert")]
    NegativeExpert(i32),
    /// An expert that is selected twice at once.
    #[error("expert {0} is selected twice")]
    RepeatedExpert(u16),
    /// A padding place before a selected expert.
    #[error("an expert follows a padding place")]
    PaddingInside,
    /// Selections and weights do not match.
    #[error("{gates} gate weights for {experts} selected experts")]
    GateCount {
        /// Weights.
        gates: usize,
        /// Experts.
        experts: usize,
    },
    /// A gate weight that is negative or not finite, or weights without a positive sum.
    #[error("gate weights {0:?}: expected finite numbers, none negative, not all zero")]
    BadGates(Vec<f32>),
    /// Gate weights in some selections only.
    #[error("gate weights are given in some selections and not in others")]
    MixedGates,
    /// A (token, layer) that is not there.
    #[error("token {token}, layer {layer} is missing{}", of_request(.request))]
    MissingRow {
        /// Request, where there are several.
        request: Option<String>,
        /// Token index.
        token: u64,
        /// Layer.
        layer: u64,
    },
    /// A (token, layer) that was there before.
    #[error("token {token}, layer {layer} was already given in line {first}{}", of_request(.request))]
    DuplicateRow {
        /// Request, where there are several.
        request: Option<String>,
        /// Token index.
        token: u64,
        /// Layer.
        layer: u64,
        /// The line of the first.
        first: u64,
    },
    /// Dimensions that no trace has.
    #[error(
        "{layers} layers, {experts} experts, top {top_k}: expected 1 to 65535 each, and top_k at most the experts"
    )]
    Dimensions {
        /// Layers.
        layers: u32,
        /// Experts a layer.
        experts: u32,
        /// Experts a selection.
        top_k: u32,
    },
    /// The number of experts asked for is not the one stored.
    #[error("the trace says {found} experts a layer, {asked} were asked for")]
    ExpertsDiffer {
        /// As stored.
        found: u32,
        /// As asked.
        asked: u32,
    },
    /// A trace that does not fit to the first one.
    #[error("{found}, but the first one has {expected}")]
    NotAlike {
        /// This trace's dimensions.
        found: String,
        /// Those of the first.
        expected: String,
    },
    /// A file that is no `.hrt` file.
    #[error("it does not start as an .hrt file")]
    NotHrt,
    /// A field of an `.hrt` file.
    #[error("{what}: found {found}, expected {expected}")]
    Field {
        /// The field.
        what: &'static str,
        /// Its value.
        found: u64,
        /// What it should be.
        expected: String,
    },
    /// A checksum of an `.hrt` file.
    #[error("checksum {found:08x}, expected {expected:08x}")]
    Checksum {
        /// Of the bytes that are there.
        found: u32,
        /// As stored.
        expected: u32,
    },
    /// A weight that the chosen width cannot hold.
    #[error("gate weight {0} does not fit in 16 bits")]
    GateWidth(f32),
    /// A request trace is wrong.
    #[error(transparent)]
    Request(#[from] RequestProblem),
    /// The trace cannot be replayed.
    #[error("{0}")]
    Replay(policy::replay::ReplayError),
    /// A parameter of the generator.
    #[error("{name} is {value}, expected {expected}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: String,
    },
}

/// What is wrong with JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonFlaw {
    /// What the parser says, without the place.
    pub message: String,
    /// Line in the text, from 1.
    pub line: u64,
    /// Column in that line, from 1; 0 if it has no character.
    pub column: u64,
    /// The text ends too early.
    pub cut: bool,
}

impl From<serde_json::Error> for JsonFlaw {
    fn from(error: serde_json::Error) -> JsonFlaw {
        let text = error.to_string();
        // serde_json appends the place to its message; here it is printed where every other error has it.
        let message = plain(text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message));
        JsonFlaw { message, line: error.line() as u64, column: error.column() as u64, cut: error.is_eof() }
    }
}

/// What the parser says, without the names of types in this program.
fn plain(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return message.to_owned() };
    let found = ["invalid type: ", "invalid value: "]
        .iter()
        .find_map(|kind| found.strip_prefix(kind))
        .unwrap_or(found);
    let found = match found.strip_prefix("invalid length ") {
        Some(length) => format!("a list of {length}"),
        None => found.replace("floating point ", "number "),
    };
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, zero or more",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        kind if kind.starts_with("struct ") => "an object",
        other => other,
    };
    format!("{found}, expected {expected}")
}

fn of_request(request: &Option<String>) -> String {
    request.as_ref().map(|id| format!(" (request '{id}')")).unwrap_or_default()
}

impl Problem {
    /// What would help, where there is something to say beyond the problem itself.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Problem::Request(problem) => return problem.hint(),
            Problem::UnknownFormat => {
                "formats that can be read: .hrt, .npz, .csv, .jsonl, .json (responses of vLLM or SGLang), .oracleGeneral"
            }
            Problem::CannotWrite(_) => "formats that can be written: .hrt, .jsonl, .oracleGeneral",
            Problem::OnlyRepetition => "include repetitions to use it all the same",
            Problem::Archive(_) | Problem::Size { .. } | Problem::Checksum { .. } => {
                "the file is truncated or was changed: copy or convert it again"
            }
            Problem::MissingArray(_) => "an .npz trace holds experts.npy and offsets.npy",
            Problem::Json(flaw) if flaw.cut => "the line was cut: was the writer interrupted?",
            Problem::Json(_) => {
                "one object a line: {\"layer_idx\": 0, \"token_idx\": 0, \"selected_ids\": [3, 1], \"gate_weights\": [0.6, 0.4]}"
            }
            Problem::Response(flaw) if flaw.cut => "the document was cut: was the writer interrupted?",
            Problem::Response(_) => {
                "responses of vLLM have choices[].routed_experts, those of SGLang meta_info.routed_experts"
            }
            Problem::Pass(_) => {
                "one object a line: {\"layer\": 0, \"batch_id\": 0, \"origin_rows\": [0], \"topk_experts\": [[3, 1]]}"
            }
            Problem::NoRoutedExperts => {
                "vLLM needs --enable-return-routed-experts, SGLang return_routed_experts in the request"
            }
            Problem::Unsaid { what: "top_k" } => "say how many experts a token selects: --top-k",
            Problem::Unsaid { .. } => {
                "a response of SGLang says prompt_tokens and completion_tokens in meta_info"
            }
            Problem::Ragged { .. } => {
                "does the number of experts a token selects, or of layers, fit this model?"
            }
            Problem::UnequalSizes { .. } => {
                "a slot holds one block: write size 1 to count objects instead of bytes"
            }
            Problem::MissingColumn(_) => {
                "the header is token,layer,e0,e1,... and optionally p0,p1,..., or layer_id,expert_ids"
            }
            Problem::ExpertOutOfRange { .. } => "does the number of experts fit this model?",
            Problem::MissingRow { .. } => {
                "every token needs one row for each layer 0..n, and tokens count up without a gap"
            }
            Problem::DuplicateRow { .. } => "give the rows of different requests different request ids",
            Problem::MetadataCount { .. } | Problem::MetadataTokens { .. } => {
                "does the .meta.json belong to this .npz?"
            }
            Problem::NotAlike { .. } => "traces can be joined when layers, experts, top_k and gates agree",
            _ => return None,
        })
    }
}

impl TraceError {
    /// A problem at a place.
    pub fn at(at: At, problem: impl Into<Problem>) -> TraceError {
        TraceError { path: None, at: Some(at), problem: Box::new(problem.into()) }
    }

    /// The same error, with the file it is in.
    pub fn in_file(mut self, path: &Path) -> TraceError {
        self.path.get_or_insert_with(|| path.to_owned());
        self
    }
}

impl<P: Into<Problem>> From<P> for TraceError {
    fn from(problem: P) -> TraceError {
        TraceError { path: None, at: None, problem: Box::new(problem.into()) }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Line(line, Some(column)) => write!(f, "line {line}, column {column}"),
            At::Line(line, None) => write!(f, "line {line}"),
            At::Byte(offset) => write!(f, "byte {offset}"),
            At::Entry(name) => f.write_str(name),
            At::Selection { row, layer } => write!(f, "token row {row}, layer {layer}"),
            At::Trace(index) => write!(f, "trace {index}"),
        }
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        write!(f, "{}", self.problem)?;
        match self.problem.hint() {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TraceError {}
