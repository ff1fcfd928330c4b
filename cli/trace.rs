//! `hotset trace`: what is done with traces beside replaying them.

mod convert;
mod generate;
mod info;
mod requests;

use crate::failure::Failure;
use std::path::Path;
use traces::{Problem, RoutingTrace, TraceError};

/// Measure, convert and generate traces
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Info(info::Args),
    Convert(convert::Args),
    Generate(generate::Args),
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Command::Info(args) => info::run(&args),
            Command::Convert(args) => convert::run(&args),
            Command::Generate(args) => generate::run(&args),
        }
    }
}

/// Writes a trace; the file appears whole or not at all.
fn write(trace: &RoutingTrace, path: &Path) -> Result<(), Failure> {
    written(traces::write(path, trace))
}

/// What became of writing.
fn written(result: Result<(), TraceError>) -> Result<(), Failure> {
    result.map_err(|error| match *error.problem {
        Problem::Io(_) => Failure::failed(error),
        _ => Failure::refused(error),
    })
}
