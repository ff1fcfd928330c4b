//! The least candidate that meets the objectives, by bisection in every direction that grows.
//!
//! A candidate that meets them rules out all that take more; one that misses them rules out all that have nowhere more of
//! what grows. The next one to run is that whose worse answer rules out the most. On one axis that is bisection; over
//! several it is the middle of what is left; where nothing grows it goes from the cheapest on, and stops at the first
//! that will do.

use super::goal::{Candidate, Minimize, Tried};
use super::space::Space;
use super::trials::{Bench, Trials};
use std::sync::Arc;

/// The best that was found, and whether the search ended before it was done.
pub(super) type Found = (Option<Arc<Tried>>, bool);

/// The candidates of a grid, and how they are searched.
pub(super) struct Search<'s> {
    pub(super) space: &'s Space,
    pub(super) minimize: Minimize,
    /// Those that can be, the best first.
    pub(super) candidates: &'s [Candidate],
}

impl Search<'_> {
    /// Runs every candidate.
    pub(super) fn exhaust<B: Bench>(&self, trials: &Trials<'_, B>) -> Result<Option<Arc<Tried>>, B::Error> {
        let all = trials.run_all(&self.candidates.iter().collect::<Vec<_>>())?;
        for tried in all.into_iter().filter(|tried| tried.meets()) {
            let tried = trials.settle(&tried)?;
            if tried.meets() {
                return Ok(Some(tried));
            }
        }
        Ok(None)
    }

    /// Runs as few as are needed, as long as the budget lasts. Says whether it did not last. An answer that misses after all
    /// when its other seeds have been run is looked for again: what was run is known by then.
    pub(super) fn bisect<B: Bench>(&self, trials: &Trials<'_, B>) -> Result<Found, B::Error> {
        loop {
            let (best, cut_short) = self.halve(trials)?;
            let Some(best) = best else { return Ok((None, cut_short)) };
            let best = trials.settle(&best)?;
            if best.meets() {
                return Ok((Some(best), cut_short));
            }
        }
    }

    fn halve<B: Bench>(&self, trials: &Trials<'_, B>) -> Result<Found, B::Error> {
        let mut open: Vec<&Candidate> = self.candidates.iter().collect();
        let mut best: Option<Arc<Tried>> = None;
        while let Some(next) = self.most_telling(&open).filter(|next| trials.left() > 0 || trials.knows(next))
        {
            let tried = trials.run(next)?;
            match tried.meets() {
                true => {
                    let rank = next.rank(self.minimize);
                    open.retain(|other| other.rank(self.minimize) < rank);
                    best = Some(tried);
                }
                false => open.retain(|other| !self.space.within(&other.point, &next.point)),
            }
        }
        let best = best.map(|best| self.descend(trials, best)).transpose()?;
        Ok((best, !open.is_empty()))
    }

    /// The candidate whose worse answer rules out the most of those that are open; the first of equals.
    fn most_telling<'c>(&self, open: &[&'c Candidate]) -> Option<&'c Candidate> {
        let told = |place: usize| {
            let below = open.iter().filter(|other| self.space.within(&other.point, &open[place].point));
            below.count().min(open.len() - place)
        };
        let best = (0..open.len()).max_by_key(|&place| (told(place), std::cmp::Reverse(place)));
        best.map(|place| open[place])
    }

    /// Runs the neighbours one step below. Where one meets the objectives after all, more is not always better here: then
    /// it is the best, and has neighbours of its own.
    fn descend<B: Bench>(
        &self,
        trials: &Trials<'_, B>,
        mut best: Arc<Tried>,
    ) -> Result<Arc<Tried>, B::Error> {
        loop {
            let point = best.candidate.point.clone();
            let below: Vec<_> = self.space.below(&point).map(|(_, less)| less).collect();
            let found = self.candidates.iter().filter(|candidate| below.contains(&candidate.point));
            let tried = trials.run_all(&found.collect::<Vec<_>>())?;
            match tried.into_iter().find(|tried| tried.meets()) {
                Some(better) => best = better,
                None => return Ok(best),
            }
        }
    }
}
