//! `hotset replay`: routing traces through cache policies, without time.

mod grid;
mod report;
mod sizes;

use crate::failure::Failure;
use crate::output::{self, ListFormat};
use crate::trace_files::TraceFiles;
use clap::ValueEnum;
use grid::{Grid, Tuned};
use policy::registry::{self, Entry};
use policy::replay::{Order, Reset};
use sizes::Sizes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use traces::{Problem, TraceError};

/// Replay routing traces through cache policies: hit-rate curves against the clairvoyant bound
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    traces: TraceFiles,

    /// Policies, by name [default: all that can be replayed; fitted ones where --fit is given]
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = registry::lookup)]
    policies: Vec<&'static Entry>,

    #[command(flatten)]
    sizes: Sizes,

    /// What one demand is
    #[arg(long, value_enum, default_value_t = DemandOrder::Atomic)]
    order: DemandOrder,

    /// When the cache starts cold again
    #[arg(long, value_enum, default_value_t = ColdStart::Never)]
    reset: ColdStart,

    /// Replay traces marked as repetition too
    #[arg(long)]
    include_repetition: bool,

    /// Traces that fitted policies learn from beforehand
    #[arg(long, value_name = "TRACE", num_args = 1..)]
    fit: Vec<PathBuf>,

    /// Parameters of policies; `hotset policies` lists them
    #[arg(long, value_name = "POLICY.NAME=VALUE", value_delimiter = ',', value_parser = setting)]
    params: Vec<Setting>,

    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ListFormat,
}

/// [`Order`], as it is written.
#[derive(Clone, Copy, ValueEnum)]
enum DemandOrder {
    /// A layer step's distinct experts together: none of them is evicted while it runs
    Atomic,
    /// Every selection on its own
    Access,
}

/// [`Reset`], as it is written.
#[derive(Clone, Copy, ValueEnum)]
enum ColdStart {
    /// Only at the beginning
    Never,
    /// With every trace
    Trace,
}

/// One parameter given on the command line.
#[derive(Clone)]
struct Setting {
    policy: &'static Entry,
    name: String,
    value: f64,
}

fn setting(text: &str) -> Result<Setting, String> {
    let form = || format!("`{text}` has not the form POLICY.NAME=VALUE");
    let (place, value) = text.split_once('=').ok_or_else(form)?;
    let (policy, name) = place.split_once('.').ok_or_else(form)?;
    Ok(Setting {
        policy: registry::lookup(policy).map_err(|error| error.to_string())?,
        name: name.to_owned(),
        value: value.parse().map_err(|_| format!("`{value}` is not a number"))?,
    })
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let demands = args.traces.demands(args.include_repetition)?;
    if demands.is_empty() {
        return Err(Failure::refused(TraceError::from(Problem::OnlyRepetition)));
    }
    let fit = match args.fit.as_slice() {
        [] => None,
        paths => Some(args.traces.read_paths(paths)?.demands(args.include_repetition)),
    };
    let asked = args.asked();
    // The verdict needs the bound, asked for or not.
    let unasked =
        (args.format == ListFormat::Table).then(bound).flatten().filter(|bound| !has(&asked, bound));
    let policies: Vec<_> = asked.iter().copied().chain(unasked).collect();
    let grid = Grid {
        demands: &demands,
        fit: fit.as_ref(),
        order: args.order.into(),
        reset: args.reset.into(),
        sizes: args.sizes.resolve(&demands)?,
        policies: args.tuned(&policies)?,
    };
    let curves = grid.run(args.threads.unwrap_or(0).into())?;
    let runs: Vec<_> = curves.iter().flatten().collect();
    match args.format {
        ListFormat::Json => output::print_json(&runs),
        ListFormat::Csv => output::print_csv(&runs),
        ListFormat::Table => output::print(&report::text(&grid, &curves, asked.len())),
    }
}

/// The policy that no other can beat from a cold start.
fn bound() -> Option<&'static Entry> {
    registry::registry().iter().find(|entry| entry.clairvoyant && entry.replay.is_some())
}

fn has(policies: &[&Entry], policy: &Entry) -> bool {
    policies.iter().any(|entry| entry.name == policy.name)
}

impl Args {
    /// The policies to show.
    fn asked(&self) -> Vec<&'static Entry> {
        let default = |entry: &&Entry| entry.replay.is_some() && !(entry.fitted && self.fit.is_empty());
        match self.policies.as_slice() {
            [] => registry::registry().iter().filter(default).collect(),
            named => named.to_vec(),
        }
    }

    /// The policies with the values of their parameters.
    fn tuned(&self, policies: &[&'static Entry]) -> Result<Vec<Tuned>, Failure> {
        if let Some(Setting { policy, name, .. }) =
            self.params.iter().find(|each| !has(policies, each.policy))
        {
            let policy = policy.name;
            return Err(Failure::refused(format!(
                "--params sets {policy}.{name}, but {policy} is not replayed"
            )));
        }
        let tune = |&entry: &&'static Entry| {
            let own = self.params.iter().filter(|setting| setting.policy.name == entry.name);
            let given: BTreeMap<_, _> = own.map(|setting| (setting.name.clone(), setting.value)).collect();
            Ok(Tuned { entry, params: entry.resolve(&given).map_err(Failure::refused)? })
        };
        policies.iter().map(tune).collect()
    }
}

impl From<DemandOrder> for Order {
    fn from(order: DemandOrder) -> Order {
        match order {
            DemandOrder::Atomic => Order::Atomic,
            DemandOrder::Access => Order::Access,
        }
    }
}

impl From<ColdStart> for Reset {
    fn from(start: ColdStart) -> Reset {
        match start {
            ColdStart::Never => Reset::Never,
            ColdStart::Trace => Reset::Trace,
        }
    }
}
