//! How fast a link carries a copy on its own. Small copies are slower than large ones: by the half-size model, or as
//! measured.

use crate::units::{Bandwidth, Bytes, Nanos};
use std::fmt;
use thiserror::Error;

/// Why measured points are no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RateError {
    /// There are none.
    #[error("no measured point")]
    Empty,
    /// A size or a rate is zero.
    #[error("the point at {0} has no size, or no rate")]
    Zero(Bytes),
    /// Sizes do not grow.
    #[error("{after} follows on {before}: sizes must grow")]
    Order {
        /// The size before.
        before: Bytes,
        /// The size that should be larger.
        after: Bytes,
    },
    /// A larger copy would be done earlier.
    #[error("a copy of {large} would be done before one of {small}")]
    Faster {
        /// The smaller size.
        small: Bytes,
        /// The larger size, done earlier.
        large: Bytes,
    },
}

/// A rate that depends on the size of the copy: what a copy of n bytes costs is its *work*, the bytes that the peak
/// rate carries in the same time. Work is a piecewise linear function of size, and so is time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    peak: Bandwidth,
    /// Copies pay the work of these on top of their bytes, where no points are given (Hockney's n½).
    half_size: Bytes,
    /// Measured sizes and their work, both growing.
    points: Vec<(u64, u64)>,
}

impl Rate {
    /// A copy of n bytes takes (n + `half_size`) / `peak`: one of `half_size` bytes reaches half of the peak.
    pub fn with_half_size(peak: Bandwidth, half_size: Bytes) -> Rate {
        Rate { peak, half_size, points: Vec::new() }
    }

    /// Measured rates by the size of the copy, in growing sizes. Between two points time grows linearly; below the first
    /// a copy pays the same fixed cost as the first, above the last it has the last one's rate.
    ///
    /// # Errors
    /// See [`RateError`].
    pub fn measured(points: &[(Bytes, Bandwidth)]) -> Result<Rate, RateError> {
        let &(_, peak) = points.last().ok_or(RateError::Empty)?;
        let work = |&(size, rate): &(Bytes, Bandwidth)| {
            if size.0 == 0 || rate.0 == 0 {
                return Err(RateError::Zero(size));
            }
            let work = (u128::from(size.0) * u128::from(peak.0)).div_ceil(rate.0.into());
            Ok((size.0, u64::try_from(work).unwrap_or(u64::MAX)))
        };
        let points = points.iter().map(work).collect::<Result<Vec<_>, _>>()?;
        for pair in points.windows(2) {
            let (small, large) = (Bytes(pair[0].0), Bytes(pair[1].0));
            if large <= small {
                return Err(RateError::Order { before: small, after: large });
            }
            if pair[1].1 < pair[0].1 {
                return Err(RateError::Faster { small, large });
            }
        }
        Ok(Rate { peak, half_size: Bytes::ZERO, points })
    }

    /// The same link, so many per cent as fast at every size.
    pub fn at_percent(&self, percent: u64) -> Rate {
        Rate { peak: self.peak.at_percent(percent), ..self.clone() }
    }

    /// The rate of so many such links of which each carries an equal part of every copy.
    pub fn striped(&self, stripes: u32) -> Rate {
        let times = |value: u64| value.saturating_mul(u64::from(stripes.max(1)));
        Rate {
            peak: Bandwidth(times(self.peak.0)),
            half_size: Bytes(times(self.half_size.0)),
            points: self.points.iter().map(|&(size, work)| (times(size), times(work))).collect(),
        }
    }

    /// The rate that each of so many users has of it, all of them at once.
    pub fn shared(&self, users: u32) -> Rate {
        Rate { peak: Bandwidth((self.peak.0 / u64::from(users)).max(1)), ..self.clone() }
    }

    /// The rate of large copies.
    pub fn peak(&self) -> Bandwidth {
        self.peak
    }

    /// The size at which a copy reaches half of the peak, where the rate was given so.
    pub fn half_size(&self) -> Bytes {
        self.half_size
    }

    /// The bytes that the peak rate carries in the time of a copy of `bytes`.
    #[inline]
    pub fn work(&self, bytes: Bytes) -> Bytes {
        if self.points.is_empty() { bytes + self.half_size } else { Bytes(self.measured_work(bytes.0)) }
    }

    /// How long a copy of `bytes` takes on its own.
    pub fn time_for(&self, bytes: Bytes) -> Nanos {
        self.peak.time_for(self.work(bytes))
    }

    fn measured_work(&self, size: u64) -> u64 {
        let after = self.points.partition_point(|&(known, _)| known < size);
        let Some(&(above, above_work)) = self.points.get(after) else { return size };
        let Some(&(below, below_work)) = after.checked_sub(1).and_then(|before| self.points.get(before))
        else {
            return above_work - (above - size).min(above_work);
        };
        let grown = u128::from(above_work - below_work) * u128::from(size - below);
        below_work + grown.div_ceil(u128::from(above - below)) as u64
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.peak.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GB: u64 = 1_000_000_000;

    #[test]
    fn half_size_halves_the_rate() {
        let rate = Rate::with_half_size(Bandwidth(20 * GB), Bytes(100_000));
        assert_eq!(rate.time_for(Bytes(100_000)), Nanos(10_000));
        assert_eq!(Bandwidth(10 * GB).time_for(Bytes(100_000)), Nanos(10_000));
    }

    #[test]
    fn measured_points_are_met_exactly_and_time_is_linear_between_them() {
        let points = [(Bytes(10_000), Bandwidth(GB)), (Bytes(110_000), Bandwidth(10 * GB))];
        let rate = Rate::measured(&points).unwrap();
        assert_eq!(rate.time_for(Bytes(10_000)), Nanos(10_000));
        assert_eq!(rate.time_for(Bytes(110_000)), Nanos(11_000));
        assert_eq!(rate.time_for(Bytes(60_000)), Nanos(10_500));
        // Below, the fixed cost of the first point; above, the rate of the last.
        assert_eq!(rate.time_for(Bytes(0)), Nanos(9_000));
        assert_eq!(rate.time_for(Bytes(220_000)), Nanos(22_000));
    }

    #[test]
    fn points_that_contradict_each_other_are_refused() {
        let refused = |points: &[(u64, u64)]| {
            let points: Vec<_> = points.iter().map(|&(n, r)| (Bytes(n), Bandwidth(r))).collect();
            Rate::measured(&points).unwrap_err()
        };
        assert_eq!(refused(&[]), RateError::Empty);
        assert_eq!(refused(&[(0, 5)]), RateError::Zero(Bytes(0)));
        assert_eq!(refused(&[(9, 5), (9, 6)]), RateError::Order { before: Bytes(9), after: Bytes(9) });
        assert_eq!(refused(&[(9, 5), (10, 50)]), RateError::Faster { small: Bytes(9), large: Bytes(10) });
    }

    proptest! {
        #[test]
        fn a_larger_copy_is_never_done_earlier(
            mut times in proptest::collection::vec((1u64..1 << 40, 1u64..1 << 30), 1..12),
            sizes in proptest::collection::vec(0u64..1 << 41, 2),
        ) {
            times.sort_unstable();
            times.dedup_by_key(|point| point.0);
            let mut nanos = 0;
            let points: Vec<_> = times
                .iter()
                .map(|&(size, longer)| {
                    nanos += longer;
                    (Bytes(size), Bandwidth((u128::from(size) * 1_000_000_000 / u128::from(nanos)).max(1) as u64))
                })
                .collect();
            if let Ok(rate) = Rate::measured(&points) {
                let (small, large) = (sizes[0].min(sizes[1]), sizes[0].max(sizes[1]));
                prop_assert!(rate.work(Bytes(small)) <= rate.work(Bytes(large)));
            }
        }
    }
}
