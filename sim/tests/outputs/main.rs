//! What a run leaves behind: its timeline and the files of `--out`, the page looked at in a browser too.

mod browser;
mod files;
mod page;
mod placement;
mod series;
mod timeline;

use sim::{Case, Outcome, Output};

/// A shipped scenario, cut to 40 tokens, with further overrides.
fn case(name: &str, overrides: &[(&str, &str)]) -> Case {
    let path = format!("{}/../scenarios/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let limit = [("workload.limit_tokens", "40")];
    let overrides: Vec<_> =
        limit.iter().chain(overrides).map(|(path, value)| ((*path).into(), (*value).into())).collect();
    let scenario = scenarios::load(&path, &overrides, &sim::resolve::check_policy).unwrap();
    Case::from_scenario(&scenario).unwrap()
}

/// Runs `predictive`, keeping everything.
fn run(case: &Case, mut each: impl FnMut(policy::record::Decision)) -> Outcome {
    let (entry, params) = sim::resolve::resolve_policy("predictive", &Default::default()).unwrap();
    case.run(entry, &params, Output::KEEP, &mut each).unwrap()
}

/// Runs `predictive` before the eyes of an output.
fn watch(case: &Case, output: &mut Output<'_>) -> Outcome {
    let (entry, params) = sim::resolve::resolve_policy("predictive", &Default::default()).unwrap();
    case.watch(entry, &params, Output::KEEP, output).unwrap()
}
