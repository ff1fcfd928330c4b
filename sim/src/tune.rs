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

use crate::experiment::{Journal, JournalError, digest, journal};
use crate::metric::Figure;
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
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// What is searched.
    pub space: &'a Space,
    /// The policy's parameters as given: where the search starts, and what is not searched.
    pub start: &'a [f64],
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
}

/// Why a search ended early.
#[derive(Debug, Error)]
pub enum TuneError {
    /// A run failed or could not begin.
    #[error(transparent)]
    Run(#[from] RunFailure),
    /// Finished runs cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
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

impl Search<'_> {
    /// Searches by runs on `train`, those that the journal holds aside. `done` is called once for each run point, from any
    /// thread.
    ///
    /// # Errors
    /// A run fails.
    pub fn on(
        &self,
        train: &[Case],
        objective: &Objective,
        journal: Option<&Journal>,
        done: impl Fn() + Sync,
    ) -> Result<Found, TuneError> {
        let entry = self.space.entry();
        let kept = journal.map(|journal| Kept { journal, entry, digests: digest::of_cases(train) });
        let run = |params: &[f64], place: usize| {
            let run = || {
                let outcome = train[place].run(entry, params, Keep::default(), |_| {})?;
                let summary = Summary::new(&train[place], &outcome, entry.name, 0.0);
                Ok(objective.figures().map(|figure| figure.of(&summary)).collect())
            };
            match &kept {
                Some(kept) => kept.finished(objective, params, (place, train[place].seed), run),
                None => run(),
            }
        };
        self.by(|points| {
            let score = |params: &Vec<f64>| {
                let runs: Vec<_> = (0..train.len()).into_par_iter().map(|place| run(params, place)).collect();
                done();
                let runs = runs.into_iter().collect::<Result<Vec<_>, _>>()?;
                Ok(objective.score(&runs))
            };
            let scores: Vec<Result<Score, TuneError>> = points.par_iter().map(score).collect();
            scores.into_iter().collect()
        })
    }

    /// Searches by what `score` says of points. The best of equals is the one that was tried first, so that nothing is
    /// changed for nothing.
    fn by(
        &self,
        mut score: impl FnMut(&[Vec<f64>]) -> Result<Vec<Score>, TuneError>,
    ) -> Result<Found, TuneError> {
        let Search { space, start, evaluations, seed } = *self;
        let mut tried = Tried(BTreeMap::new());
        let mut parzen = Parzen::new(space.dimensions(), seed)?;
        let mut best: Option<Found> = None;
        let mut round = vec![start.to_vec()];
        let mut told = 0;
        while !round.is_empty() {
            for (params, score) in round.iter().zip(tried.scores(&round, &mut score)?) {
                parzen.tell(&space.point(params), score.rank())?;
                if best.as_ref().is_none_or(|best| score.rank() < best.score.rank()) {
                    best = Some(Found { params: params.clone(), score });
                }
            }
            told += round.len();
            let size = ROUND.min(evaluations.saturating_sub(told));
            let points = (0..size).map(|next| match told + next <= evaluations / 4 {
                true => Ok(parzen.even()),
                false => parzen.ask(),
            });
            let points: Vec<Vec<f64>> = points.collect::<Result<_, _>>()?;
            round = points.iter().map(|point| space.params(point, start)).collect();
        }
        best.ok_or_else(|| TuneError::Optimiser("there was no point to try".to_owned()))
    }
}

/// Finished runs of a policy on cases with these digests.
struct Kept<'k> {
    journal: &'k Journal,
    entry: &'static Entry,
    digests: Vec<u128>,
}

impl Kept<'_> {
    /// The figures of the objective in the run on a case.
    fn finished(
        &self,
        objective: &Objective,
        params: &[f64],
        (place, seed): (usize, u64),
        run: impl FnOnce() -> Result<Vec<f64>, TuneError>,
    ) -> Result<Vec<f64>, TuneError> {
        let names: Vec<&str> = objective.figures().map(Figure::name).collect();
        let of_run = digest::of_run(self.digests[place], Some((self.entry.name, params)));
        let values = self.entry.params.iter().zip(params);
        let entry = journal::Entry {
            key: digest::of_figures(of_run, &names.join(",")),
            scenario: "tune",
            sweep: &values.map(|(param, value)| (param.name.to_owned(), value.to_string())).collect(),
            policy: self.entry.name,
            seed,
        };
        let kept = self.journal.finished(&entry, &names, || run().map(Some))?;
        // A run has figures.
        kept.ok_or_else(|| TuneError::Optimiser("a finished run without figures is kept".to_owned()))
    }
}

/// What was tried: whole numbers and few digits come up again.
struct Tried(BTreeMap<Vec<u64>, Score>);

impl Tried {
    fn scores(
        &mut self,
        points: &[Vec<f64>],
        mut score: impl FnMut(&[Vec<f64>]) -> Result<Vec<Score>, TuneError>,
    ) -> Result<Vec<Score>, TuneError> {
        let key = |params: &[f64]| params.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let mut new: Vec<Vec<f64>> = Vec::new();
        for params in points {
            if !self.0.contains_key(&key(params)) && !new.contains(params) {
                new.push(params.clone());
            }
        }
        let scores = score(&new)?;
        self.0.extend(new.iter().map(|params| key(params)).zip(scores));
        Ok(points.iter().filter_map(|params| self.0.get(&key(params)).copied()).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use policy::registry::lookup;

    /// How far the best of so many points is from the least of a bowl over three parameters of different scales, where
    /// only points right of a wall are allowed.
    fn distance(evaluations: usize, seed: u64) -> f64 {
        let entry = lookup("predictive").unwrap();
        let names = ["horizon", "ahead", "confidence"].map(String::from);
        let space = Space::new(entry, &names).unwrap();
        let start: Vec<f64> = entry.params.iter().map(|param| param.default).collect();
        let value = |params: &[f64], name: &str| {
            params[entry.params.iter().position(|param| param.name == name).unwrap()]
        };
        let bowl = |params: &Vec<f64>| {
            let horizon = (value(params, "horizon").ln_1p() - 40_f64.ln_1p()) / 11.5;
            let ahead = (value(params, "ahead") - 5.0) / 24.0;
            let confidence = (value(params, "confidence") - 2.0) / 5.0;
            Score {
                violation: (2.0 - value(params, "confidence")).max(0.0),
                value: horizon * horizon + ahead * ahead + confidence * confidence,
            }
        };
        let search = Search { space: &space, start: &start, evaluations, seed };
        let mut points = 0;
        let found = search.by(|new| {
            points += new.len();
            Ok(new.iter().map(bowl).collect())
        });
        let found = found.unwrap();
        assert!(points <= evaluations && found.score.violation == 0.0);
        found.score.value.sqrt()
    }

    #[test]
    fn the_least_is_found_closer_with_more_points_and_than_by_chance() {
        let mean = |evaluations| (0..20).map(|seed| distance(evaluations, seed)).sum::<f64>() / 20.0;
        let (few, many) = (mean(16), mean(128));
        assert!(many < 0.05 && many < few / 2.0, "{few} {many}");
        // Points drawn evenly come within r of the least, in half of a ball of volume 4/3 pi r^3, with 128 tries and even
        // odds at r = (ln 2 / 128 / (2/3 pi))^(1/3) = 0.137.
        assert!(many < 0.137 / 2.0, "{many}");
    }

    #[test]
    fn one_seed_is_one_search_and_nothing_is_changed_for_nothing() {
        assert_eq!(distance(40, 3), distance(40, 3));
        assert_ne!(distance(40, 3), distance(40, 4));
        let entry = lookup("predictive").unwrap();
        let space = Space::new(entry, &[]).unwrap();
        let start: Vec<f64> = entry.params.iter().map(|param| param.default).collect();
        let search = Search { space: &space, start: &start, evaluations: 30, seed: 1 };
        let flat = |points: &[Vec<f64>]| Ok(vec![Score { violation: 0.0, value: 1.0 }; points.len()]);
        assert_eq!(search.by(flat).unwrap().params, start);
    }
}
