//! `hotset trace generate`: routing made up, with a seed.

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::progress::Progress;
use crate::trace_files;
use std::path::PathBuf;
use traces::generate::{Params, SAMPLE};
use traces::{Fitted, Likeness, Options, RoutingTrace, TraceError};

/// Generate routing with a popularity skew, a memory from token to token and one from layer to layer
///
/// With --fit, routing like a recorded one instead; what is printed says how close it came.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The file to write; its extension, .hrt, .jsonl or .oracleGeneral, says the format
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Recorded routing to be like: its popularity, requests, memory and coupling are fitted
    #[arg(long, value_name = "TRACE", num_args = 1..)]
    #[arg(conflicts_with_all = ["layers", "experts", "top_k", "skew", "stickiness", "coupling", "kinds", "specialisation", "favourites", "draws"])]
    fit: Vec<PathBuf>,

    /// Fit traces marked as repetition too
    #[arg(long, requires = "fit")]
    include_repetition: bool,

    /// How to print how close the fit came
    #[arg(long, value_enum, default_value_t, requires = "fit")]
    format: Format,

    /// Routed layers
    #[arg(long, value_name = "N", default_value_t = SAMPLE.layers)]
    layers: u32,

    /// Experts of each layer
    #[arg(long, value_name = "N", default_value_t = SAMPLE.experts)]
    experts: u32,

    /// Experts a token selects at each layer
    #[arg(long, value_name = "N", default_value_t = SAMPLE.top_k)]
    top_k: u32,

    /// Traces, one for each request [default: 6, or as recorded]
    #[arg(long, value_name = "N")]
    traces: Option<u32>,

    /// Tokens of each trace [default: 100, or as recorded]
    #[arg(long, value_name = "N")]
    tokens: Option<u32>,

    /// Exponent of the popularity, 0 (uniform) to 10
    #[arg(long, value_name = "S", allow_negative_numbers = true, default_value_t = SAMPLE.skew)]
    skew: f64,

    /// Probability that an expert of the previous token is chosen again at the same layer
    #[arg(long, value_name = "P", allow_negative_numbers = true, default_value_t = SAMPLE.stickiness)]
    stickiness: f64,

    /// Probability that an expert of the layer before leads to the one of the same popularity
    #[arg(long, value_name = "P", allow_negative_numbers = true, default_value_t = SAMPLE.coupling)]
    coupling: f64,

    /// Kinds of tokens, in which experts may specialise, 1 to 4096
    #[arg(long, value_name = "N", default_value_t = SAMPLE.kinds)]
    kinds: u32,

    /// How far apart kinds are in what they choose: standard deviation of the logarithm of a weight, 0 to 10
    #[arg(long, value_name = "S", allow_negative_numbers = true, default_value_t = SAMPLE.specialisation)]
    specialisation: f64,

    /// How far apart traces are in the kinds they are made of: standard deviation of the logarithm of a kind's weight, 0 to 10
    #[arg(long, value_name = "S", allow_negative_numbers = true, default_value_t = SAMPLE.favourites)]
    favourites: f64,

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
    if !args.fit.is_empty() {
        return like_recorded(args);
    }
    let params = Params {
        layers: args.layers,
        experts: args.experts,
        top_k: args.top_k,
        traces: args.traces.unwrap_or(SAMPLE.traces),
        tokens_per_trace: args.tokens.unwrap_or(SAMPLE.tokens_per_trace),
        skew: args.skew,
        stickiness: args.stickiness,
        coupling: args.coupling,
        kinds: args.kinds,
        specialisation: args.specialisation,
        favourites: args.favourites,
        gates: args.gates,
        seed: args.seed,
        draws: args.draws,
    };
    let trace = traces::generate(&params).map_err(Failure::refused)?;
    super::write(&trace, &args.output)
}

fn like_recorded(args: &Args) -> Result<(), Failure> {
    let recorded = trace_files::read(&args.fit, &Options::default()).map_err(Failure::refused)?;
    let progress = Progress::spinner("fitting");
    let made = fit(args, &recorded).map_err(Failure::refused);
    drop(progress);
    let (trace, likeness) = made?;
    super::write(&trace, &args.output)?;
    match args.format {
        Format::Json => output::print_json(&likeness),
        Format::Table => output::print(&table(&likeness)),
    }
}

/// The trace that was asked for, and how close one of the recorded lengths comes to the recording.
fn fit(args: &Args, recorded: &RoutingTrace) -> Result<(RoutingTrace, Vec<Likeness>), TraceError> {
    let fitted = Fitted::new(recorded, args.include_repetition)?;
    let (lengths, asked) = (fitted.lengths(), fitted.lengths_for(args.traces, args.tokens)?);
    let trace = fitted.generate(&asked, args.gates, args.seed)?;
    let likeness = match asked == lengths {
        true => traces::likeness(recorded, &trace, args.include_repetition),
        false => {
            let twin = fitted.generate(lengths, false, args.seed)?;
            traces::likeness(recorded, &twin, args.include_repetition)
        }
    };
    Ok((trace, likeness?))
}

fn table(likeness: &[Likeness]) -> String {
    let percent = |rate: f64| format!("{:.2}", 100.0 * rate);
    let row = |point: &Likeness| {
        let points = format!("{:+.2}", point.points());
        let rates = [percent(point.recorded), percent(point.generated), points];
        let [recorded, generated, points] = rates;
        [point.policy.to_owned(), point.capacity_slots.to_string(), recorded, generated, points]
    };
    let header = ["policy", "slots", "recorded %", "generated %", "points"].map(String::from);
    let mut text = output::numbers(header, likeness.iter().map(row));
    let mut policies: Vec<&str> = likeness.iter().map(|point| point.policy).collect();
    policies.dedup();
    let worst = |policy: &&str| {
        let of_policy = likeness.iter().filter(|point| point.policy == *policy);
        let worst = of_policy.map(|point| point.points().abs()).fold(0.0, f64::max);
        format!("{policy} {worst:.2}")
    };
    let worst: Vec<String> = policies.iter().map(worst).collect();
    text += &format!("Worst difference in points of the hit rate: {}.\n", worst.join(", "));
    text
}
