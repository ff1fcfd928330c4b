//! How a command ends when it does not end well.

use std::error::Error;
use std::process::ExitCode;

/// What went wrong, in words for the person who typed the command.
type Cause = Box<dyn Error + Send + Sync>;

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The input was refused.
    Refused(Cause),
    /// The input was fine and the run failed.
    Failed(Cause),
    /// Nobody reads the output any more, as under `| head`.
    Closed,
}

impl Failure {
    /// The input was refused because of `error`.
    pub(crate) fn refused(error: impl Into<Cause>) -> Failure {
        Failure::Refused(error.into())
    }

    /// The run failed because of `error`.
    pub(crate) fn failed(error: impl Into<Cause>) -> Failure {
        Failure::Failed(error.into())
    }

    /// Says what happened on stderr, and answers with the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let (code, error) = match self {
            Failure::Refused(error) => (2, error),
            Failure::Failed(error) => (1, error),
            Failure::Closed => return ExitCode::SUCCESS,
        };
        eprintln!("error: {error}");
        ExitCode::from(code)
    }
}
