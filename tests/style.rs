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

/// Names that machines give their memories and links, and their own, as `name:` or as keys of `tiers` and `links`.
fn names_of_machines() -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(Path::new(ROOT).join("scenarios/machines")).unwrap() {
        let path = entry.unwrap().path();
        let machine = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = format!(
            "name: x\nmachine: {machine}\nmodel: olmoe\nworkload: {{ routing: {{ zipf_markov: {{}} }} }}\npolicy: lru\n"
        );
        let machine = scenarios::load_text("x.yaml", &text, &[], &sim::resolve::check_policy);
        let machine = machine.unwrap_or_else(|wrong| panic!("{}", wrong.render(false))).machine;
        names.extend(machine.tiers.iter().map(|tier| tier.name.clone()));
        names.extend(machine.links.iter().map(|link| link.name.clone()));
        names.push(machine.name);
    }
    names
}

#[test]
fn the_decision_core_knows_no_name_of_a_memory_link_or_machine() {
    let names = names_of_machines();
    for name in ["hbm", "dram", "cxl", "nvme", "peer", "pcie", "nvlink", "h100-sxm"] {
        assert!(names.iter().any(|known| known == name), "{name} is not among {names:?}");
    }
    let compared = regex::Regex::new(
        r"(tier|link|machine|model)[a-z_]*(\([^()]*\))?\.name(\.as_str\(\))? *(==|!=)|match [^{]*\.name[ .]",
    )
    .unwrap();
    assert!(
        compared.is_match("if machine.tier(id).name == wanted {") && compared.is_match("match tier.name {")
    );
    let (mut found, mut broken) = (Vec::new(), Vec::new());
    sources(&Path::new(ROOT).join("policy/src"), &mut found);
    for path in found.iter().filter(|path| !path.ends_with("tests.rs")) {
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in
            code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            let named = names.iter().any(|name| line.contains(&format!("\"{name}\"")));
            if named || compared.is_match(line) {
                broken.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}
