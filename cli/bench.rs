//! `hotset bench`: what a device does, measured.

mod states;

use crate::failure::Failure;

/// Measure what a device does
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    States(states::Args),
}

impl Command {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match self {
            Command::States(args) => states::run(args),
        }
    }
}
