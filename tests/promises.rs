//! What the README says of the shipped scenarios, on the first tokens of each.

use sim::resolve::{check_policy, resolve_policy};
use sim::{Case, Keep, Summary};
use std::collections::BTreeMap;

fn run(scenario: &str, set: &[(&str, &str)], policy: &str) -> Summary {
    let set: Vec<(String, String)> =
        set.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect();
    let scenario = scenarios::load(scenario, &set, &check_policy).unwrap();
    let case = Case::from_scenario(&scenario).unwrap();
    let (entry, params) = resolve_policy(policy, &BTreeMap::new()).unwrap();
    let outcome = case.run(entry, &params, Keep::default(), |_| {}).unwrap();
    Summary::new(&case, &outcome, policy, 0.0)
}

fn held(summary: &Summary, state: &str) -> f64 {
    summary.states.iter().find(|held| held.state == state).unwrap().byte_seconds
}

const TOKENS: (&str, &str) = ("workload.limit_tokens", "1000");

#[test]
fn with_a_budget_fewer_bits_win_clearly_and_the_budget_is_kept() {
    for scenario in ["mixtral-8x7b-h100", "mixtral-8x7b-4090"] {
        let ours = run(scenario, &[TOKENS], "predictive");
        for rule in ["lru", "lfu", "lfru", "static"] {
            let theirs = run(scenario, &[TOKENS], rule).stall_s();
            assert!(
                ours.stall_s() < 0.75 * theirs,
                "{scenario}: {} against {rule}'s {theirs}",
                ours.stall_s()
            );
        }
        assert!(ours.drift_max <= ours.drift_budget && ours.drift_mean > 0.5 * ours.drift_budget);
        assert!(held(&ours, "S2") > 0.0 && held(&ours, "S6") > 0.0);
        assert!(ours.vetoes.iter().any(|veto| veto.reason == "drift_budget" && veto.count > 0));
    }
}

#[test]
fn packed_copies_are_held_where_expanding_is_cheap() {
    assert!(held(&run("mixtral-8x7b-h100", &[TOKENS], "predictive"), "S3") > 0.0);
}

#[test]
fn without_a_budget_everything_stays_at_full_precision() {
    let ours = run("mixtral-8x7b-h100", &[TOKENS, ("guard.drift_budget", "0 %")], "predictive");
    assert_eq!((ours.drift_max, held(&ours, "S2")), (0.0, 0.0));
    let lru = run("mixtral-8x7b-h100", &[TOKENS, ("guard.drift_budget", "0 %")], "lru");
    assert!(ours.stall_s() < 1.05 * lru.stall_s(), "{} against {}", ours.stall_s(), lru.stall_s());
}

#[test]
fn on_the_quickstart_nothing_but_the_future_beats_the_default_policy() {
    let ours = run("quickstart", &[], "predictive").stall_s();
    for rule in ["lru", "lfu", "lfru", "sieve"] {
        let theirs = run("quickstart", &[], rule).stall_s();
        assert!(ours <= 1.01 * theirs, "{ours} against {rule}'s {theirs}");
    }
}
