//! The Pareto front of what was run.

use super::figures::THROUGHPUT;
use super::goal::{Bound, Tried};
use std::sync::Arc;

/// The points that no other one beats: nowhere dearer, larger, slower or of less throughput, and somewhere better.
/// In the order given; of points that are alike, the first. Points whose runs were stopped are not among them.
pub fn front(tried: &[Arc<Tried>], bounds: &[Bound]) -> Vec<Arc<Tried>> {
    let tried: Vec<_> = tried.iter().filter(|tried| tried.stopped.is_none()).collect();
    let scores: Vec<Vec<f64>> = tried.iter().map(|tried| scores(tried, bounds)).collect();
    let beaten = |one: usize| {
        let beats = |(other, theirs): (usize, &Vec<f64>)| {
            let pairs = || theirs.iter().zip(&scores[one]);
            let alike = pairs().all(|(theirs, ours)| theirs == ours);
            pairs().all(|(theirs, ours)| theirs <= ours) && (!alike || other < one)
        };
        scores.iter().enumerate().any(|(other, theirs)| other != one && beats((other, theirs)))
    };
    (0..tried.len()).filter(|&one| !beaten(one)).map(|one| Arc::clone(tried[one])).collect()
}

/// What is better where it is less. What has no sample is worst.
fn scores(tried: &Tried, bounds: &[Bound]) -> Vec<f64> {
    let candidate = &tried.candidate;
    let worst = |value: f64| if value.is_nan() { f64::INFINITY } else { value };
    let latencies = bounds.iter().map(|bound| worst(tried.estimates[bound.figure].mean));
    let cost = candidate
        .micros_per_hour()
        .unwrap_or(u64::from(candidate.replicas) * u64::from(candidate.accelerators));
    let throughput = tried.estimates[THROUGHPUT].mean * f64::from(candidate.replicas);
    [cost as f64, candidate.bytes() as f64, worst(-throughput)].into_iter().chain(latencies).collect()
}
