//! The `hotset` command: reads the arguments, calls the crates, prints.

mod failure;
mod output;
mod policies;
mod progress;
mod replay;
mod trace;
mod trace_files;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::process::ExitCode;

/// Decides in which memory, and in which precision, every block of a model lives while it serves.
///
/// Exit codes: 0 done, 1 the run failed, 2 the input was refused.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Replay(replay::Args),
    #[command(subcommand)]
    Trace(trace::Command),
    Policies(policies::Args),
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Command::Replay(args) => replay::run(&args),
            Command::Trace(command) => command.run(),
            Command::Policies(args) => policies::run(&args),
        }
    }
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
