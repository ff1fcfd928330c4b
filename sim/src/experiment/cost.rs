//! What a policy's decisions cost in real time. Nothing that is promised to be the same twice depends on it.

use super::Contender;
use crate::simulate::{Case, RunFailure};
use policy::event::{Command, Event, Platform};
use policy::run;

/// Runs a contender and answers the time that the controller took a layer step, in nanoseconds: everything between an
/// event and the last of the commands that answer it. `clock` reads real time in nanoseconds; its own cost is included,
/// twice an event.
///
/// # Errors
/// The run fails or cannot begin.
pub fn decision_cost(case: &Case, contender: &Contender, clock: impl Fn() -> u64) -> Result<f64, RunFailure> {
    let mut orchestrator = case.orchestrator(contender.entry, &contender.params, false)?;
    let mut stopwatch = Stopwatch { platform: case.world(false)?, clock, since: None, spent: 0 };
    run(&mut orchestrator, &mut stopwatch, |_| {})?;
    let steps = orchestrator.tally().layer_steps;
    Ok(stopwatch.spent as f64 / steps.max(1) as f64)
}

/// A platform that measures the time in which nothing is asked of it.
struct Stopwatch<P, C> {
    platform: P,
    clock: C,
    /// When it last answered.
    since: Option<u64>,
    spent: u64,
}

impl<P, C: Fn() -> u64> Stopwatch<P, C> {
    fn stop(&mut self) {
        if let Some(since) = self.since.take() {
            self.spent += (self.clock)().saturating_sub(since);
        }
    }
}

impl<P: Platform, C: Fn() -> u64> Platform for Stopwatch<P, C> {
    type Error = P::Error;

    fn next_event(&mut self) -> Result<Option<Event>, P::Error> {
        self.stop();
        let event = self.platform.next_event()?;
        self.since = Some((self.clock)());
        Ok(event)
    }

    fn submit(&mut self, command: Command) -> Result<(), P::Error> {
        // The controller is done when the first of its commands comes.
        self.stop();
        self.platform.submit(command)
    }
}
