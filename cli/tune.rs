//! `hotset tune`: a policy's parameters searched in simulation.

mod report;

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::progress::Progress;
use crate::scenario_args::{Overrides, assignment, seeded_cases};
use crate::search_args::SearchArgs;
use policy::registry::Entry;
use report::Report;
use sim::metric::Figure;
use sim::output::Draft;
use sim::resolve::{Library, resolve_policy};
use sim::tune::{Constraint, Objective, Search, Space, TuneError, evaluate, shared};
use sim::{Case, RunFailure};
use std::io::Write;
use std::path::PathBuf;

/// Search a policy's parameters on one scenario, and judge them on others
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The scenario to search on: a file, or the name of a shipped one
    scenario: String,

    #[command(flatten)]
    overrides: Overrides,

    /// The policy; the scenario's own if none is given
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,

    /// The parameters to search; all but switches if none is given
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    params: Vec<String>,

    /// A figure of the summary to make small
    #[arg(long, value_name = "FIGURE", default_value = "stall", conflicts_with = "maximize")]
    minimize: String,

    /// A figure of the summary to make large
    #[arg(long, value_name = "FIGURE")]
    maximize: Option<String>,

    /// A bound that every run has to keep to, as in `--subject-to 'drift_max<=0.01'`; may be repeated
    #[arg(long, value_name = "FIGURE<=NUMBER", value_parser = str::parse::<Constraint>)]
    subject_to: Vec<Constraint>,

    /// Scenarios to judge the result on, with other requests than the one that is searched on
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "SCENARIO,...",
        required_unless_present = "validate_set"
    )]
    validate: Vec<String>,

    /// What is different where the result is judged, as in `--validate-set seed=100`; may be repeated
    #[arg(long, value_name = "PATH=VALUE", value_parser = assignment)]
    validate_set: Vec<(String, String)>,

    #[command(flatten)]
    search: SearchArgs,

    /// Seeds of each scenario, counted from its own; a point counts by the mean over them
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,

    /// Write the policy with the parameters found to this YAML file, for `compare --policies FILE`
    #[arg(short, long, value_name = "FILE.yaml")]
    out: Option<PathBuf>,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let pool = args.search.pool()?;
    let objective = objective(args)?;
    let mut library = Library::default();
    let (scenario, train) = seeded_cases(&mut library, &args.scenario, &args.overrides.set, args.seeds)?;
    let validation = validation(args, &mut library)?;
    if let Some(request) = shared(&train, &validation) {
        return Err(Failure::refused(format!(
            "request {} ({} tokens) is searched on and judged on: give other requests to --validate or --validate-set",
            request.request, request.tokens
        )));
    }
    let (entry, start) = policy(args, &scenario)?;
    let space = Space::new(entry, &args.params).map_err(Failure::refused)?;
    let draft = args.out.clone().map(Draft::create).transpose().map_err(Failure::refused)?;
    let journal = args.search.journal()?;
    let progress = Progress::new(u64::from(args.search.evaluations), "tuning");
    let search = Search {
        space: &space,
        start: &start,
        evaluations: args.search.evaluations as usize,
        seed: args.search.search_seed,
    };
    let found = pool.install(|| search.on(&train, &objective, journal.as_ref(), || progress.step()))?;
    drop(progress);
    if found.score.violation > 0.0 {
        return Err(Failure::failed(format!(
            "none of {} points keeps to the constraints ({objective}); the nearest misses by {:.3} of a limit",
            args.search.evaluations, found.score.violation
        )));
    }
    if found.score.value.is_nan() {
        let figure = objective.figure.name();
        return Err(Failure::refused(format!("the runs have no sample of {figure}; choose another figure")));
    }
    let runs = |params: &[f64], cases: &[Case]| pool.install(|| evaluate(entry, params, cases));
    let report = Report {
        scenario: &scenario.name,
        space: &space,
        objective: &objective,
        start: &start,
        found: &found.params,
        evaluations: args.search.evaluations,
        search_seed: args.search.search_seed,
        train: [runs(&start, &train)?, runs(&found.params, &train)?],
        validation: [runs(&start, &validation)?, runs(&found.params, &validation)?],
    };
    if let Some(mut draft) = draft {
        let written = draft.write_all(report.yaml().as_bytes());
        draft.complete(written).and_then(Draft::publish).map_err(Failure::failed)?;
    }
    match args.format {
        Format::Json => output::print_json(&report.record()),
        Format::Table => output::print(&report.tables()),
    }
}

fn objective(args: &Args) -> Result<Objective, Failure> {
    let (name, maximize) = match &args.maximize {
        Some(name) => (name, true),
        None => (&args.minimize, false),
    };
    let figure = Figure::named(name).map_err(Failure::refused)?;
    Ok(Objective { figure, maximize, constraints: args.subject_to.clone() })
}

/// The cases of every scenario that the result is judged on: those named, or the one that is searched on, with what is
/// set for judging.
fn validation(args: &Args, library: &mut Library) -> Result<Vec<Case>, Failure> {
    let names = if args.validate.is_empty() { std::slice::from_ref(&args.scenario) } else { &args.validate };
    let set = [&args.overrides.set[..], &args.validate_set].concat();
    let mut all = Vec::new();
    for name in names {
        all.extend(seeded_cases(library, name, &set, args.seeds)?.1);
    }
    Ok(all)
}

/// The policy to search, with its parameters as the scenario gives them, or their defaults.
fn policy(args: &Args, scenario: &scenarios::Scenario) -> Result<(&'static Entry, Vec<f64>), Failure> {
    let own = &scenario.policy;
    let name = args.policy.as_ref().unwrap_or(&own.name);
    let params = if *name == own.name { own.params.clone() } else { Default::default() };
    resolve_policy(name, &params).map_err(|complaint| Failure::refused(complaint.message))
}

impl From<TuneError> for Failure {
    fn from(error: TuneError) -> Failure {
        match error {
            TuneError::Run(RunFailure::Control(_) | RunFailure::World(_))
            | TuneError::Optimiser(_)
            | TuneError::Journal(_) => Failure::failed(error),
            TuneError::Run(_) => Failure::refused(error),
        }
    }
}
