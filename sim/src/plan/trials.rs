//! Points that are run, each once.

use super::figures::Figures;
use super::goal::{Bound, Candidate, Tried};
use super::resources::Resource;
use super::space::Point;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Where points are looked up and run.
pub trait Bench: Sync {
    /// Why a run or a scenario failed in a way that no other point mends.
    type Error: Send;
    /// Why a point cannot be: its blocks do not fit, say.
    type Misfit: Clone + Send;

    /// What a point takes, or why it cannot be.
    ///
    /// # Errors
    /// It cannot be told.
    fn describe(&self, point: &[usize]) -> Result<Result<Candidate, Self::Misfit>, Self::Error>;

    /// The figures of its runs, one a seed.
    ///
    /// # Errors
    /// A run fails.
    fn run(&self, point: &[usize]) -> Result<Vec<Figures>, Self::Error>;

    /// About so many more points are going to be run.
    fn expect(&self, _points: usize) {}

    /// The same with so many per cent of a resource; `None` where that changes nothing.
    ///
    /// # Errors
    /// A run fails.
    fn run_with(
        &self,
        point: &[usize],
        resource: &Resource,
        percent: u64,
    ) -> Result<Option<Vec<Figures>>, Self::Error>;
}

/// The points that were run.
pub(super) struct Trials<'b, B: Bench> {
    pub(super) bench: &'b B,
    bounds: &'b [Bound],
    budget: usize,
    tried: Mutex<BTreeMap<Point, Arc<Tried>>>,
}

impl<'b, B: Bench> Trials<'b, B> {
    pub(super) fn new(bench: &'b B, bounds: &'b [Bound], budget: usize) -> Trials<'b, B> {
        Trials { bench, bounds, budget, tried: Mutex::default() }
    }

    /// Runs a candidate, unless it was run before.
    pub(super) fn run(&self, candidate: &Candidate) -> Result<Arc<Tried>, B::Error> {
        if let Some(tried) = self.locked().get(&candidate.point) {
            return Ok(tried.clone());
        }
        let runs = self.bench.run(&candidate.point)?;
        let tried = Arc::new(Tried::new(candidate.clone(), &runs, self.bounds));
        // Another thread may have run it meanwhile: the two are alike.
        Ok(self.locked().entry(candidate.point.clone()).or_insert(tried).clone())
    }

    /// Runs candidates side by side. Of several errors, the first candidate's.
    pub(super) fn run_all(&self, candidates: &[&Candidate]) -> Result<Vec<Arc<Tried>>, B::Error> {
        let all: Vec<_> = candidates.par_iter().map(|candidate| self.run(candidate)).collect();
        all.into_iter().collect()
    }

    /// How many more points may be run.
    pub(super) fn left(&self) -> usize {
        self.budget.saturating_sub(self.locked().len())
    }

    /// What was run, by point.
    pub(super) fn all(&self) -> Vec<Arc<Tried>> {
        self.locked().values().cloned().collect()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<Point, Arc<Tried>>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
