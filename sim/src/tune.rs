//! A policy's parameters searched in simulation, on some requests, to be judged on others.
//!
//! The search is a tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), one for each parameter. It looks at
//! the order of the results only, so constraints come down to an order, and it copes with whole numbers and switches. The
//! first point is the policy as given; a quarter of the budget is drawn evenly; the rest is asked for in rounds of one size,
//! so that the search does not depend on how many runs are done at once.

mod apart;
mod objective;
mod space;

pub use apart::{Shared, shared};
pub use objective::{Constraint, ConstraintError, Objective, Score, mean};
pub use space::{Space, SpaceError};

use crate::report::Summary;
use crate::simulate::{Case, Keep, RunFailure};
use policy::registry::Entry;
use rand_distr::{Distribution, Uniform};
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;
use std::collections::BTreeMap;
use thiserror::Error;
use tpe::TpeOptimizer;

/// Points of one round.
const ROUND: usize = 8;

/// A search.
#[derive(Clone, Debug)]
pub struct Search<'a> {
    /// What is searched.
    pub space: &'a Space,
    /// The policy's parameters as given: where the search starts, and what is not searched.
    pub start: &'a [f64],
    /// What is wanted.
    pub objective: &'a Objective,
    /// What it is tried on.
    pub train: &'a [Case],
    /// Points to try, the given one included.
    pub evaluations: usize,
    /// The seed of the search.
    pub seed: u64,
}

/// The best point of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The policy's parameters.
    pub params: Vec<f64>,
    /// How good they are on what they were tried on.
    pub score: Score,
    /// How good the given ones are.
    pub start: Score,
}

/// Why a search ended early.
#[derive(Debug, Error)]
pub enum TuneError {
    /// A run failed or could not begin.
    #[error(transparent)]
    Run(#[from] RunFailure),
    /// The runs have no value of the objective.
    #[error("the runs have no sample of {0}; choose another figure")]
    NoSample(String),
    /// The optimiser refused a point.
    #[error("the search failed: {0}")]
    Optimiser(String),
}

/// Runs a policy on every case, in parallel.
///
/// # Errors
/// The first run that fails.
pub fn evaluate(entry: &Entry, params: &[f64], cases: &[Case]) -> Result<Vec<Summary>, RunFailure> {
    let run = |case: &Case| {
        let outcome = case.run(entry, params, Keep::default(), |_| {})?;
        Ok(Summary::new(case, &outcome, entry.name, 0.0))
    };
    let runs: Vec<Result<Summary, RunFailure>> = cases.par_iter().map(run).collect();
    runs.into_iter().collect()
}

/// Searches. The best of equals is the one that was tried first, so nothing is changed for nothing. `done` is called once
/// a point.
///
/// # Errors
/// A run fails, or the objective has no value.
pub fn search(search: &Search<'_>, mut done: impl FnMut()) -> Result<Found, TuneError> {
    let Search { space, start, objective, evaluations, seed, .. } = *search;
    let mut tried = Tried { search, scores: BTreeMap::new() };
    let begin = tried.score(&[start.to_vec()])?[0];
    if begin.violation == 0.0 && begin.value.is_nan() {
        return Err(TuneError::NoSample(objective.figure.name().to_owned()));
    }
    done();
    let mut best = Found { params: start.to_vec(), score: begin, start: begin };
    let mut parzen = Parzen::new(space.dimensions(), seed)?;
    parzen.tell(&space.point(start), begin.rank())?;
    let mut left = evaluations.saturating_sub(1);
    let even = left / 4;
    while left > 0 {
        let drawn = evaluations.saturating_sub(1) - left;
        let round = ROUND.min(left).min(if drawn < even { even - drawn } else { left });
        let points: Vec<Vec<f64>> = (0..round)
            .map(|_| if drawn < even { Ok(parzen.even()) } else { parzen.ask() })
            .collect::<Result<_, _>>()?;
        let candidates: Vec<Vec<f64>> = points.iter().map(|point| space.params(point, start)).collect();
        for (params, score) in candidates.iter().zip(tried.score(&candidates)?) {
            parzen.tell(&space.point(params), score.rank())?;
            if score.rank() < best.score.rank() {
                best = Found { params: params.clone(), score, start: begin };
            }
            done();
        }
        left -= round;
    }
    Ok(best)
}

/// Points that were tried: whole numbers and few digits come up again.
struct Tried<'a> {
    search: &'a Search<'a>,
    scores: BTreeMap<Vec<u64>, Score>,
}

impl Tried<'_> {
    fn score(&mut self, candidates: &[Vec<f64>]) -> Result<Vec<Score>, RunFailure> {
        let key = |params: &[f64]| params.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let Search { space, objective, train, .. } = *self.search;
        let mut new: Vec<&Vec<f64>> = Vec::new();
        for params in candidates {
            if !self.scores.contains_key(&key(params)) && !new.contains(&params) {
                new.push(params);
            }
        }
        let score = |params: &&Vec<f64>| Ok(objective.score(&evaluate(space.entry(), params, train)?));
        let scores: Vec<Result<Score, RunFailure>> = new.par_iter().map(score).collect();
        for (params, score) in new.into_iter().zip(scores) {
            self.scores.insert(key(params), score?);
        }
        Ok(candidates.iter().filter_map(|params| self.scores.get(&key(params)).copied()).collect())
    }
}

/// An estimator for each parameter, and the numbers that they draw.
struct Parzen {
    estimators: Vec<TpeOptimizer>,
    random: Pcg64Mcg,
}

impl Parzen {
    fn new(dimensions: usize, seed: u64) -> Result<Parzen, TuneError> {
        let unit = tpe::range(0.0, 1.0).map_err(|error| TuneError::Optimiser(error.to_string()))?;
        let estimator = || TpeOptimizer::new(tpe::parzen_estimator(), unit);
        let random = Pcg64Mcg::new(u128::from(seed) << 1 | 1);
        Ok(Parzen { estimators: std::iter::repeat_with(estimator).take(dimensions).collect(), random })
    }

    /// A point drawn evenly.
    fn even(&mut self) -> Vec<f64> {
        let Ok(unit) = Uniform::new(0.0, 1.0) else { return Vec::new() };
        self.estimators.iter().map(|_| unit.sample(&mut self.random)).collect()
    }

    /// A point that is likely to be good.
    fn ask(&mut self) -> Result<Vec<f64>, TuneError> {
        let Parzen { estimators, random } = self;
        let ask = |estimator: &mut TpeOptimizer| {
            estimator.ask(random).map_err(|error| TuneError::Optimiser(error.to_string()))
        };
        estimators.iter_mut().map(ask).collect()
    }

    fn tell(&mut self, point: &[f64], rank: f64) -> Result<(), TuneError> {
        self.estimators.iter_mut().zip(point).try_for_each(|(estimator, &place)| {
            estimator.tell(place, rank).map_err(|error| TuneError::Optimiser(error.to_string()))
        })
    }
}
