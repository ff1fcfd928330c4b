//! How much a policy can matter in a cell.

use super::Measured;
use crate::metric::{STALL, Values, place};
use serde::Serialize;
use std::fmt;

/// What decides a cell. Busy and stalled are means over the seeds under the reference rule, least recently used; the
/// first that applies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Regime {
    /// The busiest link is busy less than 50 % of the time, or less than 1 % of the time is stall: any policy will do.
    Slack,
    /// The least stall that any policy could have is at least half of the step time it would leave, and at least 80 %
    /// of the reference rule's stall: the working set is the problem, and no policy solves it.
    Hopeless,
    /// The link is busy at least 80 % of the time and at least 20 % of the time is stall: the policy decides.
    Tight,
    /// In between.
    Contended,
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Regime::Slack => "slack",
            Regime::Hopeless => "hopeless",
            Regime::Tight => "tight",
            Regime::Contended => "contended",
        })
    }
}

/// What a regime is told by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pressure {
    /// The share of the run in which the busiest direction of a link was busy under the reference rule.
    pub lru_link_utilization: f64,
    /// The share of step time that was stall under the reference rule.
    pub lru_stall_fraction: f64,
    /// The least possible stall as a share of itself and the compute time; null where there is no bound.
    pub bound_stall_fraction: Option<f64>,
    /// The least possible stall as a share of the reference rule's; null where there is no bound.
    pub bound_share_of_lru_stall: Option<f64>,
}

impl Pressure {
    /// The pressure of a cell.
    pub fn new(measured: &Measured) -> Pressure {
        let of = |name: &str| place(name).map_or(f64::NAN, |place| mean(&measured.reference, place));
        let (compute, stall) = (of("compute_s"), of("stall_s"));
        let share = |of: f64, all: f64| if of > 0.0 { of / all } else { 0.0 };
        let bound = bound_s(measured);
        Pressure {
            lru_link_utilization: of("link_utilization"),
            lru_stall_fraction: of("stall_fraction"),
            bound_stall_fraction: bound.map(|bound| share(bound, bound + compute)),
            bound_share_of_lru_stall: bound.map(|bound| share(bound, stall)),
        }
    }

    /// The regime that it means.
    pub fn regime(&self) -> Regime {
        let Pressure { lru_link_utilization: busy, lru_stall_fraction: stalled, .. } = *self;
        let more = |share: Option<f64>, than: f64| share.is_some_and(|share| share >= than);
        if busy < 0.5 || stalled < 0.01 {
            Regime::Slack
        } else if more(self.bound_stall_fraction, 0.5) && more(self.bound_share_of_lru_stall, 0.8) {
            Regime::Hopeless
        } else if busy >= 0.8 && stalled >= 0.2 {
            Regime::Tight
        } else {
            Regime::Contended
        }
    }
}

/// The mean bound over the seeds; `None` unless all of them have one.
pub(super) fn bound_s(measured: &Measured) -> Option<f64> {
    let bounds: Option<Vec<f64>> = measured.bounds.iter().copied().collect();
    bounds.filter(|all| !all.is_empty()).map(|all| all.iter().sum::<f64>() / all.len() as f64)
}

/// The mean of one figure over the seeds.
pub(super) fn mean(runs: &[Values], place: usize) -> f64 {
    runs.iter().map(|values| values[place]).sum::<f64>() / runs.len() as f64
}

/// The mean stall over the seeds, in seconds.
pub(super) fn stall_s(runs: &[Values]) -> f64 {
    mean(runs, STALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_are_where_they_are_said_to_be() {
        let regime = |busy, stalled, [bound_stall_fraction, bound_share_of_lru_stall]: [Option<f64>; 2]| {
            let (lru_link_utilization, lru_stall_fraction) = (busy, stalled);
            let pressure = Pressure {
                lru_link_utilization,
                lru_stall_fraction,
                bound_stall_fraction,
                bound_share_of_lru_stall,
            };
            pressure.regime()
        };
        let (unknown, high) = ([None; 2], [Some(0.5), Some(0.8)]);
        assert_eq!(regime(0.49, 0.9, high), Regime::Slack);
        assert_eq!(regime(0.9, 0.009, unknown), Regime::Slack);
        assert_eq!(regime(0.5, 0.01, high), Regime::Hopeless);
        assert_eq!(regime(0.8, 0.2, [Some(0.49), Some(0.9)]), Regime::Tight);
        assert_eq!(regime(0.8, 0.2, [Some(0.9), Some(0.79)]), Regime::Tight);
        assert_eq!(regime(0.79, 0.9, unknown), Regime::Contended);
        assert_eq!(regime(0.9, 0.19, [Some(0.0); 2]), Regime::Contended);
    }
}
