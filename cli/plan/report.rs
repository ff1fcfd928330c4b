//! What a plan looks like: tables and sentences, and the record of the JSON form.

use crate::output;
use crate::simulate::percent;
use indexmap::IndexMap;
use scenarios::Slo;
use serde::Serialize;
use sim::plan::figures::{self, THROUGHPUT};
use sim::plan::{Binding, Gain, Less, Method, Minimize, Plan, Question, Step, Stopped, Tried};
use sim::statistics::Estimate;
use std::fmt::Write;

const GIB: f64 = (1_u64 << 30) as f64;

/// See the module.
pub(super) struct Report<'r> {
    pub(super) scenario: &'r str,
    pub(super) question: &'r Question<'r>,
    pub(super) slo: &'r Slo,
    pub(super) seeds: u64,
    pub(super) plan: &'r Plan,
}

/// The JSON form.
#[derive(Serialize)]
pub(super) struct Record<'r> {
    scenario: &'r str,
    slo: Objective,
    minimize: &'static str,
    feasible: bool,
    best: Option<Point>,
    /// Where nothing meets the objective, what misses it by the least.
    nearest: Option<Point>,
    binding: Option<&'r Binding>,
    pareto: Vec<Point>,
    sensitivity: &'r [Gain],
    /// Where nothing meets the objective, what each resource without a limit would come to.
    unlimited: &'r [Gain],
    /// Points that were run.
    evaluations: usize,
    /// Points of the grid, and those that cannot be: `null` where the grid was too large to list.
    points: usize,
    misfits: Option<usize>,
    /// Points left out because with less memory everything is in it too.
    surplus: usize,
    method: Method,
    cut_short: bool,
    seeds: u64,
    /// All points that were run.
    tried: Vec<Point>,
    hotset_version: &'static str,
}

#[derive(Serialize)]
struct Objective {
    ttft_ms: Option<f64>,
    tpot_ms: Option<f64>,
    percentile: f64,
}

/// A configuration and its figures, of one machine where there are several.
#[derive(Serialize)]
struct Point {
    set: IndexMap<String, String>,
    machine: String,
    machines: u32,
    accelerators: u32,
    fast_bytes: u64,
    cost_per_hour: Option<f64>,
    currency: Option<String>,
    price_date: Option<String>,
    price_source: Option<String>,
    feasible: bool,
    /// How far it is from meeting the objective, as a share of the limit; null where it has no sample or was stopped.
    violation: Option<f64>,
    /// Where its runs were stopped because it misses the objective whatever comes: then it has no figures.
    stopped: Option<Stopped>,
    /// Over all machines.
    system_throughput_tok_s: f64,
    #[serde(flatten)]
    figures: IndexMap<&'static str, Estimate>,
}

impl Report<'_> {
    pub(super) fn record(&self) -> Record<'_> {
        let Plan { best, nearest, front, tried, .. } = self.plan;
        let points = |tried: &[std::sync::Arc<Tried>]| tried.iter().map(|tried| self.point(tried)).collect();
        let ms = |time: Option<policy::Nanos>| time.map(policy::Nanos::as_millis_f64);
        Record {
            scenario: self.scenario,
            slo: Objective {
                ttft_ms: ms(self.slo.ttft),
                tpot_ms: ms(self.slo.tpot),
                percentile: self.slo.percentile,
            },
            minimize: match self.question.minimize {
                Minimize::Cost => "cost",
                Minimize::Memory => "memory",
                Minimize::Machines => "machines",
            },
            feasible: best.is_some(),
            best: best.as_deref().map(|tried| self.point(tried)),
            nearest: nearest.as_deref().map(|tried| self.point(tried)),
            binding: self.plan.binding.as_ref(),
            pareto: points(front),
            sensitivity: &self.plan.sensitivity,
            unlimited: &self.plan.unlimited,
            evaluations: tried.len(),
            points: self.plan.points,
            misfits: self.plan.misfits,
            surplus: self.plan.surplus,
            method: self.plan.method,
            cut_short: self.plan.cut_short,
            seeds: self.seeds,
            tried: points(tried),
            hotset_version: env!("CARGO_PKG_VERSION"),
        }
    }

    fn point(&self, tried: &Tried) -> Point {
        let candidate = &tried.candidate;
        let set = self.question.space.at(&candidate.point);
        let price = candidate.price.as_ref();
        Point {
            set: set.map(|(axis, value)| (axis.name.clone(), value.to_owned())).collect(),
            machine: candidate.machine.clone(),
            machines: candidate.replicas,
            accelerators: candidate.accelerators,
            fast_bytes: candidate.fast.0,
            cost_per_hour: candidate.micros_per_hour().map(|micros| micros as f64 / 1e6),
            currency: price.map(|price| price.currency.clone()),
            price_date: price.map(|price| price.date.clone()),
            price_source: price.map(|price| price.source.clone()),
            feasible: tried.meets(),
            violation: Some(tried.violation)
                .filter(|violation| violation.is_finite() && tried.stopped.is_none()),
            stopped: tried.stopped,
            system_throughput_tok_s: tried.estimates[THROUGHPUT].mean * f64::from(candidate.replicas),
            figures: figures::names().into_iter().zip(tried.estimates.iter().copied()).collect(),
        }
    }

    pub(super) fn tables(&self) -> String {
        let mut text: String = self.front();
        text += &self.answer();
        if let Some(binding) = &self.plan.binding {
            text += &self.binding(binding);
            text += &self.gains("10 % more of", binding, &self.plan.sensitivity);
            text += &self.gains("endless", binding, &self.plan.unlimited);
        }
        text += &self.effort();
        text
    }

    /// The Pareto front.
    fn front(&self) -> String {
        let mut header = vec![self.scenario.to_owned()];
        header.extend(["an hour", "fast memory"].map(String::from));
        header.extend(self.question.bounds.iter().map(|bound| self.metric(bound.metric) + " ms"));
        header.extend(["tok/s", "link busy", "stall share", "meets it"].map(String::from));
        let rows = self.plan.front.iter().map(|tried| {
            let figure = |name: &str| {
                let place = figures::names().iter().position(|other| *other == name);
                place.map_or(f64::NAN, |place| tried.estimates[place].mean)
            };
            let best = self.plan.best.as_ref().is_some_and(|best| best.candidate == tried.candidate);
            let mut row = vec![
                format!("{}{}", if best { "> " } else { "" }, self.name(tried)),
                cost(tried).unwrap_or_else(|| "-".to_owned()),
                format!("{:.1} GiB", tried.candidate.bytes() as f64 / GIB),
            ];
            row.extend(self.question.bounds.iter().map(|bound| interval(&tried.estimates[bound.figure])));
            let throughput = figure("output_throughput_tok_s") * f64::from(tried.candidate.replicas);
            row.push(format!("{throughput:.1}"));
            row.extend([percent(figure("link_utilization")), percent(figure("stall_fraction"))]);
            row.push(if tried.meets() { "yes" } else { "no" }.to_owned());
            row
        });
        output::numbers(header, rows)
    }

    /// The answer in a sentence.
    fn answer(&self) -> String {
        let Plan { best, nearest, .. } = self.plan;
        let limits = self
            .question
            .bounds
            .iter()
            .map(|bound| format!("{} of at most {} ms", self.metric(bound.metric), bound.limit_ms));
        let limits = limits.collect::<Vec<_>>().join(" and ");
        match (best, nearest) {
            (Some(best), _) => {
                let cost = cost(best).map_or(String::new(), |cost| format!(" at {cost} an hour"));
                let price = best.candidate.price.as_ref();
                let price =
                    price.map_or(String::new(), |price| format!(" Price: {}, {}.", price.source, price.date));
                format!("{}{cost} meets {limits}: {}.{price}\n", self.name(best), self.latencies(best))
            }
            (None, Some(nearest)) => {
                let (name, latencies) = (self.name(nearest), self.latencies(nearest));
                format!("Nothing meets {limits}. The nearest is {name}: {latencies}.\n")
            }
            (None, None) => "No point was run.\n".to_owned(),
        }
    }

    /// The latencies of a point; one without an objective is said too, since requests may queue for it.
    fn latencies(&self, tried: &Tried) -> String {
        let all = [("ttft", figures::TTFT), ("tpot", figures::TPOT)].map(|(metric, figure)| {
            let bound = self.question.bounds.iter().any(|bound| bound.figure == figure);
            let note = if bound { "" } else { " (no objective)" };
            format!("{} {} ms{note}", self.metric(metric), interval(&tried.estimates[figure]))
        });
        all.join(", ")
    }

    /// What binds, in a few sentences.
    fn binding(&self, binding: &Binding) -> String {
        let mut text = match binding.resource {
            "none" => "Binds: none of the resources.".to_owned(),
            resource => format!("Binds: {resource}{}.", why(binding, &self.metric(binding.metric))),
        };
        for step in &binding.steps {
            let _ = match (&step.value, step.then) {
                (None, _) => write!(text, " {} is the least of its values.", step.axis),
                (Some(value), Less::Misfit) => write!(text, " {}={value} does not fit.", step.axis),
                (Some(value), then) => {
                    let verb = if then == Less::Meets { "meets it too" } else { "misses it" };
                    write!(text, " {}={value} {verb}{}.", step.axis, self.outcome(step))
                }
            };
        }
        text + "\n"
    }

    /// What a step less came to.
    fn outcome(&self, step: &Step) -> String {
        match (&step.latency_ms, &step.stopped) {
            (Some(latency), _) => format!(": {} ms", interval(latency)),
            (None, Some(Stopped { metric: "requests_rejected", .. })) => ": it refuses requests".to_owned(),
            (None, Some(Stopped { metric, limit, .. })) => {
                format!(": {} beyond {limit:.1} ms", self.metric(metric))
            }
            (None, None) => String::new(),
        }
    }

    fn gains(&self, title: &str, binding: &Binding, gains: &[Gain]) -> String {
        if gains.is_empty() {
            return String::new();
        }
        let metric = self.metric(binding.metric) + " ms";
        let header = [title, metric.as_str(), "change", "tok/s", "change"].map(String::from);
        let signed = |share: f64| format!("{:+.1} %", share * 100.0);
        let row = |gain: &Gain| {
            [
                gain.resource.to_owned(),
                interval(&gain.latency_ms),
                signed(gain.latency_change),
                format!("{:.1}", gain.output_throughput_tok_s.mean),
                signed(gain.throughput_change),
            ]
        };
        output::numbers(header, gains.iter().map(row))
    }

    /// How the answer was found, and how sure it is.
    fn effort(&self) -> String {
        let Plan { tried, points, misfits, surplus, method, cut_short, .. } = self.plan;
        let how = match method {
            Method::Exhaustive => "all that fit",
            Method::Bisection => "by bisection",
            Method::Nsga2 => "by NSGA-II and bisection",
        };
        let mut left_out = String::new();
        if let Some(misfits) = misfits.filter(|&misfits| misfits > 0) {
            left_out += &format!(", {misfits} do not fit");
        }
        if *surplus > 0 {
            left_out += &format!(", {surplus} have more memory than there is to hold");
        }
        let stopped = tried.iter().filter(|tried| tried.stopped.is_some()).count();
        let stopped = match stopped {
            0 => String::new(),
            1 => "; 1 was stopped once it was sure to miss".to_owned(),
            stopped => format!("; {stopped} were stopped once they were sure to miss"),
        };
        let seeds = match self.seeds {
            1 => "one seed, so without an interval".to_owned(),
            seeds => {
                format!("{seeds} seeds near the objective, with the 95 % interval in brackets, else one")
            }
        };
        let short = match cut_short {
            true => "\nThe search ended before it was done: give it more --evaluations.",
            false => "",
        };
        format!("{} of {points} points run ({how}{left_out}), {seeds}{stopped}.{short}\n", tried.len())
    }

    /// What a latency is called, with the percentile.
    fn metric(&self, name: &str) -> String {
        format!("{} p{}", name.to_uppercase(), self.slo.percentile)
    }

    /// The axes with their values.
    fn name(&self, tried: &Tried) -> String {
        let set = self.question.space.at(&tried.candidate.point);
        set.map(|(axis, value)| format!("{}={value}", axis.name)).collect::<Vec<_>>().join(", ")
    }
}

/// What tells that the resource binds.
fn why(binding: &Binding, metric: &str) -> String {
    match binding.less.iter().find(|less| less.resource == binding.resource) {
        Some(less) => {
            let least = if less.stopped.is_some() { "at least " } else { "" };
            format!("; 10 % less of it puts {least}{:.1} % on {metric}", less.latency_change * 100.0)
        }
        None if binding.less.is_empty() => format!("; more of it takes the most off {metric}"),
        None => "; what is less does not fit".to_owned(),
    }
}

/// What all machines cost an hour.
fn cost(tried: &Tried) -> Option<String> {
    let micros = tried.candidate.micros_per_hour()?;
    let currency = tried.candidate.price.as_ref()?.currency.as_str();
    Some(format!("{:.2} {currency}", micros as f64 / 1e6))
}

/// A mean, and its interval where it has one.
fn interval(estimate: &Estimate) -> String {
    let Estimate { mean, ci95_low, ci95_high } = estimate;
    match (mean.is_nan(), ci95_high > ci95_low) {
        (true, _) => "-".to_owned(),
        (false, true) => format!("{mean:.2} [{ci95_low:.2}, {ci95_high:.2}]"),
        (false, false) => format!("{mean:.2}"),
    }
}
