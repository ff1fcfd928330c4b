//! A plan as a page: what was run, the front, what binds and what more would buy.

use super::figures::THROUGHPUT;
use super::{Axis, Bound, Gain, Plan, Question, Tried};
use crate::page::{
    Band, Cell, Chart, Colour, Figure, Kind, Line, Page, Rule, Section, Table, Unit, significant,
};
use policy::Bytes;
use std::sync::Arc;

/// Colours of configurations, in order; those beyond begin again.
const CYCLE: [Colour; 7] =
    [Colour::Blue, Colour::Orange, Colour::Green, Colour::Red, Colour::Purple, Colour::Sky, Colour::Yellow];

/// The page of a plan for a scenario, whose objectives are of a percentile.
pub fn page(scenario: &str, question: &Question<'_>, percentile: f64, plan: &Plan) -> Page {
    let shown = Shown { question, percentile, plan };
    let mut sections = vec![Section::Heading("What was run")];
    sections.extend(question.bounds.iter().map(|bound| Section::Chart(shown.latency(bound))));
    sections.push(Section::Chart(shown.throughput()));
    sections.push(Section::Table(shown.points()));
    sections.push(Section::Heading("What binds, and what more would buy"));
    sections.push(Section::Table(gains("10 % more of each resource", &plan.sensitivity)));
    let less = plan.binding.as_ref().map_or(&[][..], |binding| &binding.less);
    sections.push(Section::Table(gains("10 % less", less)));
    Page {
        title: scenario.to_owned(),
        facts: vec![
            ("points", format!("{} of {} run", plan.tried.len(), question.space.len())),
            ("hotset", env!("CARGO_PKG_VERSION").to_owned()),
        ],
        figures: shown.figures(),
        sections,
        notes: vec![
            "A point meets the objective with the upper end of its interval over the seeds.".to_owned(),
            "On the front are the points that no other one beats in price, memory, latency and throughput."
                .to_owned(),
            "Runs that can no longer keep to the objective are stopped: their points have no figures."
                .to_owned(),
        ],
    }
}

struct Shown<'s> {
    question: &'s Question<'s>,
    percentile: f64,
    plan: &'s Plan,
}

impl Shown<'_> {
    fn metric(&self, bound: &Bound) -> String {
        format!("{} p{}", bound.metric.to_uppercase(), self.percentile)
    }

    /// The configuration but for its memory: what points of one line have in common.
    fn kind(&self, tried: &Tried) -> String {
        let other = |axis: &Axis| axis.path.as_ref().is_none_or(|path| !path.starts_with("memory."));
        let at = self.question.space.at(&tried.candidate.point).filter(|(axis, _)| other(axis));
        let named: Vec<String> = at.map(|(axis, value)| format!("{}={value}", axis.name)).collect();
        if named.is_empty() { tried.candidate.machine.clone() } else { named.join(", ") }
    }

    fn ran(&self) -> impl Iterator<Item = &Arc<Tried>> {
        self.plan.tried.iter().filter(|tried| tried.stopped.is_none())
    }

    /// A figure of all points that ran to their end, over their memory: a line for each kind of configuration.
    fn over_memory(&self, title: String, about: &str, y: Unit, of: impl Fn(&Tried) -> f64) -> Chart {
        let mut sizes: Vec<u64> = self.ran().map(|tried| tried.candidate.bytes()).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let mut kinds: Vec<String> = self.ran().map(|tried| self.kind(tried)).collect();
        kinds.sort();
        kinds.dedup();
        let value = |kind: &str, bytes: u64| {
            let at = self.ran().find(|tried| tried.candidate.bytes() == bytes && self.kind(tried) == kind);
            at.map(|tried| of(tried)).filter(|value| value.is_finite())
        };
        let lines = kinds.iter().enumerate().map(|(place, kind)| Line {
            name: kind.clone(),
            colour: CYCLE[place % CYCLE.len()],
            values: sizes.iter().map(|&bytes| value(kind, bytes)).collect(),
        });
        Chart {
            title,
            about: about.to_owned(),
            kind: Kind::Points,
            x: ("fast memory", Unit::Bytes),
            y,
            lines: lines.collect(),
            bands: sizes.iter().map(|&bytes| Band(bytes as f64, bytes as f64)).collect(),
            rules: Vec::new(),
        }
    }

    fn latency(&self, bound: &Bound) -> Chart {
        let about = "over fast memory of all machines, of the points that were run to their end";
        let of = |tried: &Tried| tried.estimates[bound.figure].mean / 1e3;
        let limit = Rule { name: "objective".to_owned(), at: bound.limit_ms / 1e3, upright: false };
        let chart = self.over_memory(self.metric(bound), about, Unit::Seconds, of);
        Chart { rules: vec![limit], ..chart }
    }

    fn throughput(&self) -> Chart {
        let of = |tried: &Tried| tried.estimates[THROUGHPUT].mean * f64::from(tried.candidate.replicas);
        let unit = Unit::Of("tokens a second");
        self.over_memory("Throughput".to_owned(), "of all machines, over their fast memory", unit, of)
    }

    fn points(&self) -> Table {
        let front = |tried: &Arc<Tried>| self.plan.front.iter().any(|other| Arc::ptr_eq(other, tried));
        let row = |tried: &Arc<Tried>| {
            let at = self.question.space.at(&tried.candidate.point);
            let set: Vec<String> = at.map(|(axis, value)| format!("{}={value}", axis.name)).collect();
            let latencies = self.question.bounds.iter().map(|bound| match &tried.stopped {
                None => {
                    format!("{} {}", bound.metric.to_uppercase(), millis(tried.estimates[bound.figure].mean))
                }
                Some(stopped) if stopped.metric == bound.metric => {
                    format!("{} beyond {}", bound.metric.to_uppercase(), millis(stopped.limit))
                }
                Some(_) => String::new(),
            });
            let latencies: Vec<String> = latencies.filter(|text| !text.is_empty()).collect();
            let throughput = tried.estimates[THROUGHPUT].mean * f64::from(tried.candidate.replicas);
            let yes = |it: bool| if it { "yes" } else { "no" };
            [
                set.join(", "),
                cost(tried),
                Bytes(tried.candidate.bytes()).to_string(),
                latencies.join(", "),
                if throughput.is_finite() { significant(throughput) } else { "-".to_owned() },
                yes(tried.meets()).to_owned(),
                yes(front(tried)).to_owned(),
            ]
            .map(Cell::text)
            .to_vec()
        };
        Table {
            title: "Points",
            about: "the least first".to_owned(),
            header: vec![
                "configuration",
                "an hour",
                "fast memory",
                "latency",
                "tok/s",
                "meets it",
                "on the front",
            ],
            words: 1,
            rows: self.plan.tried.iter().map(row).collect(),
            empty: "No point was run.",
        }
    }

    fn figures(&self) -> Vec<Figure> {
        let Plan { best, nearest, binding, .. } = self.plan;
        let Some(at) = best.as_ref().or(nearest.as_ref()) else { return Vec::new() };
        let set = self.question.space.at(&at.candidate.point);
        let set: Vec<String> = set.map(|(axis, value)| format!("{}={value}", axis.name)).collect();
        let label = if best.is_some() { "The least that meets it" } else { "Nothing meets it; the nearest" };
        let binds = binding.as_ref().map_or("none", |binding| binding.resource);
        let latency = self.question.bounds.iter().map(|bound| Figure {
            label: if bound.metric == "ttft" { "TTFT" } else { "TPOT" },
            value: significant(at.estimates[bound.figure].mean),
            unit: "ms",
            note: format!("p{}, at most {}", self.percentile, millis(bound.limit_ms)),
        });
        let mut figures = vec![Figure { label, value: cost(at), unit: "an hour", note: set.join(", ") }];
        figures.extend(latency);
        figures.push(Figure {
            label: "Binds",
            value: binds.replace('_', " "),
            unit: "",
            note: "10 % less of it costs the most".to_owned(),
        });
        figures
    }
}

fn millis(ms: f64) -> String {
    format!("{} ms", significant(ms))
}

/// What all machines of a point cost an hour.
fn cost(tried: &Tried) -> String {
    let price = tried.candidate.micros_per_hour().zip(tried.candidate.price.as_ref());
    price.map_or("-".to_owned(), |(micros, price)| format!("{:.2} {}", micros as f64 / 1e6, price.currency))
}

fn gains(title: &'static str, gains: &[Gain]) -> Table {
    let row = |gain: &Gain| {
        let least = if gain.stopped.is_some() { "at least " } else { "" };
        let signed =
            |share: f64| if share.is_nan() { "-".to_owned() } else { format!("{:+.1} %", share * 100.0) };
        let [latency, throughput] = [gain.latency_change, gain.throughput_change].map(signed);
        [gain.resource.replace('_', " "), format!("{least}{latency}"), throughput].map(Cell::text).to_vec()
    };
    Table {
        title,
        about: "change of the latency nearest to its limit, and of the tokens a second".to_owned(),
        header: vec!["resource", "latency", "throughput"],
        words: 1,
        rows: gains.iter().map(row).collect(),
        empty: "Not asked for here.",
    }
}
