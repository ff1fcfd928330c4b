//! The one loop: a controller on a platform, and who looks on.

use crate::event::Platform;
use crate::orchestrator::{ControlError, Orchestrator};
use crate::record::Decision;
use crate::tally::RequestTimes;
use crate::units::Time;
use thiserror::Error;

/// Why [`run`] stopped early.
#[derive(Debug, Error)]
pub enum RunError<E: std::error::Error + 'static> {
    /// The controller could not go on.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The platform could not go on.
    #[error(transparent)]
    Platform(E),
}

/// Who looks on while a run goes on.
pub trait Watch<P> {
    /// A decision has been taken. Every one comes here once, in order, if the controller records them.
    fn decision(&mut self, decision: Decision) {
        let _ = decision;
    }

    /// A request has left, served or refused. Every one comes here once.
    fn request(&mut self, request: RequestTimes) {
        let _ = request;
    }

    /// An event of this instant has been handled, and what follows from it is under way.
    fn event(&mut self, at: Time, orchestrator: &mut Orchestrator, platform: &P) {
        let _ = (at, orchestrator, platform);
    }

    /// Whether what was seen is enough: then the run ends where it is.
    fn enough(&self) -> bool {
        false
    }
}

/// Looks away.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl<P> Watch<P> for Nobody {}

/// Sees decisions and nothing else.
struct Decisions<F>(F);

impl<P, F: FnMut(Decision)> Watch<P> for Decisions<F> {
    fn decision(&mut self, decision: Decision) {
        (self.0)(decision);
    }
}

/// [`watch`] for one who wants to see the decisions only.
///
/// # Errors
/// What the controller or the platform reports.
pub fn run<P: Platform>(
    orchestrator: &mut Orchestrator,
    platform: &mut P,
    each: impl FnMut(Decision),
) -> Result<(), RunError<P::Error>> {
    watch(orchestrator, platform, &mut Decisions(each))
}

/// The one loop: drives a controller on a platform until nothing is left to happen, or who looks on has seen enough.
///
/// # Errors
/// What the controller or the platform reports.
pub fn watch<P: Platform>(
    orchestrator: &mut Orchestrator,
    platform: &mut P,
    watch: &mut impl Watch<P>,
) -> Result<(), RunError<P::Error>> {
    let mut commands = Vec::new();
    while let Some(event) = platform.next_event().map_err(RunError::Platform)? {
        let at = event.at;
        orchestrator.handle(event, &mut commands)?;
        orchestrator.take_decisions().into_iter().for_each(|decision| watch.decision(decision));
        orchestrator.take_left().into_iter().for_each(|request| watch.request(request));
        for command in commands.drain(..) {
            platform.submit(command).map_err(RunError::Platform)?;
        }
        watch.event(at, orchestrator, platform);
        if watch.enough() {
            break;
        }
    }
    Ok(())
}
