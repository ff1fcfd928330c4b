//! The keys of `policy`, `guard`, `slo` and `schedule`: how a run is controlled and held to account.

use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::{AboveZero, Fraction, Name, Number};
use crate::keys::{Key, RowKey, Rows, Table, Type};
use crate::load::existing_text;
use crate::reader::{Field, format, format_names, join, name_of, names};
use crate::scenario::{Guard, PolicyCheck, PolicyChoice, Schedule, Slo};
use crate::tree::Value;
use crate::units::{SIZE, TIME, count, fraction, number, size, time_above_zero};
use crate::workload::COUNT;
use policy::model::BlockKind;
use policy::{Bytes, FormatId};
use std::collections::BTreeMap;

const KINDS: &[(&str, BlockKind)] = &[
    ("expert", BlockKind::Expert),
    ("shared_expert", BlockKind::SharedExpert),
    ("attention", BlockKind::Attention),
    ("dense", BlockKind::Dense),
    ("state", BlockKind::State),
    ("stage", BlockKind::Stage),
];

/// The keys of `guard`.
pub(crate) static GUARD: Table = Table {
    name: "guard",
    about: "The bound on the change of output",
    open: false,
    keys: &[
        Key::default(
            "drift_budget",
            Fraction,
            "0",
            "The largest change of a step's output, as a fraction of it; 0 keeps full precision. Prompts go on from checkpoints of states whose error is no larger",
        ),
        Key::default("window", COUNT, "256", "Steps over which the budget binds"),
        Key::optional(
            "floors",
            Type::Rows(&FLOORS),
            "{ attention: bf16, expert: int4_g32 }",
            "The least precise format that a kind of block may take, or that `state` may be restored from",
        ),
    ],
};

static FLOORS: Rows = Rows {
    about: "The least precise format that a kind of block may take",
    key: RowKey::Name(|| names(KINDS)),
    value: Name(format_names),
    merges: true,
};

/// The keys of `slo`.
pub(crate) static SLO: Table = Table {
    name: "slo",
    about: "Service objectives: one of ttft and tpot, or both",
    open: false,
    keys: &[
        Key::optional("ttft", AboveZero(&TIME), "2 s", "Time to the first token"),
        Key::optional("tpot", AboveZero(&TIME), "50 ms", "Time per output token"),
        Key::default(
            "percentile",
            Number(0.0, 100.0),
            "99",
            "The share of requests that must meet them, in per cent: more than 0, less than 100",
        ),
    ],
};

/// The keys of `schedule`.
pub(crate) static SCHEDULE: Table = Table {
    name: "schedule",
    about: "How background moves share the links with demands",
    open: false,
    keys: &[
        Key::default(
            "chunk",
            AboveZero(&SIZE),
            "1 MiB",
            "Background moves go in pieces of this size: the most that a demand waits behind; at least 4 KiB",
        ),
        Key::default(
            "background_share",
            Fraction,
            "100 %",
            "The largest share of a link's time that prefetches and speculation may take",
        ),
        Key::default(
            "spill_share",
            Fraction,
            "10 %",
            "The largest share of a link's time that spill may take",
        ),
    ],
};

/// The smallest chunk: a page.
const LEAST_CHUNK: Bytes = Bytes(4096);

/// Reads `policy` and asks the registry about it.
pub(crate) fn policy(report: &mut Report, field: &Field<'_>, check: PolicyCheck<'_>) -> Option<PolicyChoice> {
    let (name, chosen) =
        field.variant(report, "a name such as `lru`, or `{ predictive: { horizon: 32 } }`")?;
    let named_only = matches!(field.node.value, Value::Scalar(_)) || matches!(chosen.node.value, Value::Null);
    let script = match chosen.node.value {
        Value::Scalar(_) if !named_only => Some(existing_text(report, &chosen)?),
        _ => None,
    };
    let mut read = Vec::new();
    if !named_only && script.is_none() {
        let fields = chosen.fields(report, "parameter names, each with a number")?;
        for entry in fields.entries {
            let value = fields.field(entry).read(report, number);
            read.push(value.map(|value| (entry.key.clone(), value)));
        }
    }
    let params: BTreeMap<String, f64> = read.into_iter().collect::<Option<_>>()?;
    let choice = PolicyChoice { name: name.to_owned(), params, script };
    if let Err(complaint) = check(&choice) {
        let meant = chosen.node.entries().iter().find(|entry| Some(&entry.key) == complaint.key.as_ref());
        let wrong = Wrong { message: complaint.message, hint: complaint.hint };
        match meant {
            Some(entry) => report.error(entry.key_at, &join(&chosen.path, &entry.key), wrong),
            None => chosen.key_error(report, wrong),
        }
        return None;
    }
    Some(choice)
}

/// Reads `guard`.
pub(crate) fn guard(report: &mut Report, field: &Field<'_>) -> Option<Guard> {
    let keys = field.keys(report, &GUARD)?;
    let drift_budget = keys.or_default(report, "drift_budget", fraction);
    let window = keys.or_default(report, "window", count);
    let floors = keys.get("floors").map_or(Some(BTreeMap::new()), |floors| read_floors(report, &floors));
    Some(Guard { drift_budget: drift_budget?, window: window?, floors: floors? })
}

fn read_floors(report: &mut Report, field: &Field<'_>) -> Option<BTreeMap<BlockKind, FormatId>> {
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
pub(crate) fn slo(report: &mut Report, field: &Field<'_>) -> Option<Slo> {
    let keys = field.keys(report, &SLO)?;
    let ttft = keys.optional(report, "ttft", time_above_zero);
    let tpot = keys.optional(report, "tpot", time_above_zero);
    let percentile = keys.or_default(report, "percentile", |text| match number(text)? {
        share if share > 0.0 && share < 100.0 => Ok(share),
        _ => Err(Wrong::new(format!("{text} is no percentile"), "more than 0 and less than 100, such as 99")),
    });
    let slo = Slo { ttft: ttft?, tpot: tpot?, percentile: percentile? };
    if slo.ttft.is_none() && slo.tpot.is_none() {
        field.key_error(report, Wrong::new("no objective", "give `ttft: 2 s`, `tpot: 50 ms` or both"));
        return None;
    }
    Some(slo)
}

/// Reads `schedule`.
pub(crate) fn schedule(report: &mut Report, field: &Field<'_>) -> Option<Schedule> {
    let keys = field.keys(report, &SCHEDULE)?;
    let chunk = keys.or_default(report, "chunk", |text| match size(text)? {
        chunk if chunk < LEAST_CHUNK => {
            Err(Wrong::new(format!("chunks of {chunk}"), format!("at least {LEAST_CHUNK}: a page")))
        }
        chunk => Ok(chunk),
    });
    let background_share = keys.or_default(report, "background_share", fraction);
    let spill_share = keys.or_default(report, "spill_share", fraction);
    Some(Schedule { chunk: chunk?, background_share: background_share?, spill_share: spill_share? })
}
