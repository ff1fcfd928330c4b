//! The `hotset` command: reads the arguments, calls the crates, prints.

mod bench;
mod calibrate;
mod catalogue;
mod check;
mod compare;
mod explain;
mod failure;
mod interrupt;
mod output;
mod plan;
mod policies;
mod progress;
mod replay;
mod resume;
mod scenario_args;
mod schema;
mod search_args;
mod simulate;
mod trace;
mod trace_files;
mod tune;
mod validate;

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
    Simulate(simulate::Args),
    Replay(replay::Args),
    #[command(subcommand)]
    Trace(trace::Command),
    Compare(compare::Args),
    Plan(plan::Args),
    Tune(tune::Args),
    Calibrate(calibrate::Args),
    #[command(subcommand)]
    Bench(bench::Command),
    Validate(validate::Args),
    Check(check::Args),
    Explain(explain::Args),
    Schema(schema::Args),
    Policies(policies::Args),
    Machines(catalogue::MachineArgs),
    Models(catalogue::ModelArgs),
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Command::Simulate(args) => simulate::run(&args),
            Command::Replay(args) => replay::run(&args),
            Command::Trace(command) => command.run(),
            Command::Compare(args) => compare::run(&args),
            Command::Plan(args) => plan::run(&args),
            Command::Tune(args) => tune::run(&args),
            Command::Calibrate(args) => calibrate::run(&args),
            Command::Bench(command) => command.run(),
            Command::Validate(args) => validate::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Explain(args) => explain::run(&args),
            Command::Schema(args) => schema::run(&args),
            Command::Policies(args) => policies::run(&args),
            Command::Machines(args) => catalogue::machines(&args),
            Command::Models(args) => catalogue::models(&args),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    interrupt::watch();
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
