//! Reading the traces named on the command line.

use crate::failure::Failure;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use policy::Demands;
use std::path::PathBuf;
use traces::requests::{Cut, RequestTrace, detect_requests, open_requests};
use traces::{At, FORMATS, Format, Options, RoutingTrace, TraceError};

/// Which traces to read, and how.
#[derive(clap::Args)]
pub(crate) struct TraceFiles {
    /// Routing traces; several are taken one after the other
    #[arg(required = true, value_name = "TRACE")]
    paths: Vec<PathBuf>,

    /// The format of the traces [default: by content, then by extension]
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    input_format: Option<Format>,

    /// Experts of each layer, where the file does not say [default: largest id + 1, as a power of two]
    #[arg(long, value_name = "N")]
    experts: Option<u32>,

    /// Experts a token selects at a layer, where the file does not say: SGLang responses
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,

    /// Layers of each token, where the file does not say and it does not follow: SGLang responses cut at their start
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    layers: Option<u32>,

    /// Merge N requests at a time into batches that decode side by side
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
}

/// Reads the name of a format; the table of formats says what each is.
fn formats() -> impl TypedValueParser<Value = Format> {
    let known = FORMATS.iter().map(|(name, _, about)| PossibleValue::new(*name).help(*about));
    PossibleValuesParser::new(known).try_map(|written| {
        let found = FORMATS.iter().find(|(name, ..)| *name == written);
        found.map(|&(_, format, _)| format).ok_or("no such format")
    })
}

impl TraceFiles {
    /// All of them, as one trace; batched if that was asked for.
    pub(crate) fn read(&self) -> Result<RoutingTrace, Failure> {
        self.read_paths(&self.paths)
    }

    /// The requests in it, if it is one request trace and not routing.
    pub(crate) fn requests(&self) -> Result<Option<RequestTrace>, Failure> {
        let ([path], None) = (self.paths.as_slice(), self.input_format) else { return Ok(None) };
        let read = |format| open_requests(path, format, &Cut::default());
        let format = detect_requests(path).map_err(Failure::refused)?;
        format.map(read).transpose().map_err(Failure::refused)
    }

    /// What a replay reads of them.
    pub(crate) fn demands(&self, include_repetition: bool) -> Result<Demands, Failure> {
        match (self.paths.as_slice(), self.batch) {
            ([path], None) => {
                traces::open_demands(path, &self.options(), include_repetition).map_err(Failure::refused)
            }
            _ => Ok(self.read()?.demands(include_repetition)),
        }
    }

    fn options(&self) -> Options {
        Options {
            experts: self.experts,
            layers: self.layers,
            top_k: self.top_k,
            format: self.input_format,
            ..Options::default()
        }
    }

    /// Other files, read in the same way.
    pub(crate) fn read_paths(&self, paths: &[PathBuf]) -> Result<RoutingTrace, Failure> {
        let options = self.options();
        let whole = read(paths, &options);
        let batched = whole.and_then(|trace| match self.batch {
            Some(batch) => trace.in_batches(batch),
            None => Ok(trace),
        });
        batched.map_err(Failure::refused)
    }
}

/// Several files as one trace, one after the other.
pub(crate) fn read(paths: &[PathBuf], options: &Options) -> Result<RoutingTrace, TraceError> {
    let parts: Result<Vec<_>, _> = paths.iter().map(|path| traces::open_with(path, options)).collect();
    // Where a part does not fit the first, the error has its number, and it is we who know its file.
    RoutingTrace::concat(parts?).map_err(|error| match error.at {
        Some(At::Trace(index)) if index < paths.len() => error.in_file(&paths[index]),
        _ => error,
    })
}
