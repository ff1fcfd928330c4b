//! The key `times` of an accelerator: measured times of a model's operators, written out or in a file.

use crate::diagnostics::{Report, Wrong};
use crate::load::existing_text;
use crate::machine_keys::{OPERATOR_TIMES, OPERATORS, TIMES_FILE};
use crate::reader::{Field, text};
use crate::tree::Value;
use crate::units::{count, time_above_zero};
use csv::{ReaderBuilder, StringRecord, Trim};
use policy::Nanos;
use policy::times::{Curve, ModelTimes, TimeTable};
use std::collections::BTreeMap;

/// Times by the second number and tokens.
type Points = BTreeMap<(u32, u32), Nanos>;

/// What a column of a file may be called.
const TOKENS: &[&str] = &["tokens", "input"];
const SECOND: &[&str] = &["activated_experts", "experts", "kv_cache", "kv"];
const LAYER: &[&str] = &["layer_name", "layer", "operator"];
/// The degree of tensor parallelism; rows of other degrees than 1 are of other operators.
const TENSOR: &[&str] = &["tp_size"];
/// What a column of times may be called, with its nanoseconds.
const TIMES: &[(&str, f64)] =
    &[("time_ns", 1.0), ("latency(ns)", 1.0), ("time_us", 1e3), ("latency(us)", 1e3), ("time_ms", 1e6)];
/// The longest time that a file may have, in nanoseconds: a day.
const LONGEST: f64 = 86_400e9;

/// Reads `times`: operators by the model's name.
pub(crate) fn read_times(report: &mut Report, field: &Field<'_>) -> Option<Vec<ModelTimes>> {
    let fields = field.fields(report, "names of models, or `any`, each with operators")?;
    let mut read = |entry| {
        let field = fields.field(entry);
        let keys = field.keys(report, &OPERATORS)?;
        let mut one = |name| match keys.get(name) {
            Some(field) => read_operator(report, &field).map(Some),
            None => Some(None),
        };
        let tables = policy::times::OPERATORS.map(|(_, name)| one(name));
        let whole = tables.iter().all(Option::is_some);
        whole.then(|| ModelTimes { model: entry.key.clone(), tables: tables.map(Option::flatten) })
    };
    let times: Vec<_> = fields.entries.iter().map(&mut read).collect();
    times.into_iter().collect()
}

fn read_operator(report: &mut Report, field: &Field<'_>) -> Option<TimeTable> {
    let (name, chosen) = field.choice(report, OPERATOR_TIMES)?;
    let curves = match name {
        "points" => read_points(report, &chosen)?,
        _ => read_file(report, &chosen)?,
    };
    let hint = "numbers in growing order, each with a time";
    let wrong = |error: policy::times::TimesError| field.error(report, Wrong::new(error.to_string(), hint));
    TimeTable::new(curves).map_err(wrong).ok()
}

/// Reads `{ 1: 152 us, 512: 282 us }`, or that at each second number.
fn read_points(report: &mut Report, field: &Field<'_>) -> Option<Vec<Curve>> {
    let what = "numbers of tokens, each with a time: { 1: 152 us, 512: 282 us }";
    let fields = field.fields(report, what)?;
    let nested = |node: &Value| matches!(node, Value::Map(_));
    let second = fields.entries.iter().filter(|entry| nested(&entry.value.value)).count();
    if second == 0 {
        return Some(vec![Curve { by: 0, points: times_by_tokens(report, field)? }]);
    }
    if second < fields.entries.len() {
        field.error(report, Wrong::new("some points have a second number, and some have none", what));
        return None;
    }
    let mut curve = |entry| {
        let field = fields.field(entry);
        let by = count(&entry.key).map_err(|wrong| field.key_error(report, wrong)).ok();
        let points = times_by_tokens(report, &field);
        Some(Curve { by: by?, points: points? })
    };
    let curves: Vec<_> = fields.entries.iter().map(&mut curve).collect();
    curves.into_iter().collect()
}

fn times_by_tokens(report: &mut Report, field: &Field<'_>) -> Option<Vec<(u32, Nanos)>> {
    let fields = field.fields(report, "numbers of tokens, each with a time: { 1: 152 us, 512: 282 us }")?;
    let mut point = |entry| {
        let field = fields.field(entry);
        let tokens = count(&entry.key).map_err(|wrong| field.key_error(report, wrong)).ok();
        tokens.zip(field.read(report, time_above_zero))
    };
    let points: Vec<_> = fields.entries.iter().map(&mut point).collect();
    points.into_iter().collect()
}

/// What is wrong with a file, and where: a line and a column.
struct Unread((u32, u32), Wrong);

fn read_file(report: &mut Report, field: &Field<'_>) -> Option<Vec<Curve>> {
    let keys = field.keys(report, &TIMES_FILE)?;
    let sum = keys.get("sum").map_or(Some(vec![]), |sum| {
        let names: Vec<_> = sum.items().iter().map(|item| item.read(report, text)).collect();
        names.into_iter().collect::<Option<Vec<_>>>()
    });
    let file = keys.need(report, "path").and_then(|path| existing_text(report, &path))?;
    let sum = sum?;
    let name = file.path.display().to_string();
    let layers = match layers_of(&file.text) {
        Ok(layers) => layers,
        Err(Unread(position, wrong)) => {
            report.file_error(&name, position, wrong);
            return None;
        }
    };
    let wanted: Vec<String> = if sum.is_empty() { layers.keys().cloned().collect() } else { sum };
    match added(&layers, &wanted) {
        Ok(points) => Some(curves_of(points)),
        Err(wrong) => {
            field.error(report, wrong);
            None
        }
    }
}

fn curves_of(points: Points) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for ((by, tokens), time) in points {
        match curves.last_mut().filter(|curve| curve.by == by) {
            Some(curve) => curve.points.push((tokens, time)),
            None => curves.push(Curve { by, points: vec![(tokens, time)] }),
        }
    }
    curves
}

/// The times of all `wanted` layers together, at the points that they have.
fn added(layers: &BTreeMap<String, Points>, wanted: &[String]) -> Result<Points, Wrong> {
    let mut sum: Option<Points> = None;
    for name in wanted {
        let Some(points) = layers.get(name) else {
            let hint = crate::diagnostics::one_of(name, layers.keys().map(String::as_str));
            return Err(Wrong::new(format!("the file has no layer `{name}`"), hint));
        };
        let Some(sum) = &mut sum else {
            sum = Some(points.clone());
            continue;
        };
        if !sum.keys().eq(points.keys()) {
            let message = format!("`{name}` was not measured at the same points as `{}`", wanted[0]);
            return Err(Wrong::new(message, "layers that have the same points"));
        }
        sum.values_mut().zip(points.values()).for_each(|(sum, time)| *sum += *time);
    }
    sum.filter(|points| !points.is_empty())
        .ok_or_else(|| Wrong::new("the file has no times", "rows of times"))
}

/// The times of every layer of a file; all are of one layer where it has no column for them.
fn layers_of(content: &str) -> Result<BTreeMap<String, Points>, Unread> {
    let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(content.as_bytes());
    let head = reader.headers().map_err(malformed)?.clone();
    let columns = Columns::of(&head)?;
    let mut layers: BTreeMap<String, Points> = BTreeMap::new();
    for record in reader.records() {
        let record = record.map_err(malformed)?;
        if columns.tensor.is_some_and(|column| record.get(column) != Some("1")) {
            continue;
        }
        let tokens = whole(&record, columns.tokens)?;
        let by = columns.second.map_or(Ok(0), |column| whole(&record, column))?;
        let time = time(&record, columns.time)?;
        let layer = columns.layer.and_then(|column| record.get(column)).unwrap_or_default();
        let points = layers.entry(layer.to_owned()).or_default();
        if points.insert((by, tokens), time).is_some() {
            let message = format!("a second time for {tokens} tokens");
            return Err(at(&record, columns.tokens, Wrong::new(message, "one time a point")));
        }
    }
    Ok(layers)
}

/// Where the columns of a file are.
struct Columns {
    tokens: usize,
    second: Option<usize>,
    layer: Option<usize>,
    tensor: Option<usize>,
    /// With the nanoseconds of its unit.
    time: (usize, f64),
}

impl Columns {
    fn of(head: &StringRecord) -> Result<Columns, Unread> {
        let find = |names: &[&str]| head.iter().position(|name| names.contains(&name));
        let missing = |what: &str, names: Vec<&str>| {
            let hint = format!("a column called {}", names.join(", or "));
            Unread((1, 1), Wrong::new(format!("no column of {what}"), hint))
        };
        let unit = |name: &str| TIMES.iter().find(|(known, _)| *known == name).map(|&(_, unit)| unit);
        let time = head.iter().enumerate().find_map(|(column, name)| Some((column, unit(name)?)));
        Ok(Columns {
            tokens: find(TOKENS).ok_or_else(|| missing("tokens", TOKENS.to_vec()))?,
            second: find(SECOND),
            layer: find(LAYER),
            tensor: find(TENSOR),
            time: time.ok_or_else(|| missing("times", TIMES.iter().map(|(name, _)| *name).collect()))?,
        })
    }
}

fn malformed(error: csv::Error) -> Unread {
    let line = error.position().map_or(1, |position| position.line());
    Unread(
        (u32::try_from(line).unwrap_or(u32::MAX), 1),
        Wrong::new(error.to_string(), "as many fields as the head has"),
    )
}

/// Something wrong with a field of a row.
fn at(record: &StringRecord, column: usize, wrong: Wrong) -> Unread {
    let line = record.position().map_or(1, |position| position.line());
    let before: usize = record.iter().take(column).map(|field| field.len() + 1).sum();
    let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Unread((short(line), short(before as u64 + 1)), wrong)
}

fn whole(record: &StringRecord, column: usize) -> Result<u32, Unread> {
    let field = record.get(column).unwrap_or_default();
    field
        .parse()
        .map_err(|_| at(record, column, Wrong::new(format!("`{field}` is no whole number"), "such as 64")))
}

fn time(record: &StringRecord, (column, unit): (usize, f64)) -> Result<Nanos, Unread> {
    let field = record.get(column).unwrap_or_default();
    let nanos = field.parse::<f64>().ok().map(|time| (time * unit).round());
    match nanos.filter(|nanos| (1.0..=LONGEST).contains(nanos)) {
        Some(nanos) => Ok(Nanos(nanos as u64)),
        None => {
            let message = format!("`{field}` is no time");
            Err(at(
                record,
                column,
                Wrong::new(message, "a number of more than a nanosecond and less than a day"),
            ))
        }
    }
}
