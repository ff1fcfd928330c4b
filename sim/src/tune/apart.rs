//! Whether what a policy is tuned on and what it is judged on are kept apart.

use crate::simulate::Case;
use std::collections::BTreeMap;
use traces::RoutingTrace;
use xxhash_rust::xxh3::xxh3_128;

/// A request shorter than this may be like another by chance.
const LEAST_TOKENS: usize = 8;

/// A request that is on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// What its trace calls it; its number where it has no name.
    pub request: String,
    /// Its decoded tokens.
    pub tokens: usize,
}

/// The first request of `validation` whose experts, token by token, are those of a request that `train` serves or that
/// its fitted policies learn from. Requests of fewer than eight tokens are not looked at.
pub fn shared(train: &[Case], validation: &[Case]) -> Option<Shared> {
    let mut seen = BTreeMap::new();
    for trace in train.iter().flat_map(|case| case.routing().into_iter().chain(&case.fit)) {
        requests(trace).for_each(|(request, digest)| drop(seen.insert(digest, request)));
    }
    let judged = validation.iter().filter_map(|case| case.routing());
    judged
        .flat_map(|trace| requests(trace))
        .find(|(_, digest)| seen.contains_key(digest))
        .map(|(found, _)| found)
}

/// The requests that are long enough, each with the digest of its selections.
fn requests(trace: &RoutingTrace) -> impl Iterator<Item = (Shared, u128)> + '_ {
    let places = trace.shape().places();
    let long = trace.traces().iter().enumerate().filter(|(_, info)| info.rows.len() >= LEAST_TOKENS);
    long.map(move |(number, info)| {
        let experts = &trace.raw_selections()[info.rows.start * places..info.rows.end * places];
        let bytes: Vec<u8> = experts.iter().flat_map(|expert| expert.to_le_bytes()).collect();
        let name = if info.name.is_empty() { format!("number {}", number + 1) } else { info.name.clone() };
        (Shared { request: name, tokens: info.rows.len() }, xxh3_128(&bytes))
    })
}
