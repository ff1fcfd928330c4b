//! Policies side by side: every contender on every cell with every seed, runs in parallel, paired by seed.
//!
//! A cell is a scenario at one point of its sweeps; it has one case a seed, and every contender runs on all of them, so
//! that two contenders differ in nothing but the policy. What is worked out of the runs does not depend on how many
//! of them ran at once, or on which were finished in an earlier attempt.

mod compared;
mod cost;
pub(crate) mod digest;
pub(crate) mod journal;
mod regime;
mod rows;
mod standing;

pub use compared::{Compared, compare};
pub use cost::decision_cost;
pub use journal::{Journal, JournalError};
pub use regime::Regime;
pub use rows::{Table, TableError, TableFile};
pub use standing::{Standing, standings};

use crate::bound::stall_bound;
use crate::metric::{METRICS, STALL, Values, values};
use crate::report::Summary;
use crate::simulate::{Case, Keep, RunFailure};
use indexmap::IndexMap;
use policy::policies::lru;
use policy::registry::Entry;
use rayon::prelude::*;
use thiserror::Error;

/// A policy to compare, with its parameters.
#[derive(Clone, Debug)]
pub struct Contender {
    /// What it is called in tables: the policy's name, and where its parameters are from if they have a name.
    pub label: String,
    /// Its registry entry.
    pub entry: &'static Entry,
    /// The values of its parameters.
    pub params: Vec<f64>,
}

/// A scenario at one point of its sweeps.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The scenario's name.
    pub scenario: String,
    /// What the sweeps set here.
    pub sweep: IndexMap<String, String>,
    /// One case a seed.
    pub cases: Vec<Case>,
    /// Who runs here; labels are distinct.
    pub contenders: Vec<Contender>,
}

impl Cell {
    /// What the sweeps set, for a heading; `None` where there are none.
    pub fn point(&self) -> Option<String> {
        let set = self.sweep.iter().map(|(path, value)| format!("{path}={value}"));
        (!self.sweep.is_empty()).then(|| set.collect::<Vec<_>>().join(", "))
    }

    /// The seeds, in the order of the cases.
    pub fn seeds(&self) -> Vec<u64> {
        self.cases.iter().map(|case| case.seed).collect()
    }
}

/// What the runs of a cell gave.
#[derive(Clone, Debug)]
pub struct Measured {
    /// For each contender, the figures of each seed.
    pub runs: Vec<Vec<Values>>,
    /// The figures of the rule that defines the regime: least recently used.
    pub reference: Vec<Values>,
    /// For each seed, the least stall in seconds that any policy could have, where that is known.
    pub bounds: Vec<Option<f64>>,
}

/// Why an experiment ended early.
#[derive(Debug, Error)]
pub enum ExperimentError {
    /// A run failed or could not begin.
    #[error("{run}: {source}")]
    Run {
        /// Which one.
        run: String,
        /// Why.
        source: RunFailure,
    },
    /// Finished runs cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The rule that defines the regime of a cell.
const REFERENCE: &Entry = &lru::ENTRY;

/// One piece of work on a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// The run of a contender.
    Contender(usize),
    /// The run of [`REFERENCE`], where no contender is that.
    Reference,
    /// The bound.
    Bound,
}

/// Runs everything that `journal` does not hold yet. `done` is called once for each piece of work, from any thread.
///
/// # Errors
/// The first run, in the order of cells, contenders and seeds, that fails; what finished beside it is in the journal.
pub fn run(
    cells: &[Cell],
    journal: Option<&Journal>,
    done: impl Fn() + Sync,
) -> Result<Vec<Measured>, ExperimentError> {
    let work: Vec<(usize, Task, usize)> =
        cells.iter().enumerate().flat_map(|(c, cell)| work(c, cell)).collect();
    let digests = journal.map(|_| cells.iter().map(|cell| digest::of_cases(&cell.cases)).collect::<Vec<_>>());
    let finished: Vec<Result<Option<Values>, ExperimentError>> = work
        .par_iter()
        .map(|&(c, task, seed)| {
            let cell = &cells[c];
            let result = match (journal, &digests) {
                (Some(journal), Some(digests)) => {
                    let entry = cell.entry(task, seed, digests[c][seed]);
                    let names = METRICS.each_ref().map(|metric| metric.name);
                    let run =
                        || Ok::<_, ExperimentError>(cell.perform(task, seed)?.map(|values| values.to_vec()));
                    let kept = journal.finished(&entry, &names, run);
                    kept.map(|kept| kept.and_then(|values| Values::try_from(values).ok()))
                }
                _ => cell.perform(task, seed),
            };
            done();
            result
        })
        .collect();
    let mut measured: Vec<Measured> = cells.iter().map(Measured::empty).collect();
    for (&(c, task, _), result) in work.iter().zip(finished) {
        measured[c].take(task, result?);
    }
    for (cell, measured) in cells.iter().zip(&mut measured) {
        if let Some(contender) = cell.reference() {
            measured.reference = measured.runs[contender].clone();
        }
    }
    Ok(measured)
}

/// How many pieces of work an experiment has.
pub fn pieces(cells: &[Cell]) -> usize {
    cells.iter().enumerate().map(|(c, cell)| work(c, cell).count()).sum()
}

fn work(cell: usize, of: &Cell) -> impl Iterator<Item = (usize, Task, usize)> + use<'_> {
    let contenders = (0..of.contenders.len()).map(Task::Contender);
    let reference = of.reference().is_none().then_some(Task::Reference);
    let tasks = contenders.chain(reference).chain([Task::Bound]);
    tasks.flat_map(move |task| (0..of.cases.len()).map(move |seed| (cell, task, seed)))
}

impl Cell {
    /// The contender that is the reference.
    fn reference(&self) -> Option<usize> {
        self.contenders.iter().position(|contender| contender.entry.name == REFERENCE.name)
    }

    /// Who does a task, by name and parameters.
    fn doer(&self, task: Task) -> (&str, Option<(&'static Entry, &[f64])>) {
        match task {
            Task::Contender(index) => {
                let Contender { label, entry, params } = &self.contenders[index];
                (label, Some((entry, params)))
            }
            Task::Reference => (REFERENCE.name, Some((REFERENCE, &[]))),
            Task::Bound => ("least possible", None),
        }
    }

    /// The figures of one piece of work. Where there is no bound, there are none.
    fn perform(&self, task: Task, seed: usize) -> Result<Option<Values>, ExperimentError> {
        let case = &self.cases[seed];
        let (label, policy) = self.doer(task);
        let result = match policy {
            Some((entry, params)) => case
                .run(entry, params, Keep::default(), |_| {})
                .map(|outcome| Some(values(&Summary::new(case, &outcome, entry.name, 0.0)))),
            None => stall_bound(case).map(|bound| bound.map(|bound| only_stall(bound.stall_s))),
        };
        result.map_err(|source| {
            let place = format!(
                "{}{}",
                self.scenario,
                self.point().map_or(String::new(), |point| format!(", {point}"))
            );
            let run = format!("{place}, {label}, seed {}", case.seed);
            ExperimentError::Run { run, source }
        })
    }

    fn entry(&self, task: Task, seed: usize, case: u128) -> journal::Entry<'_> {
        let (label, policy) = self.doer(task);
        journal::Entry {
            key: digest::of_run(case, policy.map(|(entry, params)| (entry.name, params))),
            scenario: &self.scenario,
            sweep: &self.sweep,
            policy: label,
            seed: self.cases[seed].seed,
        }
    }
}

fn only_stall(stall_s: f64) -> Values {
    let mut values = [f64::NAN; METRICS.len()];
    values[STALL] = stall_s;
    values
}

impl Measured {
    fn empty(cell: &Cell) -> Measured {
        Measured { runs: vec![Vec::new(); cell.contenders.len()], reference: Vec::new(), bounds: Vec::new() }
    }

    fn take(&mut self, task: Task, values: Option<Values>) {
        match (task, values) {
            (Task::Contender(index), Some(values)) => self.runs[index].push(values),
            (Task::Reference, Some(values)) => self.reference.push(values),
            (Task::Bound, values) => self.bounds.push(values.map(|values| values[STALL])),
            // Every run has figures.
            (_, None) => {}
        }
    }
}
