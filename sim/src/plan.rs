//! Capacity planning: the least configuration that meets a service objective, what binds there, and what more would buy.
//!
//! A configuration is a point of a grid: values of a scenario, and how many machines share its load. What it takes
//! (price, bytes, machines) is known without a run; whether it meets the objective is what runs are for. Small grids are
//! run whole; larger ones are searched by bisection, since more memory or more machines are hardly ever worse; those with
//! too many values beside that, by a genetic search over several objectives, and then by bisection below the best. Every point has a
//! run a seed, and meets an objective with the upper end of the interval over the seeds, so that the answer says how
//! sure it is. A run that is hopelessly beyond an objective is stopped as soon as that is certain, and speaks for its point; so does
//! one as far below, until its point is the answer.

mod binding;
mod cutoff;
pub mod figures;
mod front;
mod genetic;
mod goal;
mod page;
mod replica;
pub mod resources;
mod search;
mod site;
mod space;
#[cfg(test)]
mod tests;
mod trials;

pub use binding::{Binding, Gain, Less, Step};
pub use cutoff::{Run, Stopped};
pub use front::front;
pub use goal::{Bound, Candidate, HOPELESS, Minimize, Tried, bounds};
pub use page::page;
pub use replica::replica;
pub use site::{Heard, Runs, Site, SiteError};
pub use space::{Axis, AxisError, COUNT, Point, Space};
pub use trials::{Ask, Bench};

use genetic::Genetic;
use search::{Found, Search};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use thiserror::Error;
use trials::Trials;

/// The largest grid that is listed: a scenario is read for each of its points.
const MOST_LISTED: usize = 4096;
/// A grid of this many points or fewer is run whole.
const SMALL: usize = 12;
/// Configurations beside the best one that are run for the front.
const BESIDE: usize = 6;

/// How points were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Every point was run.
    Exhaustive,
    /// By bisection.
    Bisection,
    /// By NSGA-II, then by bisection.
    Nsga2,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// What may vary.
    pub space: &'q Space,
    /// What has to be met.
    pub bounds: &'q [Bound],
    /// What is to be small.
    pub minimize: Minimize,
    /// Run every point, and every run to its end.
    pub exhaustive: bool,
    /// The most points that a search runs.
    pub evaluations: usize,
    /// The seed of a genetic search.
    pub search_seed: u64,
}

impl Question<'_> {
    /// How points are chosen: bisection needs directions that grow, and a run or two in each of the others.
    fn method(&self) -> Method {
        let points = self.space.len();
        if self.exhaustive || points <= SMALL {
            Method::Exhaustive
        } else if points <= MOST_LISTED && self.space.branches() <= self.evaluations / 2 {
            Method::Bisection
        } else {
            Method::Nsga2
        }
    }

    /// About how many points an answer takes: those of the search, of the front, and of what binds.
    fn rounds(&self) -> usize {
        let points = self.space.len();
        let search = match self.method() {
            Method::Exhaustive => points,
            Method::Bisection => (points.ilog2() as usize + 1).min(self.evaluations),
            Method::Nsga2 => self.evaluations,
        };
        search + 2 * resources::RESOURCES.len()
    }
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The least configuration that meets the objectives.
    pub best: Option<Arc<Tried>>,
    /// Where there is none, the one that misses them by the least.
    pub nearest: Option<Arc<Tried>>,
    /// What binds at the one or the other.
    pub binding: Option<Binding>,
    /// What 10 % more of each resource buys there.
    pub sensitivity: Vec<Gain>,
    /// Where nothing meets the objectives: what each resource without a limit would come to.
    pub unlimited: Vec<Gain>,
    /// The points that no other one beats in everything, the least first.
    pub front: Vec<Arc<Tried>>,
    /// All points that were run, the least first.
    pub tried: Vec<Arc<Tried>>,
    /// Points of the grid.
    pub points: usize,
    /// Points that cannot be, where the grid was listed.
    pub misfits: Option<usize>,
    /// Points left out because one with less memory has room for everything too.
    pub surplus: usize,
    /// How points were chosen.
    pub method: Method,
    /// Whether the search had to end before it was done.
    pub cut_short: bool,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum PlanError<E, M> {
    /// A run or a scenario failed.
    #[error("{0}")]
    Bench(E),
    /// A value of an axis fits no configuration, or no configuration fits.
    #[error("a value cannot be")]
    Misfit(M),
    /// The price of some machines is not known.
    #[error("{} no price: give its file `price: {{ per_hour: 3.99 USD, date: 2026-11-09, source: ... }}`, or ask for `--minimize memory` or `--minimize machines`", have(.0))]
    NoPrice(Vec<String>),
    /// Machines are priced in several currencies.
    #[error("machines are priced in {}: give all prices in one currency", .0.join(" and in "))]
    Currencies(Vec<String>),
}

fn have(machines: &[String]) -> String {
    format!("{} {}", machines.join(", "), if machines.len() == 1 { "has" } else { "have" })
}

type Answer<T, B> = Result<T, PlanError<<B as Bench>::Error, <B as Bench>::Misfit>>;

/// Answers a question.
///
/// # Errors
/// See [`PlanError`].
pub fn plan<B: Bench>(question: &Question<'_>, bench: &B) -> Answer<Plan, B> {
    let points = question.space.len();
    let budget = if question.exhaustive { usize::MAX } else { question.evaluations };
    let trials = Trials::new(bench, question.bounds, budget, question.exhaustive);
    bench.expect(question.rounds());
    let method = question.method();
    let listed = question.exhaustive || points <= MOST_LISTED;
    let grid = listed.then(|| Grid::list(question, bench, &question.space.points())).transpose()?;
    grid.iter().try_for_each(|grid| grid.every_value_fits(question.space))?;
    let misfits = grid.as_ref().map(|grid| grid.misfits.len());
    let (grid, surplus) = match grid {
        Some(grid) if !question.exhaustive => {
            let surplus = grid.surplus(question.space);
            let left = grid.candidates.iter().filter(|candidate| !surplus.contains(&candidate.point));
            (Some(Grid { candidates: left.cloned().collect(), ..grid }), surplus.len())
        }
        grid => (grid, 0),
    };
    let (best, cut_short) = match grid.filter(|_| method != Method::Nsga2) {
        Some(grid) => grid.search(question, &trials, method)?,
        None => evolve(question, &trials)?,
    };
    let nearest = match best {
        None => nearest(&trials, question.minimize).map_err(PlanError::Bench)?,
        Some(_) => None,
    };
    let at = best.as_ref().or(nearest.as_ref());
    let report = at.map(|at| binding::report(question, &trials, at)).transpose().map_err(PlanError::Bench)?;
    let (binding, sensitivity, unlimited) = report.unwrap_or_default();
    let tried = in_order(trials.all(), question.minimize);
    let front = front(&tried, question.bounds);
    Ok(Plan {
        best,
        nearest,
        binding,
        sensitivity,
        unlimited,
        front,
        tried,
        points,
        misfits,
        surplus,
        method,
        cut_short,
    })
}

/// What misses the objectives by the least, of what was run, which is then run to its end.
fn nearest<B: Bench>(trials: &Trials<'_, B>, minimize: Minimize) -> Result<Option<Arc<Tried>>, B::Error> {
    trials.finish()?;
    let tried = in_order(trials.all(), minimize);
    Ok(tried.into_iter().min_by(|a, b| a.violation.total_cmp(&b.violation)))
}

fn in_order(mut tried: Vec<Arc<Tried>>, minimize: Minimize) -> Vec<Arc<Tried>> {
    tried.sort_by(|a, b| a.candidate.rank(minimize).cmp(&b.candidate.rank(minimize)));
    tried
}

/// The points of a grid, looked up.
struct Grid<M> {
    /// Those that can be, the least first.
    candidates: Vec<Candidate>,
    /// Why the others cannot.
    misfits: BTreeMap<Point, M>,
}

impl<M: Clone + Send> Grid<M> {
    fn list<B: Bench<Misfit = M>>(
        question: &Question<'_>,
        bench: &B,
        points: &[Point],
    ) -> Answer<Grid<M>, B> {
        let (mut candidates, mut misfits) = (Vec::new(), BTreeMap::new());
        for point in points {
            match bench.describe(point).map_err(PlanError::Bench)? {
                Ok(candidate) => candidates.push(candidate),
                Err(misfit) => drop(misfits.insert(point.clone(), misfit)),
            }
        }
        if question.minimize == Minimize::Cost {
            check_prices(&candidates)?;
        }
        candidates.sort_by(|a, b| a.rank(question.minimize).cmp(&b.rank(question.minimize)));
        Ok(Grid { candidates, misfits })
    }

    /// A value that goes with no other values is a slip. Of a range, some may not fit.
    fn every_value_fits<E>(&self, space: &Space) -> Result<(), PlanError<E, M>> {
        for (place, axis) in space.axes().iter().enumerate() {
            let fitting: BTreeSet<usize> =
                self.candidates.iter().map(|candidate| candidate.point[place]).collect();
            let slip = |value: &usize| !fitting.contains(value) && (!axis.grows || fitting.is_empty());
            // Where nothing fits at all, the most of everything says best why.
            let Some(value) = (0..axis.values.len()).rev().find(slip) else { continue };
            let with = self.misfits.iter().rev().find(|(point, _)| point[place] == value);
            if let Some((_, misfit)) = with {
                return Err(PlanError::Misfit(misfit.clone()));
            }
        }
        Ok(())
    }

    /// The points beside which one with a step less fast memory has room for everything too: they are the same machine.
    fn surplus(&self, space: &Space) -> BTreeSet<Point> {
        let roomy: BTreeMap<&Point, &String> =
            self.candidates.iter().filter_map(|at| Some((&at.point, at.roomy.as_ref()?))).collect();
        let surplus = |point: &Point, cap: &String| {
            let less = space.below(point).find(|(place, _)| space.axes()[*place].path.as_ref() == Some(cap));
            less.is_some_and(|(_, less)| roomy.contains_key(&less))
        };
        roomy.iter().filter(|(point, cap)| surplus(point, cap)).map(|(point, _)| (*point).clone()).collect()
    }

    fn search<B: Bench<Misfit = M>>(
        &self,
        question: &Question<'_>,
        trials: &Trials<'_, B>,
        method: Method,
    ) -> Answer<Found, B> {
        let Question { space, minimize, .. } = *question;
        let search = Search { space, minimize, candidates: &self.candidates };
        if method == Method::Exhaustive {
            return Ok((search.exhaust(trials).map_err(PlanError::Bench)?, false));
        }
        let found = search.bisect(trials).map_err(PlanError::Bench)?;
        let beside: Vec<&Candidate> = self.largest(space).take(BESIDE.min(trials.left())).collect();
        trials.run_all(&beside).map_err(PlanError::Bench)?;
        Ok(found)
    }

    /// The candidates that no other one has more than: the far ends of the front.
    fn largest<'g>(&'g self, space: &'g Space) -> impl Iterator<Item = &'g Candidate> {
        let all = &self.candidates;
        let larger = |one: &Candidate| {
            all.iter().any(|other| other.point != one.point && space.within(&one.point, &other.point))
        };
        all.iter().filter(move |candidate| !larger(candidate))
    }
}

/// The genetic search, and bisection from the best that it finds.
fn evolve<B: Bench>(question: &Question<'_>, trials: &Trials<'_, B>) -> Answer<Found, B> {
    let Question { space, bounds, minimize, evaluations, search_seed, .. } = *question;
    // What bisection needs comes off the same budget.
    let misfit = Genetic::new(space, trials, bounds, minimize)
        .run(evaluations - evaluations / 4, search_seed)
        .map_err(PlanError::Bench)?;
    let found = in_order(trials.all(), minimize);
    if let (true, Some(misfit)) = (found.is_empty(), misfit) {
        return Err(PlanError::Misfit(misfit));
    }
    if minimize == Minimize::Cost {
        check_prices(&found.iter().map(|tried| tried.candidate.clone()).collect::<Vec<_>>())?;
    }
    let Some(best) = found.iter().find(|tried| tried.meets()) else { return Ok((None, false)) };
    let within = space.lattice_below(&best.candidate.point, MOST_LISTED);
    let grid = Grid::list(question, trials.bench, &within)?;
    let search = Search { space, minimize, candidates: &grid.candidates };
    let (found, cut_short) = search.bisect(trials).map_err(PlanError::Bench)?;
    let best = if found.is_some() { found } else { Some(trials.settle(best).map_err(PlanError::Bench)?) };
    Ok((best.filter(|best| best.meets()), cut_short))
}

/// Prices can be compared, or there is but one machine.
fn check_prices<E, M>(candidates: &[Candidate]) -> Result<(), PlanError<E, M>> {
    let machines: BTreeSet<&str> = candidates.iter().map(|candidate| candidate.machine.as_str()).collect();
    let without = candidates.iter().filter(|candidate| candidate.price.is_none());
    let without: BTreeSet<String> = without.map(|candidate| candidate.machine.clone()).collect();
    if machines.len() > 1 && !without.is_empty() {
        return Err(PlanError::NoPrice(without.into_iter().collect()));
    }
    let prices = candidates.iter().filter_map(|candidate| candidate.price.as_ref());
    let currencies: BTreeSet<String> = prices.map(|price| price.currency.clone()).collect();
    match currencies.len() {
        0 | 1 => Ok(()),
        _ => Err(PlanError::Currencies(currencies.into_iter().collect())),
    }
}
