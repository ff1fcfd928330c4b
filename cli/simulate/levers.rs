//! `hotset simulate --levers`: what would remove the stall that is left.

use super::{percent, policy_of};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::progress::Progress;
use crate::scenario_args::load_case;
use sim::levers::{Report, Row, report};

pub(super) fn run(scenario: &str, set: &[(String, String)], format: Format) -> Result<(), Failure> {
    let (scenario, case) = load_case(scenario, set)?;
    let (entry, params) = policy_of(&scenario)?;
    let progress = Progress::spinner("pulling levers");
    let report = report(&case, entry, &params)?;
    drop(progress);
    match format {
        Format::Json => output::print_json(&report),
        Format::Table => output::print(&table(&scenario.name, &report)),
    }
}

fn table(name: &str, report: &Report) -> String {
    let header = [name, "what changes", "stall s", "stall share", "removes", "drift max", "least possible s"];
    let row = |row: &Row| {
        [
            row.lever.unwrap_or(report.policy).to_owned(),
            row.change.clone(),
            format!("{:.3}", row.stall_s),
            percent(row.stall_fraction),
            row.lever.map_or("-".to_owned(), |_| percent(row.removes)),
            percent(row.drift_max),
            row.stall_bound_s.map_or("-".to_owned(), |bound| format!("{bound:.3}")),
        ]
    };
    let table = output::numbers(header.map(String::from), report.rows.iter().map(row));
    let stuck = report.stuck.iter().map(|stuck| format!("{}: {}.\n", stuck.lever, stuck.reason));
    let verdict = report.verdict.iter().map(|verdict| format!("{verdict}\n"));
    std::iter::once(table).chain(stuck).chain(verdict).collect()
}
