//! What a link costs, from measured copies: a fixed cost paid once, a fixed cost of every copy, and a rate that depends
//! on size.
//!
//! Medians of slopes (Theil and Sen) stand where least squares would be led astray by one slow sample:
//!
//! 1. *Latency* is paid once, however many copies follow each other: what is left of the time of n copies of one size
//!    when n times the median slope over n is taken off. Samples of one copy at a time cannot tell it from the next.
//! 2. *Submit cost* is paid by every copy: where the line through the costs of the smaller half of the sizes meets zero.
//! 3. *Rate*: the rest of a copy's cost, at each size that was measured. Beyond the largest, time goes on at the median
//!    slope of the larger half.

use crate::rate::{Rate, RateError};
use crate::units::{Bandwidth, Bytes, Nanos};
use thiserror::Error;

/// A measurement: copies of one size, handed over at once and carried one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The size of each.
    pub bytes: Bytes,
    /// How many.
    pub copies: u32,
    /// From the hand-over of the first to the arrival of the last.
    pub time: Nanos,
}

/// What a link costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Paid once by copies that follow each other.
    pub latency: Nanos,
    /// Paid by every copy.
    pub submit: Nanos,
    /// The rest.
    pub rate: Rate,
}

/// Why samples tell no cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FitError {
    /// There are none.
    #[error("no sample")]
    Empty,
    /// A sample has no bytes, no copies or no time.
    #[error("a sample of {copies} copies of {bytes} in {} ns: none of these may be zero", .time.0)]
    Zero {
        /// Its size.
        bytes: Bytes,
        /// Its number of copies.
        copies: u32,
        /// Its time.
        time: Nanos,
    },
    /// The costs make no rate.
    #[error(transparent)]
    Rate(#[from] RateError),
}

/// How far beyond the largest sample the last slope is followed.
const BEYOND: f64 = 64.0;
/// The submit cost leaves at least this part of the cheapest copy to its bytes.
const LEAST_FOR_BYTES: f64 = 0.05;

/// Fits a link to samples, in any order.
///
/// # Errors
/// See [`FitError`].
pub fn fit(samples: &[Sample]) -> Result<Fit, FitError> {
    if samples.is_empty() {
        return Err(FitError::Empty);
    }
    let zero = |sample: &&Sample| sample.bytes.0 == 0 || sample.copies == 0 || sample.time.0 == 0;
    if let Some(&Sample { bytes, copies, time }) = samples.iter().find(zero) {
        return Err(FitError::Zero { bytes, copies, time });
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by_key(|sample| (sample.bytes, sample.copies, sample.time));
    let latency = paid_once(&sorted);
    let costs = cost_by_size(&sorted, latency);
    let submit = paid_by_each(&costs);
    let rate = Rate::measured(&points(&costs, submit))?;
    Ok(Fit { latency: Nanos(latency.round() as u64), submit: Nanos(submit.round() as u64), rate })
}

/// The median over sizes of what copies pay once; no more than the shortest sample.
fn paid_once(sorted: &[Sample]) -> f64 {
    let mut each = Vec::new();
    for size in sorted.chunk_by(|a, b| a.bytes == b.bytes) {
        let by_count: Vec<_> = size.iter().map(|s| (f64::from(s.copies), s.time.0 as f64)).collect();
        if let Some(slope) = median_slope(&by_count) {
            each.extend(median(by_count.iter().map(|(copies, time)| time - slope * copies).collect()));
        }
    }
    let shortest = sorted.iter().map(|sample| sample.time.0).min().unwrap_or(0) as f64;
    median(each).unwrap_or(0.0).clamp(0.0, shortest * (1.0 - LEAST_FOR_BYTES))
}

/// The cost of one copy of each size, in nanoseconds and growing: sizes, then costs.
fn cost_by_size(sorted: &[Sample], latency: f64) -> Vec<(f64, f64)> {
    let mut costs: Vec<(f64, f64)> = Vec::new();
    for size in sorted.chunk_by(|a, b| a.bytes == b.bytes) {
        let cost = |sample: &Sample| (sample.time.0 as f64 - latency) / f64::from(sample.copies);
        let cost = median(size.iter().map(cost).collect()).unwrap_or(0.0);
        let before = costs.last().map_or(0.0, |&(_, before)| before);
        costs.push((size[0].bytes.0 as f64, cost.max(before)));
    }
    costs
}

/// Where the line through the smaller half of the sizes meets zero.
fn paid_by_each(costs: &[(f64, f64)]) -> f64 {
    let smaller = &costs[..costs.len().div_ceil(2).max(2).min(costs.len())];
    let Some(slope) = median_slope(smaller) else { return 0.0 };
    let meets = median(smaller.iter().map(|(size, cost)| cost - slope * size).collect());
    meets.unwrap_or(0.0).clamp(0.0, costs[0].1 * (1.0 - LEAST_FOR_BYTES))
}

/// Sizes and the rates at which their bytes flow once the submit cost is paid, and one point far beyond.
fn points(costs: &[(f64, f64)], submit: f64) -> Vec<(Bytes, Bandwidth)> {
    let larger = &costs[(costs.len() / 2).min(costs.len().saturating_sub(2))..];
    let slope = median_slope(larger);
    let beyond = costs.last().zip(slope).map(|(&(size, cost), slope)| {
        (size * BEYOND, cost + slope.max(f64::MIN_POSITIVE) * size * (BEYOND - 1.0))
    });
    let rate = |(size, cost): (f64, f64)| {
        (Bytes(size as u64), Bandwidth((size / (cost - submit).max(1.0) * 1e9).round().max(1.0) as u64))
    };
    costs.iter().copied().chain(beyond).map(rate).collect()
}

/// The median of the slopes between all pairs of points; `None` where all lie above one place.
fn median_slope(points: &[(f64, f64)]) -> Option<f64> {
    let pairs = points.iter().enumerate().flat_map(|(at, a)| points[at + 1..].iter().map(move |b| (a, b)));
    median(pairs.filter(|(a, b)| b.0 > a.0).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0)).collect())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (below, above) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some((below + above) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What n copies take on a link of 20 GB/s with 2 us of latency and 3 us of submit cost.
    fn sample(bytes: u64, copies: u32) -> Sample {
        Sample { bytes: Bytes(bytes), copies, time: Nanos(2_000 + u64::from(copies) * (3_000 + bytes / 20)) }
    }

    fn time(fit: &Fit, bytes: u64, copies: u64) -> u64 {
        fit.latency.0 + copies * (fit.submit + fit.rate.time_for(Bytes(bytes))).0
    }

    #[test]
    fn the_costs_of_an_ideal_link_are_found() {
        let sizes = [20_000, 200_000, 2_000_000, 20_000_000];
        let mut samples: Vec<Sample> =
            sizes.iter().flat_map(|&bytes| [1, 3, 10].map(|copies| sample(bytes, copies))).collect();
        // One slow sample changes nothing.
        samples[4].time = Nanos(samples[4].time.0 * 3);
        let fit = fit(&samples).unwrap();
        assert_eq!((fit.latency, fit.submit), (Nanos(2_000), Nanos(3_000)));
        assert_eq!(fit.rate.peak(), Bandwidth(20_000_000_000));
        for bytes in [1_000, 100_000, 5_000_000, 900_000_000] {
            assert!(time(&fit, bytes, 7).abs_diff(sample(bytes, 7).time.0) <= 14, "{bytes}");
        }
    }

    #[test]
    fn few_samples_still_make_a_link() {
        let one = fit(&[sample(200_000, 1)]).unwrap();
        assert!(time(&one, 200_000, 1).abs_diff(15_000) <= 1);
        let two = fit(&[sample(2_000_000, 1), sample(200_000, 1)]).unwrap();
        assert_eq!((two.latency, two.submit), (Nanos(0), Nanos(5_000)));
        assert_eq!(time(&two, 40_000_000, 1), 2_005_000);
    }

    #[test]
    fn samples_that_tell_nothing_are_refused() {
        assert_eq!(fit(&[]), Err(FitError::Empty));
        let zero = FitError::Zero { bytes: Bytes(0), copies: 1, time: Nanos(5_000) };
        assert_eq!(fit(&[sample(200_000, 1), sample(0, 1)]), Err(zero));
    }

    #[test]
    fn samples_of_noise_do_not_break_the_fit() {
        let noise = [(1, 1, u64::MAX), (u64::MAX, u32::MAX, 1), (5, 7, 1), (6, 7, 1), (6, 9, 3)];
        for most in 1..=noise.len() {
            let samples = noise[..most].iter().map(|&(bytes, copies, time)| Sample {
                bytes: Bytes(bytes),
                copies,
                time: Nanos(time),
            });
            if let Ok(fit) = fit(&samples.collect::<Vec<_>>()) {
                assert!(fit.rate.peak().0 > 0 && fit.latency.0 < u64::MAX);
            }
        }
    }
}
