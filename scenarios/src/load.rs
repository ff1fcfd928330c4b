//! From a name or a path to a tree: files, catalogue entries, and the paths written in them.

use crate::catalogue::{Kind, MACHINE, MODEL, SCENARIO, SENSITIVITY};
use crate::check::check;
use crate::diagnostics::{Diagnostics, Report, Wrong, one_of};
use crate::include::{Chain, Origin, follow, on_base, resolve};
use crate::overrides::set;
use crate::reader::Field;
use crate::scenario::{PolicyCheck, Scenario, ScriptFile};
use crate::tree::{Node, Value, parse};
use crate::variables::expand;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The longest text that is read.
const LONGEST: u64 = 1 << 20;

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
    let scenario = parse(&mut report, source, 0)
        .and_then(|root| on_base(&mut report, SCENARIO, root, "", &[origin(Path::new(file))]))
        .and_then(|root| finish(&mut report, root, overrides, check_policy));
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

/// Opens a catalogue entry or a file, on top of its base; errors are reported at `field` where the name was written in a
/// text.
pub(crate) fn open(report: &mut Report, kind: Kind, name: &str, field: Option<&Field<'_>>) -> Option<Node> {
    open_after(report, kind, name, field, &[])
}

/// Opens what the last file of a chain names.
pub(crate) fn open_after(
    report: &mut Report,
    kind: Kind,
    name: &str,
    field: Option<&Field<'_>>,
    chain: Chain<'_>,
) -> Option<Node> {
    let shipped = kind.entries().find(|entry| entry.name == name);
    let (origin, text, folder) = match shipped {
        Some(entry) => {
            let file = match kind == SCENARIO {
                true => format!("scenarios/{name}.yaml"),
                false => format!("scenarios/{}/{name}", entry.folder),
            };
            let folder = if kind == SCENARIO { PathBuf::from("scenarios") } else { PathBuf::new() };
            (Origin { id: PathBuf::from(&file), name: file }, entry.text.to_owned(), folder)
        }
        None => {
            let path = match field {
                Some(field) => located(report, field, name)?,
                None => PathBuf::from(name),
            };
            let text = read(&path).map_err(|unread| unread.tell(report, kind, name, &path, field)).ok()?;
            (origin(&path), text, path.parent().unwrap_or(Path::new("")).to_owned())
        }
    };
    let chain = follow(report, chain, origin.clone(), field)?;
    let source = report.add_source(origin.name, text, folder);
    let node = parse(report, source, 0)?;
    if !matches!(node.value, Value::Map(_)) {
        Field::root(&node, "").fields(report, &format!("a {} file has keys and values", kind.key));
        return None;
    }
    on_base(report, kind, node, "", &chain)
}

/// The tree of a file that is named by its path and stands on no other.
pub(crate) fn read_tree(report: &mut Report, path: &Path) -> Option<Node> {
    let name = path.display().to_string();
    let unread = |report: &mut Report, unread: Unread| {
        let wrong = Wrong::new(unread.message, "give the path of a text file in UTF-8");
        report.file_error(&name, unread.position, wrong);
    };
    let text = read(path).map_err(|wrong| unread(report, wrong)).ok()?;
    let source = report.add_source(name.clone(), text, PathBuf::new());
    parse(report, source, 0)
}

fn origin(path: &Path) -> Origin {
    let id = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Origin { id, name: path.display().to_string() }
}

/// The path of a file that must exist, as a scenario writes it.
pub(crate) fn existing_file(report: &mut Report, field: &Field<'_>) -> Option<PathBuf> {
    file_from(report, field, "")
}

/// The same; `origin` says where to get such a file.
pub(crate) fn file_from(report: &mut Report, field: &Field<'_>, origin: &str) -> Option<PathBuf> {
    let text = field.text(report)?;
    let path = located(report, field, text)?;
    if path.is_file() {
        return Some(path);
    }
    let hint = match text.strip_prefix("${").and_then(|rest| rest.split_once('}')) {
        Some((variable, _)) => format!("set {variable} to the folder that has it, or write another path"),
        None => "a path is relative to the file it is written in".to_owned(),
    };
    let hint = if origin.is_empty() { hint } else { format!("{hint}; {origin}") };
    field.error(report, Wrong::new(format!("no file at {}", path.display()), hint));
    None
}

/// Reads a file of text that a field names.
pub(crate) fn existing_text(report: &mut Report, field: &Field<'_>) -> Option<ScriptFile> {
    let path = existing_file(report, field)?;
    match read(&path) {
        Ok(text) => Some(ScriptFile { path, text }),
        Err(Unread { message, .. }) => {
            field.error(report, Wrong::new(message, "a text file"));
            None
        }
    }
}

/// A path starts at a variable of the environment, or at the folder of the file it is written in.
fn located(report: &mut Report, field: &Field<'_>, text: &str) -> Option<PathBuf> {
    let path = expand(text).map_err(|wrong| field.error(report, wrong)).ok()?;
    Some(match text.starts_with("${") {
        true => PathBuf::from(path),
        false => report.source(field.node.at.source).folder.join(path),
    })
}

/// Why a file could not be read, and the line and column where that is known.
struct Unread {
    position: (u32, u32),
    message: String,
}

impl Unread {
    fn tell(self, report: &mut Report, kind: Kind, name: &str, path: &Path, field: Option<&Field<'_>>) {
        let wrong = match path.exists() {
            false => Wrong::new(
                format!("no {} called `{name}`, and no such file", kind.key),
                one_of(name, kind.entries().map(|entry| entry.name)),
            ),
            true => Wrong::new(self.message, format!("a {} is a text file in UTF-8", kind.key)),
        };
        match (field, self.position) {
            (Some(field), (0, 0)) => field.error(report, wrong),
            (Some(_), position) => report.file_error(&path.display().to_string(), position, wrong),
            (None, position) => report.file_error(name, position, wrong),
        }
    }
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
