//! `report.html`: a run as a page. Only what the seed determines is shown: no wall clock, no path.

use super::charts;
use super::slowest::Slowest;
use crate::page::{Bar, Cell, Colour, Figure, Page, Section, Table, count, percent, seconds, significant};
use crate::report::{StageUse, Summary, Transition, ratio};
use crate::series::Window;
use crate::simulate::Case;
use crate::traffic::{LinkUse, NearUse, TierUse};
use policy::state::{STATES, State, edge_between};
use policy::tally::{CAUSES, RequestTimes, Tally};
use policy::{Bytes, Nanos};

/// What S1 to S7 are called, in their order.
const STATE_NAMES: [&str; STATES.len()] =
    ["full", "reduced", "compressed", "staged", "cold", "in flight", "recomputable"];
const STATE_COLOURS: [Colour; STATES.len()] =
    [Colour::Green, Colour::Sky, Colour::Blue, Colour::Orange, Colour::Grey, Colour::Red, Colour::Purple];
/// The colours of stalls, in the order of [`CAUSES`].
pub(super) const CAUSE_COLOURS: [Colour; CAUSES.len()] =
    [Colour::Red, Colour::Orange, Colour::Purple, Colour::Yellow, Colour::Blue, Colour::Sky];

/// A run that is over.
pub(super) struct Run<'a> {
    pub(super) scenario: &'a str,
    pub(super) case: &'a Case,
    pub(super) tally: &'a Tally,
    pub(super) slowest: &'a Slowest,
    pub(super) windows: &'a [Window],
    pub(super) summary: &'a Summary,
}

/// The page of a run.
pub(super) fn page(run: &Run<'_>) -> Page {
    let Run { scenario, case, summary, .. } = run;
    let mut sections = vec![Section::Heading("Where time and blocks went")];
    sections.extend(bars(summary).into_iter().map(Section::Bar));
    sections.push(Section::Heading("Over time"));
    sections.extend(charts::over_time(run).into_iter().map(Section::Chart));
    sections.push(Section::Heading("How long requests took"));
    sections.extend(charts::distributions(run).into_iter().map(Section::Chart));
    sections.push(Section::Table(slowest(run)));
    sections.push(Section::Heading("In numbers"));
    if !summary.pipeline_stages.is_empty() {
        sections.push(Section::Table(stages(summary)));
    }
    if !summary.near.is_empty() {
        sections.push(Section::Table(near(summary)));
    }
    sections
        .extend([links(summary), tiers(summary), vetoes(summary), transitions(summary)].map(Section::Table));
    Page {
        title: (*scenario).to_owned(),
        facts: facts(case, summary),
        figures: figures(case, summary),
        sections,
        notes: notes(summary),
    }
}

/// The state's code and name.
pub(super) fn state_name(state: State) -> String {
    format!("{} {}", state.code(), STATE_NAMES[state as usize])
}

pub(super) fn state_colour(state: State) -> Colour {
    STATE_COLOURS[state as usize]
}

/// A name as it is in files, in words.
pub(super) fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn facts(case: &Case, summary: &Summary) -> Vec<(&'static str, String)> {
    let limit = |name: &str, limit: Option<Nanos>| {
        limit.map(|limit| format!("{name} {}", seconds(limit.as_secs_f64())))
    };
    let mut facts = vec![
        ("machine", case.machine.name.clone()),
        ("model", case.model.name.clone()),
        ("policy", summary.policy.clone()),
        ("batch", format!("at most {}", case.max_batch)),
        ("seed", summary.seed.to_string()),
        ("gates", summary.gates.to_owned()),
        ("hotset", summary.hotset_version.to_owned()),
    ];
    if case.stage.is_part() {
        let (stages, batches) = (case.stage.of, case.micro_batches);
        let shown = "what is shown of one accelerator is the first stage's";
        facts.push(("pipeline", format!("{stages} stages, {batches} micro-batches; {shown}")));
    }
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
        let at = |percent: &str| latency(&format!("{percent}_{name}_ms")).map(|ms| seconds(ms / 1e3));
        let (value, unit) = at("p50").map_or(("none".to_owned(), ""), |time| (time, "p50"));
        let note = at("p99").map_or("no request has two tokens".to_owned(), |time| format!("p99 {time}"));
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
    let time = vec![
        ("compute".to_owned(), Colour::Green, summary.compute_s),
        ("stall".to_owned(), Colour::Red, stall),
        ("no request".to_owned(), Colour::Grey, none),
    ];
    let causes = summary.stall_ms_by_cause.iter().zip(CAUSE_COLOURS);
    let causes = causes.map(|((cause, &time), colour)| (words(cause), colour, time / 1e3)).collect();
    let states = summary.states.iter().zip(STATES);
    let states = states.map(|(s, state)| (state_name(state), state_colour(state), s.byte_seconds)).collect();
    let byte_seconds = |amount: f64| format!("{} GiB s", significant(amount / (1_u64 << 30) as f64));
    let about = format!("{} simulated", seconds(summary.simulated_s));
    vec![
        Bar::new("Time of the accelerator", about, time, seconds),
        Bar::new("Stall by cause", format!("{} in all", seconds(stall)), causes, seconds),
        Bar::new("Where blocks were", "native bytes times time in each state".into(), states, byte_seconds),
    ]
}

fn links(summary: &Summary) -> Table {
    let row = |link: &LinkUse| {
        vec![
            Cell::text(&link.name),
            Cell::text(&link.direction),
            Cell::metered(percent(link.utilization), link.utilization),
            Cell::text(Bytes(link.bytes)),
            Cell::text(format!("{} us", significant(link.mean_queue_us))),
        ]
    };
    Table {
        title: "Links",
        about: "utilisation is the share of the run in which a direction was busy".into(),
        header: vec!["link", "direction", "utilisation", "carried", "mean queue"],
        words: 2,
        rows: summary.links.iter().map(row).collect(),
        empty: "The machine has no links.",
    }
}

fn near(summary: &Summary) -> Table {
    let row = |near: &NearUse| {
        vec![
            Cell::text(&near.name),
            Cell::metered(percent(near.utilization), near.utilization),
            Cell::text(count(near.blocks)),
            Cell::text(seconds(near.busy_s)),
        ]
    };
    Table {
        title: "Compute in place",
        about: "blocks computed where they lie, by the host or by a memory's own processor".into(),
        header: vec!["processor", "utilisation", "blocks", "busy"],
        words: 1,
        rows: summary.near.iter().map(row).collect(),
        empty: "Nothing may be computed in place.",
    }
}

fn tiers(summary: &Summary) -> Table {
    let row = |tier: &TierUse| {
        let share = ratio(tier.peak_bytes as f64, tier.capacity_bytes as f64);
        vec![
            Cell::text(&tier.name),
            Cell::metered(Bytes(tier.peak_bytes), share),
            Cell::text(Bytes(tier.capacity_bytes)),
            Cell::text(count(tier.hits)),
            Cell::text(count(tier.evictions)),
            Cell::text(Bytes(tier.read_bytes)),
            Cell::text(Bytes(tier.write_bytes)),
        ]
    };
    Table {
        title: "Tiers",
        about: "peak and capacity count resident weights and caches too".into(),
        header: vec!["tier", "peak", "capacity", "compute reads", "evictions", "read", "written"],
        words: 1,
        rows: summary.tiers.iter().map(row).collect(),
        empty: "The machine has no tiers.",
    }
}

fn stages(summary: &Summary) -> Table {
    let share = |time: f64| Cell::text(percent(ratio(time, summary.simulated_s)));
    let row = |stage: &StageUse| {
        let [first, last] = stage.layers;
        vec![
            Cell::text(format!("{first} to {last}")),
            Cell::text(Bytes(stage.weight_bytes)),
            Cell::text(Bytes(stage.fast_peak_bytes)),
            Cell::text(percent(stage.hit_rate)),
            share(stage.compute_s),
            share(stage.stall_s),
            share(stage.idle_s),
            Cell::text(percent(stage.drift_max)),
        ]
    };
    Table {
        title: "Pipeline",
        about: "stages in order; shares are of the run, idle is without a batch".into(),
        header: vec![
            "layers",
            "weights",
            "fast, peak",
            "hit rate",
            "computes",
            "stalls",
            "idle",
            "drift, largest",
        ],
        words: 1,
        rows: summary.pipeline_stages.iter().map(row).collect(),
        empty: "One.",
    }
}

fn vetoes(summary: &Summary) -> Table {
    let row =
        |veto: &crate::report::Veto| vec![Cell::text(words(veto.reason)), Cell::text(count(veto.count))];
    Table {
        title: "Vetoes",
        about: "proposals that the guard refused".into(),
        header: vec!["reason", "count"],
        words: 1,
        rows: summary.vetoes.iter().map(row).collect(),
        empty: "None.",
    }
}

fn transitions(summary: &Summary) -> Table {
    let state = |code: &str| STATES.into_iter().find(|state| state.code() == code);
    let row = |edge: &Transition| {
        let (from, to) = (state(edge.from)?, state(edge.to)?);
        let name = edge_between(from, to)?.name;
        let texts = [state_name(from), state_name(to), name.to_owned(), count(edge.count)];
        Some(texts.map(Cell::text).into())
    };
    Table {
        title: "Transitions",
        about: "edges between states, as taken".into(),
        header: vec!["from", "to", "edge", "count"],
        words: 3,
        rows: summary.transitions.iter().filter_map(row).collect(),
        empty: "None.",
    }
}

fn slowest(run: &Run<'_>) -> Table {
    let time = |time: Nanos| Cell::text(seconds(time.as_secs_f64()));
    let row = |times: &RequestTimes| {
        vec![
            Cell::text(times.request.0),
            time(Nanos(times.arrived.0)),
            time(times.queued()),
            time(times.ttft()),
            times.tpot().map_or_else(|| Cell::text("none"), time),
            time(times.e2e()),
            Cell::text(count(times.context.into())),
            Cell::text(count(times.tokens.into())),
            Cell::text(count(times.preemptions.into())),
        ]
    };
    let rows: Vec<Vec<Cell>> = run.slowest.iter().map(row).collect();
    let about =
        format!("{} of {}, by time from arrival to last token", rows.len(), count(run.tally.completed));
    Table {
        title: "Slowest requests",
        about,
        header: vec!["request", "arrived", "queue", "TTFT", "TPOT", "E2E", "prompt", "output", "pre-empted"],
        words: 0,
        rows,
        empty: "No request was finished.",
    }
}

fn notes(summary: &Summary) -> Vec<String> {
    let mut notes = vec![
        "Times are virtual: this is a simulation. TTFT ends when the compute of the first token is complete. TPOT is \
         (E2E - TTFT) / (tokens - 1). Percentiles are at most 0.05 % off, those of a window 0.4 %. The hit rate is the \
         share of demanded blocks, a layer step each, with a usable copy in fast memory when the step asked. Stall is \
         time in which compute waited for memory. Drift is the relative change of a step's \
         output against full precision, estimated from the scenario's sensitivity table; the largest is taken at its \
         upper confidence bound."
            .to_owned(),
    ];
    if summary.gates == "synthetic" {
        notes.push(
            "gates: synthetic. The trace has no gate weights; seeded draws stand in for them.".to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_named_in_order() {
        assert_eq!(STATE_NAMES[State::InFlight as usize], "in flight");
        assert_eq!(STATE_NAMES[State::Recomputable as usize], "recomputable");
    }
}
