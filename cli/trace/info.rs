//! `hotset trace info`: what a trace is like.

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::trace_files::TraceFiles;
use traces::{GateOrigin, Info};

/// Measure popularity, repetition from token to token, working sets and gate weights
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    traces: TraceFiles,

    /// Count traces marked as repetition too
    #[arg(long)]
    include_repetition: bool,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let info = traces::info(&args.traces.read()?, args.include_repetition).map_err(Failure::refused)?;
    match args.format {
        Format::Json => output::print_json(&info),
        Format::Table => output::print(&table(&info)),
    }
}

fn table(info: &Info) -> String {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let left_out = if info.includes_repetition { "included" } else { "left out" };
    let gates = match info.gates {
        None => "none",
        Some(GateOrigin::Trace) => "recorded",
        Some(GateOrigin::Synthetic) => "synthetic",
    };
    let mut rows = vec![
        ("layers", info.layers.to_string()),
        ("experts a layer", info.experts.to_string()),
        ("experts a token", info.top_k.to_string()),
        ("traces", info.traces.to_string()),
        ("traces of repetition", format!("{} ({left_out})", info.repetition_traces)),
        ("tokens", info.tokens.to_string()),
        ("accesses", info.accesses.to_string()),
        ("distinct blocks", format!("{} of {}", info.distinct_blocks, info.layers * info.experts)),
        ("accesses to the top 10 % of blocks", percent(info.popularity.top_10_percent)),
        ("accesses to the top 25 %", percent(info.popularity.top_25_percent)),
        ("accesses to the top 50 %", percent(info.popularity.top_50_percent)),
        ("Zipf exponent", format!("{:.3}", info.zipf_exponent)),
        ("blocks a token", format!("{:.2}", info.blocks_per_token)),
    ];
    if let Some(overlap) = info.overlap_with_previous_token {
        rows.push(("same as at the previous token", percent(overlap)));
    }
    rows.push(("gate weights", gates.to_owned()));
    if let Some(mean) = &info.mean_sorted_gates {
        let mean: Vec<String> = mean.iter().map(|weight| format!("{weight:.3}")).collect();
        rows.push(("mean gate weights, sorted", mean.join(" ")));
    }
    let facts = output::numbers(
        ["", "value"].map(String::from),
        rows.into_iter().map(|(name, value)| [name.into(), value]),
    );
    format!("{facts}\n{}", working_sets(info))
}

fn working_sets(info: &Info) -> String {
    let row = |window: &traces::info::WorkingSet| {
        let blocks =
            window.blocks.map_or("no trace is that long".to_owned(), |blocks| format!("{blocks:.1}"));
        [window.tokens.to_string(), window.windows.to_string(), blocks]
    };
    output::numbers(
        ["window, tokens", "windows", "mean distinct blocks"].map(String::from),
        info.working_set.iter().map(row),
    )
}
