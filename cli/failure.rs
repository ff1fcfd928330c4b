//! How a command ends when it does not end well.

use policy::orchestrator::ControlError;
use scenarios::Diagnostics;
use sim::RunFailure;
use sim::experiment::ExperimentError;
use std::error::Error;
use std::io::{IsTerminal, Write, stderr};
use std::process::ExitCode;

/// What went wrong, in words for the person who typed the command.
type Cause = Box<dyn Error + Send + Sync>;

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The input was refused.
    Refused(Cause),
    /// A scenario, a machine or a model was refused, with every error in it.
    Flawed(Box<Diagnostics>),
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
        let mut errors = stderr().lock();
        // Where not even this can be written, the exit code still says it.
        let _ = match self {
            Failure::Flawed(diagnostics) => writeln!(errors, "{}", diagnostics.render(errors.is_terminal())),
            Failure::Refused(error) | Failure::Failed(error) => writeln!(errors, "error: {error}"),
            Failure::Closed => Ok(()),
        };
        match self {
            Failure::Refused(_) | Failure::Flawed(_) => ExitCode::from(2),
            Failure::Failed(_) => ExitCode::FAILURE,
            Failure::Closed => ExitCode::SUCCESS,
        }
    }
}

impl From<RunFailure> for Failure {
    /// What keeps a run from beginning is in the input, and so is a script that fails.
    fn from(failure: RunFailure) -> Failure {
        match failure {
            RunFailure::Control(ControlError::Policy(_)) => Failure::refused(failure),
            RunFailure::Control(_) | RunFailure::World(_) => Failure::failed(failure),
            _ => Failure::refused(failure),
        }
    }
}

impl From<ExperimentError> for Failure {
    fn from(error: ExperimentError) -> Failure {
        match &error {
            ExperimentError::Run { source: RunFailure::Control(_) | RunFailure::World(_), .. } => {
                Failure::failed(error)
            }
            ExperimentError::Run { .. } => Failure::refused(error),
            ExperimentError::Journal(_) => Failure::failed(error),
        }
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Failure {
        Failure::Flawed(Box::new(diagnostics))
    }
}
