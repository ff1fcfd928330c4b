//! The same case gives the same run: decision by decision, number by number, on any number of threads.

use crate::small::{Small, policies};
use policy::record::Decision;
use policy::registry::Entry;
use rayon::prelude::*;
use sim::{Case, Keep, Summary};
use std::collections::BTreeMap;

/// Everything a run says that does not depend on how fast it was computed.
#[derive(Debug, PartialEq)]
struct Said {
    decisions: Vec<Decision>,
    summary: serde_json::Value,
}

fn small() -> Small {
    Small {
        encoded: &["int8", "bf16_packed"],
        drift_budget: 1.0,
        requests: "{ closed: { batch: 2 } }".to_owned(),
        ..Small::default()
    }
}

fn said(case: &Case, entry: &Entry) -> Said {
    let params = entry.resolve(&BTreeMap::new()).unwrap();
    let mut decisions = Vec::new();
    let keep = Keep { decisions: true, ..Keep::default() };
    let outcome = case.run(entry, &params, keep, |decision| decisions.push(decision)).unwrap();
    let summary = Summary::new(case, &outcome, entry.name, 1.0);
    let mut summary = serde_json::to_value(summary).unwrap();
    for key in ["wall_s", "events_per_s"] {
        assert!(summary.as_object_mut().unwrap().remove(key).is_some());
    }
    Said { decisions, summary }
}

/// Every policy, side by side on this many threads.
fn on_threads(threads: usize) -> Vec<Said> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let entries: Vec<&Entry> = policies(true).collect();
    pool.install(|| entries.into_par_iter().map(|entry| said(&small().case(), entry)).collect())
}

#[test]
fn a_case_built_and_run_twice_says_the_same() {
    let case = small().case();
    for entry in policies(true) {
        let (first, second) = (said(&case, entry), said(&small().case(), entry));
        assert!(!first.decisions.is_empty());
        assert_eq!(first, second, "{}", entry.name);
    }
}

#[test]
fn one_thread_and_two_say_the_same() {
    assert_eq!(on_threads(1), on_threads(2));
}

#[test]
fn keeping_the_decisions_and_the_timeline_changes_nothing() {
    let case = small().case();
    for entry in policies(true) {
        let params = entry.resolve(&BTreeMap::new()).unwrap();
        let summary = |keep| {
            let outcome = case.run(entry, &params, keep, |_| {}).unwrap();
            serde_json::to_string(&Summary::new(&case, &outcome, entry.name, 1.0)).unwrap()
        };
        let everything = Keep { decisions: true, timeline: true, recent: true };
        assert_eq!(summary(Keep::default()), summary(everything), "{}", entry.name);
    }
}

#[test]
fn another_seed_is_another_run() {
    let entry = policies(true).next().unwrap();
    let other = Small { seed: 8, ..small() };
    assert_ne!(said(&small().case(), entry).summary, said(&other.case(), entry).summary);
}
