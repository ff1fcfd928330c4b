//! `hotset check`: is a scenario right, and what does it come to?

use crate::failure::Failure;
use crate::output;
use crate::scenario_args::{Overrides, load_case};
use policy::{BlockId, TierId};
use scenarios::Scenario;

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
    let mut last = Ok(());
    for name in &args.scenarios {
        match check(name, &args.overrides) {
            Ok(()) => {}
            Err(Failure::Closed) => return Err(Failure::Closed),
            // One that is refused keeps nobody from the errors of the next.
            refused => {
                if let Err(earlier) = std::mem::replace(&mut last, refused) {
                    earlier.report();
                }
            }
        }
    }
    last
}

/// Prints what a scenario comes to.
fn check(name: &str, overrides: &Overrides) -> Result<(), Failure> {
    let (scenario, case) = load_case(name, &overrides.set)?;
    let tier = |id| scenario.machine.tier(id).name.clone();
    let mut facts = vec![
        ("scenario", scenario.name.clone()),
        ("machine", scenario.machine.name.clone()),
        ("model", scenario.model.name.clone()),
        ("blocks", format!("{} of {}", scenario.model.blocks.len(), scenario.model.largest_block())),
        ("resident floor", scenario.resident_floor().to_string()),
        ("fast memory for blocks", format!("{} ({} slots)", scenario.fast_budget(), case.capacity())),
        ("largest demand", format!("{} blocks", case.largest_demand())),
        ("home", homes(&scenario)),
        ("policy", scenario.policy.name.clone()),
    ];
    let accelerators = scenario.parallel.accelerators();
    if accelerators > 1 {
        facts.push(("parallel", format!("one of {accelerators} accelerators, with its share of all above")));
    }
    if case.stage.is_part() {
        facts.extend((0..case.stage.of).map(|index| ("stage", stage(&scenario, index as usize))));
    }
    facts.extend(scenario.load.map(|from| ("loaded from", tier(from))));
    output::print(&output::words(["ok", name], facts.iter().map(|(key, value)| [*key, value.as_str()])))
}

/// What a stage of a pipeline has.
fn stage(scenario: &Scenario, index: usize) -> String {
    let before: usize = scenario.models().take(index).map(|model| model.layers.len()).sum();
    let own = scenario.at_stage(index);
    let last = before + own.model.layers.len() - 1;
    let (blocks, floor, room) = (own.model.blocks.len(), own.resident_floor(), own.fast_budget());
    format!("{index}: layers {before} to {last}, {blocks} blocks, resident floor {floor}, {room} for blocks")
}

/// The tiers of the home copies, with the blocks that are in each if there are several.
fn homes(scenario: &Scenario) -> String {
    let tiers = scenario.home.tiers();
    let name = |tier: TierId| scenario.machine.tier(tier).name.clone();
    let ids = 0..scenario.model.blocks.len() as u32;
    let blocks = |tier| ids.clone().filter(|&id| scenario.home.of(BlockId(id)) == tier).count();
    let each = |&tier: &TierId| format!("{} ({} blocks)", name(tier), blocks(tier));
    match tiers {
        [only] => name(*only),
        _ => tiers.iter().map(each).collect::<Vec<_>>().join(", "),
    }
}
