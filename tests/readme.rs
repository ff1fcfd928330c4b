//! The commands of the README run as they are printed.

use crate::{ROOT, data};
use std::path::Path;
use std::process::Command;

/// How a command starts in the README; what follows goes to the built binary.
const STARTS: [&str; 3] = ["$ cargo run --release -- ", "$ hotset ", "hotset "];
/// The info string of a block that is shown and not run.
const NOT_RUN: &str = "console no-run";

/// The arguments of every command in a fenced block.
fn commands(text: &str) -> Vec<&str> {
    let mut block = None;
    let mut found = Vec::new();
    for line in text.lines() {
        match (block, line.strip_prefix("```")) {
            (None, Some(info)) => block = Some(info.trim()),
            (Some(_), Some(_)) => block = None,
            (Some(info), None) if info != NOT_RUN => {
                found.extend(STARTS.iter().find_map(|start| line.strip_prefix(start)));
            }
            _ => {}
        }
    }
    found
}

/// Whether a command reads the data that does not ship: by its own words, or by a shipped scenario that names it.
fn needs_data(command: &str) -> bool {
    let scenario = |name: &str| {
        let path = Path::new(ROOT).join("scenarios").join(format!("{name}.yaml"));
        std::fs::read_to_string(path).is_ok_and(|text| text.contains("HOTSET_DATA"))
    };
    command.contains("HOTSET_DATA") || command.contains("../shared") || command.split(' ').any(scenario)
}

#[test]
fn commands_of_the_readme_run() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("README.md")).expect("there is a README.md");
    let data = data();
    for command in commands(&text) {
        if needs_data(command) && data.is_none() {
            println!("skipped: hotset {command}");
            continue;
        }
        // A shell, because the README may quote, pipe and use variables.
        let mut shell = Command::new("sh");
        shell.current_dir(ROOT).args(["-c", &format!("\"$HOTSET\" {command}")]);
        shell.env("HOTSET", env!("CARGO_BIN_EXE_hotset"));
        shell.envs(data.iter().map(|folder| ("HOTSET_DATA", folder)));
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_command_is_found_where_it_is_to_run() {
    let text = "hotset outside\n```console\n$ cargo run --release -- a --b\noutput\n```\n\
                ```console no-run\nhotset never\n```\n```\nhotset c | head\n```\n";
    assert_eq!(commands(text), ["a --b", "c | head"]);
}
