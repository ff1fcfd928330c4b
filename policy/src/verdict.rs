//! Whether a bad hit rate is the policy's fault or the working set's.

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
        let gaps = [
            (self.capacity_gap, Lever::Capacity),
            (self.policy_gap, Lever::Policy),
            (self.compulsory_gap, Lever::Start),
        ];
        let largest = gaps.into_iter().reduce(|a, b| if b.0 > a.0 { b } else { a })?;
        (largest.0 >= NEGLIGIBLE).then_some(largest.1)
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
        f.write_str(match self.lever() {
            Some(Lever::Policy) => "The policy is the larger lever.",
            Some(Lever::Capacity) => {
                "The working set is the larger lever: more slots, or fewer bits a block."
            }
            Some(Lever::Start) => "The cold start is what is left: a longer run or a warm start.",
            None => "There is nothing left to win here.",
        })
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
}
