//! What decides a run, as a number: two runs with the same digest give the same figures.

use crate::simulate::{Case, Load};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;
use traces::RoutingTrace;
use xxhash_rust::xxh3::Xxh3Default;

/// The digests of cases: of everything in them, the contents of their traces included.
pub(crate) fn of_cases(cases: &[Case]) -> Vec<u128> {
    let mut traces = BTreeMap::new();
    cases.iter().map(|case| of_case(case, &mut traces)).collect()
}

/// The digest of a policy's run on a case with this digest, or of the case's bound.
pub(crate) fn of_run(case: u128, policy: Option<(&str, &[f64])>) -> u128 {
    let mut hash = Hash::default();
    hash.number(case);
    match policy {
        None => hash.text("bound"),
        Some((name, params)) => {
            hash.text("policy");
            hash.text(name);
            params.iter().for_each(|param| hash.number(u128::from(param.to_bits())));
        }
    }
    hash.0.digest128()
}

/// The digest of what is looked at in the run with this digest.
pub(crate) fn of_figures(run: u128, what: &str) -> u128 {
    let mut hash = Hash::default();
    hash.number(run);
    hash.text(what);
    hash.0.digest128()
}

/// Traces are large and shared: each is read once, known by where it lies while the cases hold it.
fn of_case(case: &Case, traces: &mut BTreeMap<usize, u128>) -> u128 {
    let mut of_trace = |trace: &Arc<RoutingTrace>| {
        *traces.entry(Arc::as_ptr(trace).addr()).or_insert_with(|| of_trace(trace))
    };
    let mut hash = Hash::default();
    hash.number(case.routing().map_or(0, &mut of_trace));
    hash.number(case.fit.as_ref().map_or(0, of_trace));
    // Whatever else is in a case, and whatever is added to it: what `Debug` prints of floating-point numbers is exact.
    let rest = match case.load {
        Load::Routed(_) => Case { load: Load::Dense { requests: 0, tokens: 0 }, fit: None, ..case.clone() },
        Load::Dense { .. } => Case { fit: None, ..case.clone() },
    };
    // Hashing does not fail.
    let _ = write!(hash, "{rest:?}");
    hash.0.digest128()
}

fn of_trace(trace: &RoutingTrace) -> u128 {
    let mut hash = Hash::default();
    let _ = write!(hash, "{:?} {:?} {:?}", trace.shape(), trace.traces(), trace.gate_origin());
    trace.raw_selections().iter().for_each(|expert| hash.0.update(&expert.to_le_bytes()));
    let weights = trace.raw_gates().unwrap_or_default();
    weights.iter().for_each(|weight| hash.0.update(&weight.to_le_bytes()));
    hash.0.digest128()
}

#[derive(Default)]
struct Hash(Xxh3Default);

impl Hash {
    fn number(&mut self, number: u128) {
        self.0.update(&number.to_le_bytes());
    }

    /// A text with its length, so that two in a row are not another two.
    fn text(&mut self, text: &str) {
        self.number(text.len() as u128);
        self.0.update(text.as_bytes());
    }
}

impl Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}
