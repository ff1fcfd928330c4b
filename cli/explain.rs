//! `hotset explain`: why a block is where it is, and where the times of operators come from.

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::scenario_args::{Overrides, load_case};
use crate::simulate::policy_of;
use policy::event::Form;
use policy::record::{Action, Decision};
use policy::times::{BASES, Basis};
use policy::veto::Verdict;
use policy::{BlockId, Machine, Model, Nanos};
use sim::Keep;
use sim::provenance::{KINDS, Kind, Provenance, Took};

/// Explain why a block is where it is: every decision about it, with the terms of its score and what was refused; or what
/// operators take, and where their times come from
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A scenario file, or the name of a shipped scenario
    scenario: String,

    /// The block, as in L3/E17
    #[arg(long, value_name = "L<layer>/E<expert>", required_unless_present = "times")]
    block: Option<String>,

    /// Every kind of operator: its time, where that comes from, and how far it is from the machine's limit
    #[arg(long, conflicts_with = "block")]
    times: bool,

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
    let (entry, params) = policy_of(&scenario)?;
    let Some(name_of_block) = &args.block else {
        let outcome = case.run(entry, &params, Keep::default(), |_| {})?;
        return times(outcome.world.provenance(), args.format);
    };
    let block = find(&case.model, name_of_block)?;
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
        name_of_block,
        ledger.state(block).code(),
        outcome.orchestrator.context().signals.step,
        decisions.len()
    );
    output::print(&now)?;
    let header = ["step", "layer", "was", "decision", "from", "to", "verdict", "terms"].map(String::from);
    output::print(&output::words(header, latest.iter().map(|decision| row(&case.machine, decision))))
}

/// What a kind of operator took from one basis.
#[derive(serde::Serialize)]
struct Times {
    operator: &'static str,
    basis: &'static str,
    runs: u64,
    /// Of the time of all operators; what is missing counts as what it takes at least.
    share: f64,
    mean_us: f64,
    /// The mean at the machine's limit.
    limit_us: f64,
    /// How many times longer than that it takes.
    ratio: f64,
}

fn times(provenance: &Provenance, format: Format) -> Result<(), Failure> {
    let total: f64 = provenance.rows().map(|(.., took)| took.time.0 as f64).sum();
    let row = |(kind, basis, took): (Kind, Basis, Took)| {
        let mean = |time: Nanos| time.0 as f64 / 1e3 / took.times as f64;
        Times {
            operator: KINDS[kind as usize].1,
            basis: BASES[basis as usize].1,
            runs: took.times,
            share: took.time.0 as f64 / total.max(1.0),
            mean_us: mean(took.time),
            limit_us: mean(took.limit),
            ratio: took.time.0 as f64 / took.limit.0.max(1) as f64,
        }
    };
    let rows: Vec<Times> = provenance.rows().map(row).collect();
    if format == Format::Json {
        return output::print_json(&rows);
    }
    let header =
        ["operator", "time from", "runs", "share", "mean us", "at the limit", "ratio"].map(String::from);
    let cells = rows.iter().map(|row| {
        let none = row.basis == BASES[Basis::Missing as usize].1;
        let mean = if none { "-".to_owned() } else { format!("{:.1}", row.mean_us) };
        let ratio = if none { "-".to_owned() } else { format!("{:.2}", row.ratio) };
        let share = format!("{:.1} %", row.share * 100.0);
        let limit = format!("{:.1}", row.limit_us);
        [row.operator.to_owned(), row.basis.to_owned(), row.runs.to_string(), share, mean, limit, ratio]
    });
    output::print(&output::words(header, cells))
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

/// What was decided; of a block that is computed in place, by which processor.
fn what(machine: &Machine, decision: &Decision) -> String {
    let by = decision.to.filter(|_| decision.action == Action::InPlace);
    match by.and_then(|to| machine.beside(to.tier)) {
        Some(by) => format!("in place by {}", machine.near(by).name),
        None => decision.action.name().to_owned(),
    }
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
        what(machine, decision),
        form(decision.from),
        form(decision.to),
        verdict,
        terms,
    ]
}
