//! From a name or a path to a tree: files, catalogue entries, `--set` overrides, and the paths written in them.

use crate::catalogue::{Kind, MACHINE, MODEL, SCENARIO, SENSITIVITY};
use crate::check::check;
use crate::diagnostics::{Diagnostics, Report, Wrong, one_of};
use crate::reader::{Field, join};
use crate::scenario::{PolicyCheck, Scenario};
use crate::source::At;
use crate::tree::{Entry, Node, Value, parse};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The longest text that is read.
const LONGEST: u64 = 1 << 20;
/// Where `${HOTSET_DATA}` points if the environment does not say.
const DATA: (&str, &str) = ("HOTSET_DATA", "../shared/data");

/// Loads a scenario from a path, or by the name of a shipped one, with `(path, value)` overrides applied in order.
/// `check_policy` is the registry's word on the policy.
///
/// # Errors
/// Every error of the scenario and of the files it names, at once.
pub fn load(
    path_or_name: &str,
    overrides: &[(String, String)],
    check_policy: PolicyCheck<'_>,
) -> Result<Scenario, Diagnostics> {
    let mut report = Report::default();
    let scenario = open(&mut report, SCENARIO, path_or_name, None)
        .and_then(|root| finish(&mut report, root, overrides, check_policy));
    report.finish(scenario)
}

/// Loads a scenario from its text; messages and relative paths take `file` as its path.
///
/// # Errors
/// Every error of the scenario and of the files it names, at once.
pub fn load_text(
    file: &str,
    text: &str,
    overrides: &[(String, String)],
    check_policy: PolicyCheck<'_>,
) -> Result<Scenario, Diagnostics> {
    let mut report = Report::default();
    let folder = Path::new(file).parent().unwrap_or(Path::new("")).to_owned();
    let source = report.add_source(file.to_owned(), text.to_owned(), folder);
    let scenario =
        parse(&mut report, source, 0).and_then(|root| finish(&mut report, root, overrides, check_policy));
    report.finish(scenario)
}

fn finish(
    report: &mut Report,
    mut root: Node,
    overrides: &[(String, String)],
    check_policy: PolicyCheck<'_>,
) -> Option<Scenario> {
    for (path, value) in overrides {
        set(report, &mut root, path, value)?;
    }
    for kind in [MACHINE, MODEL, SENSITIVITY] {
        let named = root.entries().iter().position(|entry| entry.key == kind.key);
        if let (Some(index), Value::Map(entries)) = (named, &mut root.value) {
            resolve(report, kind, &mut entries[index].value);
        }
    }
    check(report, &root, check_policy)
}

/// Puts the tree of the file that a node names in the node's place. An unresolved name stays, reported.
fn resolve(report: &mut Report, kind: Kind, node: &mut Node) -> Option<()> {
    if let Value::Scalar(name) = &node.value {
        let opened = open(report, kind, &name.clone(), Some(&Field::root(node, kind.key)))?;
        Field::root(&opened, "").fields(report, &format!("a {} file has keys and values", kind.key))?;
        *node = opened;
    }
    Some(())
}

/// Opens a catalogue entry or a file; errors are reported at `field` where the name was written in a text.
pub(crate) fn open(report: &mut Report, kind: Kind, name: &str, field: Option<&Field<'_>>) -> Option<Node> {
    if let Some(entry) = kind.entries().find(|entry| entry.name == name) {
        let folder = if kind == SCENARIO { PathBuf::from("scenarios") } else { PathBuf::new() };
        let file = match kind == SCENARIO {
            true => format!("scenarios/{name}.yaml"),
            false => format!("scenarios/{}/{name}", entry.folder),
        };
        let source = report.add_source(file, entry.text.to_owned(), folder);
        return parse(report, source, 0);
    }
    let path = match field {
        Some(field) => located(report, field, name)?,
        None => PathBuf::from(name),
    };
    match read(&path) {
        Ok(text) => {
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            let source = report.add_source(path.display().to_string(), text, folder);
            parse(report, source, 0)
        }
        Err(Unread { position, message }) => {
            let missing = !path.exists();
            let names = kind.entries().map(|entry| entry.name);
            let wrong = match missing {
                true => Wrong::new(
                    format!("no {} called `{name}`, and no such file", kind.key),
                    one_of(name, names),
                ),
                false => Wrong::new(message, format!("a {} is a text file in UTF-8", kind.key)),
            };
            match field {
                Some(field) => field.error(report, wrong),
                None => report.file_error(name, position, wrong),
            }
            None
        }
    }
}

/// The path of a file that must exist, as a scenario writes it.
pub(crate) fn existing_file(report: &mut Report, field: &Field<'_>) -> Option<PathBuf> {
    let text = field.text(report)?;
    let path = located(report, field, text)?;
    if path.is_file() {
        return Some(path);
    }
    let hint = match text.starts_with("${") {
        true => format!("set {} to the folder that has it, or write another path", DATA.0),
        false => "a path is relative to the file it is written in".to_owned(),
    };
    field.error(report, Wrong::new(format!("no file at {}", path.display()), hint));
    None
}

/// A path starts at a variable of the environment, or at the folder of the file it is written in.
fn located(report: &mut Report, field: &Field<'_>, text: &str) -> Option<PathBuf> {
    let Some((variable, rest)) = text.strip_prefix("${").and_then(|rest| rest.split_once('}')) else {
        return Some(report.source(field.node.at.source).folder.join(text));
    };
    let folder = match std::env::var_os(variable) {
        Some(folder) => PathBuf::from(folder),
        None if variable == DATA.0 => PathBuf::from(DATA.1),
        None => {
            let hint = format!("set {variable}, or write the path out");
            field.error(report, Wrong::new(format!("{variable} is not set in the environment"), hint));
            return None;
        }
    };
    Some(folder.join(rest.trim_start_matches('/')))
}

/// Why a file could not be read, and the line and column where that is known.
struct Unread {
    position: (u32, u32),
    message: String,
}

fn read(path: &Path) -> Result<String, Unread> {
    let whole = |message: String| Unread { position: (0, 0), message };
    let failed = |error: io::Error| whole(format!("cannot read {}: {error}", path.display()));
    // Before it is opened: opening a pipe waits for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(whole(format!("{} is not a file", path.display())));
    }
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LONGEST {
        return Err(whole(format!("{} is longer than {LONGEST} bytes", path.display())));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let column = good.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
        let message = format!("{} is not UTF-8: byte {} of the file", path.display(), good.len());
        Unread { position: (line as u32, column as u32), message }
    })
}

/// Applies one override.
fn set(report: &mut Report, root: &mut Node, path: &str, value: &str) -> Option<()> {
    let text = format!("{path}={value}");
    let source = report.add_source(format!("--set {path}"), text, PathBuf::new());
    let at = |start, end| At { source, start, end };
    let (key_at, value_start) = (at(0, path.len()), path.len() + 1);
    let new = match value.trim().is_empty() {
        true => Node { at: at(value_start, value_start + value.len()), value: Value::Null },
        false => parse(report, source, value_start)?,
    };
    let mut node = root;
    let mut walked = String::new();
    for key in path.split('.') {
        if key.is_empty() {
            let wrong = Wrong::new("an empty key", "write `--set workload.limit_tokens=100`");
            report.error(key_at, path, wrong);
            return None;
        }
        if let Some(kind) = [MACHINE, MODEL, SENSITIVITY].into_iter().find(|kind| kind.key == walked) {
            resolve(report, kind, node)?;
        }
        node = descend(report, node, key, key_at, &walked)?;
        walked = join(&walked, key);
    }
    *node = new;
    Some(())
}

/// The value of `key`, made where it is absent.
fn descend<'n>(
    report: &mut Report,
    node: &'n mut Node,
    key: &str,
    key_at: At,
    walked: &str,
) -> Option<&'n mut Node> {
    let held = match &node.value {
        Value::Map(_) => None,
        // A plain name is a variant without settings: `policy: lru` and `--set policy.lru.x=1` agree.
        Value::Scalar(name) if name != key => Some(format!("`{name}`")),
        Value::List(_) => Some("a list".to_owned()),
        Value::Scalar(_) | Value::Null => {
            *node = Node { at: key_at, value: Value::Map(vec![]) };
            None
        }
    };
    if let Some(held) = held {
        let wrong = Wrong::new(
            format!("it is {held}, which has no `{key}`"),
            format!("set it whole: `--set {walked}=...`"),
        );
        report.error(key_at, walked, wrong);
        return None;
    }
    let Value::Map(entries) = &mut node.value else { return None };
    let index = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
        let value = Node { at: key_at, value: Value::Null };
        entries.push(Entry { key: key.to_owned(), key_at, value });
        entries.len() - 1
    });
    entries.get_mut(index).map(|entry| &mut entry.value)
}
