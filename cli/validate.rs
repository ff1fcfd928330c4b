//! `hotset validate`: the same decisions in simulation and on a real device.

mod report;
mod timeline;
mod worlds;

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::scenario_args::{Overrides, load_case};
use sim::Case;
use std::path::{Path, PathBuf};

/// Run a scenario on a real device in lockstep with the simulator: are decisions and bytes equal, how far off are predicted times
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A scenario file, or the name of a shipped scenario
    scenario: String,

    #[command(flatten)]
    overrides: Overrides,

    /// Where to run: `host`, or `cuda:0` for the first CUDA device
    #[arg(long, default_value = "host")]
    device: String,

    /// A machine file or shipped machine in place of the scenario's, such as `hotset calibrate` writes
    #[arg(long, value_name = "FILE")]
    machine: Option<String>,

    /// The model's weights: a safetensors file, the index of several, or a folder with either; without them weights are made up
    #[arg(long, value_name = "PATH")]
    weights: Option<PathBuf>,

    /// Run it once more with real times feeding the controller, and say what they change
    #[arg(long)]
    live: bool,

    /// A folder for the files of tiers that are files
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,

    /// Write timeline.json to this folder: both timelines, opens in Perfetto
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut set = args.overrides.set.clone();
    if let Some(machine) = &args.machine {
        // A path on the command line starts at the working folder, one in a scenario at the scenario's.
        let path = Path::new(machine);
        let whole =
            if path.exists() { path.canonicalize().map_err(Failure::refused)? } else { path.to_owned() };
        set.push(("machine".to_owned(), whole.display().to_string()));
    }
    let (scenario, case) = load_case(&args.scenario, &set)?;
    let accelerators = scenario.parallel.accelerators();
    if accelerators > 1 {
        let message = format!(
            "`parallel` has {accelerators} accelerators: `validate` runs on one; leave `parallel` out"
        );
        return Err(Failure::refused(message));
    }
    if args.live && case.checkpoints.is_some() {
        let message = "`--live` runs no checkpoints: what prompts have in common is known to the simulator only; leave it out";
        return Err(Failure::refused(message));
    }
    // A device begins with its weights in place.
    let case = Case { load_from: None, ..case };
    if scenario.load.is_some() {
        eprintln!("note: `load` is left out, in both worlds: a device begins with its weights in place");
    }
    let engine = hw::open::open(&args.device, &args.scratch).map_err(Failure::refused)?;
    let timeline = args.out.as_deref().map(timeline::File::begin).transpose()?;
    let worlds = worlds::run(&scenario, &case, &*engine, args)?;
    if let Some(file) = timeline {
        file.write(&case, &worlds)?;
    }
    let report = report::Report::new(&case, &worlds)?;
    match args.format {
        Format::Json => output::print_json(&report)?,
        Format::Table => output::print(&report.table(&scenario.name))?,
    }
    match report.agrees() {
        true => Ok(()),
        false => Err(Failure::failed("the two worlds differ")),
    }
}
