//! The keys of `workload`, `policy`, `guard` and `slo`.

use crate::diagnostics::{Report, Wrong, one_of};
use crate::load::existing_file;
use crate::reader::{Field, flag, format, join, name_of};
use crate::scenario::{Guard, PolicyCheck, PolicyChoice, Requests, Routing, Slo, Workload, ZipfMarkov};
use crate::tree::Value;
use crate::units::{arrivals, count, fraction, number, time_above_zero, whole};
use policy::model::BlockKind;
use std::collections::BTreeMap;
use std::path::PathBuf;

const KINDS: &[(&str, BlockKind)] = &[
    ("expert", BlockKind::Expert),
    ("shared_expert", BlockKind::SharedExpert),
    ("attention", BlockKind::Attention),
    ("dense", BlockKind::Dense),
    ("state", BlockKind::State),
    ("stage", BlockKind::Stage),
];
const ROUTINGS: [&str; 2] = ["trace", "zipf_markov"];
const REQUESTS: [&str; 2] = ["closed", "poisson"];
/// Steps over which a drift budget binds where the scenario does not say.
const WINDOW: u32 = 256;
/// The share of requests that must meet an objective where the scenario does not say.
const PERCENTILE: f64 = 99.0;

/// Reads `workload`.
pub(crate) fn workload(report: &mut Report, field: &Field<'_>) -> Option<Workload> {
    let mut fields = field.fields(report, "routing, requests, fit, include_repetition, limit_tokens")?;
    let routing = fields
        .need(report, "routing", "{ trace: my-trace.npz } or { zipf_markov: { skew: 0.8 } }")
        .and_then(|routing| read_routing(report, &routing));
    let include_repetition = fields.optional(report, "include_repetition", false, flag);
    let fit = fields.get("fit").map_or(Some(vec![]), |fit| files(report, &fit));
    let requests = match fields.get("requests") {
        Some(requests) => read_requests(report, &requests),
        None => Some(Requests::Closed { batch: 1 }),
    };
    let limit_tokens = fields.optional(report, "limit_tokens", None, |text| match whole(text)? {
        0 => Err(Wrong::new("zero", "at least 1, or leave it out")),
        limit => Ok(Some(limit)),
    });
    fields.finish(report);
    Some(Workload {
        routing: routing?,
        include_repetition: include_repetition?,
        fit: fit?,
        requests: requests?,
        limit_tokens: limit_tokens?,
    })
}

fn read_routing(report: &mut Report, field: &Field<'_>) -> Option<Routing> {
    let (name, chosen) =
        field.variant(report, "{ trace: my-trace.npz } or { zipf_markov: { skew: 0.8 } }")?;
    match name {
        "trace" => files(report, &chosen).map(Routing::Trace),
        "zipf_markov" => zipf_markov(report, &chosen).map(Routing::ZipfMarkov),
        other => {
            let message = format!("unknown routing `{other}`");
            chosen.key_error(report, Wrong::new(message, one_of(other, ROUTINGS)));
            None
        }
    }
}

fn files(report: &mut Report, field: &Field<'_>) -> Option<Vec<PathBuf>> {
    let items = field.items();
    if items.is_empty() {
        field.error(report, Wrong::new("no file", "a path, or a list of paths"));
        return None;
    }
    let files: Vec<_> = items.iter().map(|item| existing_file(report, item)).collect();
    files.into_iter().collect()
}

fn zipf_markov(report: &mut Report, field: &Field<'_>) -> Option<ZipfMarkov> {
    let what = "{ tokens: 4000, traces: 8, skew: 0.8, stickiness: 0.3, coupling: 0.3 }";
    let mut fields = field.fields(report, what)?;
    let tokens = fields.optional(report, "tokens", 4000, count);
    let traces = fields.optional(report, "traces", 8, count);
    let skew = fields.optional(report, "skew", 0.8, |text| between(text, 0.0, 4.0));
    let stickiness = fields.optional(report, "stickiness", 0.3, |text| between(text, 0.0, 1.0));
    let coupling = fields.optional(report, "coupling", 0.3, |text| between(text, 0.0, 1.0));
    fields.finish(report);
    let drawn = ZipfMarkov {
        tokens: tokens?,
        traces: traces?,
        skew: skew?,
        stickiness: stickiness?,
        coupling: coupling?,
    };
    if drawn.traces > drawn.tokens {
        let message = format!("{} traces share {} tokens", drawn.traces, drawn.tokens);
        field.key_error(report, Wrong::new(message, "at least one token a trace"));
        return None;
    }
    Some(drawn)
}

fn between(text: &str, least: f64, most: f64) -> Result<f64, Wrong> {
    let value = number(text)?;
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => Err(Wrong::new(format!("{text} is out of range"), format!("from {least} to {most}"))),
    }
}

fn read_requests(report: &mut Report, field: &Field<'_>) -> Option<Requests> {
    let (name, chosen) =
        field.variant(report, "{ closed: { batch: 1 } } or { poisson: { rate: 4 /s, batch: 16 } }")?;
    if !REQUESTS.contains(&name) {
        let message = format!("unknown requests `{name}`");
        chosen.key_error(report, Wrong::new(message, one_of(name, REQUESTS)));
        return None;
    }
    let mut fields = chosen.fields(report, "batch, and for poisson the rate")?;
    let batch = fields.optional(report, "batch", 1, count);
    let requests = match name {
        "closed" => batch.map(|batch| Requests::Closed { batch }),
        _ => {
            let rate = fields.required(report, "rate", "4 /s", arrivals);
            rate.zip(batch).map(|(rate, batch)| Requests::Poisson { rate, batch })
        }
    };
    fields.finish(report);
    requests
}

/// Reads `policy` and asks the registry about it.
pub(crate) fn policy(report: &mut Report, field: &Field<'_>, check: PolicyCheck<'_>) -> Option<PolicyChoice> {
    let (name, chosen) =
        field.variant(report, "a name such as `lru`, or `{ predictive: { horizon: 32 } }`")?;
    let named_only = matches!(field.node.value, Value::Scalar(_)) || matches!(chosen.node.value, Value::Null);
    let mut read = Vec::new();
    if !named_only {
        let fields = chosen.fields(report, "parameter names, each with a number")?;
        for entry in fields.entries {
            let value = fields.field(entry).read(report, number);
            read.push(value.map(|value| (entry.key.clone(), value)));
        }
    }
    let params: BTreeMap<String, f64> = read.into_iter().collect::<Option<_>>()?;
    if let Err(complaint) = check(name, &params) {
        let meant = chosen.node.entries().iter().find(|entry| Some(&entry.key) == complaint.key.as_ref());
        let wrong = Wrong { message: complaint.message, hint: complaint.hint };
        match meant {
            Some(entry) => report.error(entry.key_at, &join(&chosen.path, &entry.key), wrong),
            None => chosen.key_error(report, wrong),
        }
        return None;
    }
    Some(PolicyChoice { name: name.to_owned(), params })
}

/// Reads `guard`.
pub(crate) fn guard(report: &mut Report, field: Option<Field<'_>>) -> Option<Guard> {
    let Some(field) = field else {
        return Some(Guard { drift_budget: 0.0, window: WINDOW, floors: BTreeMap::new() });
    };
    let mut fields = field.fields(report, "drift_budget, window and floors")?;
    let drift_budget = fields.optional(report, "drift_budget", 0.0, fraction);
    let window = fields.optional(report, "window", WINDOW, count);
    let floors = fields.get("floors").map_or(Some(BTreeMap::new()), |floors| read_floors(report, &floors));
    fields.finish(report);
    Some(Guard { drift_budget: drift_budget?, window: window?, floors: floors? })
}

fn read_floors(report: &mut Report, field: &Field<'_>) -> Option<BTreeMap<BlockKind, policy::FormatId>> {
    let fields =
        field.fields(report, "kinds of block, each with a format: { attention: bf16, expert: int4_g32 }")?;
    let mut floors = Vec::new();
    for entry in fields.entries {
        let floor = fields.field(entry);
        let kind =
            name_of("kind of block", KINDS)(&entry.key).map_err(|wrong| floor.key_error(report, wrong)).ok();
        floors.push(floor.read(report, format).and_then(|format| Some((kind?, format))));
    }
    floors.into_iter().collect()
}

/// Reads `slo`.
pub(crate) fn slo(report: &mut Report, field: Option<Field<'_>>) -> Option<Option<Slo>> {
    let Some(field) = field else { return Some(None) };
    let mut fields = field.fields(report, "ttft, tpot and percentile")?;
    let ttft = fields.optional(report, "ttft", None, |text| time_above_zero(text).map(Some));
    let tpot = fields.optional(report, "tpot", None, |text| time_above_zero(text).map(Some));
    let percentile = fields.optional(report, "percentile", PERCENTILE, |text| match number(text)? {
        share if share > 0.0 && share < 100.0 => Ok(share),
        _ => Err(Wrong::new(format!("{text} is no percentile"), "more than 0 and less than 100, such as 99")),
    });
    fields.finish(report);
    let slo = Slo { ttft: ttft?, tpot: tpot?, percentile: percentile? };
    if slo.ttft.is_none() && slo.tpot.is_none() {
        field.key_error(report, Wrong::new("no objective", "give `ttft: 2 s`, `tpot: 50 ms` or both"));
        return None;
    }
    Some(Some(slo))
}
