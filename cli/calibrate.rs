//! `hotset calibrate`: a machine file, measured.

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::progress::Progress;
use hw::calibrate::{CalibrateError, Calibration, CodecRates, Plan};
use hw::engine::Engine;
use indexmap::IndexMap;
use policy::{Bandwidth, Bytes, Nanos};
use serde::Serialize;
use sim::output::Draft;
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

/// Measure a device and write its machine file: copies, products, formats, alone and at once
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure: `host`, or `cuda:0` for the first CUDA device
    #[arg(long, default_value = "host")]
    device: String,

    /// The machine file to write; without it, the file goes to standard output
    #[arg(short, value_name = "FILE")]
    out: Option<PathBuf>,

    /// The machine's name in the file
    #[arg(long, default_value = "this-machine")]
    name: String,

    /// A folder for the files of tiers that are files; what is measured as storage is its disk
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,

    /// Leave storage out
    #[arg(long)]
    no_storage: bool,

    /// What goes to standard output: the machine file where no file is named for it, or every time as JSON
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if !args.name.starts_with(|first: char| first.is_alphabetic())
        || args.name.chars().any(|c| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
    {
        let wrong =
            format!("--name `{}`: a name has letters, digits, `-`, `_` and `.`, a letter first", args.name);
        return Err(Failure::refused(wrong));
    }
    // A folder that cannot be written to is found before minutes of measuring.
    let draft =
        args.out.as_ref().map(|path| Draft::create(path.clone())).transpose().map_err(Failure::refused)?;
    let engine = hw::open::open(&args.device, &args.scratch).map_err(Failure::refused)?;
    let plan = plan(args, &*engine);
    let progress = Progress::spinner("measuring");
    let calibration = Calibration::run(&*engine, plan, &mut |what| progress.say(what))
        .map_err(|error: CalibrateError| Failure::failed(error))?;
    drop(progress);
    let unsettled = calibration.times().into_iter().filter(|(_, _, time)| !time.settled()).count();
    if unsettled > 0 {
        let all = calibration.times().len();
        eprintln!("note: {unsettled} of {all} times did not settle within 5 %; --format json names them");
    }
    let yaml = calibration.yaml();
    let file = draft.map(|mut draft| {
        let written = draft.write_all(yaml.as_bytes());
        draft.complete(written).and_then(Draft::publish).map_err(Failure::failed)
    });
    let file = file.transpose()?;
    match (args.format, file) {
        (Format::Json, _) => output::print_json(&Report::new(&engine.name(), &calibration)),
        (Format::Table, None) => output::print(&yaml),
        (Format::Table, Some(path)) => output::print(&format!("wrote {}\n", path.display())),
    }
}

/// What was measured, with how steady it was.
#[derive(Serialize)]
struct Report {
    device: String,
    times: Vec<Time>,
    duplex_gb_s: IndexMap<String, f64>,
    beside_each_other_gb_s: IndexMap<&'static str, f64>,
    codecs_gb_s: [IndexMap<&'static str, [f64; 2]>; 2],
}

#[derive(Serialize)]
struct Time {
    what: String,
    bytes: Bytes,
    median_us: f64,
    spread: f64,
    count: usize,
    gb_s: f64,
}

impl Report {
    fn new(device: &str, calibration: &Calibration) -> Report {
        let times = calibration.times().into_iter().map(|(what, bytes, time)| {
            let median = time.median().0.max(1) as f64;
            let gb_s = bytes.0 as f64 / median;
            Time { what, bytes, median_us: median / 1e3, spread: time.spread(), count: time.count(), gb_s }
        });
        let rate = |rate: Bandwidth| rate.0 as f64 / 1e9;
        let duplex = calibration.duplex().map(|(from, to, both)| (format!("{from} to {to}"), rate(both)));
        let at_once = calibration.contention();
        Report {
            device: device.to_owned(),
            times: times.collect(),
            duplex_gb_s: duplex.collect(),
            beside_each_other_gb_s: IndexMap::from([
                ("copies_alone", rate(at_once.copy)),
                ("copies_beside_products", rate(at_once.copy_beside)),
                ("products_alone", rate(at_once.product)),
                ("products_beside_copies", rate(at_once.product_beside)),
            ]),
            codecs_gb_s: calibration.codecs().map(|codecs| {
                let both =
                    |codec: &CodecRates| (codec.format.name(), [rate(codec.encode), rate(codec.decode)]);
                codecs.iter().map(both).collect()
            }),
        }
    }
}

/// Copies from a page to what an expert takes, products at the batches of decoding.
fn plan(args: &Args, engine: &dyn Engine) -> Plan {
    let mut capacity = engine.capacity();
    if args.no_storage {
        capacity[2] = Bytes::ZERO;
    }
    Plan {
        name: args.name.clone(),
        date: today(),
        capacity,
        cold: Bytes(192 << 20),
        sizes: [12, 16, 18, 20, 22, 24].map(|power| Bytes(1 << power)).to_vec(),
        large: Bytes(4 << 20),
        expert: [1024, 2048],
        tokens: vec![1, 2, 4, 8, 16],
        patience: Nanos(400_000_000),
    }
}

#[allow(clippy::disallowed_methods)] // The file says when it was measured.
fn today() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now())
        .to_string()
        .split('T')
        .next()
        .unwrap_or_default()
        .to_owned()
}
