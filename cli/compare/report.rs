//! What a comparison looks like: a table a cell, the standings over all cells, and the records of the JSON form.

use crate::output;
use crate::simulate::percent;
use serde::Serialize;
use sim::experiment::{Cell, Compared, Regime, Standing, standings};
use std::fmt::Write;

const RANK: &str = "rank";
const GIB: f64 = (1_u64 << 30) as f64;

/// A record of the JSON form.
#[derive(Serialize)]
pub(super) struct Record<'a> {
    #[serde(flatten)]
    compared: &'a Compared,
    /// Real time, and only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_ns_per_layer_step: Option<f64>,
}

/// The records of all cells.
pub(super) fn records<'a>(compared: &'a [Vec<Compared>], costs: Option<&[Vec<f64>]>) -> Vec<Record<'a>> {
    let cost = |cell: usize, policy: usize| costs.map(|costs| costs[cell][policy]);
    let of_cell = |(cell, compared): (usize, &'a Vec<Compared>)| {
        let each = compared.iter().enumerate();
        each.map(move |(policy, compared)| Record {
            compared,
            decision_ns_per_layer_step: cost(cell, policy),
        })
    };
    compared.iter().enumerate().flat_map(of_cell).collect()
}

/// A table a cell, and where there are several, the standings.
pub(super) fn tables(cells: &[Cell], compared: &[Vec<Compared>], costs: Option<&[Vec<f64>]>) -> String {
    let mut text = String::new();
    for (index, (cell, compared)) in cells.iter().zip(compared).enumerate() {
        if index > 0 {
            text.push('\n');
        }
        if let Some(point) = cell.point() {
            text += &format!("{point}\n");
        }
        text += &table(&cell.scenario, compared, costs.map(|costs| costs[index].as_slice()));
    }
    if compared.len() > 1 {
        text += &overall(compared);
    }
    text
}

fn table(title: &str, compared: &[Compared], costs: Option<&[f64]>) -> String {
    let Some(first) = compared.first() else { return String::new() };
    // Requests that put out one thing have no time for each token.
    let tokens = compared.iter().any(|each| !mean(each, "p50_tpot_ms").is_nan());
    let [rate, time] = if tokens { ["tok/s", "TPOT p50 ms"] } else { ["requests/s", "TTFT p50 ms"] };
    let mut header = vec![title, "stall s", "over bound s", "stall share", "hit rate", rate, time];
    header.extend(["GiB moved", "drift mean, max", "vs best", RANK]);
    if first.tested {
        header.extend(["p (Holm)", "effect"]);
    }
    if costs.is_some() {
        header.push("ns a step");
    }
    let mut rows: Vec<Vec<String>> = compared.iter().map(|each| row(each, tokens)).collect();
    if let Some(costs) = costs {
        rows.iter_mut().zip(costs).for_each(|(row, ns)| row.push(format!("{ns:.0}")));
    }
    if let Some(bound) = first.stall_bound_s {
        let cell = |column: &&str| match *column {
            "stall s" => format!("{bound:.3}"),
            RANK => "bound".to_owned(),
            _ => String::new(),
        };
        let mut row: Vec<String> = header.iter().map(cell).collect();
        row[0] = "least possible".to_owned();
        rows.push(row);
    }
    let header: Vec<String> = header.into_iter().map(String::from).collect();
    format!("{}{}{}", output::numbers(header, rows), verdict(compared), caveat(first))
}

/// The mean of a metric over the seeds; no number where there is none.
fn mean(each: &Compared, name: &str) -> f64 {
    each.metrics.get(name).map_or(f64::NAN, |estimate| estimate.mean)
}

fn row(each: &Compared, tokens: bool) -> Vec<String> {
    let metric = |name: &str| mean(each, name);
    let stall = each.metrics["stall_s"];
    let interval = match stall.ci95_high > stall.ci95_low {
        true => format!(" [{:.3}, {:.3}]", stall.ci95_low, stall.ci95_high),
        false => String::new(),
    };
    let number = |value: f64, text: String| if value.is_nan() { "-".to_owned() } else { text };
    let time = metric(if tokens { "p50_tpot_ms" } else { "p50_ttft_ms" });
    let rate = metric("output_throughput_tok_s");
    let rank =
        each.rank.map_or("knows the future".to_owned(), |rank| match each.tested && each.tie && rank > 1 {
            true => format!("{rank} (tie)"),
            false => rank.to_string(),
        });
    let mut row = vec![
        each.policy.clone(),
        format!("{:.3}{interval}", stall.mean),
        each.stall_over_bound_s.map_or("-".to_owned(), |beyond| format!("{beyond:.3}")),
        percent(metric("stall_fraction")),
        percent(metric("hit_rate")),
        if tokens { format!("{rate:.2}") } else { format!("{rate:.4}") },
        number(time, format!("{time:.3}")),
        format!("{:.2}", metric("link_bytes") / GIB),
        format!("{}, {}", percent(metric("drift_mean")), percent(metric("drift_max"))),
        each.regret.map_or("-".to_owned(), |regret| format!("{:+.1} %", regret * 100.0)),
        rank,
    ];
    if each.tested {
        row.push(each.p_holm.map_or("-".to_owned(), |p| format!("{p:.4}")));
        row.push(each.rank_biserial.map_or("-".to_owned(), |effect| format!("{effect:+.2}")));
    }
    row
}

/// The regime, and whose fault the stall is.
fn verdict(compared: &[Compared]) -> String {
    let Some(best) = compared.iter().find(|each| each.rank == Some(1)) else { return String::new() };
    let mut text = match best.regime {
        Regime::Slack => "Slack: the link or the stall is too small for the policy to matter.".to_owned(),
        Regime::Hopeless => {
            "Hopeless: no policy takes a fifth off the stall of lru; fewer bytes or more memory would."
                .to_owned()
        }
        Regime::Tight => "Tight: the link is full and stall is large; the policy decides.".to_owned(),
        Regime::Contended => "Contended: between slack and tight; the policy matters.".to_owned(),
    };
    if let (Some(bound), Some(beyond)) = (best.stall_bound_s, best.stall_over_bound_s) {
        let stall = best.metrics["stall_s"].mean;
        let _ = write!(
            text,
            "\nOf {stall:.3} s stall under {}, {bound:.3} s is the working set's, which no policy avoids, and at most {:.3} s the policy's.",
            best.policy,
            beyond.max(0.0)
        );
    }
    text + "\n"
}

/// Why nothing is tested, if nothing is.
fn caveat(first: &Compared) -> String {
    let seeds = first.seeds.len();
    if first.tested {
        return String::new();
    }
    match seeds < first.seeds_needed {
        true => format!(
            "Ranks are by means: with {seeds} seed{} nothing can be tested; --seeds {} could.\n",
            if seeds == 1 { "" } else { "s" },
            first.seeds_needed
        ),
        false => {
            "Ranks are by means: all seeds gave the same runs, or there is nothing to compare.\n".to_owned()
        }
    }
}

/// The standings over all cells, and over those of each regime where there are several.
fn overall(compared: &[Vec<Compared>]) -> String {
    let tested = compared.iter().flatten().any(|each| each.tested);
    let mut regimes: Vec<Regime> = compared.iter().filter_map(|cell| Some(cell.first()?.regime)).collect();
    regimes.sort();
    regimes.dedup();
    let mut text = String::new();
    let count = |regime| {
        compared.iter().filter(|cell| cell.first().is_some_and(|first| first.regime == regime)).count()
    };
    if regimes.len() > 1 {
        for &regime in &regimes {
            let title = format!("{} {regime} of {} cells", count(regime), compared.len());
            text += &format!("\n{}", standing_table(&title, &standings(compared, Some(regime)), tested));
        }
    }
    let title = match regimes.as_slice() {
        [regime] => format!("all {} cells, {regime}", compared.len()),
        _ => format!("all {} cells", compared.len()),
    };
    format!("{text}\n{}", standing_table(&title, &standings(compared, None), tested))
}

fn standing_table(title: &str, standings: &[Standing], tested: bool) -> String {
    let mut header = vec![title, "cells", "first in", "mean rank", "median vs best"];
    if tested {
        header.extend(["wins", "ties", "losses"]);
    }
    let row = |each: &Standing| {
        let ratio =
            each.median_ratio.map_or("-".to_owned(), |ratio| format!("{:+.1} %", (ratio - 1.0) * 100.0));
        let mut row = vec![
            each.policy.clone(),
            each.cells.to_string(),
            each.first.to_string(),
            format!("{:.2}", each.mean_rank),
            ratio,
        ];
        if tested {
            row.extend([each.wins, each.ties, each.losses].map(|count| count.to_string()));
        }
        row
    };
    let header: Vec<String> = header.into_iter().map(String::from).collect();
    output::numbers(header, standings.iter().map(row))
}
