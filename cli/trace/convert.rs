//! `hotset trace convert`: traces of any format into one file.

use crate::failure::Failure;
use crate::trace_files::TraceFiles;
use std::path::PathBuf;

/// Convert traces into one file, checked on the way
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    traces: TraceFiles,

    /// The file to write; its extension, .hrt, .jsonl or .oracleGeneral, says the format
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    super::write(&args.traces.read()?, &args.output)
}
