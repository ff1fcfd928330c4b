//! What can be wrong with a request trace, and what to do about it.

use super::MOST_TOKENS;
use crate::error::JsonFlaw;
use policy::Nanos;

/// What is wrong with a request, or with a file of them.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestProblem {
    /// Neither the header nor the first object is one of a request trace.
    #[error("not a request trace that can be read")]
    UnknownFormat,
    /// There is no request in it.
    #[error("no request in it{}", without(*.failed))]
    Empty {
        /// Requests that failed.
        failed: u64,
    },
    /// A cut leaves none.
    #[error("none of the {read} requests read is between `from` and `until`")]
    NothingLeft {
        /// Requests read.
        read: u64,
    },
    /// A header without a column.
    #[error("the header has no column {}", one_of(.names))]
    MissingColumn {
        /// Its names, any of which would do.
        names: Vec<&'static str>,
        /// A header with all of them.
        header: &'static str,
    },
    /// A line with another number of cells.
    #[error("{found} cells, but the header has {expected}")]
    Cells {
        /// Cells in the line.
        found: usize,
        /// Columns of the header.
        expected: usize,
    },
    /// A cell that is not the number it should be.
    #[error("'{text}' is not {expected}")]
    Cell {
        /// The text in it.
        text: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A request that comes in before the one above it.
    #[error("it arrives {} s before the request above it", .earlier.as_secs_f64())]
    Unsorted {
        /// By how much.
        earlier: Nanos,
    },
    /// A request that comes in before the trace starts.
    #[error("it arrives before time 0")]
    Negative,
    /// An arrival beyond what can be counted in nanoseconds.
    #[error("it arrives more than 292 years after the start")]
    TooLate,
    /// A request without a prompt or an output.
    #[error("a request with no {what} tokens")]
    NoTokens {
        /// `prompt` or `output`.
        what: &'static str,
    },
    /// A request that no model serves.
    #[error("a request with {tokens} {what} tokens, more than the limit of {}", MOST_TOKENS)]
    TooManyTokens {
        /// `prompt` or `output`.
        what: &'static str,
        /// How many.
        tokens: u64,
    },
    /// More hashes than a prompt has blocks.
    #[error("{hashes} hashes for a prompt of {prompt_tokens} tokens in blocks of {block_tokens}")]
    Hashes {
        /// Hashes.
        hashes: usize,
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Tokens that a hash stands for.
        block_tokens: u32,
    },
    /// A line, or a file, that is not JSON of the expected form.
    #[error("{}", .0.message)]
    Json(JsonFlaw),
    /// A benchmark's result without what is known of each request.
    #[error("no `{missing}`: this result has totals only")]
    NotDetailed {
        /// The key that is not there.
        missing: &'static str,
    },
    /// A benchmark's lists that do not belong together.
    #[error("{found} {what}, but {expected} input_lens")]
    Uneven {
        /// The list.
        what: &'static str,
        /// Its length.
        found: usize,
        /// That of the first.
        expected: usize,
    },
    /// A benchmark's result that does not say when requests came in.
    #[error("no `start_times`, and requests were not sent all at once (request_rate: {request_rate})")]
    NoStartTimes {
        /// As written, or `not given`.
        request_rate: String,
    },
    /// A file's ending that names no format.
    #[error("cannot write a request trace as '{0}'")]
    CannotWrite(String),
}

impl RequestProblem {
    /// What would help, where there is something to say beyond the problem itself.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            RequestProblem::UnknownFormat => {
                "headers that are known: TIMESTAMP,ContextTokens,GeneratedTokens (Azure), Timestamp,Model,Request \
                 tokens,... (BurstGPT), arrival_time_ns,input_toks,output_toks, arrival_s,prompt_tokens,output_tokens; \
                 or JSON lines of Mooncake, or what `vllm bench serve --save-result --save-detailed` writes"
            }
            RequestProblem::MissingColumn { header, .. } => header,
            RequestProblem::Cells { .. } => {
                "was the line cut? every line has a cell for each column, without commas in it"
            }
            RequestProblem::Unsorted { .. } => "sort the requests by their arrival",
            RequestProblem::Negative => "count arrivals from the first one",
            RequestProblem::TooLate => {
                "is the unit right? Mooncake counts in ms, BurstGPT in s, ShareGPT lengths in ns"
            }
            RequestProblem::NoTokens { .. } => {
                "leave out requests that failed: every request has a prompt and an output"
            }
            RequestProblem::TooManyTokens { .. } => "is this the column of token counts?",
            RequestProblem::Hashes { .. } => "a hash stands for 512 tokens in traces of Mooncake",
            RequestProblem::Json(flaw) if flaw.cut => "it was cut: was the writer interrupted?",
            RequestProblem::Json(_) => {
                "Mooncake has one object a line: {\"timestamp\": 27, \"input_length\": 6955, \"output_length\": 52, \
                 \"hash_ids\": [46, 47]}; vLLM one object with input_lens and output_lens"
            }
            RequestProblem::NotDetailed { .. } => {
                "run `vllm bench serve` with --save-result and --save-detailed"
            }
            RequestProblem::NoStartTimes { .. } => {
                "newer versions of vLLM write `start_times`; without, only a run with an infinite rate can be read"
            }
            RequestProblem::CannotWrite(_) => "a request trace is written as .csv",
            RequestProblem::Cell { .. }
            | RequestProblem::Empty { .. }
            | RequestProblem::NothingLeft { .. }
            | RequestProblem::Uneven { .. } => return None,
        })
    }
}

fn without(failed: u64) -> String {
    if failed == 0 { String::new() } else { format!(", without the {failed} that failed") }
}

fn one_of(names: &[&'static str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    quoted.join(" or ")
}
