//! `hotset simulate`: one run, or a table of runs.

mod checkpoints;
mod levers;

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::progress::Progress;
use crate::scenario_args::{Overrides, assignment, load_case, sweep_values};
use policy::drive::Nobody;
use policy::record::Decision;
use policy::tally::RequestTimes;
use policy::{Orchestrator, Time, Watch};
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use scenarios::{Scenario, Slo};
use sim::losses::LossFigures;
use sim::output::Output;
use sim::report::{RankUse, StageUse};
use sim::resolve::resolve_policy;
use sim::{Case, Keep, Outcome, Summary, World};
use std::path::PathBuf;
use std::time::Instant;

/// Simulate a scenario: what to expect from this machine, model, load and policy
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A scenario file, or the name of a shipped scenario
    scenario: String,

    #[command(flatten)]
    overrides: Overrides,

    /// Run once for each value, as in `--sweep memory.hbm='192 slots,288 slots'`
    #[arg(long, value_name = "PATH=A,B,C", value_parser = assignment)]
    sweep: Option<(String, String)>,

    /// Runs of a sweep at the same time, 0 for one a core; the result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024))]
    jobs: u16,

    /// Say what would remove the stall that is left: runs the scenario again with more slots, and with fewer bits
    #[arg(long, conflicts_with_all = ["sweep", "out"])]
    levers: bool,

    /// Write summary.json, requests.csv, series.csv, decisions.jsonl, timeline.json (opens in Perfetto), report.html and the placement
    /// for other engines (placement.json, llama-cpp.txt, ktransformers.yaml) to this folder
    #[arg(long, value_name = "DIR", conflicts_with = "sweep")]
    out: Option<PathBuf>,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// One run of the table.
#[derive(serde::Serialize)]
struct Swept<'a> {
    #[serde(rename = "set")]
    value: String,
    #[serde(flatten)]
    summary: &'a Summary,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.sweep {
        None if args.levers => levers::run(&args.scenario, &args.overrides.set, args.format),
        None => run_one(args),
        Some((path, values)) => run_sweep(args, path, values),
    }
}

fn run_one(args: &Args) -> Result<(), Failure> {
    let (scenario, case) = load_case(&args.scenario, &args.overrides.set)?;
    let summary = match &args.out {
        None => simulate(&scenario, &case, Keep::default(), &mut Followed::new(Nobody))?.0,
        Some(folder) => {
            let mut files = Followed::new(Output::create(folder, &case).map_err(Failure::refused)?);
            let (summary, outcome) = simulate(&scenario, &case, Output::KEEP, &mut files)?;
            files.inner.finish(&scenario.name, &outcome, &summary).map_err(Failure::failed)?;
            summary
        }
    };
    match args.format {
        Format::Json => output::print_json(&summary),
        Format::Table => output::print(&table(&scenario, &case, &summary)),
    }
}

fn run_sweep(args: &Args, path: &str, values: &str) -> Result<(), Failure> {
    let values = sweep_values(path, values)?;
    let mut cases = Vec::new();
    for value in &values {
        let mut set = args.overrides.set.clone();
        set.push((path.to_owned(), (*value).to_owned()));
        cases.push(load_case(&args.scenario, &set)?);
    }
    let pool = ThreadPoolBuilder::new().num_threads(args.jobs.into()).build().map_err(Failure::failed)?;
    let progress = Progress::new(cases.len() as u64, "simulating");
    let run = |(scenario, case): &(Scenario, Case)| {
        let summary = simulate(scenario, case, Keep::default(), &mut Nobody).map(|(summary, _)| summary);
        progress.step();
        summary
    };
    let summaries: Vec<Result<Summary, Failure>> = pool.install(|| cases.par_iter().map(run).collect());
    drop(progress);
    let summaries = summaries.into_iter().collect::<Result<Vec<_>, _>>()?;
    if args.format == Format::Json {
        let set = |value: &&str| format!("{path}={value}");
        let rows = values.iter().zip(&summaries).map(|(value, summary)| Swept { value: set(value), summary });
        return output::print_json(&rows.collect::<Vec<_>>());
    }
    // What puts out one thing a request has no times of tokens.
    let tokens = cases.iter().any(|(_, case)| case.model.puts_out_tokens());
    let [rate, half, most] = match tokens {
        true => ["tok/s", "TPOT p50 ms", "TPOT p99 ms"],
        false => ["requests/s", "E2E p50 ms", "E2E p99 ms"],
    };
    let metric = if tokens { "tpot" } else { "e2e" };
    let header = [path, rate, half, most, "hit rate", "stall s", "stall share", "drift max"];
    let paged = summaries.iter().any(|summary| summary.cache.is_some());
    // Times say little where some requests were refused.
    let more: &[&str] = if paged { &["TTFT p50 ms", "pre-empted", "refused"] } else { &[] };
    let kept = summaries.iter().any(|summary| summary.checkpoints.is_some());
    let states: &[&str] = if kept { &["tokens spared", "computed again", "reuse"] } else { &[] };
    let header = header.iter().chain(more).chain(states).map(|title| title.to_string()).collect::<Vec<_>>();
    let rows = values.iter().zip(&summaries).map(|(value, summary)| {
        let mut row = vec![
            (*value).to_owned(),
            if tokens {
                format!("{:.2}", summary.output_throughput_tok_s)
            } else {
                format!("{:.4}", summary.request_throughput_rps)
            },
            millis(summary, &format!("p50_{metric}_ms")),
            millis(summary, &format!("p99_{metric}_ms")),
            percent(summary.hit_rate),
            format!("{:.3}", summary.stall_s()),
            percent(summary.stall_fraction),
            percent(summary.drift_max),
        ];
        if paged {
            let cache = summary.cache.map_or((0, 0), |cache| (cache.preemptions, cache.requests_rejected));
            row.extend([millis(summary, "p50_ttft_ms"), cache.0.to_string(), cache.1.to_string()]);
        }
        if let Some(figures) = &summary.checkpoints {
            let again = figures.recomputed_tokens.to_string();
            row.extend([percent(figures.token_hit_rate), again, percent(figures.reuse_rate)]);
        }
        row
    });
    output::print(&output::numbers(header, rows))
}

/// Events between two looks at how far a run has come.
const LOOK: u32 = 1 << 14;

/// Shows how much of a run's output is there, and how long the rest will take, beside whoever looks on.
struct Followed<W> {
    inner: W,
    progress: Progress,
    /// Tokens that the run puts out in all, counted at the first look.
    tokens: u64,
    events: u32,
}

impl<W> Followed<W> {
    fn new(inner: W) -> Followed<W> {
        Followed { inner, progress: Progress::share("simulating"), tokens: 0, events: 0 }
    }
}

impl<W: Watch<World>> Watch<World> for Followed<W> {
    fn decision(&mut self, decision: Decision) {
        self.inner.decision(decision);
    }

    fn request(&mut self, request: RequestTimes) {
        self.inner.request(request);
    }

    fn event(&mut self, at: Time, orchestrator: &mut Orchestrator, world: &World) {
        self.events = self.events.wrapping_add(1);
        if self.events.is_multiple_of(LOOK) {
            if self.tokens == 0 {
                self.tokens = world.requests().iter().map(|request| u64::from(request.tokens)).sum();
            }
            self.progress.at(orchestrator.tally().output_tokens, self.tokens);
        }
        self.inner.event(at, orchestrator, world);
    }

    fn enough(&self) -> bool {
        self.inner.enough()
    }
}

/// Runs the scenario's own policy.
#[allow(clippy::disallowed_methods)] // The wall clock reports how fast the run was; nothing in the run sees it.
fn simulate(
    scenario: &Scenario,
    case: &Case,
    keep: Keep,
    watcher: &mut impl Watch<World>,
) -> Result<(Summary, Outcome), Failure> {
    let (entry, params) = policy_of(scenario)?;
    let start = Instant::now();
    let outcome = case.watch(entry, &params, keep, watcher)?;
    Ok((Summary::new(case, &outcome, entry.name, start.elapsed().as_secs_f64()), outcome))
}

/// The registry entry and parameters of a scenario's policy.
pub(crate) fn policy_of(
    scenario: &Scenario,
) -> Result<(&'static policy::registry::Entry, Vec<f64>), Failure> {
    resolve_policy(&scenario.policy.name, &scenario.policy.params)
        .map_err(|complaint| Failure::refused(complaint.message))
}

/// How much was put out, and how fast: tokens, or one thing a request.
fn speed(case: &Case, summary: &Summary) -> Vec<[String; 2]> {
    if !case.model.puts_out_tokens() {
        let rate = summary.request_throughput_rps;
        return vec![
            ["requests".into(), format!("{} in {:.3} s", summary.requests_completed, summary.simulated_s)],
            ["throughput".into(), format!("{rate:.4} requests/s")],
            ["E2E p50, p99".into(), pair(summary, "e2e")],
        ];
    }
    vec![
        ["output tokens".into(), format!("{} in {:.3} s", summary.output_tokens, summary.simulated_s)],
        ["throughput".into(), format!("{:.2} tok/s", summary.output_throughput_tok_s)],
        ["TTFT p50, p99".into(), pair(summary, "ttft")],
        ["TPOT p50, p99".into(), pair(summary, "tpot")],
        ["ITL p50, p99".into(), pair(summary, "itl")],
    ]
}

fn table(scenario: &Scenario, case: &Case, summary: &Summary) -> String {
    let blocks = case.model.blocks.len();
    let mut rows: Vec<[String; 2]> = vec![["policy".into(), summary.policy.clone()]];
    rows.extend(speed(case, summary));
    if blocks > 0 {
        let stall = format!("{:.3} s, {} of step time", summary.stall_s(), percent(summary.stall_fraction));
        let slots = format!("{} of {blocks}", case.capacity().min(blocks));
        rows.insert(1, ["slots for blocks".into(), slots]);
        rows.extend([["hit rate".into(), percent(summary.hit_rate)], ["stall".into(), stall]]);
    }
    let beside = if blocks > 0 { 2 } else { 1 };
    if summary.routing == "stand_in" {
        let meaning = "stand_in: each request follows rows of the routing from a place of its own";
        rows.insert(beside, ["routing".into(), meaning.into()]);
    }
    if !summary.expert_ranks.is_empty() {
        rows.insert(beside, ["expert ranks".into(), expert_ranks(summary)]);
        let losses = summary.losses.iter().map(|loss| ["  lost".into(), lost(loss)]);
        rows.splice(beside + 1..beside + 1, losses);
    }
    if !summary.pipeline_stages.is_empty() {
        let others = "what is said of one accelerator, slots to vetoes, is the first one's";
        let stages = summary.pipeline_stages.len();
        let stages = format!("{stages} stages, {} micro-batches; {others}", case.micro_batches);
        rows.insert(1, ["pipeline".into(), stages]);
    }
    if let Some(met) = case.slo.and_then(|slo| objective(&slo, summary)) {
        rows.insert(beside, ["objective".into(), met]);
    }
    let tenants = summary.tenants.iter().map(|tenant| {
        let time = |key: &str| tenant.latencies.get(key).copied().flatten();
        let ms = |key| time(key).map_or("-".to_owned(), |ms| format!("{ms:.3}"));
        let (served, rate) = (tenant.requests_completed, tenant.output_throughput_tok_s);
        let [ttft, tpot, e2e] = ["p50_ttft_ms", "p50_tpot_ms", "p50_e2e_ms"].map(ms);
        let text = format!(
            "{served} requests, {rate:.4} a second; p50 TTFT {ttft} ms, TPOT {tpot} ms, E2E {e2e} ms"
        );
        [format!("  {}", tenant.name), text]
    });
    rows.extend(tenants);
    if let Some(cache) = &summary.cache {
        let peak = policy::Bytes(cache.kv_peak_bytes);
        let (preempted, refused) = (cache.preemptions, cache.requests_rejected);
        let most = case.cache.map_or(policy::Bytes::ZERO, |cache| cache.most);
        let row =
            format!("{peak} of {most} at their peak, {preempted} requests pre-empted, {refused} refused");
        rows.insert(beside, ["caches in pages".into(), row]);
    }
    if summary.prompt_tokens > 0 {
        let known = summary.cache.map_or(0, |cache| cache.prefix_hit_tokens);
        let parts = [
            (summary.prompt_tokens, "computed"),
            (known, "found in the cache"),
            (summary.recomputed_tokens, "tokens computed again"),
        ];
        let parts = parts.into_iter().filter(|part| part.0 > 0);
        let parts: Vec<String> = parts.map(|(tokens, what)| format!("{tokens} {what}")).collect();
        rows.insert(beside, ["prompt tokens".into(), parts.join(", ")]);
    }
    if let Some(figures) = &summary.checkpoints {
        rows.extend(checkpoints::rows(figures));
    }
    if summary.load_s > 0.0 {
        rows.insert(beside, ["weights".into(), format!("loaded in {:.3} s", summary.load_s)]);
    }
    let causes = summary.stall_ms_by_cause.iter().filter(|(_, ms)| **ms > 0.0);
    rows.extend(causes.map(|(cause, ms)| [format!("  {cause}"), format!("{:.3} s", ms / 1e3)]));
    let drift = format!(
        "mean {}, max {}, budget {} (gates: {})",
        percent(summary.drift_mean),
        percent(summary.drift_max),
        percent(summary.drift_budget),
        summary.gates
    );
    rows.push(["drift".into(), drift]);
    let stage = |(index, stage): (usize, &StageUse)| stage_row(index, stage, summary.simulated_s);
    rows.extend(summary.pipeline_stages.iter().enumerate().map(stage));
    let busy = summary.links.iter().filter(|link| link.bytes > 0);
    rows.extend(busy.map(|link| {
        let carried = format!("{} at {} of the time", policy::Bytes(link.bytes), percent(link.utilization));
        [format!("{} {}", link.name, link.direction), carried]
    }));
    rows.extend(summary.near.iter().map(|near| {
        let done = format!("{} blocks at {} of the time", near.blocks, percent(near.utilization));
        [format!("computed by {}", near.name), done]
    }));
    let held: f64 = summary.states.iter().map(|state| state.byte_seconds).sum();
    let states = summary.states.iter().filter(|state| state.byte_seconds > 0.0);
    let shares = states.map(|state| format!("{} {}", state.state, percent(state.byte_seconds / held)));
    if held > 0.0 {
        rows.push(["bytes by state".into(), shares.collect::<Vec<_>>().join(", ")]);
    }
    let vetoes = summary.vetoes.iter().filter(|veto| veto.count > 0);
    let vetoes: Vec<String> = vetoes.map(|veto| format!("{} {}", veto.reason, veto.count)).collect();
    if !vetoes.is_empty() {
        rows.push(["vetoes".into(), vetoes.join(", ")]);
    }
    output::words([scenario.name.clone(), String::new()], rows)
}

/// What a stage of a pipeline did.
fn stage_row(index: usize, stage: &StageUse, simulated_s: f64) -> [String; 2] {
    let [first, last] = stage.layers;
    let share = |time: f64| percent(time / simulated_s);
    let (computes, stalls, idle) = (share(stage.compute_s), share(stage.stall_s), share(stage.idle_s));
    let does =
        format!("hit rate {}, computes {computes}, stalls {stalls}, idle {idle}", percent(stage.hit_rate));
    [format!("stage {index}: layers {first} to {last}"), does]
}

/// From when to when an accelerator was lost, and what that cost the requests that it attended to.
fn lost(loss: &LossFigures) -> String {
    let LossFigures { accelerator, lost_s, back_s, requests, cached_tokens } = loss;
    let until = back_s.map_or("to the end".to_owned(), |back| format!("to {back:.2} s"));
    let again = format!("{requests} requests computed again, {cached_tokens} tokens of their caches");
    format!("accelerator {accelerator} from {lost_s:.2} s {until}: {again}")
}

/// How the accelerators that have experts of their own differ.
fn expert_ranks(summary: &Summary) -> String {
    let over = |of: fn(&RankUse) -> f64| {
        let all = summary.expert_ranks.iter().map(of);
        let (low, high) = all.fold((f64::INFINITY, 0.0_f64), |(low, high), at| (low.min(at), high.max(at)));
        let share = |time: f64| percent(time / summary.simulated_s);
        format!("{} to {}", share(low), share(high))
    };
    let ranks = summary.expert_ranks.len();
    let waits = format!("{ranks}; each waits for the others {} of the time", over(|rank| rank.waited_s));
    let Some(balance) = &summary.expert_balance else { return waits };
    let (with, without) = (balance.max_over_mean, balance.max_over_mean_without);
    let replicas = match balance.replicas {
        0 => String::new(),
        number => format!(" with {number} replicas a layer, {without:.2} without"),
    };
    format!("{waits}; tokens at the one with the most over the mean: {with:.2}{replicas}")
}

/// Whether the run keeps to its objectives, and how many of its requests do; `None` where it has none.
fn objective(slo: &Slo, summary: &Summary) -> Option<String> {
    let bounds = [("TTFT", slo.ttft), ("TPOT", slo.tpot)];
    let told = bounds.iter().filter_map(|(name, limit)| {
        limit.map(|limit| format!("{name} of at most {} ms", limit.as_millis_f64()))
    });
    let told = told.collect::<Vec<_>>().join(" and ");
    let good = summary.goodput_rps * summary.simulated_s;
    let refused = summary.cache.map_or(0, |cache| cache.requests_rejected);
    let kept = good / (summary.requests_completed + refused) as f64;
    let verdict = if kept * 100.0 >= slo.percentile { "met" } else { "missed" };
    (!told.is_empty() && kept.is_finite()).then(|| {
        format!("{verdict}: {told} for {} of requests, {} % asked for", percent(kept), slo.percentile)
    })
}

/// Milliseconds of a latency key, or a dash without a sample.
pub(crate) fn millis(summary: &Summary, key: &str) -> String {
    summary.latencies.get(key).copied().flatten().map_or("-".to_owned(), |ms| format!("{ms:.3}"))
}

/// A fraction as a percentage.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.2} %", fraction * 100.0)
}

fn pair(summary: &Summary, name: &str) -> String {
    format!(
        "{} ms, {} ms",
        millis(summary, &format!("p50_{name}_ms")),
        millis(summary, &format!("p99_{name}_ms"))
    )
}
