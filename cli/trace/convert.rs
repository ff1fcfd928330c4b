//! `hotset trace convert`: traces of any format into one file.

use crate::failure::Failure;
use crate::trace_files::TraceFiles;
use std::path::PathBuf;
use traces::requests::write_requests;

/// Convert traces into one file, checked on the way
///
/// A request trace of any format becomes plain CSV.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    traces: TraceFiles,

    /// The file to write; its extension, .hrt, .jsonl, .oracleGeneral or for requests .csv, says the format
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match args.traces.requests()? {
        Some(requests) => super::written(write_requests(&args.output, &requests)),
        None => super::write(&args.traces.read()?, &args.output),
    }
}
