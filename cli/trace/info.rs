//! `hotset trace info`: what a trace is like.

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::trace_files::TraceFiles;
use traces::predictability::{Ahead, Predictability};
use traces::reuse::SlotsFor;
use traces::{GateOrigin, Info};

/// Measure popularity, reuse, predictability, working sets and gate weights, and say in words what they mean
///
/// Of a request trace: how many requests, how fast and how evenly they come, how long they are, and what prompts share.
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
    if let Some(requests) = args.traces.requests()? {
        return super::requests::print(&requests, args.format);
    }
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
    if info.prompt_rows > 0 {
        rows.push(("prompt tokens, not counted", info.prompt_rows.to_string()));
    }
    if let Some(overlap) = info.overlap_with_previous_token {
        rows.push(("same as at the previous token", percent(overlap)));
    }
    let reuse = &info.reuse;
    let within = [reuse.p50_tokens, reuse.p75_tokens, reuse.p90_tokens, reuse.p99_tokens].map(or_never);
    rows.push(("back within tokens: 50, 75, 90, 99 %", within.join(", ")));
    let slots = |of: fn(&SlotsFor) -> Option<usize>| {
        info.slots_for.iter().map(|slots| or_never(of(slots))).collect::<Vec<_>>().join(", ")
    };
    rows.push(("slots for 50, 75, 90 % of hits: LRU", slots(|slots| slots.lru)));
    rows.push(("the same with the future known", slots(|slots| slots.bound)));
    rows.push(("gate weights", gates.to_owned()));
    if let Some(mean) = &info.mean_sorted_gates {
        let mean: Vec<String> = mean.iter().map(|weight| format!("{weight:.3}")).collect();
        rows.push(("mean gate weights, sorted", mean.join(" ")));
    }
    let facts = output::numbers(
        ["", "value"].map(String::from),
        rows.into_iter().map(|(name, value)| [name.into(), value]),
    );
    let foreseen = info.predictability.as_ref().map(foreseen).unwrap_or_default();
    let reading: String = info.reading.iter().map(|sentence| format!("{sentence}\n")).collect();
    format!("{facts}\n{}{foreseen}\n{reading}", working_sets(info))
}

fn or_never(number: Option<usize>) -> String {
    number.map_or("never".to_owned(), |number| number.to_string())
}

fn foreseen(known: &Predictability) -> String {
    let percent = |share: f64| format!("{:.2}", 100.0 * share);
    let row = |ahead: &Ahead| [ahead.layers.to_string(), percent(ahead.recall)];
    let rows = known.by_layers_ahead.iter().map(row);
    let popularity = ["by popularity".to_owned(), percent(known.by_popularity)];
    let header = ["layers ahead", "experts foreseen %"].map(String::from);
    format!("\n{}", output::numbers(header, rows.chain([popularity])))
}

fn working_sets(info: &Info) -> String {
    let row = |window: &traces::info::WorkingSet| {
        let blocks =
            window.blocks.map_or("no trace is that long".to_owned(), |blocks| format!("{blocks:.1}"));
        let independent = format!("{:.1}", window.independent_blocks);
        [window.tokens.to_string(), window.windows.to_string(), blocks, independent]
    };
    output::numbers(
        ["window, tokens", "windows", "mean distinct blocks", "if tokens were independent"].map(String::from),
        info.working_set.iter().map(row),
    )
}
