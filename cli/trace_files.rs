//! Reading the traces named on the command line.

use crate::failure::Failure;
use clap::ValueEnum;
use std::path::PathBuf;
use traces::{At, Format, Options, RoutingTrace, TraceError};

/// Which traces to read, and how.
#[derive(clap::Args)]
pub(crate) struct TraceFiles {
    /// Routing traces; several are taken one after the other
    #[arg(required = true, value_name = "TRACE")]
    paths: Vec<PathBuf>,

    /// The format of the traces [default: by content, then by extension]
    #[arg(long, value_enum, value_name = "FORMAT")]
    input_format: Option<InputFormat>,

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

/// [`Format`], as it is written.
#[derive(Clone, Copy, ValueEnum)]
enum InputFormat {
    /// This project's binary format
    Hrt,
    /// NumPy arrays, experts.npy and offsets.npy
    Npz,
    /// token,layer,e0,e1,...
    Csv,
    /// One object for each (token, layer)
    Jsonl,
    /// Responses of vLLM or SGLang with routed experts, JSON or JSON lines
    Responses,
    /// layer_id,expert_ids, as forks of llama.cpp write it
    ExpertCsv,
    /// One object for each (batch, layer)
    BatchJsonl,
    /// Packed accesses of libCacheSim
    OracleGeneral,
}

impl TraceFiles {
    /// All of them, as one trace; batched if that was asked for.
    pub(crate) fn read(&self) -> Result<RoutingTrace, Failure> {
        self.read_paths(&self.paths)
    }

    /// Other files, read in the same way.
    pub(crate) fn read_paths(&self, paths: &[PathBuf]) -> Result<RoutingTrace, Failure> {
        let options = Options {
            experts: self.experts,
            layers: self.layers,
            top_k: self.top_k,
            format: self.input_format.map(Format::from),
            ..Options::default()
        };
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

impl From<InputFormat> for Format {
    fn from(format: InputFormat) -> Format {
        match format {
            InputFormat::Hrt => Format::Hrt,
            InputFormat::Npz => Format::Npz,
            InputFormat::Csv => Format::Csv,
            InputFormat::Jsonl => Format::Jsonl,
            InputFormat::Responses => Format::Responses,
            InputFormat::ExpertCsv => Format::ExpertCsv,
            InputFormat::BatchJsonl => Format::BatchJsonl,
            InputFormat::OracleGeneral => Format::OracleGeneral,
        }
    }
}
