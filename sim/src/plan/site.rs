//! Points of a scenario, loaded and simulated.

use super::figures::{Figures, figures, names};
use super::goal::Candidate;
use super::replica::replica;
use super::resources::Resource;
use super::space::Space;
use super::trials::Bench;
use crate::experiment::journal::Entry;
use crate::experiment::{Journal, JournalError, digest};
use crate::resolve::{Library, SeedsError, check_policy, resolve_policy};
use crate::simulate::{Case, Keep, RunFailure};
use indexmap::IndexMap;
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

    /// The runs of a point, each on its case as `change` makes it; `None` where that leaves it as it is.
    fn figures(
        &self,
        point: &[usize],
        change: impl Fn(&Case) -> Option<Case> + Sync,
    ) -> Result<Option<Vec<Figures>>, SiteError> {
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
            let Some(case) = change(&case) else { return Ok(None) };
            let run = || {
                let outcome = case.run(entry, &params, Keep::default(), |_| {}).map_err(failed)?;
                Ok(Some(figures(&case, &outcome, entry.name, self.runs.percentile)))
            };
            let figures = match self.runs.journal {
                None => run(),
                Some(journal) => {
                    let of_case = digest::of_cases(std::slice::from_ref(&case))[0];
                    let of_run = digest::of_run(of_case, Some((entry.name, &params)));
                    let key = digest::of_figures(of_run, &format!("plan, p{}", self.runs.percentile));
                    let Scenario { name: scenario, .. } = &scenario;
                    let entry = Entry { key, scenario, sweep: &sweep, policy: entry.name, seed: case.seed };
                    let run = || Ok::<_, SiteError>(run()?.map(|figures: Figures| figures.to_vec()));
                    let kept = journal.finished(&entry, &names(), run);
                    kept.map(|kept| kept.and_then(|figures| Figures::try_from(figures).ok()))
                }
            };
            (self.heard)(Heard::Finished);
            figures
        };
        let runs: Vec<Result<Option<Figures>, SiteError>> = cases.par_iter().map(run).collect();
        runs.into_iter().collect()
    }
}

impl Bench for Site<'_> {
    type Error = SiteError;
    type Misfit = Diagnostics;

    fn describe(&self, point: &[usize]) -> Result<Result<Candidate, Diagnostics>, SiteError> {
        let scenario = scenarios::load(self.runs.scenario, &self.set_at(point), &check_policy);
        Ok(scenario.map(|scenario| Candidate::new(point, self.space.replicas(point), &scenario)))
    }

    fn run(&self, point: &[usize]) -> Result<Vec<Figures>, SiteError> {
        Ok(self.figures(point, |case| Some(case.clone()))?.unwrap_or_default())
    }

    fn run_with(
        &self,
        point: &[usize],
        resource: &Resource,
        percent: u64,
    ) -> Result<Option<Vec<Figures>>, SiteError> {
        self.figures(point, |case| (resource.change)(case, percent))
    }

    fn expect(&self, points: usize) {
        (self.heard)(Heard::Expected(points as u64 * self.runs.seeds));
    }
}
