//! `hotset machines` and `hotset models`: what is in the catalogue, and what a model's file comes to.

use crate::failure::Failure;
use crate::output::{self, Format};
use policy::Machine;
use serde::Serialize;

/// List the machines in the catalogue
#[derive(clap::Args)]
pub(crate) struct MachineArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// List the models in the catalogue, or what a config.json or a GGUF file comes to
#[derive(clap::Args)]
pub(crate) struct ModelArgs {
    /// Hugging Face config.json files, GGUF files, or names of shipped models; all shipped models if none is given
    #[arg(value_name = "MODEL")]
    models: Vec<String>,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct ListedMachine {
    name: String,
    tiers: Vec<ListedTier>,
    links: Vec<ListedLink>,
    flops_per_s: u64,
    read_bytes_per_s: u64,
}

#[derive(Serialize)]
struct ListedTier {
    name: String,
    class: policy::machine::Class,
    capacity_bytes: u64,
}

#[derive(Serialize)]
struct ListedLink {
    name: String,
    direction: String,
    bytes_per_s: u64,
    latency_ns: u64,
}

impl From<&Machine> for ListedMachine {
    fn from(machine: &Machine) -> ListedMachine {
        let tier = |id| machine.tier(id).name.as_str();
        ListedMachine {
            name: machine.name.clone(),
            tiers: machine
                .tiers
                .iter()
                .map(|tier| ListedTier {
                    name: tier.name.clone(),
                    class: tier.class,
                    capacity_bytes: tier.capacity.0,
                })
                .collect(),
            links: machine
                .links
                .iter()
                .map(|link| ListedLink {
                    name: link.name.clone(),
                    direction: format!("{} to {}", tier(link.from), tier(link.to)),
                    bytes_per_s: link.rate.peak().0,
                    latency_ns: link.latency.0,
                })
                .collect(),
            flops_per_s: machine.accelerator.flops.0,
            read_bytes_per_s: machine.accelerator.read.0,
        }
    }
}

pub(crate) fn machines(args: &MachineArgs) -> Result<(), Failure> {
    let machines = scenarios::machines().map_err(Failure::failed)?;
    if args.format == Format::Json {
        return output::print_json(&machines.iter().map(ListedMachine::from).collect::<Vec<_>>());
    }
    let row = |machine: &Machine| {
        let tiers = machine.tiers.iter().map(|tier| format!("{} {}", tier.name, tier.capacity));
        let links = machine.links.iter().map(|link| {
            format!(
                "{} {}>{} {}",
                link.name,
                machine.tier(link.from).name,
                machine.tier(link.to).name,
                link.rate
            )
        });
        let join = |parts: Vec<String>| parts.join("\n");
        [
            machine.name.clone(),
            join(tiers.collect()),
            join(links.collect()),
            machine.accelerator.read.to_string(),
        ]
    };
    output::print(&output::words(
        ["machine", "memories", "links", "weights read"].map(String::from),
        machines.iter().map(row),
    ))
}

pub(crate) fn models(args: &ModelArgs) -> Result<(), Failure> {
    let facts = if args.models.is_empty() {
        scenarios::models().map_err(Failure::failed)?
    } else {
        let each = args.models.iter().map(|name| scenarios::model(name).map(|(_, facts)| facts));
        each.collect::<Result<_, _>>()?
    };
    if args.format == Format::Json {
        return output::print_json(&facts);
    }
    let row = |model: &scenarios::ModelFacts| {
        [
            model.name.clone(),
            format!("{:.1} B", model.parameters as f64 / 1e9),
            format!("{:.1} B", model.active_parameters as f64 / 1e9),
            model.layers.to_string(),
            format!("{} of {}", model.selected, model.blocks_per_layer),
            model.native.to_string(),
            model.block_bytes.to_string(),
            model.managed_bytes.to_string(),
            model.resident_bytes.to_string(),
        ]
    };
    let header =
        ["model", "parameters", "active", "layers", "selected", "format", "block", "all blocks", "resident"];
    output::print(&output::numbers(header.map(String::from), facts.iter().map(row)))
}
