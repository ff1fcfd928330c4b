//! `hotset compare`: policies side by side.

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::progress::Progress;
use crate::scenario_args::{Overrides, load, load_case};
use crate::simulate::percent;
use policy::registry::{Entry, registry};
use rayon::ThreadPoolBuilder;
use sim::Case;
use sim::compare::{Compared, Contender, compare};
use sim::resolve::resolve_policy;
use sim::workload::Arrivals;

/// Compare policies on scenarios, with confidence intervals over seeds and the clairvoyant bound
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Scenario files, or names of shipped scenarios
    #[arg(required = true, value_name = "SCENARIO")]
    scenarios: Vec<String>,

    #[command(flatten)]
    overrides: Overrides,

    /// Policies; all that can be simulated if none is given
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    policies: Vec<String>,

    /// Seeds, counted from the scenario's own
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,

    /// Threads, 0 for one a core; the result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024))]
    threads: u16,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let pool = ThreadPoolBuilder::new().num_threads(args.threads.into()).build().map_err(Failure::failed)?;
    let mut all = Vec::new();
    for name in &args.scenarios {
        let own = load(name, &args.overrides.set)?;
        let mut cases = Vec::new();
        for offset in 0..args.seeds {
            let mut set = args.overrides.set.clone();
            let seed = own.seed.checked_add(offset).ok_or_else(|| {
                let most = u64::MAX - args.seeds + 1;
                Failure::refused(format!(
                    "seed {} leaves no room for {} seeds: at most {most}",
                    own.seed, args.seeds
                ))
            })?;
            set.push(("seed".to_owned(), seed.to_string()));
            cases.push(load_case(name, &set)?.1);
        }
        let contenders = contenders(args, &own, &cases[0])?;
        let progress = Progress::new(((contenders.len() + 1) * cases.len()) as u64, "comparing");
        let compared = pool.install(|| compare(&own.name, &cases, &contenders, || progress.step()));
        all.push(compared?);
    }
    match args.format {
        Format::Json => output::print_json(&all.concat()),
        Format::Table => all.iter().try_for_each(|compared| output::print(&table(compared))),
    }
}

/// The policies asked for, or all that the scenario can be simulated with; the scenario's own keeps its parameters.
fn contenders(args: &Args, own: &scenarios::Scenario, case: &Case) -> Result<Vec<Contender>, Failure> {
    let (fit, closed) = (case.fit.is_some(), matches!(case.arrivals, Arrivals::Closed { .. }));
    let usable =
        |entry: &&Entry| entry.simulate.is_some() && (fit || !entry.fitted) && (closed || !entry.clairvoyant);
    let names: Vec<&str> = match args.policies.as_slice() {
        [] => registry().iter().filter(usable).map(|entry| entry.name).collect(),
        names => names.iter().map(String::as_str).collect(),
    };
    let contender = |name: &str| {
        let params = if name == own.policy.name { own.policy.params.clone() } else { Default::default() };
        let (entry, params) =
            resolve_policy(name, &params).map_err(|complaint| Failure::refused(complaint.message))?;
        Ok(Contender { entry, params })
    };
    names.into_iter().map(contender).collect()
}

fn table(compared: &[Compared]) -> String {
    let Some(first) = compared.first() else { return String::new() };
    let header = [
        &first.scenario,
        "stall s",
        "stall share",
        "hit rate",
        "tok/s",
        "TPOT p50 ms",
        "drift max",
        "vs best",
        "rank",
    ];
    let row = |each: &Compared| {
        let metric = |name: &str| each.metrics.get(name).map_or(0.0, |estimate| estimate.mean);
        let spread = each.metrics["stall_s"].ci95_high - each.metrics["stall_s"].mean;
        let spread = if spread > 0.0 { format!(" ± {spread:.3}") } else { String::new() };
        let rank = each.rank.map_or("knows the future".to_owned(), |rank| {
            if each.tie && rank > 1 { format!("{rank} (tie)") } else { rank.to_string() }
        });
        [
            each.policy.to_owned(),
            format!("{:.3}{spread}", metric("stall_s")),
            percent(metric("stall_fraction")),
            percent(metric("hit_rate")),
            format!("{:.2}", metric("output_throughput_tok_s")),
            format!("{:.3}", metric("p50_tpot_ms")),
            percent(metric("drift_max")),
            each.regret.map_or("-".to_owned(), |regret| format!("{:+.1} %", regret * 100.0)),
            rank,
        ]
    };
    let bound = format!("{:.3}", first.stall_bound_s);
    let rows = compared.iter().map(row).chain(std::iter::once(
        ["least possible", &bound, "", "", "", "", "", "", "bound"].map(String::from),
    ));
    let regime = match first.regime {
        sim::compare::Regime::Slack => {
            "Slack: the best policy stalls under 1 % of the time; any of them will do."
        }
        sim::compare::Regime::Contended => {
            "Contended: stall and compute are of one size; the policy matters."
        }
        sim::compare::Regime::LinkBound => {
            "Link-bound: the best policy still stalls over half of the time; fewer bytes or more memory help most."
        }
    };
    format!("{}{regime}\n", output::numbers(header.map(String::from), rows))
}
