//! Policies written as scripts: what they see, what they decide, and how they fail.

use crate::small::{self, Small};
use policy::policies::script::{BLOCK_SIGNALS, Script, WAY_SIGNALS};
use policy::registry::lookup;
use sim::Case;
use sim::simulate::{Keep, RunFailure};
use std::sync::Arc;

fn scripted(small: &Small, source: &str) -> Case {
    let script = Script::read("idea.rhai", source).unwrap();
    Case { script: Some(Arc::new(script)), ..small.case() }
}

fn run(case: &Case) -> Result<(u64, f64), RunFailure> {
    let outcome = case.run(lookup("script").unwrap(), &[], Keep::default(), |_| {})?;
    let tally = outcome.orchestrator.tally();
    Ok((tally.hits(), tally.stall_total().as_secs_f64()))
}

/// The recency rule as a script is the built-in one, decision by decision.
#[test]
fn a_script_of_the_recency_rule_is_lru() {
    for batch in [1, 3] {
        let requests = format!("{{ closed: {{ batch: {batch} }} }}");
        let small = Small { requests, tokens: 200, traces: 4, ..Small::default() };
        let case = scripted(&small, "fn keep(block) { -block.last_use }");
        let lru = case.run(lookup("lru").unwrap(), &[], Keep::default(), |_| {}).unwrap();
        let tally = lru.orchestrator.tally();
        assert_eq!(run(&case).unwrap(), (tally.hits(), tally.stall_total().as_secs_f64()));
    }
}

#[test]
fn every_signal_can_be_read_and_is_a_number() {
    let block = BLOCK_SIGNALS.iter().map(|(name, _)| format!("b.{name}")).collect::<Vec<_>>().join(" + ");
    let way = WAY_SIGNALS.iter().map(|(name, _)| format!("if type_of(w.{name}) == \"()\" {{ return (); }}"));
    let way = way.collect::<Vec<_>>().join("\n");
    let source = format!(
        "fn keep(b) {{ {block} }}\nfn cost(w) {{\n{way}\nw.moving + 0.0 * keep(w.block)\n}}\nfn prefetch(b) {{ b.probability - 0.5 }}"
    );
    let small = Small { encoded: &["int8"], drift_budget: 5.0, host: true, tokens: 300, ..Small::default() };
    let case = scripted(&small, &source);
    assert!(run(&case).unwrap().0 > 0);
    let world = case.world(false).unwrap();
    let seen = small::run(&case, lookup("script").unwrap(), world).unwrap();
    assert!(seen.orchestrator.tally().speculations > 0);
}

#[test]
fn a_script_that_is_wrong_says_where() {
    let refused = |source: &str| Script::read("idea.rhai", source).unwrap_err().to_string();
    assert_eq!(refused("fn keep(b) {\n  b.next_use +\n}"), "idea.rhai:3:1: Unexpected '}'");
    assert!(refused("fn cost(w) { 1 }").contains("it does not define `fn keep(block)`"));
    assert!(refused("fn keep(a, b) { 1 }").contains("`keep` takes one argument"));
    assert!(refused("fn keep(b) { eval(\"1\") }").contains("idea.rhai:1:14:"));
    assert!(refused("import \"x\" as x; fn keep(b) { 1 }").starts_with("idea.rhai:1:1:"));
}

/// A script that refuses every way is served in full precision, as if it had said nothing of costs.
#[test]
fn a_script_that_refuses_everything_is_served_in_full_precision() {
    let small = Small { encoded: &["int8"], drift_budget: 5.0, host: true, ..Small::default() };
    let refusing = scripted(&small, "fn keep(b) { -b.last_use } fn cost(w) { () }");
    let silent = scripted(&small, "fn keep(b) { -b.last_use }");
    assert_eq!(run(&refusing).unwrap(), run(&silent).unwrap());
}

/// What goes wrong while it runs ends the run, with the place in the script.
#[test]
fn a_script_that_fails_ends_the_run() {
    let failed = |source: &str| {
        let failure = run(&scripted(&Small::default(), source)).unwrap_err();
        failure.to_string()
    };
    assert!(
        failed("fn keep(b) {\n  b.nonsense\n}").starts_with("idea.rhai:2:5: Unknown property 'nonsense'")
    );
    assert!(failed("fn keep(b) { loop { } }").contains("Too many operations"));
    assert!(failed("fn keep(b) { keep(b) }").contains("Stack overflow"));
    assert!(failed("fn keep(b) { \"worth\" }").contains("`keep` answers with string, not with a number"));
    assert!(failed("fn keep(b) { 0.0 / 0.0 }").contains("NaN"));
    assert!(failed("fn keep(b) { let x = []; loop { x.push(1); } }").starts_with("idea.rhai:1:"));
}
