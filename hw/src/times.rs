//! Predicted against measured: for every step, and for every job by what it was.

use policy::TierId;
use policy::event::Part;
use policy::units::Nanos;
use std::collections::BTreeMap;

/// What a job was: times are compared with those of their like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// A part of a layer.
    Compute(Part),
    /// Chunks from one tier to another; changes of format within one.
    Copy(TierId, TierId),
}

/// A predicted time and the one it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// By the timeline.
    pub predicted: Nanos,
    /// By the device.
    pub measured: Nanos,
}

/// All pairs of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Steps, from their first part to the end of their head.
    pub steps: Vec<Pair>,
    /// Jobs.
    pub jobs: BTreeMap<Component, Vec<Pair>>,
}

/// How far predictions were off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    /// How many pairs.
    pub count: usize,
    /// Sums of both times.
    pub total: Pair,
    /// Medians of both times.
    pub median: Pair,
    /// 99th percentiles of both times.
    pub p99: Pair,
    /// Mean of |predicted - measured| / measured, as a fraction.
    pub mape: f64,
}

impl Pair {
    /// |predicted - measured| / measured.
    pub fn error(self) -> f64 {
        let (predicted, measured) = (self.predicted.0 as f64, self.measured.0 as f64);
        if measured == 0.0 {
            f64::from(u8::from(predicted > 0.0))
        } else {
            (predicted - measured).abs() / measured
        }
    }
}

impl Errors {
    /// Of some pairs; `None` if there are none.
    pub fn of(pairs: &[Pair]) -> Option<Errors> {
        if pairs.is_empty() {
            return None;
        }
        let sorted = |of: fn(&Pair) -> Nanos| {
            let mut times: Vec<Nanos> = pairs.iter().map(of).collect();
            times.sort_unstable();
            times
        };
        let (predicted, measured) = (sorted(|pair| pair.predicted), sorted(|pair| pair.measured));
        let at =
            |share| Pair { predicted: *nearest(&predicted, share), measured: *nearest(&measured, share) };
        Some(Errors {
            count: pairs.len(),
            total: Pair {
                predicted: predicted.iter().copied().sum(),
                measured: measured.iter().copied().sum(),
            },
            median: at(0.5),
            p99: at(0.99),
            mape: pairs.iter().map(|pair| pair.error()).sum::<f64>() / pairs.len() as f64,
        })
    }
}

/// The value below or at which this share of sorted, present values lies.
fn nearest<T>(sorted: &[T], share: f64) -> &T {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    &sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_what_was_measured() {
        let pair = |predicted, measured| Pair { predicted: Nanos(predicted), measured: Nanos(measured) };
        let errors = Errors::of(&[pair(90, 100), pair(220, 200), pair(300, 300), pair(50, 100)]).unwrap();
        assert!((errors.mape - 0.175).abs() < 1e-12);
        assert_eq!((errors.total, errors.median), (pair(660, 700), pair(90, 100)));
        assert_eq!(errors.p99, pair(300, 300));
        assert_eq!(Errors::of(&[]), None);
        assert_eq!(pair(1, 0).error(), 1.0);
    }
}
