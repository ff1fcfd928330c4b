//! Bytes, time and rates as types of their own. Time is integer nanoseconds everywhere, so that sums do not depend on
//! their order and a run is the same on every machine.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A span of time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(pub u64);

/// An instant: nanoseconds since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

/// Bytes per second, decimal, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bandwidth(pub u64);

/// Floating-point operations per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FlopRate(pub u64);

impl Bytes {
    /// So many per cent of it.
    pub fn at_percent(self, percent: u64) -> Bytes {
        Bytes(at_percent(self.0, percent))
    }

    /// No bytes.
    pub const ZERO: Bytes = Bytes(0);

    /// The size a slot allocator takes for this many bytes: the next multiple of `granularity`.
    pub fn round_up(self, granularity: Bytes) -> Bytes {
        Bytes(self.0.div_ceil(granularity.0.max(1)).saturating_mul(granularity.0.max(1)))
    }

    /// Subtraction that stops at zero.
    pub fn saturating_sub(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_sub(other.0))
    }
}

impl Nanos {
    /// No time.
    pub const ZERO: Nanos = Nanos(0);

    /// Subtraction that stops at zero.
    pub fn saturating_sub(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(other.0))
    }

    /// Seconds, for reports and scores.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 * 1e-9
    }

    /// Milliseconds, the unit of every report.
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 * 1e-6
    }
}

impl Time {
    /// The time from `earlier` to this instant; zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Bandwidth {
    /// So many per cent of it.
    pub fn at_percent(self, percent: u64) -> Bandwidth {
        Bandwidth(at_percent(self.0, percent))
    }

    /// How long `bytes` take at this rate, rounded up to the nanosecond. A rate of zero never finishes.
    pub fn time_for(self, bytes: Bytes) -> Nanos {
        per_second(bytes.0, self.0)
    }
}

impl FlopRate {
    /// So many per cent of it.
    pub fn at_percent(self, percent: u64) -> FlopRate {
        FlopRate(at_percent(self.0, percent))
    }

    /// How long `operations` take at this rate, rounded up to the nanosecond.
    pub fn time_for(self, operations: u64) -> Nanos {
        per_second(operations, self.0)
    }
}

fn at_percent(amount: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(amount) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

fn per_second(amount: u64, rate: u64) -> Nanos {
    if amount == 0 {
        return Nanos::ZERO;
    }
    if rate == 0 {
        return Nanos(u64::MAX);
    }
    // A division of 128 bits costs several times one of 64, and amounts are rarely that large.
    match amount.checked_mul(NANOS_PER_SECOND) {
        Some(scaled) => Nanos(scaled.div_ceil(rate)),
        None => {
            let nanos = (u128::from(amount) * u128::from(NANOS_PER_SECOND)).div_ceil(rate.into());
            Nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        }
    }
}

macro_rules! additive {
    ($($unit:ident),*) => {$(
        impl Add for $unit {
            type Output = $unit;
            fn add(self, other: $unit) -> $unit {
                $unit(self.0.saturating_add(other.0))
            }
        }
        impl AddAssign for $unit {
            fn add_assign(&mut self, other: $unit) {
                *self = *self + other;
            }
        }
        impl Sub for $unit {
            type Output = $unit;
            fn sub(self, other: $unit) -> $unit {
                debug_assert!(self.0 >= other.0, "{self:?} - {other:?}");
                $unit(self.0.wrapping_sub(other.0))
            }
        }
        impl SubAssign for $unit {
            fn sub_assign(&mut self, other: $unit) {
                *self = *self - other;
            }
        }
        impl Sum for $unit {
            fn sum<I: Iterator<Item = $unit>>(all: I) -> $unit {
                all.fold($unit(0), Add::add)
            }
        }
    )*};
}
additive!(Bytes, Nanos);

impl Add<Nanos> for Time {
    type Output = Time;
    fn add(self, span: Nanos) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl fmt::Display for Bytes {
    /// In the largest binary unit that keeps at least one whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= size {
                return write!(f, "{:.2} {unit}", self.0 as f64 / size as f64);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} GB/s", self.0 as f64 * 1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_takes_bytes_over_rate_rounded_up() {
        assert_eq!(Bandwidth(1_000_000_000).time_for(Bytes(1)), Nanos(1));
        assert_eq!(Bandwidth(3).time_for(Bytes(1)), Nanos(333_333_334));
        assert_eq!(Bandwidth(1 << 40).time_for(Bytes(1 << 50)), Nanos(1_024_000_000_000));
        assert_eq!(Bandwidth(0).time_for(Bytes(1)), Nanos(u64::MAX));
        assert_eq!(Bandwidth(0).time_for(Bytes(0)), Nanos(0));
    }

    #[test]
    fn slots_round_up_to_the_granularity() {
        assert_eq!(Bytes(1).round_up(Bytes(512)), Bytes(512));
        assert_eq!(Bytes(512).round_up(Bytes(512)), Bytes(512));
        assert_eq!(Bytes(7).round_up(Bytes(0)), Bytes(7));
    }
}
