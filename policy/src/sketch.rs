//! Many times of which only the distribution is kept, in memory that does not grow with their number.

use crate::units::Nanos;
use hdrhistogram::Histogram;
use std::fmt;

/// A distribution of times. Count, sum, least and most are exact; a percentile is off by at most
/// [`Sketch::error`] of itself, and not at all where it falls among the least or the most of all times.
#[derive(Clone, PartialEq)]
pub struct Sketch {
    counts: Histogram<u64>,
    sum: u128,
    least: Nanos,
    most: Nanos,
}

impl Default for Sketch {
    /// Three significant digits.
    fn default() -> Sketch {
        Sketch::new(3)
    }
}

impl fmt::Debug for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} times from {:?} to {:?}", self.count(), self.least, self.most)
    }
}

impl Sketch {
    /// An empty one that tells times apart that differ in so many significant digits: 1 to 5, and what is beyond counts as 5.
    pub fn new(digits: u8) -> Sketch {
        let counts = Histogram::new(digits.clamp(1, 5)).expect("1 to 5 digits are what a histogram can have");
        Sketch { counts, sum: 0, least: Nanos(u64::MAX), most: Nanos::ZERO }
    }

    /// The largest error of a percentile, as a share of it. A bucket of d digits is at most a power of two, no less than
    /// 10^d, narrower than its times; a time stands for it from its middle.
    pub fn error(&self) -> f64 {
        let halves = 10_u64.pow(self.counts.sigfig().into()).next_power_of_two();
        0.5 / halves as f64
    }

    /// Adds a time, so often.
    #[inline]
    pub fn record(&mut self, time: Nanos, times: u64) {
        if times == 0 {
            return;
        }
        // It grows to any time; only where memory addresses have fewer than 64 bits it does not, and then the largest stands.
        if self.counts.record_n(time.0, times).is_err() {
            self.counts.saturating_record_n(time.0, times);
        }
        self.sum += u128::from(time.0) * u128::from(times);
        self.least = self.least.min(time);
        self.most = self.most.max(time);
    }

    /// Adds what another of as many digits holds.
    pub fn merge(&mut self, other: &Sketch) {
        if other.count() == 0 || self.counts.add(&other.counts).is_err() {
            return;
        }
        self.sum += other.sum;
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
    }

    /// How many times it holds.
    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    /// The mean in nanoseconds, exact.
    pub fn mean(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.sum as f64 / self.count() as f64)
    }

    /// The least and the most of the times, exact.
    pub fn range(&self) -> Option<(Nanos, Nanos)> {
        (self.count() > 0).then_some((self.least, self.most))
    }

    /// Percentiles in nanoseconds, each linear between ranks.
    pub fn percentiles<const N: usize>(&self, percents: [f64; N]) -> Option<[f64; N]> {
        let last = self.count().checked_sub(1)?;
        let mut seen = 0;
        // How many times lie up to each bucket, and what they stand for.
        let ranks: Vec<(u64, f64)> = self
            .buckets()
            .map(|(time, times)| {
                seen += times;
                (seen, time.0 as f64)
            })
            .collect();
        let at = |rank: u64| match rank {
            0 => self.least.0 as f64,
            rank if rank == last => self.most.0 as f64,
            rank => ranks.get(ranks.partition_point(|&(seen, _)| seen <= rank)).map_or(0.0, |found| found.1),
        };
        Some(percents.map(|percent| {
            let rank = (percent / 100.0).clamp(0.0, 1.0) * last as f64;
            let below = rank.floor() as u64;
            let (low, high) = (at(below), at((below + 1).min(last)));
            low + (rank - below as f64) * (high - low)
        }))
    }

    /// The times, in order, as many at a time as are told apart: what they stand for, and how many they are.
    pub fn buckets(&self) -> impl Iterator<Item = (Nanos, u64)> + '_ {
        self.counts.iter_recorded().map(|step| {
            let middle = Nanos(self.counts.median_equivalent(step.value_iterated_to()));
            (middle.clamp(self.least, self.most), step.count_since_last_iteration())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The percentile of the times themselves, linear between ranks.
    fn exact(times: &[u64], percent: f64) -> f64 {
        let rank = percent / 100.0 * (times.len() - 1) as f64;
        let (below, above) = (times[rank.floor() as usize] as f64, times[rank.ceil() as usize] as f64);
        below + (rank - rank.floor()) * (above - below)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn percentiles_are_within_the_error(
            times in prop::collection::vec((0.0f64..44.0).prop_map(|log| libm::exp2(log) as u64), 1..300),
            digits in 1u8..4,
            repeats in 1u64..4,
        ) {
            let mut sketch = Sketch::new(digits);
            times.iter().for_each(|&time| sketch.record(Nanos(time), repeats));
            let mut sorted: Vec<u64> = times.iter().flat_map(|&time| vec![time; repeats as usize]).collect();
            sorted.sort_unstable();
            let percents = [0.0, 10.0, 50.0, 90.0, 95.0, 99.0, 100.0];
            for (percent, found) in percents.into_iter().zip(sketch.percentiles(percents).unwrap()) {
                let exact = exact(&sorted, percent);
                prop_assert!((found - exact).abs() <= exact * sketch.error() + 1e-6, "p{percent}: {found}, {exact}");
            }
            let sum: u64 = sorted.iter().sum();
            prop_assert_eq!(sketch.mean(), Some(sum as f64 / sorted.len() as f64));
            prop_assert_eq!(sketch.range(), Some((Nanos(sorted[0]), Nanos(sorted[sorted.len() - 1]))));
            prop_assert_eq!(sketch.buckets().map(|(_, times)| times).sum::<u64>(), sorted.len() as u64);
        }

        #[test]
        fn two_merged_are_one_of_all(
            one in prop::collection::vec(0u64..1 << 40, 0..50),
            two in prop::collection::vec(0u64..1 << 40, 0..50),
        ) {
            let of = |times: &mut dyn Iterator<Item = &u64>| {
                let mut sketch = Sketch::default();
                times.for_each(|&time| sketch.record(Nanos(time), 1));
                sketch
            };
            let mut merged = of(&mut one.iter());
            merged.merge(&of(&mut two.iter()));
            let all = of(&mut one.iter().chain(&two));
            prop_assert_eq!(merged.percentiles([25.0, 75.0]), all.percentiles([25.0, 75.0]));
            prop_assert_eq!((merged.mean(), merged.range()), (all.mean(), all.range()));
        }
    }

    #[test]
    fn nothing_has_no_percentile_and_equal_times_have_themselves() {
        assert_eq!(Sketch::default().percentiles([50.0]), None);
        assert_eq!(Sketch::default().mean(), None);
        let mut sketch = Sketch::default();
        sketch.record(Nanos(33_014_567), 1_000_000);
        sketch.record(Nanos(1), 0);
        assert_eq!(sketch.percentiles([1.0, 99.0]), Some([33_014_567.0; 2]));
    }

    #[test]
    fn the_longest_time_there_is_has_room() {
        let mut sketch = Sketch::default();
        sketch.record(Nanos(u64::MAX / 2), 3);
        assert_eq!(sketch.percentiles([50.0]), Some([(u64::MAX / 2) as f64]));
    }
}
