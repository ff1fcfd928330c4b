//! `hotset schema`: the JSON Schema of the files a user writes.

use crate::failure::Failure;
use crate::output;
use clap::ValueEnum;
use scenarios::{Document, schema};

/// Print the JSON Schema of a scenario, a machine, a model or a sensitivity table, for editors and other tools
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Whose schema
    #[arg(value_enum, default_value_t)]
    of: Of,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Of {
    /// A scenario, with whatever it holds inline.
    #[default]
    Scenario,
    /// A machine file.
    Machine,
    /// A model: the keys of a Hugging Face config.json.
    Model,
    /// A table of the errors of formats.
    Sensitivity,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    output::print_json(&schema(match args.of {
        Of::Scenario => Document::Scenario,
        Of::Machine => Document::Machine,
        Of::Model => Document::Model,
        Of::Sensitivity => Document::Sensitivity,
    }))
}
