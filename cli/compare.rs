//! `hotset compare`: an experiment of policies, scenarios, sweeps and seeds.

mod report;

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::progress::Progress;
use crate::resume::open_journal;
use crate::scenario_args::{Overrides, assignment, seeded_cases, sweep_points};
use indexmap::IndexMap;
use policy::registry::{Entry, registry};
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use scenarios::Scenario;
use sim::experiment::{self, Cell, Compared, Contender, Table, TableFile, decision_cost};
use sim::resolve::{Library, check_policy, resolve_policy};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Compare policies on scenarios: intervals, corrected tests and ranks over paired seeds, and the least possible stall
#[derive(clap::Args)]
#[command(after_long_help = STATISTICS)]
pub(crate) struct Args {
    /// Scenario files, or names of shipped scenarios
    #[arg(required = true, value_name = "SCENARIO")]
    scenarios: Vec<String>,

    #[command(flatten)]
    overrides: Overrides,

    /// Compare once for each value, as in `--sweep memory.hbm='192 slots,288 slots'`; repeated, for every combination
    #[arg(long = "sweep", value_name = "PATH=A,B,C", value_parser = assignment)]
    sweeps: Vec<(String, String)>,

    /// Policies, or YAML files with a policy and its parameters; all that can be simulated if none is given
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    policies: Vec<String>,

    /// Seeds, counted from the scenario's own. With more than one, recorded requests come in an order drawn from the seed
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,

    /// Runs at the same time, 0 for one a core; the result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024))]
    jobs: u16,

    /// Keep finished runs in this file, and take from it those that are finished
    #[arg(long, value_name = "FILE.jsonl")]
    resume: Option<PathBuf>,

    /// Write a row for each scenario, policy and seed to this .csv, .json or .parquet file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Also time the controller: nanoseconds a layer step, of one more run of each policy, alone. Depends on the machine
    #[arg(long)]
    cost: bool,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Cases of an experiment: each is kept while it runs.
const MOST_CASES: u64 = 100_000;

/// What stands under the long help.
const STATISTICS: &str = "\
A cell is a scenario at one point of the sweeps. Its policies run on the same requests with the same seeds and are ranked \
by mean stall. Intervals are 95 % bootstrap intervals (BCa). Every policy is tested against the best of its cell: Wilcoxon's \
signed-rank test, paired by seed, Holm-corrected over the cell; `tie` says that the test cannot tell the two apart. Two policies \
need 6 seeds for a test, seven need 8. \
Seeds draw generated routing, arrivals, gate weights that were not recorded, and the order of recorded requests (`workload.order`); \
with `workload.limit_tokens`, also which of them are served. Whole recordings in other orders share their requests: a difference \
that holds there is one for these requests.

Regimes, under `lru`: slack, the busiest link is busy under 50 % of the time or stall is under 1 %; hopeless, the least possible stall is \
at least half of the time it would leave and 80 % of the stall; tight, the link is busy at least 80 % and stall is at least 20 %; contended otherwise.";

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let pool = ThreadPoolBuilder::new().num_threads(args.jobs.into()).build().map_err(Failure::failed)?;
    let cells = cells(args)?;
    let file = args.out.as_deref().map(TableFile::create).transpose().map_err(Failure::refused)?;
    let journal = args.resume.as_deref().map(open_journal).transpose()?;
    let progress = Progress::new(experiment::pieces(&cells) as u64, "comparing");
    let measured = pool.install(|| experiment::run(&cells, journal.as_ref(), || progress.step()))?;
    drop(progress);
    if let Some(file) = file {
        file.write(&Table::new(&cells, &measured)).map_err(Failure::failed)?;
    }
    let compare = |(cell, measured)| experiment::compare(cell, measured);
    let compared: Vec<Vec<Compared>> =
        pool.install(|| cells.par_iter().zip(&measured).map(compare).collect());
    let costs = args.cost.then(|| costs(&cells)).transpose()?;
    match args.format {
        Format::Json => output::print_json(&report::records(&compared, costs.as_deref())),
        Format::Table => output::print(&report::tables(&cells, &compared, costs.as_deref())),
    }
}

/// Every scenario at every point of the sweeps.
fn cells(args: &Args) -> Result<Vec<Cell>, Failure> {
    for (path, instead) in [("policy", "--policies"), ("seed", "--seeds")] {
        if args.sweeps.iter().any(|(swept, _)| swept == path) {
            return Err(Failure::refused(format!("--sweep {path}= is not for comparing: use {instead}")));
        }
    }
    let points = sweep_points(&args.sweeps)?;
    let cases = (args.scenarios.len() * points.len()) as u64 * args.seeds;
    if cases > MOST_CASES {
        let message =
            format!("{cases} combinations of scenario, sweep and seed: at most {MOST_CASES} at a time");
        return Err(Failure::refused(message));
    }
    let files = policy_files(&args.policies)?;
    let mut library = Library::default();
    let mut cells = Vec::new();
    for name in &args.scenarios {
        for point in &points {
            cells.push(cell(args, name, point, &files, &mut library)?);
        }
    }
    Ok(cells)
}

fn cell(
    args: &Args,
    name: &str,
    point: &IndexMap<String, String>,
    files: &[Contender],
    library: &mut Library,
) -> Result<Cell, Failure> {
    let mut set = args.overrides.set.clone();
    set.extend(point.iter().map(|(path, value)| (path.clone(), value.clone())));
    let (own, cases) = seeded_cases(library, name, &set, args.seeds)?;
    let (fit, closed) = (cases[0].fit.is_some(), cases[0].arrivals.is_closed());
    let script = cases[0].script.is_some();
    let usable = |entry: &Entry| {
        (fit || !entry.fitted) && (closed || !entry.clairvoyant) && (script || !entry.scripted)
    };
    let contenders = contenders(&args.policies, &own, usable, files)?;
    Ok(Cell { scenario: own.name, sweep: point.clone(), cases, contenders })
}

/// The policies that are named by a file, in the order of their files.
fn policy_files(names: &[String]) -> Result<Vec<Contender>, Failure> {
    let files = names.iter().map(Path::new).filter(|path| path.extension().is_some());
    let contender = |path: &Path| {
        let choice = scenarios::load_policy(path, &check_policy)?;
        let (entry, params) = resolve_policy(&choice.name, &choice.params)
            .map_err(|complaint| Failure::refused(complaint.message))?;
        let from = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Contender { label: format!("{}:{from}", entry.name), entry, params })
    };
    files.map(contender).collect()
}

/// The policies asked for, or all that the scenario can be simulated with; the scenario's own keeps its parameters.
fn contenders(
    asked: &[String],
    own: &Scenario,
    usable: impl Fn(&Entry) -> bool,
    files: &[Contender],
) -> Result<Vec<Contender>, Failure> {
    let all = || registry().iter().filter(|entry| entry.simulate.is_some() && usable(entry));
    let names: Vec<&str> = match asked {
        [] => all().map(|entry| entry.name).collect(),
        names => names.iter().map(String::as_str).collect(),
    };
    let mut files = files.iter();
    let mut contenders: Vec<Contender> = Vec::new();
    for name in names {
        let contender = match Path::new(name).extension().and_then(|_| files.next()) {
            Some(file) => file.clone(),
            None => {
                let params =
                    if name == own.policy.name { own.policy.params.clone() } else { Default::default() };
                let (entry, params) =
                    resolve_policy(name, &params).map_err(|complaint| Failure::refused(complaint.message))?;
                Contender { label: entry.name.to_owned(), entry, params }
            }
        };
        if contenders.iter().any(|other| other.label == contender.label) {
            return Err(Failure::refused(format!("--policies names `{}` twice", contender.label)));
        }
        contenders.push(contender);
    }
    Ok(contenders)
}

/// What a decision of each contender of each cell costs, in nanoseconds a layer step. One at a time, so that they do
/// not take each other's cores.
#[allow(clippy::disallowed_methods)] // The wall clock is what is reported here; nothing else depends on it.
fn costs(cells: &[Cell]) -> Result<Vec<Vec<f64>>, Failure> {
    let progress = Progress::spinner("timing");
    let start = Instant::now();
    let clock = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let of_cell = |cell: &Cell| {
        let costs = cell.contenders.iter().map(|contender| decision_cost(&cell.cases[0], contender, clock));
        costs.collect::<Result<Vec<_>, _>>()
    };
    let costs = cells.iter().map(of_cell).collect::<Result<_, _>>()?;
    drop(progress);
    Ok(costs)
}
