//! Decisions of three shipped scenarios, one a line: the first, and the first in which speculation has evidence. A change
//! here is a change of what the controller decides: look at it, and if it is meant, run the tests with
//! `UPDATE_GOLDEN=1`.

use policy::event::Form;
use policy::record::Decision;
use policy::veto::Verdict;
use sim::{Case, Keep};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Token steps from which decisions are taken, and how many from each.
const FROM: [u64; 2] = [0, 34];
const LINES: usize = 100;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"))
}

/// `seq step layer block action from to state verdict`.
fn line(case: &Case, decision: &Decision) -> String {
    let form = |form: Option<Form>| {
        let name = |form: Form| format!("{}/{}", case.machine.tier(form.tier).name, form.format.name());
        form.map_or("-".to_owned(), name)
    };
    let verdict = match decision.verdict {
        Verdict::Pass => "pass".to_owned(),
        Verdict::Reject(reason) => format!("reject:{}", reason.name()),
        Verdict::Defer(step) => format!("defer:{step}"),
    };
    let Decision { seq, step, layer, block, action, state, .. } = decision;
    let (block, action) = (case.model.block_name(*block), format!("{action:?}").to_lowercase());
    let (from, to) = (form(decision.from), form(decision.to));
    format!("{seq} {step} {} {block} {action} {from} {to} {} {verdict}", layer.0, state.code())
}

fn decisions(scenario: &str) -> String {
    let overrides = [("workload.limit_tokens".to_owned(), "40".to_owned())];
    let path = format!("{}/scenarios/{scenario}.yaml", env!("CARGO_MANIFEST_DIR"));
    let scenario = scenarios::load(&path, &overrides, &sim::resolve::check_policy);
    let scenario = scenario.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)));
    let (entry, params) =
        sim::resolve::resolve_policy(&scenario.policy.name, &scenario.policy.params).unwrap();
    let case = Case::from_scenario(&scenario).unwrap();
    let mut text = String::from("# seq step layer block action from to state verdict\n");
    let keep = Keep { decisions: true, ..Keep::default() };
    let mut decisions = Vec::new();
    case.run(entry, &params, keep, |decision| decisions.push(decision)).unwrap();
    for from in FROM {
        for decision in decisions.iter().filter(|decision| decision.step >= from).take(LINES) {
            writeln!(text, "{}", line(&case, decision)).unwrap();
        }
    }
    text
}

fn is_golden(scenario: &str) {
    let (file, now) = (file(scenario), decisions(scenario));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap();
    assert_eq!(now.lines().count(), 1 + FROM.len() * LINES);
    for (number, (now, golden)) in now.lines().zip(golden.lines()).enumerate() {
        assert_eq!(now, golden, "line {} of {}", number + 1, file.display());
    }
    assert_eq!(now, golden);
}

#[test]
fn quickstart_decides_as_before() {
    is_golden("quickstart");
}

#[test]
fn images_on_a_4090_are_decided_as_before() {
    is_golden("flux-1-dev-4090");
}

#[test]
fn mixtral_on_a_4090_decides_as_before() {
    is_golden("mixtral-8x7b-4090");
}
