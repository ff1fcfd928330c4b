//! What a search found: tables, a JSON record, and a YAML file of the policy.

use crate::output;
use policy::registry::Param;
use serde::Serialize;
use sim::Summary;
use sim::metric::Figure;
use sim::statistics::{pairs_needed, signed_rank};
use sim::tune::{Objective, Space, mean};
use std::collections::BTreeSet;
use std::fmt::Write;

/// See the module. Runs are those of the policy as given, then those of the policy as found.
pub(super) struct Report<'a> {
    pub(super) scenario: &'a str,
    pub(super) space: &'a Space,
    pub(super) objective: &'a Objective,
    pub(super) start: &'a [f64],
    pub(super) found: &'a [f64],
    pub(super) evaluations: u32,
    pub(super) search_seed: u64,
    pub(super) train: [Vec<Summary>; 2],
    pub(super) validation: [Vec<Summary>; 2],
}

/// The JSON form.
#[derive(Serialize)]
pub(super) struct Record<'a> {
    scenario: &'a str,
    policy: &'static str,
    objective: String,
    evaluations: u32,
    search_seed: u64,
    params: Vec<Tuned>,
    figures: Vec<Row>,
    /// The gain on either side, as a share of what the policy as given has; null where that is zero.
    train_gain: Option<f64>,
    validation_gain: Option<f64>,
    /// The gain on the training side that the other side does not show.
    generalisation_gap: Option<f64>,
    /// Wilcoxon's signed-rank test of the objective on the validation side, run by run; null with too few runs.
    validation_p_value: Option<f64>,
    hotset_version: &'static str,
}

#[derive(Serialize)]
struct Tuned {
    name: &'static str,
    given: f64,
    found: f64,
}

/// The mean of a figure over the runs.
#[derive(Serialize)]
struct Row {
    name: String,
    train_given: f64,
    train_found: f64,
    validation_given: f64,
    validation_found: f64,
}

/// What is shown beside the objective and the constraints.
const SHOWN: [&str; 4] = ["stall_s", "hit_rate", "output_throughput_tok_s", "drift_max"];

impl Report<'_> {
    pub(super) fn record(&self) -> Record<'_> {
        let [train_gain, validation_gain] = self.gains();
        Record {
            scenario: self.scenario,
            policy: self.space.entry().name,
            objective: self.objective.to_string(),
            evaluations: self.evaluations,
            search_seed: self.search_seed,
            params: self.tuned(),
            figures: self.rows(),
            train_gain,
            validation_gain,
            generalisation_gap: self.gap(),
            validation_p_value: self.p_value(),
            hotset_version: env!("CARGO_PKG_VERSION"),
        }
    }

    pub(super) fn tables(&self) -> String {
        let policy = self.space.entry().name;
        let params = self.tuned().into_iter().map(|tuned| {
            [format!("{policy}.{}", tuned.name), tuned.given.to_string(), tuned.found.to_string()]
        });
        let params = output::numbers(["parameter", "given", "found"].map(String::from), params);
        let number = |value: f64| if value.is_nan() { "-".to_owned() } else { format!("{value:.4}") };
        let figures = self.rows().into_iter().map(|row| {
            let Row { name, train_given, train_found, validation_given, validation_found } = row;
            let values = [train_given, train_found, validation_given, validation_found].map(number);
            std::iter::once(name).chain(values).collect::<Vec<_>>()
        });
        let header = ["mean over runs", "train: given", "found", "validation: given", "found"];
        let figures = output::numbers(header.map(String::from).to_vec(), figures);
        format!("{params}\n{figures}{}", self.verdict())
    }

    /// The policy as `compare --policies` takes it.
    pub(super) fn yaml(&self) -> String {
        let entry = self.space.entry();
        let mut text = String::new();
        let version = env!("CARGO_PKG_VERSION");
        let comment = format!(
            "{}: the best of {} points tried by `hotset tune` {version}, search seed {}",
            self.objective, self.evaluations, self.search_seed
        );
        let verdict = self.verdict();
        let searched = format!("searched on {}", self.scenario);
        for line in [searched.as_str(), &comment].into_iter().chain(verdict.lines()) {
            // A name may hold a line break; a comment may not.
            let _ = writeln!(text, "# {}", line.replace(char::is_control, " "));
        }
        let _ = writeln!(text, "policy:\n  {}:", entry.name);
        let written =
            entry.params.iter().zip(self.found).filter(|&(param, value)| self.is_told(param, *value));
        for (param, value) in written {
            let _ = writeln!(text, "    {}: {value}", param.name);
        }
        text
    }

    /// Whether a parameter's value has to be written down: it was searched, or it is not the default.
    fn is_told(&self, param: &Param, value: f64) -> bool {
        self.space.of(self.found).any(|(searched, _)| searched.name == param.name) || value != param.default
    }

    fn tuned(&self) -> Vec<Tuned> {
        let pairs = self.space.of(self.start).zip(self.space.of(self.found));
        pairs.map(|((param, given), (_, found))| Tuned { name: param.name, given, found }).collect()
    }

    fn rows(&self) -> Vec<Row> {
        let mut figures = vec![self.objective.figure.clone()];
        figures.extend(self.objective.constraints.iter().map(|constraint| constraint.figure.clone()));
        figures.extend(SHOWN.iter().filter_map(|name| Figure::named(name).ok()));
        let mut seen = BTreeSet::new();
        figures.retain(|figure| seen.insert(figure.name().to_owned()));
        let row = |figure: &Figure| Row {
            name: figure.name().to_owned(),
            train_given: mean(figure, &self.train[0]),
            train_found: mean(figure, &self.train[1]),
            validation_given: mean(figure, &self.validation[0]),
            validation_found: mean(figure, &self.validation[1]),
        };
        figures.iter().map(row).collect()
    }

    /// What was gained where it was searched, and where it is judged.
    fn gains(&self) -> [Option<f64>; 2] {
        let sign = if self.objective.maximize { 1.0 } else { -1.0 };
        [&self.train, &self.validation].map(|[given, found]| {
            let of = |runs| mean(&self.objective.figure, runs);
            let gain = sign * (of(found) / of(given) - 1.0);
            gain.is_finite().then_some(gain)
        })
    }

    fn gap(&self) -> Option<f64> {
        let [train, validation] = self.gains();
        Some(train? - validation?)
    }

    fn p_value(&self) -> Option<f64> {
        let [given, found] = &self.validation;
        let figure = &self.objective.figure;
        let difference = |(given, found): (&Summary, &Summary)| figure.of(found) - figure.of(given);
        let differences: Vec<f64> = given.iter().zip(found).map(difference).collect();
        let enough = differences.len() >= pairs_needed(1) && differences.iter().all(|d| !d.is_nan());
        enough.then(|| signed_rank(&differences).p)
    }

    fn verdict(&self) -> String {
        let share = |gain: Option<f64>| gain.map_or("-".to_owned(), |gain| format!("{:+.2} %", gain * 100.0));
        let [train, validation] = self.gains().map(share);
        let gap = self.gap().map_or("-".to_owned(), |gap| format!("{:.2} points", gap * 100.0));
        let mut text = format!(
            "{}: gain {train} where it was searched, {validation} where it is judged; generalisation gap {gap}.\n",
            self.objective.figure.name()
        );
        if let Some(p) = self.p_value() {
            let _ =
                writeln!(text, "Signed-rank test over {} runs there: p = {p:.4}.", self.validation[0].len());
        }
        let broken: Vec<String> = self.broken();
        if !broken.is_empty() {
            let _ = writeln!(text, "Where it is judged it does not keep to {}.", broken.join(", "));
        }
        text
    }

    /// The constraints that the policy as found does not keep to where it is judged.
    fn broken(&self) -> Vec<String> {
        let kept = |constraint: &&sim::tune::Constraint| {
            self.validation[1].iter().all(|run| constraint.violation(constraint.figure.of(run)) == 0.0)
        };
        let constraints = self.objective.constraints.iter();
        constraints.filter(|constraint| !kept(constraint)).map(ToString::to_string).collect()
    }
}
