//! Points of a scenario, loaded and simulated.

use super::cutoff::{Cutoff, Run, Stopped};
use super::figures::{COUNT, figures, names};
use super::goal::{Bound, Candidate};
use super::replica::replica;
use super::space::Space;
use super::trials::{Ask, Bench};
use crate::experiment::journal;
use crate::experiment::{Journal, JournalError, digest};
use crate::resolve::{Library, SeedsError, check_policy, resolve_policy};
use crate::simulate::{Case, Keep, RunFailure};
use indexmap::IndexMap;
use policy::registry::Entry;
use rayon::prelude::*;
use scenarios::{Diagnostics, Scenario};
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// Where the points of a scenario are run.
pub struct Site<'s> {
    runs: Runs<'s>,
    space: &'s Space,
    library: Mutex<Library>,
    heard: &'s (dyn Fn(Heard) + Sync),
}

/// Why a point cannot be run.
#[derive(Debug, Error)]
pub enum SiteError {
    /// Its cases cannot be made.
    #[error(transparent)]
    Seeds(#[from] SeedsError),
    /// Its policy cannot be simulated.
    #[error("{0}")]
    Policy(String),
    /// Finished runs cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A run failed.
    #[error("{point}: {source}")]
    Run {
        /// The point, as it would be set.
        point: String,
        /// Why.
        source: RunFailure,
    },
}

/// What is heard of a plan while it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// About so many more runs are to come.
    Expected(u64),
    /// A run is finished.
    Finished,
}

/// What is run, and how.
#[derive(Clone, Copy)]
pub struct Runs<'s> {
    /// The scenario: a path, or the name of a shipped one.
    pub scenario: &'s str,
    /// What is set in it at every point.
    pub set: &'s [(String, String)],
    /// Seeds of each point.
    pub seeds: u64,
    /// Latencies are those that so many per cent of the requests keep below.
    pub percentile: f64,
    /// Where finished runs are kept.
    pub journal: Option<&'s Journal>,
}

impl<'s> Site<'s> {
    /// The points of a space. `heard` is called from any thread.
    pub fn new(runs: Runs<'s>, space: &'s Space, heard: &'s (dyn Fn(Heard) + Sync)) -> Site<'s> {
        Site { runs, space, library: Mutex::default(), heard }
    }

    fn set_at(&self, point: &[usize]) -> Vec<(String, String)> {
        [self.runs.set, &self.space.overrides(point)].concat()
    }

    fn cases(&self, point: &[usize]) -> Result<(Scenario, Vec<Case>), SiteError> {
        let mut library = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(library.seeds(self.runs.scenario, &self.set_at(point), self.runs.seeds)?)
    }

    /// Runs a case; what is kept of it beside its figures is where it was stopped, and when.
    fn simulate(&self, case: &Case, policy: (&Entry, &[f64]), until: &[Bound]) -> Result<Run, RunFailure> {
        let (entry, params) = policy;
        let mut cutoff = Cutoff::new(until, self.runs.percentile);
        let outcome = case.watch(entry, params, Keep::default(), &mut cutoff)?;
        Ok(match cutoff.stopped() {
            Some(stopped) => Run::Stopped(stopped),
            None => Run::Whole(figures(case, &outcome, entry.name, self.runs.percentile)),
        })
    }
}

impl Bench for Site<'_> {
    type Error = SiteError;
    type Misfit = Diagnostics;

    fn describe(&self, point: &[usize]) -> Result<Result<Candidate, Diagnostics>, SiteError> {
        let scenario = scenarios::load(self.runs.scenario, &self.set_at(point), &check_policy);
        Ok(scenario.map(|scenario| Candidate::new(point, self.space.replicas(point), &scenario)))
    }

    fn seeds(&self) -> usize {
        self.runs.seeds as usize
    }

    fn run(&self, point: &[usize], ask: &Ask<'_>) -> Result<Option<Vec<Run>>, SiteError> {
        let (scenario, cases) = self.cases(point)?;
        let (entry, params) = resolve_policy(&scenario.policy.name, &scenario.policy.params)
            .map_err(|complaint| SiteError::Policy(complaint.message))?;
        let sweep: IndexMap<String, String> =
            self.space.at(point).map(|(axis, value)| (axis.name.clone(), value.to_owned())).collect();
        let failed = |source| {
            let set = sweep.iter().map(|(name, value)| format!("{name}={value}"));
            SiteError::Run { point: set.collect::<Vec<_>>().join(", "), source }
        };
        let run = |case: &Case| {
            let case = replica(case, self.space.replicas(point)).map_err(failed)?;
            let changed = match ask.with {
                None => Some(case),
                Some((resource, percent)) => (resource.change)(&case, percent),
            };
            let Some(case) = changed else { return Ok(None) };
            let run = || self.simulate(&case, (entry, &params), ask.until).map_err(failed);
            let run = match self.runs.journal {
                None => run(),
                Some(journal) => {
                    let of_case = digest::of_cases(std::slice::from_ref(&case))[0];
                    let of_run = digest::of_run(of_case, Some((entry.name, &params)));
                    let what = format!("plan, p{}, until {:?}", self.runs.percentile, ask.until);
                    let key = digest::of_figures(of_run, &what);
                    let Scenario { name: scenario, .. } = &scenario;
                    let entry =
                        journal::Entry { key, scenario, sweep: &sweep, policy: entry.name, seed: case.seed };
                    let run = || Ok(Some(kept(run()?, ask.until)));
                    journal.finished(&entry, &kept_names(), run).map(|kept| finished(kept, ask.until))
                }
            };
            (self.heard)(Heard::Finished);
            run.map(Some)
        };
        let asked = cases.get(ask.seeds.clone()).unwrap_or_default();
        let runs: Vec<Result<Option<Run>, SiteError>> = asked.par_iter().map(run).collect();
        runs.into_iter().collect()
    }

    fn expect(&self, points: usize) {
        (self.heard)(Heard::Expected(points as u64 * self.runs.seeds));
    }
}

/// The names under which a run is kept: of its figures, and of where it was stopped.
fn kept_names() -> Vec<&'static str> {
    names().into_iter().chain(["stopped_by", "stopped_after"]).collect()
}

/// A run as numbers, in the order of their names; a limit by its place.
fn kept(run: Run, until: &[Bound]) -> Vec<f64> {
    match run {
        Run::Whole(figures) => [&figures[..], &[f64::NAN; 2]].concat(),
        Run::Stopped(Stopped { metric, after, .. }) => {
            let by = until.iter().position(|bound| bound.metric == metric).map_or(f64::NAN, |by| by as f64);
            [&[f64::NAN; COUNT][..], &[by, after]].concat()
        }
    }
}

/// The run that numbers stand for.
fn finished(kept: Option<Vec<f64>>, until: &[Bound]) -> Run {
    let kept = kept.unwrap_or_default();
    let number = |place: usize| kept.get(place).copied().unwrap_or(f64::NAN);
    let (by, after) = (number(COUNT), number(COUNT + 1));
    match until.get(by as usize).filter(|_| !by.is_nan()) {
        Some(bound) => Run::Stopped(Stopped { metric: bound.metric, limit: bound.limit_ms, after }),
        None => Run::Whole(std::array::from_fn(number)),
    }
}
