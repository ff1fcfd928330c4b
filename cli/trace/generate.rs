//! `hotset trace generate`: routing made up, with a seed.

use crate::failure::Failure;
use std::path::PathBuf;
use traces::generate::{Params, SAMPLE};

/// Generate routing with a popularity skew, a memory from token to token and one from layer to layer
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The file to write; its extension, .hrt or .jsonl, says the format
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Routed layers
    #[arg(long, value_name = "N", default_value_t = SAMPLE.layers)]
    layers: u32,

    /// Experts of each layer
    #[arg(long, value_name = "N", default_value_t = SAMPLE.experts)]
    experts: u32,

    /// Experts a token selects at each layer
    #[arg(long, value_name = "N", default_value_t = SAMPLE.top_k)]
    top_k: u32,

    /// Traces, one for each request
    #[arg(long, value_name = "N", default_value_t = SAMPLE.traces)]
    traces: u32,

    /// Tokens of each trace
    #[arg(long, value_name = "N", default_value_t = SAMPLE.tokens_per_trace)]
    tokens: u32,

    /// Exponent of the popularity, 0 (uniform) to 10
    #[arg(long, value_name = "S", allow_negative_numbers = true, default_value_t = SAMPLE.skew)]
    skew: f64,

    /// Probability that an expert of the previous token is chosen again at the same layer
    #[arg(long, value_name = "P", allow_negative_numbers = true, default_value_t = SAMPLE.stickiness)]
    stickiness: f64,

    /// Probability that an expert of the layer before leads to the one of the same popularity
    #[arg(long, value_name = "P", allow_negative_numbers = true, default_value_t = SAMPLE.coupling)]
    coupling: f64,

    /// Draw gate weights too
    #[arg(long)]
    gates: bool,

    /// Seed of everything: equal arguments give an equal file
    #[arg(long, value_name = "N", default_value_t = SAMPLE.seed)]
    seed: u64,

    /// Which draws of the seed: another number gives other tokens of the same popularity
    #[arg(long, value_name = "N", default_value_t = SAMPLE.draws)]
    draws: u32,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let params = Params {
        layers: args.layers,
        experts: args.experts,
        top_k: args.top_k,
        traces: args.traces,
        tokens_per_trace: args.tokens,
        skew: args.skew,
        stickiness: args.stickiness,
        coupling: args.coupling,
        gates: args.gates,
        seed: args.seed,
        draws: args.draws,
    };
    let trace = traces::generate(&params).map_err(Failure::refused)?;
    super::write(&trace, &args.output)
}
