//! `hotset bench states`: recurrent layers and their states on a device, a section a subject.

mod gated_quantisation;

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::progress::Progress;
use clap::builder::PossibleValuesParser;
use hw::engine::Engine;
use serde::Serialize;
use serde_json::{Map, Value};

/// Measure recurrent layers and their states: kernels, memory, errors, and attention beside them
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure on: `host`, or `cuda:0` for the first CUDA device
    #[arg(long, default_value = "host")]
    device: String,

    /// Sections, all if none is given
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(SECTIONS.map(|section| section.name)))]
    sections: Vec<String>,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A part of the benchmark that stands alone.
struct Section {
    /// What `--sections` and the JSON call it.
    name: &'static str,
    run: fn(&Bench) -> Result<Findings, Failure>,
}

/// What a section measures on.
struct Bench {
    device: Box<dyn Engine>,
    progress: Progress,
}

/// What a section found.
struct Findings {
    /// Tables, for people.
    text: String,
    /// The same and more, for machines.
    json: Value,
}

impl Findings {
    fn new(text: String, found: &impl Serialize) -> Result<Findings, Failure> {
        Ok(Findings { text, json: serde_json::to_value(found).map_err(Failure::failed)? })
    }
}

/// In the order in which they are printed.
const SECTIONS: [Section; 1] = [gated_quantisation::SECTION];

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let device = hw::open::open(&args.device, &std::env::temp_dir()).map_err(Failure::refused)?;
    let bench = Bench { device, progress: Progress::spinner("measuring") };
    let wanted = |section: &&Section| {
        args.sections.is_empty() || args.sections.iter().any(|name| name == section.name)
    };
    let mut found = Vec::new();
    for section in SECTIONS.iter().filter(wanted) {
        bench.progress.say(section.name);
        found.push((section.name, (section.run)(&bench)?));
    }
    let device = bench.device.name();
    drop(bench.progress);
    match args.format {
        Format::Table => {
            let texts: Vec<String> =
                found.into_iter().map(|(name, found)| format!("{name}\n{}", found.text)).collect();
            output::print(&texts.join("\n"))
        }
        Format::Json => {
            let mut report = Map::from_iter([("device".to_owned(), Value::from(device))]);
            report.extend(found.into_iter().map(|(name, found)| (name.to_owned(), found.json)));
            output::print_json(&report)
        }
    }
}
