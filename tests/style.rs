//! What every source file has to keep to.

use crate::ROOT;
use std::path::{Path, PathBuf};

/// About what a reader keeps in mind.
const MOST_LINES: usize = 500;
/// Names that say nothing of the subject.
const EMPTY_NAMES: [&str; 5] = ["utils", "util", "common", "helpers", "misc"];
/// In two parts, so that this file does not contain them.
const LEFTOVERS: [(&str, &str); 4] =
    [("todo", "!("), ("unimplemented", "!("), ("dbg", "!("), ("#[igno", "re")];

/// The Rust files under `folder`, without what is built or hidden.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && !name.starts_with('.') {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn sources_keep_to_the_style() {
    let mut found = Vec::new();
    sources(Path::new(ROOT), &mut found);
    assert!(found.len() > 50, "only {} source files found", found.len());
    let mut broken = Vec::new();
    for path in &found {
        let text = std::fs::read_to_string(path).unwrap();
        let place = path.strip_prefix(ROOT).unwrap().display();
        let lines = text.lines().count();
        if lines > MOST_LINES {
            broken.push(format!("{place}: {lines} lines, more than {MOST_LINES}"));
        }
        let stem = path.file_stem().unwrap().to_string_lossy();
        if EMPTY_NAMES.contains(&&*stem) {
            broken.push(format!("{place}: a file is named after its subject"));
        }
        for leftover in LEFTOVERS.map(|(start, end)| format!("{start}{end}")) {
            if let Some(line) = text.lines().position(|line| line.contains(&leftover)) {
                broken.push(format!("{place}:{}: `{leftover}`", line + 1));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}
