//! `report.html`: what the template shows, as text and shares, nothing left for it to compute. Only what the seed
//! determines is shown: no wall clock, no path.

use super::histogram::Histogram;
use super::slowest::Slowest;
use crate::report::{Summary, ratio};
use crate::simulate::Case;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use policy::state::{STATES, State, edge_between};
use policy::tally::{RequestTimes, Tally};
use policy::{Bytes, Nanos};
use serde::Serialize;

const TEMPLATE: &str = include_str!("report.html");
/// What S1 to S7 are called, in their order.
const STATE_NAMES: [&str; STATES.len()] =
    ["full", "reduced", "compressed", "staged", "cold", "in flight", "recomputable"];

/// Lays the page out.
pub(super) fn render(
    scenario: &str,
    case: &Case,
    tally: &Tally,
    slowest: &Slowest,
    summary: &Summary,
) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.add_template("report.html", TEMPLATE)?;
    environment.get_template("report.html")?.render(Serde(Page::new(scenario, case, tally, slowest, summary)))
}

#[derive(Serialize)]
struct Page<'a> {
    scenario: &'a str,
    facts: Vec<(&'static str, String)>,
    synthetic_gates: bool,
    figures: Vec<Figure>,
    bars: Vec<Bar>,
    gaps: Option<Histogram>,
    links: Vec<Vec<Cell>>,
    tiers: Vec<Vec<Cell>>,
    vetoes: Vec<Vec<Cell>>,
    transitions: Vec<Vec<Cell>>,
    slowest: Vec<Vec<Cell>>,
    requests: String,
}

/// A key figure.
#[derive(Serialize)]
struct Figure {
    label: &'static str,
    value: String,
    unit: &'static str,
    note: String,
}

/// A bar whose segments add up to all of it.
#[derive(Serialize)]
struct Bar {
    title: &'static str,
    about: String,
    segments: Vec<Segment>,
}

#[derive(Serialize)]
struct Segment {
    /// Names the colour.
    class: String,
    name: String,
    value: String,
    /// In per cent, for the width.
    width: String,
    share: String,
}

/// A cell of a table: text, with a meter behind it where it is a share.
#[derive(Serialize)]
struct Cell {
    text: String,
    meter: Option<String>,
}

impl<'a> Page<'a> {
    fn new(scenario: &'a str, case: &Case, tally: &Tally, slow: &Slowest, summary: &Summary) -> Page<'a> {
        Page {
            scenario,
            facts: facts(case, summary),
            synthetic_gates: summary.gates == "synthetic",
            figures: figures(case, summary),
            bars: bars(summary),
            gaps: Histogram::new(&tally.latencies.itl),
            links: links(summary),
            tiers: tiers(summary),
            vetoes: summary.vetoes.iter().map(|v| vec![words(v.reason), text(count(v.count))]).collect(),
            transitions: transitions(summary),
            slowest: slowest(slow),
            requests: count(tally.completed),
        }
    }
}

fn facts(case: &Case, summary: &Summary) -> Vec<(&'static str, String)> {
    let limit =
        |name: &str, limit: Option<Nanos>| limit.map(|limit| format!("{name} {}", ms(limit.as_millis_f64())));
    let mut facts = vec![
        ("machine", case.machine.name.clone()),
        ("model", case.model.name.clone()),
        ("policy", summary.policy.clone()),
        ("batch", format!("at most {}", case.max_batch)),
        ("seed", summary.seed.to_string()),
        ("gates", summary.gates.to_owned()),
        ("hotset", summary.hotset_version.to_owned()),
    ];
    if let Some(slo) = case.slo {
        let limits: Vec<_> =
            [limit("TTFT", slo.ttft), limit("TPOT", slo.tpot)].into_iter().flatten().collect();
        facts.push(("objective", format!("{} at p{}", limits.join(", "), slo.percentile)));
    }
    facts
}

fn figures(case: &Case, summary: &Summary) -> Vec<Figure> {
    let latency = |key: &str| summary.latencies.get(key).copied().flatten();
    let spread = |label, name: &str| {
        let at = |percent: &str| latency(&format!("{percent}_{name}_ms"));
        let (value, unit) = at("p50").map_or(("none".to_owned(), ""), |time| (significant(time), "ms p50"));
        let note =
            at("p99").map_or("no request has two tokens".to_owned(), |time| format!("p99 {}", ms(time)));
        Figure { label, value, unit, note }
    };
    let kept: Vec<_> = summary.hit_rate_by_state.iter().filter(|(_, share)| **share > 0.0).collect();
    let kept: Vec<_> = kept.iter().map(|(state, share)| format!("{state} {}", percent(**share))).collect();
    let mut figures = vec![
        Figure {
            label: "Throughput",
            value: significant(summary.output_throughput_tok_s),
            unit: "tokens/s",
            note: format!("{} tokens in {}", count(summary.output_tokens), seconds(summary.simulated_s)),
        },
        spread("First token (TTFT)", "ttft"),
        spread("Per token (TPOT)", "tpot"),
        Figure {
            label: "Stall",
            value: significant(100.0 * summary.stall_fraction),
            unit: "%",
            note: format!("of step time: {}", seconds(summary.stall_s())),
        },
        Figure {
            label: "Hit rate",
            value: significant(100.0 * summary.hit_rate),
            unit: "%",
            note: if kept.is_empty() { "no block was fast when asked for".into() } else { kept.join(", ") },
        },
        Figure {
            label: "Drift, largest",
            value: significant(100.0 * summary.drift_max),
            unit: "%",
            note: match summary.drift_budget {
                0.0 => "budget 0: full precision".into(),
                budget => format!("mean {}, budget {}", percent(summary.drift_mean), percent(budget)),
            },
        },
    ];
    if case.slo.is_some() {
        let all = format!("of {} requests/s", significant(summary.request_throughput_rps));
        let value = significant(summary.goodput_rps);
        figures.push(Figure { label: "Goodput", value, unit: "requests/s", note: all });
    }
    figures
}

fn bars(summary: &Summary) -> Vec<Bar> {
    let stall = summary.stall_s();
    let none = (summary.simulated_s - summary.compute_s - stall).max(0.0);
    let time =
        [("compute", "compute", summary.compute_s), ("stall", "stall", stall), ("idle", "no request", none)]
            .map(|(class, name, time)| (class.to_owned(), name.to_owned(), time));
    let causes = summary.stall_ms_by_cause.iter();
    let causes =
        causes.map(|(&cause, &time)| (cause.to_owned(), cause.replace('_', " "), time / 1e3)).collect();
    let states = summary.states.iter().zip(STATE_NAMES);
    let states = states.map(|(s, name)| (s.state.to_owned(), format!("{} {name}", s.state), s.byte_seconds));
    let byte_seconds = |amount: f64| format!("{} GiB s", significant(amount / (1_u64 << 30) as f64));
    let about = format!("{} simulated", seconds(summary.simulated_s));
    vec![
        bar("Time of the accelerator", about, time.into(), seconds),
        bar("Stall by cause", format!("{} in all", seconds(stall)), causes, seconds),
        bar(
            "Where blocks were",
            "native bytes times time in each state".into(),
            states.collect(),
            byte_seconds,
        ),
    ]
}

/// A bar of the (class, name, amount) that are more than nothing.
fn bar(
    title: &'static str,
    about: String,
    parts: Vec<(String, String, f64)>,
    write: impl Fn(f64) -> String,
) -> Bar {
    let whole: f64 = parts.iter().map(|part| part.2).sum();
    let some = parts.into_iter().filter(|part| part.2 > 0.0);
    let segments = some.map(|(class, name, amount)| Segment {
        class,
        name,
        value: write(amount),
        width: width(ratio(amount, whole)),
        share: percent(ratio(amount, whole)),
    });
    Bar { title, about, segments: segments.collect() }
}

fn links(summary: &Summary) -> Vec<Vec<Cell>> {
    let row = |link: &crate::report::LinkUse| {
        vec![
            text(&link.name),
            text(&link.direction),
            metered(link.utilization),
            text(Bytes(link.bytes)),
            text(format!("{} us", significant(link.mean_queue_us))),
        ]
    };
    summary.links.iter().map(row).collect()
}

fn tiers(summary: &Summary) -> Vec<Vec<Cell>> {
    let row = |tier: &crate::report::TierUse| {
        let share = ratio(tier.peak_bytes as f64, tier.capacity_bytes as f64);
        vec![
            text(&tier.name),
            Cell { text: Bytes(tier.peak_bytes).to_string(), meter: Some(width(share)) },
            text(Bytes(tier.capacity_bytes)),
            text(count(tier.hits)),
            text(count(tier.evictions)),
            text(Bytes(tier.read_bytes)),
            text(Bytes(tier.write_bytes)),
        ]
    };
    summary.tiers.iter().map(row).collect()
}

fn transitions(summary: &Summary) -> Vec<Vec<Cell>> {
    let state = |code: &str| STATES.into_iter().find(|state| state.code() == code);
    let written = |state: State| format!("{} {}", state.code(), STATE_NAMES[state as usize]);
    let row = |edge: &crate::report::Transition| {
        let (from, to) = (state(edge.from)?, state(edge.to)?);
        let name = edge_between(from, to)?.name;
        Some(vec![text(written(from)), text(written(to)), text(name), text(count(edge.count))])
    };
    summary.transitions.iter().filter_map(row).collect()
}

fn slowest(requests: &Slowest) -> Vec<Vec<Cell>> {
    let time = |time: Nanos| text(ms(time.as_millis_f64()));
    let row = |times: &RequestTimes| {
        vec![
            text(times.request.0),
            time(Nanos(times.arrived.0)),
            time(times.queued()),
            time(times.ttft()),
            times.tpot().map_or_else(|| text("none"), time),
            time(times.e2e()),
            text(count(times.context.into())),
            text(count(times.tokens.into())),
        ]
    };
    requests.iter().map(row).collect()
}

fn text(value: impl ToString) -> Cell {
    Cell { text: value.to_string(), meter: None }
}

fn words(name: &str) -> Cell {
    text(name.replace('_', " "))
}

fn metered(share: f64) -> Cell {
    Cell { text: percent(share), meter: Some(width(share)) }
}

fn width(share: f64) -> String {
    format!("{:.3}", 100.0 * share.clamp(0.0, 1.0))
}

/// Three figures, without an exponent.
fn significant(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..1.0 => format!("{value:.3}"),
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => count(value.round() as u64),
    }
}

fn ms(time: f64) -> String {
    format!("{}\u{a0}ms", significant(time))
}

fn seconds(time: f64) -> String {
    if time < 1.0 { ms(time * 1e3) } else { format!("{}\u{a0}s", significant(time)) }
}

fn percent(share: f64) -> String {
    format!("{}\u{a0}%", significant(100.0 * share))
}

/// Groups of three digits.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_grouped() {
        assert_eq!([0, 12, 999, 1_000, 1_234_567].map(count), ["0", "12", "999", "1,000", "1,234,567"]);
        let written = [0.0, 0.01234, 1.234, 12.34, 123.4, 12_345.6].map(significant);
        assert_eq!(written, ["0", "0.012", "1.23", "12.3", "123", "12,346"]);
    }

    #[test]
    fn the_segments_of_a_bar_add_up() {
        let parts = [1.0, 0.0, 3.0].map(|amount| ("c".into(), "n".into(), amount));
        let bar = bar("t", String::new(), parts.into(), seconds);
        let shares: Vec<_> = bar.segments.iter().map(|segment| segment.share.as_str()).collect();
        assert_eq!(shares, ["25.0\u{a0}%", "75.0\u{a0}%"]);
    }

    #[test]
    fn states_are_named_in_order() {
        assert_eq!(STATE_NAMES[State::InFlight as usize], "in flight");
        assert_eq!(STATE_NAMES[State::Recomputable as usize], "recomputable");
    }
}
