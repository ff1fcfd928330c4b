//! Reading the traces named on the command line.

use crate::failure::Failure;
use std::path::PathBuf;
use traces::{At, Options, RoutingTrace};

/// Which traces to read, and how.
#[derive(clap::Args)]
pub(crate) struct TraceFiles {
    /// Routing traces (.hrt, .npz, .csv, .jsonl); several are taken one after the other
    #[arg(required = true, value_name = "TRACE")]
    paths: Vec<PathBuf>,

    /// Experts of each layer, where the file does not say [default: largest id + 1, as a power of two]
    #[arg(long, value_name = "N")]
    experts: Option<u32>,
}

impl TraceFiles {
    /// All of them, as one trace.
    pub(crate) fn read(&self) -> Result<RoutingTrace, Failure> {
        self.read_paths(&self.paths)
    }

    /// Other files, read in the same way.
    pub(crate) fn read_paths(&self, paths: &[PathBuf]) -> Result<RoutingTrace, Failure> {
        let options = Options { experts: self.experts, ..Options::default() };
        let parts: Result<Vec<_>, _> = paths.iter().map(|path| traces::open_with(path, &options)).collect();
        let whole = parts.and_then(|parts| {
            // Where a part does not fit the first, the error has its number, and it is we who know its file.
            RoutingTrace::concat(parts).map_err(|error| match error.at {
                Some(At::Trace(index)) if index < paths.len() => error.in_file(&paths[index]),
                _ => error,
            })
        });
        whole.map_err(Failure::refused)
    }
}
