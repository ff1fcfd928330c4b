//! The charts of a run.

use super::page::{CAUSE_COLOURS, Run, state_colour, state_name, words};
use crate::page::{Band, Chart, Colour, Kind, Line, Rule, Unit};
use crate::series::Window;
use policy::state::STATES;
use policy::tally::CAUSES;
use policy::veto::REASONS;
use policy::{Nanos, Sketch};

/// The most bars of a distribution.
const BARS: usize = 48;
/// Of many times, those beyond this percentile are told, not drawn, so that a few of them do not squeeze the rest.
const DRAWN: f64 = 99.5;
const MANY: u64 = 400;
/// Colours for what has no colour of its own, in order.
const CYCLE: [Colour; 7] =
    [Colour::Blue, Colour::Orange, Colour::Green, Colour::Red, Colour::Purple, Colour::Sky, Colour::Yellow];

/// A line over windows.
fn line(
    windows: &[Window],
    name: impl Into<String>,
    colour: Colour,
    value: impl Fn(&Window) -> Option<f64>,
) -> Line {
    Line { name: name.into(), colour, values: windows.iter().map(value).collect() }
}

/// A chart over the windows of a run.
fn over(run: &Run<'_>, title: &str, about: &str, y: Unit, kind: Kind, lines: Vec<Line>) -> Chart {
    let seconds = |time: policy::Time| Nanos(time.0).as_secs_f64();
    Chart {
        title: title.to_owned(),
        about: about.to_owned(),
        kind,
        x: ("time", Unit::Seconds),
        y,
        bands: run.windows.iter().map(|window| Band(seconds(window.from), seconds(window.to))).collect(),
        lines,
        rules: Vec::new(),
    }
}

/// What there is to see over time; what a run does not have is left out.
pub(super) fn over_time(run: &Run<'_>) -> Vec<Chart> {
    let Run { case, summary, .. } = run;
    let slo = case.slo;
    let mut charts = vec![
        accelerator(run),
        throughput(run),
        requests(run),
        times(
            run,
            "Time to first token",
            "of the requests whose first token came",
            |w| &w.ttft,
            slo.and_then(|slo| slo.ttft),
        ),
        times(run, "Time between tokens", "gaps between two tokens of one request", |w| &w.itl, None),
        residency(run),
        hit_rate(run),
        links(run),
    ];
    charts.extend((summary.drift_budget > 0.0).then(|| drift(run)));
    charts.extend(case.cache.map(|cache| {
        let cached = |window: &Window| window.cache.map(|bytes| bytes.0 as f64);
        let lines = vec![line(run.windows, "key-value cache", Colour::Purple, cached)];
        let mut chart =
            over(run, "Key-value cache", "bytes at the end of each window", Unit::Bytes, Kind::Lines, lines);
        chart.rules.push(Rule { name: "at most".into(), at: cache.most.0 as f64, upright: false });
        chart
    }));
    charts.push(vetoes(run));
    charts.into_iter().filter(|chart| !chart.is_empty()).collect()
}

fn accelerator(run: &Run<'_>) -> Chart {
    let windows = run.windows;
    let mut lines =
        vec![line(windows, "compute", Colour::Green, |window| Some(window.share(window.compute)))];
    // What of a step is not compute is stall. Its causes are known when it ends, so a window that ends within one has those
    // of a later window.
    let mut shares = [0.0; CAUSES.len()];
    let stalls = windows.iter().rev().map(|window| {
        let booked: f64 = window.stall.iter().map(|time| time.0 as f64).sum();
        if booked > 0.0 {
            shares = window.stall.map(|time| time.0 as f64 / booked);
        }
        let stalled = window.share(Nanos(window.stepping.0.saturating_sub(window.compute.0)));
        shares.map(|share| Some(share * stalled))
    });
    let mut stalls: Vec<_> = stalls.collect();
    stalls.reverse();
    lines.extend(CAUSES.iter().zip(CAUSE_COLOURS).enumerate().map(|(index, (cause, colour))| Line {
        name: words(cause.1),
        colour,
        values: stalls.iter().map(|causes| causes[index]).collect(),
    }));
    lines.push(line(windows, "no request", Colour::Grey, |window| {
        Some(1.0 - window.share(window.stepping).min(1.0))
    }));
    let about = "computing, waiting for memory by cause, or without a request";
    over(run, "Accelerator", about, Unit::Share, Kind::Stack, lines).without_zeros()
}

fn throughput(run: &Run<'_>) -> Chart {
    let windows = run.windows;
    let lines = vec![
        line(windows, "output", Colour::Blue, |w| Some(w.rate(w.counts.output_tokens))),
        line(windows, "prompts", Colour::Orange, |w| Some(w.rate(w.counts.prompt_tokens))),
        line(windows, "computed again", Colour::Red, |w| Some(w.rate(w.counts.recomputed_tokens))),
    ];
    over(run, "Throughput", "tokens a second", Unit::Of("tok/s"), Kind::Lines, lines).without_zeros()
}

fn requests(run: &Run<'_>) -> Chart {
    let lines = vec![
        line(run.windows, "in a step", Colour::Blue, |window| window.batch),
        line(run.windows, "waiting", Colour::Orange, |window| window.waiting),
    ];
    let about = "on average over the time of steps";
    over(run, "Requests", about, Unit::Of("requests"), Kind::Lines, lines)
}

fn times(
    run: &Run<'_>,
    title: &str,
    about: &str,
    sketch: impl Fn(&Window) -> &Sketch,
    limit: Option<Nanos>,
) -> Chart {
    let at = |window: &Window, percent: f64| {
        let [found] = sketch(window).percentiles([percent])?;
        Some(found * 1e-9)
    };
    let lines = vec![
        line(run.windows, "p50", Colour::Blue, |window| at(window, 50.0)),
        line(run.windows, "p99", Colour::Red, |window| at(window, 99.0)),
    ];
    let mut chart = over(run, title, about, Unit::Seconds, Kind::Lines, lines);
    let rule = |limit: Nanos| Rule { name: "objective".into(), at: limit.as_secs_f64(), upright: false };
    chart.rules.extend(limit.map(rule));
    chart
}

fn residency(run: &Run<'_>) -> Chart {
    let state = |(index, state)| {
        line(run.windows, state_name(state), state_colour(state), move |window: &Window| {
            Some(window.states[index])
        })
    };
    let lines = STATES.into_iter().enumerate().map(state).collect();
    over(run, "Where blocks were", "native bytes in each state", Unit::Bytes, Kind::Stack, lines)
        .without_zeros()
}

fn hit_rate(run: &Run<'_>) -> Chart {
    let lines = vec![line(run.windows, "hit rate", Colour::Green, Window::hit_rate)];
    let about = "share of demanded blocks with a usable fast copy";
    over(run, "Hit rate", about, Unit::Share, Kind::Lines, lines)
}

fn links(run: &Run<'_>) -> Chart {
    let machine = &run.case.machine;
    let link = |(index, link): (usize, &policy::machine::Link)| {
        let [from, to] = [link.from, link.to].map(|tier| machine.tier(tier).name.as_str());
        line(run.windows, format!("{} {from} to {to}", link.name), CYCLE[index % CYCLE.len()], |window| {
            window.links.get(index).map(|share| window.share(share.busy))
        })
    };
    let lines = machine.links.iter().enumerate().map(link).collect();
    let about = "share of the time in which each direction was busy";
    over(run, "Links", about, Unit::Share, Kind::Lines, lines).without_zeros()
}

fn drift(run: &Run<'_>) -> Chart {
    let lines = vec![
        line(run.windows, "mean", Colour::Blue, |window| window.drift_mean),
        line(run.windows, "largest", Colour::Red, |window| window.drift_mean.map(|_| window.drift_max)),
    ];
    let about = "of a step, the largest at its upper confidence bound";
    let mut chart = over(run, "Drift", about, Unit::Share, Kind::Lines, lines);
    chart.rules.push(Rule { name: "budget".into(), at: run.summary.drift_budget, upright: false });
    chart
}

fn vetoes(run: &Run<'_>) -> Chart {
    let reason = |(index, reason): (usize, &policy::veto::Reason)| {
        line(run.windows, words(reason.name()), CYCLE[index % CYCLE.len()], move |window: &Window| {
            Some(window.rate(window.vetoes[index]))
        })
    };
    let lines = REASONS.iter().enumerate().map(reason).collect();
    let about = "proposals refused a second, by reason";
    let chart = over(run, "Vetoes", about, Unit::Of("/s"), Kind::Stack, lines).without_zeros();
    // A chart of nothing says that there were none; the table does so already.
    if run.summary.vetoes.iter().all(|veto| veto.count == 0) {
        Chart { lines: Vec::new(), ..chart }
    } else {
        chart
    }
}

/// How long things took, over the whole run.
pub(super) fn distributions(run: &Run<'_>) -> Vec<Chart> {
    let all = &run.tally.latencies;
    let slo = run.case.slo;
    let distributed = [
        ("Time to first token (TTFT)", "requests", &all.ttft, slo.and_then(|slo| slo.ttft)),
        ("Time per output token (TPOT)", "requests", &all.tpot, slo.and_then(|slo| slo.tpot)),
        ("Time between tokens (ITL)", "gaps", &all.itl, None),
        ("Arrival to last token (E2E)", "requests", &all.e2e, None),
    ];
    distributed
        .into_iter()
        .filter_map(|(title, what, times, limit)| distribution(title, what, times, limit))
        .collect()
}

fn distribution(title: &str, what: &'static str, times: &Sketch, limit: Option<Nanos>) -> Option<Chart> {
    let (least, most) = times.range()?;
    let [p50, p99, drawn] = times.percentiles([50.0, 99.0, DRAWN])?.map(|nanos| nanos * 1e-9);
    let (from, most) = (least.as_secs_f64(), most.as_secs_f64());
    // One length of time has one bar, of some width.
    let to = if times.count() < MANY { most } else { drawn };
    let to = if to > from { to } else { from + (0.01 * from).max(1e-9) };
    // Few times are in few bars.
    let bars = ((2.0 * (times.count() as f64).sqrt()) as usize).clamp(8, BARS);
    let width = (to - from) / bars as f64;
    let mut counts = vec![0_u64; bars];
    let mut beyond = 0;
    for (time, count) in times.buckets() {
        let place = ((time.as_secs_f64() - from) / width).max(0.0);
        // The last bar has its end.
        if time.as_secs_f64() <= to * (1.0 + times.error()) {
            counts[(place as usize).min(bars - 1)] += count;
        } else {
            beyond += count;
        }
    }
    let about = match beyond {
        0 => String::new(),
        _ => format!("{beyond} beyond the right edge, the longest {}", crate::page::seconds(most)),
    };
    let edge = |index: usize| from + index as f64 * width;
    let rule = |name: &str, at: f64| Rule { name: name.into(), at, upright: true };
    let mut rules = vec![rule("p50", p50), rule("p99", p99)];
    rules.extend(limit.map(|limit| rule("objective", limit.as_secs_f64())));
    Some(Chart {
        title: title.to_owned(),
        about,
        kind: Kind::Bars,
        x: ("time", Unit::Seconds),
        y: Unit::Of(what),
        bands: (0..bars).map(|index| Band(edge(index), edge(index + 1))).collect(),
        lines: vec![Line {
            name: what.to_owned(),
            colour: Colour::Blue,
            values: counts.into_iter().map(|count| Some(count as f64)).collect(),
        }],
        rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(times: &[u64]) -> Option<Chart> {
        let mut sketch = Sketch::default();
        times.iter().for_each(|&time| sketch.record(Nanos(time), 1));
        distribution("t", "gaps", &sketch, None)
    }

    fn total(chart: &Chart) -> f64 {
        chart.lines[0].values.iter().flatten().sum()
    }

    #[test]
    fn no_time_no_chart_and_one_time_one_bar() {
        assert!(drawn(&[]).is_none());
        let one = drawn(&[2_500_000; 3]).unwrap();
        let bars: Vec<f64> = one.lines[0].values.iter().flatten().copied().filter(|&bar| bar > 0.0).collect();
        assert_eq!((bars, one.about.as_str()), (vec![3.0], ""));
    }

    #[test]
    fn every_time_is_in_a_bar_or_told() {
        let times: Vec<u64> = (0..1000).map(|n| 1_000_000 + n * 1_000).collect();
        let all = drawn(&times).unwrap();
        assert!(all.bands.windows(2).all(|pair| pair[0].1 == pair[1].0));
        let with_tail = drawn(&[times, vec![900_000_000; 4]].concat()).unwrap();
        let told: f64 = with_tail.about.split(' ').next().unwrap().parse().unwrap();
        assert!(told >= 4.0 && total(&with_tail) + told == 1004.0, "{}", with_tail.about);
        assert!(with_tail.about.ends_with("the longest 900\u{a0}ms"), "{}", with_tail.about);
    }
}
