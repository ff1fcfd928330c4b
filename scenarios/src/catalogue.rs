//! What ships with the crate: scenarios, machines, models and sensitivity tables, under their file names.

use crate::diagnostics::{Diagnostics, Report};
use crate::gguf;
use crate::load::open;
use crate::machine::priced_machine;
use crate::model::{Imported, ModelFacts, import};
use crate::reader::Field;
use policy::Machine;
use std::path::Path;

/// A shipped file.
pub(crate) struct Entry {
    pub(crate) folder: &'static str,
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

const ENTRIES: &[Entry] = include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// A kind of thing that is written by name or by path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Its key in a scenario, and the word for it.
    pub(crate) key: &'static str,
    folder: &'static str,
}

pub(crate) const SCENARIO: Kind = Kind { key: "scenario", folder: "scenarios" };
pub(crate) const MACHINE: Kind = Kind { key: "machine", folder: "machines" };
pub(crate) const MODEL: Kind = Kind { key: "model", folder: "models" };
pub(crate) const SENSITIVITY: Kind = Kind { key: "sensitivity", folder: "sensitivity" };

impl Kind {
    /// The shipped files of this kind, by name.
    pub(crate) fn entries(self) -> impl Iterator<Item = &'static Entry> + Clone {
        ENTRIES.iter().filter(move |entry| entry.folder == self.folder)
    }
}

/// The names of the shipped scenarios.
pub fn scenarios() -> impl Iterator<Item = &'static str> {
    SCENARIO.entries().map(|entry| entry.name)
}

/// The shipped machines.
pub fn machines() -> Result<Vec<Machine>, Diagnostics> {
    MACHINE.entries().map(|entry| machine(entry.name)).collect()
}

/// The facts of the shipped models.
pub fn models() -> Result<Vec<ModelFacts>, Diagnostics> {
    MODEL.entries().map(|entry| Ok(model(entry.name)?.1)).collect()
}

/// A machine by its catalogue name or by the path of its file.
pub fn machine(name_or_path: &str) -> Result<Machine, Diagnostics> {
    let mut report = Report::default();
    let machine = open(&mut report, MACHINE, name_or_path, None)
        .and_then(|node| priced_machine(&mut report, &Field::root(&node, "")));
    report.finish(machine.map(|(machine, _)| machine))
}

/// A model and its facts, by its catalogue name or by the path of its `config.json` or GGUF file.
pub fn model(name_or_path: &str) -> Result<(policy::Model, ModelFacts), Diagnostics> {
    let mut report = Report::default();
    if gguf::is_gguf(name_or_path) {
        let imported = gguf::model(Path::new(name_or_path))
            .map_err(|error| report.file_error(name_or_path, (0, 0), error.wrong()));
        return report.finish(imported.ok().map(|Imported { model, facts }| (model, facts)));
    }
    let imported = open(&mut report, MODEL, name_or_path, None).and_then(|node| {
        let name = report.source(node.at.source).stem();
        import(&mut report, &Field::root(&node, ""), &name)
    });
    report.finish(imported.map(|Imported { model, facts }| (model, facts)))
}
