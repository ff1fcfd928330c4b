//! What a plan has to meet, and what it makes small.

use super::cutoff::{Run, Stopped};
use super::figures::{COMPLETED, COUNT, Figures, REJECTED, TPOT, TTFT};
use super::space::Point;
use crate::statistics::{Bootstrap, Estimate};
use policy::{Bytes, Nanos};
use scenarios::{Price, Scenario, Slo};
use std::num::NonZero;

/// A run this many times beyond a limit misses it for its point, whatever the other seeds say: it need not go on.
pub const HOPELESS: f64 = 1.1;

/// A service objective: a bound on a latency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// What is bound: `ttft` or `tpot`.
    pub metric: &'static str,
    /// Its place among the figures.
    pub figure: usize,
    /// The most milliseconds.
    pub limit_ms: f64,
}

/// The bounds of an objective.
pub fn bounds(slo: &Slo) -> Vec<Bound> {
    let bound = |metric, figure, limit: Option<Nanos>| {
        limit.map(|limit| Bound { metric, figure, limit_ms: limit.as_millis_f64() })
    };
    [bound("ttft", TTFT, slo.ttft), bound("tpot", TPOT, slo.tpot)].into_iter().flatten().collect()
}

/// The limits at which a run need not go on: hopelessly beyond a bound, or with a request refused.
pub(super) fn hopeless(bounds: &[Bound]) -> Vec<Bound> {
    let beyond = |bound: &Bound| Bound { limit_ms: HOPELESS * bound.limit_ms, ..*bound };
    let refused = Bound { metric: "requests_rejected", figure: REJECTED, limit_ms: 0.0 };
    bounds.iter().map(beyond).chain([refused]).collect()
}

/// What a plan makes small first; the rest breaks ties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Minimize {
    /// The price of an hour, then bytes of fast memory.
    #[default]
    Cost,
    /// Bytes of fast memory over all machines, then the price.
    Memory,
    /// Machines, then the price, then bytes.
    Machines,
}

/// A configuration: a point, and what it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The point.
    pub point: Point,
    /// The machine's name.
    pub machine: String,
    /// Machines.
    pub replicas: u32,
    /// Accelerators of each that work together: a machine file is of one, with its price.
    pub accelerators: u32,
    /// Bytes that the fast tier of each accelerator may hold.
    pub fast: Bytes,
    /// What one accelerator's machine costs, where its file says so.
    pub price: Option<Price>,
    /// The path of the fast tier's cap, where that has room for everything there is: more of it changes nothing.
    pub roomy: Option<String>,
}

/// The order of candidates: less is better. The last part tells all points apart.
pub(super) type Rank<'c> = ([u64; 3], &'c [usize]);

impl Candidate {
    /// What a point of a scenario takes.
    pub fn new(point: &[usize], replicas: NonZero<u32>, scenario: &Scenario) -> Candidate {
        let fast = scenario.capacity(scenario.fast());
        let stages = 0..=scenario.later.len();
        let most = stages.map(|stage| scenario.at_stage(stage).fast_at_most()).max().unwrap_or_default();
        let cap = || format!("memory.{}", scenario.machine.tier(scenario.fast()).name);
        Candidate {
            roomy: (fast >= most).then(cap),
            point: point.to_vec(),
            machine: scenario.machine.name.clone(),
            replicas: replicas.get(),
            accelerators: scenario.parallel.accelerators(),
            fast,
            price: scenario.price.clone(),
        }
    }

    /// Millionths of the currency's unit an hour, over all machines.
    pub fn micros_per_hour(&self) -> Option<u64> {
        let price = self.price.as_ref()?;
        Some(price.micros_per_hour.saturating_mul(self.all_accelerators()))
    }

    /// Bytes of fast memory over all machines.
    pub fn bytes(&self) -> u64 {
        self.fast.0.saturating_mul(self.all_accelerators())
    }

    fn all_accelerators(&self) -> u64 {
        u64::from(self.replicas) * u64::from(self.accelerators)
    }

    pub(super) fn rank(&self, minimize: Minimize) -> Rank<'_> {
        // Where no machine has a price, there is one machine, and its number stands for the price.
        let cost = self.micros_per_hour().unwrap_or(self.all_accelerators());
        let (bytes, count) = (self.bytes(), u64::from(self.replicas));
        let order = match minimize {
            Minimize::Cost => [cost, bytes, count],
            Minimize::Memory => [bytes, cost, count],
            Minimize::Machines => [count, cost, bytes],
        };
        (order, &self.point)
    }
}

/// A candidate that was run.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The candidate.
    pub candidate: Candidate,
    /// Each figure over the seeds; NaN where its runs were stopped.
    pub estimates: Vec<Estimate>,
    /// Its runs that went on to their end, by seed: of a point that is clearly within the limits, and not the answer, the first.
    pub runs: Vec<Figures>,
    /// Why and when its runs were stopped, if they were.
    pub stopped: Option<Stopped>,
    /// How far it is from meeting the objectives, as a share of their limits; 0 where it does. Of stopped runs that is not known:
    /// it is larger the earlier they were stopped.
    pub violation: f64,
}

impl Tried {
    pub(super) fn new(candidate: Candidate, runs: Vec<Run>, bounds: &[Bound]) -> Tried {
        let stopped = runs.iter().find_map(Run::stopped);
        let runs: Vec<Figures> = runs.iter().filter_map(Run::figures).copied().collect();
        let estimates = match stopped {
            None => estimates(&runs),
            Some(_) => estimates(&[[f64::NAN; COUNT]]),
        };
        let violation = match stopped {
            None => violation(&estimates, &runs, bounds),
            Some(Stopped { after, .. }) => HOPELESS - after,
        };
        Tried { candidate, estimates, runs, stopped, violation }
    }

    /// Whether it is so far below every limit that other seeds hardly matter.
    pub(super) fn clearly_meets(&self, bounds: &[Bound]) -> bool {
        let clear = |bound: &Bound| self.estimates[bound.figure].mean * HOPELESS <= bound.limit_ms;
        self.meets() && bounds.iter().all(clear)
    }

    /// Whether it meets the objectives: with the upper end of its intervals, with no seed hopelessly beyond, and without
    /// refusing a request.
    pub fn meets(&self) -> bool {
        self.violation == 0.0
    }
}

/// Each figure over the runs, one a seed.
pub(super) fn estimates(runs: &[Figures]) -> Vec<Estimate> {
    let resamples = Bootstrap::new(runs.len());
    let column = |place: usize| runs.iter().map(|run| run[place]).collect::<Vec<_>>();
    (0..super::figures::COUNT).map(|place| resamples.mean(&column(place))).collect()
}

/// The bound that is nearest to being broken, with its value as a share of the limit.
pub(super) fn tightest(estimates: &[Estimate], bounds: &[Bound]) -> Option<(Bound, f64)> {
    let share = |bound: &Bound| (*bound, estimates[bound.figure].ci95_high / bound.limit_ms);
    bounds.iter().map(share).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// How far runs are from meeting the bounds; endless where one has no sample.
fn violation(estimates: &[Estimate], runs: &[Figures], bounds: &[Bound]) -> f64 {
    let beyond = |bound: &Bound| {
        let worst = runs.iter().map(|run| run[bound.figure]).fold(0.0, f64::max);
        let high = estimates[bound.figure].ci95_high;
        let share = high.max(worst / HOPELESS) / bound.limit_ms;
        if high.is_nan() { f64::INFINITY } else { (share - 1.0).max(0.0) }
    };
    let (rejected, completed) = (estimates[REJECTED].mean, estimates[COMPLETED].mean);
    let refused = if rejected > 0.0 { rejected / (rejected + completed) } else { 0.0 };
    bounds.iter().map(beyond).sum::<f64>() + refused
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [Bound; 2] = [
        Bound { metric: "ttft", figure: TTFT, limit_ms: 1000.0 },
        Bound { metric: "tpot", figure: TPOT, limit_ms: 50.0 },
    ];

    fn run(ttft: f64, tpot: f64, rejected: f64) -> Figures {
        let mut figures = [1.0; super::super::figures::COUNT];
        (figures[TTFT], figures[TPOT], figures[REJECTED]) = (ttft, tpot, rejected);
        figures
    }

    fn violation_of(runs: &[Figures]) -> f64 {
        violation(&estimates(runs), runs, &BOUNDS)
    }

    #[test]
    fn every_bound_counts_at_the_upper_end() {
        assert_eq!(violation_of(&[run(1000.0, 50.0, 0.0)]), 0.0);
        assert!((violation_of(&[run(1500.0, 55.0, 0.0)]) - 0.6).abs() < 1e-12);
        // The mean is below the limit, but not surely.
        assert!(violation_of(&[run(1.0, 40.0, 0.0), run(1.0, 48.0, 0.0), run(1.0, 60.0, 0.0)]) > 0.0);
        assert_eq!(violation_of(&[run(1.0, 40.0, 0.0), run(1.0, 41.0, 0.0)]), 0.0);
    }

    #[test]
    fn refusing_requests_or_serving_none_is_no_way_to_meet_them() {
        assert_eq!(violation_of(&[run(1.0, 1.0, 1.0)]), 0.5);
        assert_eq!(violation_of(&[run(1.0, f64::NAN, 0.0)]), f64::INFINITY);
    }

    #[test]
    fn the_tightest_bound_is_the_one_nearest_to_its_limit() {
        let (bound, share) = tightest(&estimates(&[run(900.0, 40.0, 0.0)]), &BOUNDS).unwrap();
        assert_eq!((bound.metric, share), ("ttft", 0.9));
    }
}
