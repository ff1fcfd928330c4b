//! What the whole has to hold, seen from outside: one binary, so that it links once.

mod accelerator_loss;
mod agreement;
mod bad_input;
mod beside_the_link;
mod bound;
mod caches;
mod cli;
mod closed_forms;
mod conformance;
mod controller;
mod conventions;
mod dense;
mod determinism;
mod directory;
mod elastic;
mod exchange;
mod experiment;
mod expert_parallel;
mod golden;
mod homes;
mod invariants;
mod joint_baselines;
mod laws;
mod levers;
mod libcachesim;
mod load;
mod measured_links;
mod measured_times;
mod moe_baselines;
mod monotone;
mod near;
mod passing;
mod phases;
mod pipeline;
mod plan;
mod predictor;
mod promises;
mod published;
mod read_ahead;
mod readme;
mod reference;
mod script;
mod serving;
mod small;
mod staging;
mod starved;
mod style;
mod tenants;
mod tensor_parallel;
mod trace_toolbox;
mod validate;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the repository.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The command under test, run from the root.
fn hotset() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotset"));
    command.current_dir(ROOT);
    command
}

/// The folder of recorded data; `None`, with a line that says so, where it is absent.
fn data() -> Option<PathBuf> {
    let beside = || Path::new(ROOT).join("../shared/data");
    let folder = std::env::var_os("HOTSET_DATA").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no data at {}", folder.display());
    None
}
