//! `hotset check`: is a scenario right, and what does it come to?

use crate::failure::Failure;
use crate::output;
use crate::scenario_args::{Overrides, load_case};

/// Check scenarios without running them: every error at once, or what each comes to
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Scenario files, or names of shipped scenarios
    #[arg(required = true, value_name = "SCENARIO")]
    scenarios: Vec<String>,

    #[command(flatten)]
    overrides: Overrides,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    for name in &args.scenarios {
        let (scenario, case) = load_case(name, &args.overrides.set)?;
        let facts = [
            ("scenario", scenario.name.clone()),
            ("machine", scenario.machine.name.clone()),
            ("model", scenario.model.name.clone()),
            ("blocks", format!("{} of {}", scenario.model.blocks.len(), scenario.model.largest_block())),
            ("resident floor", scenario.resident_floor().to_string()),
            ("fast memory for blocks", format!("{} ({} slots)", scenario.fast_budget(), case.capacity())),
            ("largest demand", format!("{} blocks", case.largest_demand())),
            ("home tier", scenario.machine.tier(scenario.home).name.clone()),
            ("policy", scenario.policy.name.clone()),
        ];
        output::print(&output::words(
            ["ok", name.as_str()],
            facts.iter().map(|(key, value)| [*key, value.as_str()]),
        ))?;
    }
    Ok(())
}
