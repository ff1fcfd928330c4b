//! `hotset calibrate`: a machine file, measured.

use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;
use hw::calibrate::{CalibrateError, Calibration, Plan};
use hw::engine::Engine;
use policy::Bytes;
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
    for what in calibration.unsettled() {
        eprintln!("note: not steady: {what}");
    }
    let yaml = calibration.yaml();
    match draft {
        None => output::print(&yaml),
        Some(mut draft) => {
            let written = draft.write_all(yaml.as_bytes());
            let path = draft.complete(written).and_then(Draft::publish).map_err(Failure::failed)?;
            eprintln!("{}", path.display());
            Ok(())
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
        tokens: vec![1, 2, 4, 8, 16],
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
