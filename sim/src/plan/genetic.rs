//! Grids too large to list: NSGA-II (Deb et al., IEEE Transactions on Evolutionary Computation 2002) over the price, the
//! objectives' latencies and the throughput.

use super::figures::THROUGHPUT;
use super::goal::{Bound, Candidate, Minimize};
use super::space::{Point, Space};
use super::trials::{Bench, Trials};
use heuropt::core::evaluation::Evaluation;
use heuropt::core::objective::{Objective, ObjectiveSpace};
use heuropt::core::problem::Problem;
use heuropt::prelude::{
    CompositeVariation, Nsga2, Nsga2Config, Optimizer, PolynomialMutation, RealBounds,
    SimulatedBinaryCrossover,
};
use std::sync::{Mutex, PoisonError};

/// Points of a generation.
const POPULATION: usize = 16;
/// The distribution indices of crossover and mutation, as in the paper.
const ETA: f64 = 20.0;
const CROSSOVER: f64 = 0.9;
/// Worse than any figure, and still a number.
const WORST: f64 = 1e18;

/// The search.
pub(super) struct Genetic<'g, B: Bench> {
    pub(super) space: &'g Space,
    pub(super) trials: &'g Trials<'g, B>,
    pub(super) bounds: &'g [Bound],
    pub(super) minimize: Minimize,
    /// The first error, by point.
    failed: Mutex<Option<(Point, B::Error)>>,
    /// Why a point cannot be, of the least such point.
    misfit: Mutex<Option<(Point, B::Misfit)>>,
}

impl<'g, B: Bench> Genetic<'g, B> {
    pub(super) fn new(
        space: &'g Space,
        trials: &'g Trials<'g, B>,
        bounds: &'g [Bound],
        minimize: Minimize,
    ) -> Self {
        Genetic { space, trials, bounds, minimize, failed: Mutex::default(), misfit: Mutex::default() }
    }

    /// Runs so many generations, the first included. Answers with why a point could not be, if any could not.
    pub(super) fn run(self, budget: usize, seed: u64) -> Result<Option<B::Misfit>, B::Error> {
        let bounds = vec![(0.0, 1.0); self.space.axes().len()];
        let config = Nsga2Config {
            population_size: POPULATION,
            generations: (budget / POPULATION).saturating_sub(1),
            seed,
        };
        let share = 1.0 / bounds.len().max(1) as f64;
        let variation = CompositeVariation {
            crossover: SimulatedBinaryCrossover::new(bounds.clone(), ETA, CROSSOVER),
            mutation: PolynomialMutation::new(bounds.clone(), ETA, share),
        };
        Nsga2::new(config, RealBounds::new(bounds), variation).run(&self);
        let taken = |first: Mutex<_>| first.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, error)) = taken(self.failed) {
            return Err(error);
        }
        let misfit = self.misfit.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(misfit.map(|(_, misfit)| misfit))
    }

    /// The point of the grid where numbers from 0 to 1 stand.
    fn point(&self, places: &[f64]) -> Point {
        let place =
            |(&at, values): (&f64, usize)| ((at * values as f64) as usize).min(values.saturating_sub(1));
        places.iter().zip(self.space.axes().iter().map(|axis| axis.values.len())).map(place).collect()
    }

    fn evaluated(&self, point: &Point) -> Result<Result<Evaluation, B::Misfit>, B::Error> {
        let candidate: Candidate = match self.trials.bench.describe(point)? {
            Ok(candidate) => candidate,
            Err(misfit) => return Ok(Err(misfit)),
        };
        let tried = self.trials.run(&candidate)?;
        let number = |value: f64| if value.is_finite() { value } else { WORST };
        let price = candidate.rank(self.minimize).0[0] as f64;
        let latencies = self.bounds.iter().map(|bound| number(tried.estimates[bound.figure].mean));
        let throughput = -number(tried.estimates[THROUGHPUT].mean) * f64::from(candidate.replicas);
        let objectives = [price].into_iter().chain(latencies).chain([throughput]).collect();
        Ok(Ok(Evaluation::constrained(objectives, number(tried.violation))))
    }
}

impl<B: Bench> Problem for Genetic<'_, B>
where
    B::Error: Send,
{
    type Decision = Vec<f64>;

    fn objectives(&self) -> ObjectiveSpace {
        let latencies = self.bounds.iter().map(|bound| Objective::minimize(bound.metric));
        let first = Objective::minimize("price");
        ObjectiveSpace::new(
            [first].into_iter().chain(latencies).chain([Objective::minimize("-throughput")]).collect(),
        )
    }

    fn evaluate(&self, decision: &Vec<f64>) -> Evaluation {
        let point = self.point(decision);
        let worst = || Evaluation::constrained(vec![WORST; self.bounds.len() + 2], WORST);
        match self.evaluated(&point) {
            Ok(Ok(evaluation)) => evaluation,
            Ok(Err(misfit)) => {
                keep_first(&self.misfit, point, misfit);
                worst()
            }
            Err(error) => {
                keep_first(&self.failed, point, error);
                worst()
            }
        }
    }
}

/// Keeps what belongs to the least point, so that it does not depend on which thread is the first.
fn keep_first<T>(kept: &Mutex<Option<(Point, T)>>, point: Point, what: T) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.as_ref().is_none_or(|(least, _)| point < *least) {
        *kept = Some((point, what));
    }
}
