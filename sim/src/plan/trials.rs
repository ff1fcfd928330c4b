//! Points that are run, each once.

use super::cutoff::Run;
use super::goal::{Bound, Candidate, Tried, hopeless};
use super::resources::Resource;
use super::space::Point;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
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

    /// How many seeds a point has.
    fn seeds(&self) -> usize;

    /// A point's runs, one a seed; `None` where the change that is asked for changes nothing.
    ///
    /// # Errors
    /// A run fails.
    fn run(&self, point: &[usize], ask: &Ask<'_>) -> Result<Option<Vec<Run>>, Self::Error>;

    /// About so many more points are going to be run.
    fn expect(&self, _points: usize) {}
}

/// Which runs of a point.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Which of its seeds.
    pub seeds: Range<usize>,
    /// Limits at which a run is stopped; none for runs to the end.
    pub until: &'a [Bound],
    /// So many per cent of a resource.
    pub with: Option<(&'static Resource, u64)>,
}

/// The points that were run.
pub(super) struct Trials<'b, B: Bench> {
    pub(super) bench: &'b B,
    bounds: &'b [Bound],
    /// What a run is stopped at.
    until: Vec<Bound>,
    budget: usize,
    tried: Mutex<BTreeMap<Point, Arc<Tried>>>,
}

impl<'b, B: Bench> Trials<'b, B> {
    /// At most so many points; if `whole`, no run is stopped.
    pub(super) fn new(bench: &'b B, bounds: &'b [Bound], budget: usize, whole: bool) -> Trials<'b, B> {
        let until = if whole { Vec::new() } else { hopeless(bounds) };
        Trials { bench, bounds, until, budget, tried: Mutex::default() }
    }

    /// Runs a candidate, unless it was run before.
    pub(super) fn run(&self, candidate: &Candidate) -> Result<Arc<Tried>, B::Error> {
        if let Some(tried) = self.locked().get(&candidate.point) {
            return Ok(tried.clone());
        }
        let tried = Arc::new(self.tried(candidate)?);
        // Another thread may have run it meanwhile: the two are alike.
        Ok(self.locked().entry(candidate.point.clone()).or_insert(tried).clone())
    }

    /// Runs the first seed, and the others if that is near a limit: one that is hopelessly beyond is stopped, and speaks for
    /// its point; one that is as far below is taken for its point until that is the answer.
    fn tried(&self, candidate: &Candidate) -> Result<Tried, B::Error> {
        let first = self.seeds(candidate, 0..1, &self.until)?;
        let tried = Tried::new(candidate.clone(), first, self.bounds);
        let clear = tried.stopped.is_some() || !self.until.is_empty() && tried.clearly_meets(self.bounds);
        if clear { Ok(tried) } else { self.all_seeds(&tried, &self.until) }
    }

    /// The same with the seeds that were not run yet.
    fn all_seeds(&self, tried: &Tried, until: &[Bound]) -> Result<Tried, B::Error> {
        let more = self.seeds(&tried.candidate, tried.runs.len()..self.bench.seeds(), until)?;
        let runs = tried.runs.iter().copied().map(Run::Whole).chain(more).collect();
        Ok(Tried::new(tried.candidate.clone(), runs, self.bounds))
    }

    fn seeds(
        &self,
        candidate: &Candidate,
        seeds: Range<usize>,
        until: &[Bound],
    ) -> Result<Vec<Run>, B::Error> {
        if seeds.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.bench.run(&candidate.point, &Ask { seeds, until, with: None })?.unwrap_or_default())
    }

    /// A point with all of its seeds, where not all of them were run.
    pub(super) fn settle(&self, tried: &Arc<Tried>) -> Result<Arc<Tried>, B::Error> {
        if tried.stopped.is_some() || tried.runs.len() >= self.bench.seeds() {
            return Ok(tried.clone());
        }
        Ok(self.keep(self.all_seeds(tried, &self.until)?))
    }

    fn keep(&self, tried: Tried) -> Arc<Tried> {
        let tried = Arc::new(tried);
        self.locked().insert(tried.candidate.point.clone(), tried.clone());
        tried
    }

    /// Runs candidates side by side. Of several errors, the first candidate's.
    pub(super) fn run_all(&self, candidates: &[&Candidate]) -> Result<Vec<Arc<Tried>>, B::Error> {
        let all: Vec<_> = candidates.par_iter().map(|candidate| self.run(candidate)).collect();
        all.into_iter().collect()
    }

    /// Runs those that were stopped again, to their end.
    pub(super) fn finish(&self) -> Result<(), B::Error> {
        let stopped: Vec<_> = self.all().into_iter().filter(|tried| tried.stopped.is_some()).collect();
        self.bench.expect(stopped.len());
        let whole = |tried: &Arc<Tried>| self.seeds(&tried.candidate, 0..self.bench.seeds(), &[]);
        let runs: Vec<_> = stopped.par_iter().map(whole).collect();
        for (tried, runs) in stopped.iter().zip(runs) {
            self.keep(Tried::new(tried.candidate.clone(), runs?, self.bounds));
        }
        Ok(())
    }

    /// Whether a candidate was run.
    pub(super) fn knows(&self, candidate: &Candidate) -> bool {
        self.locked().contains_key(&candidate.point)
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
