//! Whether a bad hit rate, or a long stall, is the policy's fault or the working set's.

use std::fmt;

/// What is known at one capacity, in demanded blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point<'a> {
    /// The number of slots.
    pub capacity: usize,
    /// Demanded blocks.
    pub accesses: u64,
    /// First demands after a cold start ([`cold_misses`](crate::replay::cold_misses)).
    pub cold_misses: u64,
    /// The policy with the most hits among those that do not know the future, and its hits.
    pub best: (&'a str, u64),
    /// The hits of Belady's rule.
    pub bound: u64,
}

/// One capacity's demands taken apart: shares of all of them, from 0 to 1. Hits of the best policy and the three
/// gaps add up to 1 where the best policy is within the bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The number of slots.
    pub capacity: usize,
    /// The best policy.
    pub policy: String,
    /// Its hits.
    pub hit_rate: f64,
    /// Hits with knowledge of the future.
    pub bound: f64,
    /// Misses that knowledge of the future would avoid. Zero where the policy is past the bound, as one that is
    /// fitted and starts warm can be: the bound starts cold.
    pub policy_gap: f64,
    /// Misses that no policy avoids because the working set is larger than the cache.
    pub capacity_gap: f64,
    /// Misses that no policy and no capacity avoids: first demands after a cold start.
    pub compulsory_gap: f64,
}

/// What would raise the hit rate most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lever {
    /// A policy that sees further ahead.
    Policy,
    /// More slots, or smaller blocks in the same memory.
    Capacity,
    /// A longer run or a warm start.
    Start,
}

/// Below this share of the demands a gap is not worth a lever: half a point.
const NEGLIGIBLE: f64 = 0.005;

impl Verdict {
    /// Takes one point of a hit-rate curve apart.
    pub fn new(point: &Point) -> Verdict {
        let share = |blocks: u64| blocks as f64 / point.accesses.max(1) as f64;
        let (policy, hits) = point.best;
        Verdict {
            capacity: point.capacity,
            policy: policy.to_owned(),
            hit_rate: share(hits),
            bound: share(point.bound),
            policy_gap: share(point.bound.saturating_sub(hits)),
            capacity_gap: share(point.accesses.saturating_sub(point.bound + point.cold_misses)),
            compulsory_gap: share(point.cold_misses),
        }
    }

    /// The largest of the three gaps; `None` where none of them matters.
    pub fn lever(&self) -> Option<Lever> {
        largest([self.policy_gap, self.capacity_gap, self.compulsory_gap], NEGLIGIBLE)
    }
}

/// The lever of the largest gap, given by policy, by the working set's size and by first demands; of equals, the working
/// set's. `None` where it is less than `negligible`.
fn largest([policy, capacity, start]: [f64; 3], negligible: f64) -> Option<Lever> {
    let gaps = [(capacity, Lever::Capacity), (policy, Lever::Policy), (start, Lever::Start)];
    let largest = gaps.into_iter().reduce(|a, b| if b.0 > a.0 { b } else { a })?;
    (largest.0 >= negligible).then_some(largest.1)
}

/// What a lever means, in a sentence.
fn advice(lever: Option<Lever>) -> &'static str {
    match lever {
        Some(Lever::Policy) => "The policy is the larger lever.",
        Some(Lever::Capacity) => "The working set is the larger lever: more slots, or fewer bits a block.",
        Some(Lever::Start) => "The cold start is what is left: a longer run or a warm start.",
        None => "There is nothing left to win here.",
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Verdict { capacity, policy, .. } = self;
        let [hits, bound, by_policy, by_capacity, first] =
            [self.hit_rate, self.bound, self.policy_gap, self.capacity_gap, self.compulsory_gap]
                .map(|share| 100.0 * share);
        write!(f, "{capacity} slots: {policy} hits {hits:.2} % and the clairvoyant bound {bound:.2} %. ")?;
        if self.hit_rate > self.bound {
            write!(f, "It starts warm and so passes the bound, which starts cold. ")?;
        }
        write!(
            f,
            "A better policy can win {by_policy:.2} points; no policy can win {by_capacity:.2} lost to the working \
             set's size and {first:.2} lost to first demands. "
        )?;
        f.write_str(advice(self.lever()))
    }
}

/// A policy's stall on one case taken apart, in seconds. The bound and the two gaps below it hold for every policy, so
/// that what is left is the most that a better one can win.
#[derive(Clone, Debug, PartialEq)]
pub struct StallVerdict {
    /// The policy.
    pub policy: String,
    /// Its stall.
    pub stall_s: f64,
    /// Time of all its steps, stall included.
    pub step_s: f64,
    /// Stall beyond the bound: the most that knowing the future could avoid.
    pub policy_gap_s: f64,
    /// Stall that no policy avoids because the working set is larger than the memory.
    pub capacity_gap_s: f64,
    /// Stall that no policy and no memory avoids: first loads after a cold start.
    pub compulsory_gap_s: f64,
}

impl StallVerdict {
    /// Takes a policy's stall apart: no policy stalls less than `bound_s`, and with memory for every block less than
    /// `cold_s`.
    pub fn new(policy: &str, stall_s: f64, step_s: f64, bound_s: f64, cold_s: f64) -> StallVerdict {
        StallVerdict {
            policy: policy.to_owned(),
            stall_s,
            step_s,
            policy_gap_s: (stall_s - bound_s).max(0.0),
            capacity_gap_s: (bound_s - cold_s).max(0.0),
            compulsory_gap_s: cold_s,
        }
    }

    /// No policy stalls less.
    pub fn bound_s(&self) -> f64 {
        self.capacity_gap_s + self.compulsory_gap_s
    }

    /// The share of another policy's stall beyond the bound that this one is left with: below 1 where this one is better,
    /// 0 at the bound. `None` where the other is at the bound.
    pub fn gap_left(&self, other_stall_s: f64) -> Option<f64> {
        let gap = other_stall_s - self.bound_s();
        (gap > 0.0).then(|| self.policy_gap_s / gap)
    }

    /// The largest of the three gaps; `None` where none of them is half a percent of the time.
    pub fn lever(&self) -> Option<Lever> {
        let gaps = [self.policy_gap_s, self.capacity_gap_s, self.compulsory_gap_s];
        largest(gaps, NEGLIGIBLE * self.step_s.max(f64::MIN_POSITIVE))
    }
}

impl fmt::Display for StallVerdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let StallVerdict { policy, stall_s, step_s, policy_gap_s, capacity_gap_s, compulsory_gap_s } = self;
        let share = if *step_s > 0.0 { 100.0 * stall_s / step_s } else { 0.0 };
        write!(f, "{policy} stalls {stall_s:.3} s, {share:.2} % of the time, and no policy less than ")?;
        write!(f, "{:.3} s. A better policy can win at most {policy_gap_s:.3} s; ", self.bound_s())?;
        write!(f, "no policy can win {capacity_gap_s:.3} s lost to the working set's size and ")?;
        write!(f, "{compulsory_gap_s:.3} s lost to first demands. {}", advice(self.lever()))
    }
}

/// The least capacity of a curve at which the working set fits: with knowledge of the future, less than half a point
/// is lost to its size. `None` where it fits at none.
pub fn working_set(curve: &[Verdict]) -> Option<usize> {
    let fits = |verdict: &&Verdict| verdict.capacity_gap < NEGLIGIBLE;
    curve.iter().filter(fits).map(|verdict| verdict.capacity).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINT: Point =
        Point { capacity: 96, accesses: 1000, cold_misses: 40, best: ("lru", 600), bound: 800 };

    #[test]
    fn the_parts_add_up() {
        let verdict = Verdict::new(&POINT);
        assert_eq!((verdict.policy_gap, verdict.capacity_gap, verdict.compulsory_gap), (0.2, 0.16, 0.04));
        assert_eq!(verdict.lever(), Some(Lever::Policy));
        assert_eq!(
            verdict.to_string(),
            "96 slots: lru hits 60.00 % and the clairvoyant bound 80.00 %. A better policy can win 20.00 points; no \
             policy can win 16.00 lost to the working set's size and 4.00 lost to first demands. The policy is the \
             larger lever."
        );
    }

    #[test]
    fn the_lever_is_the_largest_gap() {
        let lever = |hits, bound, cold_misses| {
            Verdict::new(&Point { best: ("lru", hits), bound, cold_misses, ..POINT }).lever()
        };
        assert_eq!(lever(600, 700, 10), Some(Lever::Capacity));
        assert_eq!(lever(890, 900, 100), Some(Lever::Start));
        assert_eq!(lever(992, 996, 4), None);
    }

    #[test]
    fn a_warm_start_may_pass_the_bound() {
        let verdict = Verdict::new(&Point { best: ("static", 900), ..POINT });
        assert_eq!(verdict.policy_gap, 0.0);
        assert!(verdict.to_string().contains("starts warm"));
    }

    #[test]
    fn an_empty_replay_has_no_gap() {
        let verdict =
            Verdict::new(&Point { accesses: 0, cold_misses: 0, best: ("lru", 0), bound: 0, ..POINT });
        assert_eq!((verdict.hit_rate, verdict.lever()), (0.0, None));
    }

    #[test]
    fn the_working_set_fits_where_size_costs_nothing() {
        let curve: Vec<_> = [(96, 800), (192, 940), (384, 958), (768, 960)]
            .map(|(capacity, bound)| Verdict::new(&Point { capacity, bound, ..POINT }))
            .into();
        assert_eq!(working_set(&curve), Some(384));
        assert_eq!(working_set(&curve[..2]), None);
    }

    #[test]
    fn a_stall_is_taken_apart_by_its_bounds() {
        let verdict = StallVerdict::new("lru", 10.0, 20.0, 4.0, 1.0);
        assert_eq!((verdict.policy_gap_s, verdict.capacity_gap_s, verdict.compulsory_gap_s), (6.0, 3.0, 1.0));
        assert_eq!((verdict.lever(), verdict.bound_s()), (Some(Lever::Policy), 4.0));
        assert_eq!(
            verdict.to_string(),
            "lru stalls 10.000 s, 50.00 % of the time, and no policy less than 4.000 s. A better policy can win at most \
             6.000 s; no policy can win 3.000 s lost to the working set's size and 1.000 s lost to first demands. The \
             policy is the larger lever."
        );
        assert_eq!(StallVerdict::new("lru", 10.0, 20.0, 9.0, 1.0).lever(), Some(Lever::Capacity));
        assert_eq!(StallVerdict::new("lru", 0.05, 20.0, 0.0, 0.0).lever(), None);
        assert_eq!(StallVerdict::new("lru", 0.0, 0.0, 0.0, 0.0).lever(), None);
        assert_eq!((verdict.gap_left(12.0), verdict.gap_left(4.0)), (Some(0.75), None));
    }
}
