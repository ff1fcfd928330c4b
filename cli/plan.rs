//! `hotset plan`: the least memory, machines or cost that meets a service objective.

mod report;

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::progress::Progress;
use crate::scenario_args::{Overrides, assignment, load};
use crate::search_args::SearchArgs;
use clap::ValueEnum;
use report::Report;
use scenarios::{Diagnostics, Slo};
use sim::RunFailure;
use sim::output::{Folder, OutputError};
use sim::plan::{
    Axis, Heard, Minimize, PlanError, Question, Runs, Site, SiteError, Space, bounds, page, plan,
};
use std::io::Write;
use std::path::PathBuf;

/// Find the cheapest configuration that meets the service objective, what binds it, and what more would buy
#[derive(clap::Args)]
#[command(after_long_help = METHOD)]
pub(crate) struct Args {
    /// A scenario file, or the name of a shipped scenario
    scenario: String,

    #[command(flatten)]
    overrides: Overrides,

    /// What may vary: a tier (`hbm=16GiB..80GiB`), `machine=h100-sxm,h200`, `count=1..8` for machines that share the load, or any
    /// path of the scenario with values or a range; repeated, for every combination
    #[arg(long = "vary", required = true, value_name = "NAME=A,B|LOW..HIGH", value_parser = assignment)]
    vary: Vec<(String, String)>,

    /// The step of a range, as in `--step hbm=4GiB`; may be repeated
    #[arg(long = "step", value_name = "NAME=SIZE", value_parser = assignment)]
    steps: Vec<(String, String)>,

    /// A service objective, in place of the scenario's own, as in `--slo tpot=50ms`, `--slo ttft=2s` or `--slo percentile=95`
    #[arg(long = "slo", value_name = "METRIC=TIME", value_parser = assignment)]
    slo: Vec<(String, String)>,

    /// What is to be small first
    #[arg(long, value_enum, default_value_t)]
    minimize: Least,

    /// Seeds of each point, counted from the scenario's own; a point meets the objective with the upper end of its interval
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,

    #[command(flatten)]
    search: SearchArgs,

    /// Run every point, and every run to its end
    #[arg(long, conflicts_with = "evaluations")]
    exhaustive: bool,

    /// Write plan.json, which is what `--format json` prints, and report.html to this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is to be small first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Least {
    /// The price of an hour, then bytes of fast memory
    #[default]
    Cost,
    /// Bytes of fast memory over all machines
    Memory,
    /// Machines, then the price
    Machines,
}

/// What stands under the long help.
const METHOD: &str = "\
Up to 12 points are all run. Larger grids are searched by bisection, as more memory, a faster machine or more machines are hardly ever \
worse (the neighbours one step below the answer are run too). Grids with more than half as many values of what does not grow as there are \
--evaluations, and those of more than 4096 points, are searched by NSGA-II, then by bisection below the best point.

Machines of a `count` take the requests in turns; one of them is simulated, with every count-th request. Prices are those of the machine \
files, each with its date and source. A machine costs the same whichever part of its memory is used; then the least memory wins.

`binding` names the resource of which 10 % less costs the most of the latency that is nearest to its limit; where nothing meets the \
objective, the one of which 10 % more helps the most.";

/// The largest grid that is run whole on request.
const MOST_EXHAUSTIVE: usize = 10_000;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let pool = args.search.pool()?;
    let slo = args.slo.iter().map(|(key, value)| (format!("slo.{key}"), value.clone()));
    let set: Vec<(String, String)> = args.overrides.set.iter().cloned().chain(slo).collect();
    let space = space(args)?;
    if args.exhaustive && space.len() > MOST_EXHAUSTIVE {
        let message = format!("{} points are too many to run all: at most {MOST_EXHAUSTIVE}", space.len());
        return Err(Failure::refused(message));
    }
    let slo = objective(args, &set, &space)?;
    let bounds = bounds(&slo);
    let question = Question {
        space: &space,
        bounds: &bounds,
        minimize: args.minimize.into(),
        exhaustive: args.exhaustive,
        evaluations: args.search.evaluations as usize,
        search_seed: args.search.search_seed,
    };
    let folder = args.out.as_deref().map(Folder::make).transpose().map_err(Failure::refused)?;
    folder.iter().try_for_each(|folder| folder.takes(&FILES)).map_err(Failure::refused)?;
    let journal = args.search.journal()?;
    let progress = Progress::new(0, "planning");
    let heard = |heard| match heard {
        Heard::Expected(runs) => progress.expect(runs),
        Heard::Finished => progress.step(),
    };
    let runs = Runs {
        scenario: &args.scenario,
        set: &set,
        seeds: args.seeds,
        percentile: slo.percentile,
        journal: journal.as_ref(),
    };
    let site = Site::new(runs, &space, &heard);
    let plan = pool.install(|| plan(&question, &site))?;
    drop(progress);
    let report =
        Report { scenario: &args.scenario, question: &question, slo: &slo, seeds: args.seeds, plan: &plan };
    if let Some(folder) = &folder {
        write(folder, &report).map_err(Failure::failed)?;
    }
    match args.format {
        Format::Json => output::print_json(&report.record()),
        Format::Table => output::print(&report.tables()),
    }
}

/// The files of `--out`.
const FILES: [&str; 2] = ["plan.json", "report.html"];

/// Writes both files, or neither.
fn write(folder: &Folder, report: &Report<'_>) -> Result<(), OutputError> {
    let page = page(report.scenario, report.question, report.slo.percentile, report.plan).render()?;
    let drafts = FILES.map(|name| {
        let mut draft = folder.draft(name)?;
        let filled = match name {
            "plan.json" => serde_json::to_writer_pretty(&mut draft, &report.record())
                .map_err(std::io::Error::from)
                .and_then(|()| draft.write_all(b"\n")),
            _ => draft.write_all(page.as_bytes()),
        };
        draft.complete(filled)
    });
    let drafts = drafts.into_iter().collect::<Result<Vec<_>, _>>()?;
    drafts.into_iter().try_for_each(|draft| draft.publish().map(drop))
}

/// The axes.
fn space(args: &Args) -> Result<Space, Failure> {
    let unknown = args.steps.iter().find(|(of, _)| args.vary.iter().all(|(name, _)| name != of));
    if let Some((name, _)) = unknown {
        let message = format!("--step {name}: nothing called `{name}` varies; write --vary {name}=LOW..HIGH");
        return Err(Failure::refused(message));
    }
    let mut axes = Vec::new();
    for (name, values) in &args.vary {
        let step = args.steps.iter().find(|(of, _)| of == name).map(|(_, step)| step.as_str());
        axes.push(Axis::new(name, values, step).map_err(Failure::refused)?);
    }
    Space::new(axes).map_err(Failure::refused)
}

/// The service objective, of the first of these that is no refused scenario: the scenario as it is, then with the last value
/// on every axis, then with each value of each axis beside the last of the others.
fn objective(args: &Args, set: &[(String, String)], space: &Space) -> Result<Slo, Failure> {
    let last: Vec<usize> = space.axes().iter().map(|axis| axis.values.len() - 1).collect();
    let with = |place: usize, value: usize| {
        let mut point = last.clone();
        point[place] = value;
        point
    };
    let single = space
        .axes()
        .iter()
        .enumerate()
        .flat_map(|(place, axis)| (0..axis.values.len()).map(move |value| (place, value)));
    let points = std::iter::once(last.clone()).chain(single.map(|(place, value)| with(place, value)));
    let sets =
        std::iter::once(set.to_vec()).chain(points.map(|point| [set, &space.overrides(&point)].concat()));
    let loaded = sets.map(|set| load(&args.scenario, &set));
    let mut refused = None;
    for scenario in loaded {
        match scenario {
            Ok(scenario) => {
                let hint =
                    "no service objective: give --slo tpot=50ms, or `slo: { tpot: 50 ms }` in the scenario";
                return scenario.slo.ok_or_else(|| Failure::refused(hint));
            }
            Err(failure) => refused = refused.or(Some(failure)),
        }
    }
    Err(refused.unwrap_or_else(|| Failure::refused("there is nothing to vary")))
}

impl From<Least> for Minimize {
    fn from(least: Least) -> Minimize {
        match least {
            Least::Cost => Minimize::Cost,
            Least::Memory => Minimize::Memory,
            Least::Machines => Minimize::Machines,
        }
    }
}

impl From<PlanError<SiteError, Diagnostics>> for Failure {
    fn from(error: PlanError<SiteError, Diagnostics>) -> Failure {
        match error {
            PlanError::Misfit(diagnostics) => diagnostics.into(),
            PlanError::Bench(SiteError::Seeds(error)) => error.into(),
            PlanError::Bench(SiteError::Run {
                source: RunFailure::Control(_) | RunFailure::World(_),
                ..
            }) => Failure::failed(error.to_string()),
            PlanError::Bench(SiteError::Journal(error)) => Failure::failed(error),
            PlanError::Bench(error) => Failure::refused(error),
            PlanError::NoPrice(_) | PlanError::Currencies(_) => Failure::refused(error.to_string()),
        }
    }
}
