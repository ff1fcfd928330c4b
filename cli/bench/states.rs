//! `hotset bench states`: recurrent layers and their states on a device, a section a subject.

mod co_design;
mod gated_quantisation;
mod hp_aso;
mod moved;
mod tiered_cache;

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::progress::Progress;
use clap::builder::PossibleValuesParser;
use hw::recurrent::mixers::Mixers;
use policy::Nanos;
use serde::Serialize;
use serde_json::{Map, Value};
use std::time::Instant;

/// Measure recurrent layers and their states: kernels, memory, errors, and attention beside them
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure on: `host`, or `cuda:0` for the first CUDA device
    #[arg(long, default_value = "host")]
    device: String,

    /// Sections, all if none is given
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(SECTIONS.map(|section| section.name)))]
    sections: Vec<String>,

    /// Lengths of prompts for `co_design`, in tokens; 256 to 262144 if none is given
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=MOST_TOKENS))]
    lengths: Vec<u64>,

    /// Seconds in place of a minute: fewer lengths, fewer tokens, times that are less steady
    #[arg(long)]
    quick: bool,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// From where a recurrence is behind to where attention's cache is a gigabyte.
const LENGTHS: [u64; 11] = [256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131_072, 262_144];
const QUICK_LENGTHS: [u64; 3] = [256, 1024, 2048];
/// How long one thing is measured.
const PATIENCE: Nanos = Nanos(300_000_000);
const QUICK_PATIENCE: Nanos = Nanos(10_000_000);
const MOST_TOKENS: u64 = 1 << 20;

/// A part of the benchmark that stands alone.
struct Section {
    /// What `--sections` and the JSON call it.
    name: &'static str,
    run: fn(&Bench) -> Result<Findings, Failure>,
}

/// What a section measures on.
struct Bench {
    device: Box<dyn Mixers>,
    /// What `--device` says.
    device_name: String,
    lengths: Vec<usize>,
    /// Whether seconds are to do.
    quick: bool,
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
const SECTIONS: [Section; 4] =
    [co_design::SECTION, gated_quantisation::SECTION, hp_aso::SECTION, tiered_cache::SECTION];

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let patience = if args.quick { QUICK_PATIENCE } else { PATIENCE };
    let device = hw::open::mixers(&args.device, patience).map_err(Failure::refused)?;
    let lengths = match args.lengths[..] {
        [] if args.quick => &QUICK_LENGTHS[..],
        [] => &LENGTHS,
        ref given => given,
    };
    let lengths = lengths.iter().map(|length| *length as usize).collect();
    let device_name = args.device.clone();
    let bench =
        Bench { device, device_name, lengths, quick: args.quick, progress: Progress::spinner("measuring") };
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

/// How long something takes, in seconds.
#[allow(clippy::disallowed_methods)] // What is measured here is time.
fn seconds<E>(mut run: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed().as_secs_f64())
}

/// The median of so many runs, after one that warms up.
fn median_of<E>(times: usize, mut run: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    run()?;
    let all: Result<Vec<f64>, E> = (0..times).map(|_| seconds(&mut run)).collect();
    all.map(median)
}

/// The median; zero of nothing.
fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}
