//! Points of a scenario, loaded and simulated.

use super::figures::{Figures, figures};
use super::goal::Candidate;
use super::replica::replica;
use super::resources::Resource;
use super::space::Space;
use super::trials::Bench;
use crate::resolve::{Library, SeedsError, check_policy, resolve_policy};
use crate::simulate::{Case, Keep, RunFailure};
use rayon::prelude::*;
use scenarios::{Diagnostics, Scenario};
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// Where the points of a scenario are run.
pub struct Site<'s> {
    scenario: &'s str,
    set: &'s [(String, String)],
    space: &'s Space,
    seeds: u64,
    percentile: f64,
    library: Mutex<Library>,
    heard: &'s (dyn Fn() + Sync),
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
    /// A run failed.
    #[error("{point}: {source}")]
    Run {
        /// The point, as it would be set.
        point: String,
        /// Why.
        source: RunFailure,
    },
}

impl<'s> Site<'s> {
    /// A scenario with what is set in it at every point, run with so many seeds; `heard` is called once for each run, from any
    /// thread. Latencies are those that `percentile` per cent of the requests keep below.
    pub fn new(
        (scenario, set): (&'s str, &'s [(String, String)]),
        space: &'s Space,
        seeds: u64,
        percentile: f64,
        heard: &'s (dyn Fn() + Sync),
    ) -> Site<'s> {
        Site { scenario, set, space, seeds, percentile, library: Mutex::default(), heard }
    }

    fn set_at(&self, point: &[usize]) -> Vec<(String, String)> {
        [self.set, &self.space.overrides(point)].concat()
    }

    fn cases(&self, point: &[usize]) -> Result<(Scenario, Vec<Case>), SiteError> {
        let mut library = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(library.seeds(self.scenario, &self.set_at(point), self.seeds)?)
    }

    fn figures(
        &self,
        point: &[usize],
        change: impl Fn(&Case) -> Option<Case> + Sync,
    ) -> Result<Option<Vec<Figures>>, SiteError> {
        let (scenario, cases) = self.cases(point)?;
        let (entry, params) = resolve_policy(&scenario.policy.name, &scenario.policy.params)
            .map_err(|complaint| SiteError::Policy(complaint.message))?;
        let run = |case: &Case| {
            let case = replica(case, self.space.replicas(point))?;
            let Some(case) = change(&case) else { return Ok(None) };
            let outcome = case.run(entry, &params, Keep::default(), |_| {})?;
            (self.heard)();
            Ok(Some(figures(&case, &outcome, entry.name, self.percentile)))
        };
        let runs: Vec<Result<Option<Figures>, RunFailure>> = cases.par_iter().map(run).collect();
        let named = |source| {
            let at = self.space.at(point).map(|(axis, value)| format!("{}={value}", axis.name));
            SiteError::Run { point: at.collect::<Vec<_>>().join(", "), source }
        };
        runs.into_iter().collect::<Result<Option<Vec<_>>, _>>().map_err(named)
    }
}

impl Bench for Site<'_> {
    type Error = SiteError;
    type Misfit = Diagnostics;

    fn describe(&self, point: &[usize]) -> Result<Result<Candidate, Diagnostics>, SiteError> {
        let scenario = scenarios::load(self.scenario, &self.set_at(point), &check_policy);
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
}
