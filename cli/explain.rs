//! `hotset explain`: why a block is where it is.

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::scenario_args::{Overrides, load_case};
use crate::simulate::policy_of;
use policy::event::Form;
use policy::record::Decision;
use policy::veto::Verdict;
use policy::{BlockId, Machine, Model};
use sim::Keep;

/// Explain why a block is where it is: every decision about it, with the terms of its score and what was refused
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A scenario file, or the name of a shipped scenario
    scenario: String,

    /// The block, as in L3/E17
    #[arg(long, value_name = "L<layer>/E<expert>")]
    block: String,

    /// Explain as of the end of this token step; the whole run if it is not given
    #[arg(long, value_name = "N")]
    step: Option<u64>,

    /// Show at most this many decisions, the latest
    #[arg(long, default_value_t = 20, value_name = "N")]
    last: usize,

    #[command(flatten)]
    overrides: Overrides,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut set = args.overrides.set.clone();
    if let Some(step) = args.step {
        set.push(("workload.limit_tokens".to_owned(), step.saturating_add(1).to_string()));
    }
    let (scenario, case) = load_case(&args.scenario, &set)?;
    let block = find(&case.model, &args.block)?;
    let (entry, params) = policy_of(&scenario)?;
    let mut decisions: Vec<Decision> = Vec::new();
    let keep = Keep { decisions: true, ..Keep::default() };
    let about = |decision: Decision| {
        if decision.block == block && args.step.is_none_or(|step| decision.step <= step) {
            decisions.push(decision);
        }
    };
    let outcome = case.run(entry, &params, keep, about)?;
    let latest = &decisions[decisions.len().saturating_sub(args.last)..];
    if args.format == Format::Json {
        return output::print_json(&latest);
    }
    let ledger = &outcome.orchestrator.context().ledger;
    let copies: Vec<String> = ledger.copies(block).map(|form| name(&case.machine, form)).collect();
    let copies =
        if copies.is_empty() { "no copy".into() } else { format!("copies in {}", copies.join(", ")) };
    let now = format!(
        "{} is {} after {} token steps, with {copies}; {} decisions were about it.\n",
        args.block,
        ledger.state(block).code(),
        outcome.orchestrator.context().signals.step,
        decisions.len()
    );
    output::print(&now)?;
    let header = ["step", "layer", "was", "decision", "from", "to", "verdict", "terms"].map(String::from);
    output::print(&output::words(header, latest.iter().map(|decision| row(&case.machine, decision))))
}

/// `L3/E17` in this model.
fn find(model: &Model, text: &str) -> Result<BlockId, Failure> {
    let all = (0..model.blocks.len() as u32).map(BlockId);
    all.into_iter().find(|&id| model.block_name(id) == text).ok_or_else(|| {
        let last = model.block_name(BlockId((model.blocks.len() as u32).saturating_sub(1)));
        Failure::refused(format!("{} has no block `{text}`; blocks are written L0/E0 to {last}", model.name))
    })
}

fn name(machine: &Machine, form: Form) -> String {
    format!("{}/{}", machine.tier(form.tier).name, form.format.name())
}

fn row(machine: &Machine, decision: &Decision) -> [String; 8] {
    let form = |form: Option<Form>| form.map_or("-".to_owned(), |form| name(machine, form));
    let verdict = match decision.verdict {
        Verdict::Pass => "pass".to_owned(),
        Verdict::Reject(reason) => format!("reject: {}", reason.name()),
        Verdict::Defer(step) => format!("defer to layer step {step}"),
    };
    let terms = decision.terms.map_or("by the rule's order".to_owned(), |terms| {
        let parts = [
            ("moving", terms.moving),
            ("decode", terms.decode),
            ("drift", terms.drift),
            ("memory", terms.memory),
            ("saved", -terms.saved),
        ];
        let parts =
            parts.iter().filter(|(_, ns)| *ns != 0.0).map(|(what, ns)| format!("{what} {:+.1}", ns / 1e3));
        let parts: Vec<String> = parts.collect();
        let when = format!("p {:.2}, next use {:.2} tokens", terms.probability, terms.next_use);
        if parts.is_empty() { when } else { format!("{when}\n{} us", parts.join(", ")) }
    });
    [
        decision.step.to_string(),
        decision.layer.0.to_string(),
        decision.state.code().to_owned(),
        format!("{:?}", decision.action).to_lowercase(),
        form(decision.from),
        form(decision.to),
        verdict,
        terms,
    ]
}
