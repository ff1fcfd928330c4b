//! Hybrid-precision asynchronous offloading of states: bits for each head by measured error, coded checkpoints that leave while computing
//! goes on, and what going on from one saves.

use super::{Bench, Findings, Section, median, median_of, seconds};
use crate::failure::Failure;
use crate::output;
use hw::recurrent::RecurrentError;
use hw::recurrent::checkpoint::{Checkpoint, precisions};
use hw::recurrent::made::{self, Made};
use hw::recurrent::shape::Shape;
use hw::recurrent::ssd::Ssd;
use policy::state_format::StateFormat;
use policy::state_precision::{Choice, Coding, Tile, error_gated, weight};
use serde::Serialize;
use sim::resolve::{check_policy, resolve_policy};
use sim::{Case, Keep, Summary};
use std::sync::mpsc::channel;

pub(super) const SECTION: Section = Section { name: "hp_aso", run };

/// The layer, how many of the model's are made up here, and how many it has; inputs that its convolutions keep in 16 bits.
const SHAPE: Shape = Shape::MAMBA2_2_7B;
const LAYERS: usize = 4;
const MODEL_LAYERS: usize = 64;
const CONVOLUTION_BYTES: usize = 2 * 3 * (80 * 64 + 2 * 128);
/// Tokens of the prompts whose states are coded, and of a chunk.
const TOKENS: usize = 512;
const CHUNK: usize = 256;
/// Tokens behind which a session is resumed.
const RESUMED: usize = 4096;
/// Errors that are allowed.
const BUDGETS: [f64; 4] = [0.08, 0.05, 0.02, 0.01];
/// Pairs of runs with and without offloading.
const PAIRS: usize = 7;
const QUICK_PAIRS: usize = 3;
/// Sessions of the simulated runs: ten or five for each prefix, and fewer.
const SESSIONS: u32 = 6400;
const QUICK_SESSIONS: u32 = 2560;
const SEED: u64 = 11;

#[derive(Serialize)]
struct Report {
    precisions: Vec<Row>,
    offload: Offload,
    resume: Resume,
    /// In the simulator, on the machine that the scenario names.
    reuse: Vec<Reuse>,
}

/// Checkpoints of the whole model in one choice of bits.
#[derive(Serialize)]
struct Row {
    name: String,
    bits_per_number: f64,
    checkpoint_bytes: usize,
    per_gb: f64,
    /// Checkpoints for a byte, against 16 bits.
    times_fp16: f64,
    /// Relative error of the states, each as much as any, and weighted by how long it lives.
    error: f64,
    weighted_error: f64,
}

#[derive(Serialize)]
struct Offload {
    tokens_per_s: f64,
    /// With a checkpoint coded and copied every so many tokens.
    every: usize,
    share_kept: f64,
}

#[derive(Serialize)]
struct Resume {
    tokens: usize,
    restore_ms: f64,
    recompute_ms: f64,
    times_faster: f64,
}

#[derive(Serialize)]
struct Reuse {
    scenario: &'static str,
    prefixes: u32,
    reuse_rate: f64,
}

/// States of some layers, and how much each head keeps of its own at a token, on the mean.
struct States {
    numbers: Vec<f32>,
    decays: Vec<f64>,
}

fn run(bench: &Bench) -> Result<Findings, Failure> {
    bench.progress.say("hp_aso: states");
    let states = states().map_err(Failure::failed)?;
    let (precisions, gated) = rows(&states).map_err(Failure::failed)?;
    bench.progress.say("hp_aso: offloading");
    let offload = offload(&gated, if bench.quick { QUICK_PAIRS } else { PAIRS }).map_err(Failure::failed)?;
    bench.progress.say("hp_aso: resuming");
    let resume = resume(&states, &gated).map_err(Failure::failed)?;
    bench.progress.say("hp_aso: reuse");
    let sessions = if bench.quick { QUICK_SESSIONS } else { SESSIONS };
    let reuse = [("states/prefix-reuse", 640), ("states/prefix-reuse", 1280), ("states/published-pool", 640)];
    let reuse = reuse.into_iter().map(|(scenario, prefixes)| reused(scenario, prefixes, sessions));
    let report = Report { precisions, offload, resume, reuse: reuse.collect::<Result<_, Failure>>()? };
    Findings::new(text(&report), &report)
}

fn layer(tokens: usize, seed: u64) -> Made<f32> {
    made::layer(SHAPE, tokens, seed)
}

fn states() -> Result<States, RecurrentError> {
    let mut states = States { numbers: Vec::new(), decays: Vec::new() };
    let mut y = vec![0.0; TOKENS * SHAPE.width()];
    for index in 0..LAYERS {
        let made = layer(TOKENS, SEED + index as u64);
        let mut state = vec![0.0; SHAPE.state()];
        Ssd::new(SHAPE, &made.a, CHUNK)?.run(made.inputs.lend(), &mut state, &mut y, &mut |_, _| {})?;
        states.numbers.extend(state);
        states.decays.extend((0..SHAPE.heads()).map(|head| {
            let steps = made.inputs.dt.iter().skip(head).step_by(SHAPE.heads());
            let kept = steps.map(|dt| libm::exp(f64::from(dt * made.a[head])));
            kept.sum::<f64>() / TOKENS as f64
        }));
    }
    Ok(states)
}

/// Each head's ways to be coded, with what each was measured to lose.
fn tiles(states: &States) -> Result<Vec<Tile>, RecurrentError> {
    let one = Shape::new(1, SHAPE.head_dim(), SHAPE.state_dim(), 1)?;
    let mut back = vec![0.0; one.tile()];
    let heads = states.numbers.chunks_exact(one.tile()).zip(&states.decays);
    let each = heads.map(|(state, decay)| {
        let codings = precisions().map(|precision| -> Result<Coding, RecurrentError> {
            let coded = Checkpoint::new(one, state, &[precision])?;
            coded.restore(coded.bytes(), &mut back)?;
            let lost = state.iter().zip(&back).map(|(a, b)| f64::from(a - b) * f64::from(a - b));
            Ok(Coding { bytes: coded.bytes().len() as u64, squared_error: lost.sum() })
        });
        let squared_norm = state.iter().map(|number| f64::from(*number) * f64::from(*number)).sum();
        Ok(Tile {
            weight: weight(*decay),
            squared_norm,
            codings: codings.collect::<Result<_, RecurrentError>>()?,
        })
    });
    each.collect()
}

/// The table of precisions, and the bits of the first budget.
fn rows(states: &States) -> Result<(Vec<Row>, Vec<StateFormat>), RecurrentError> {
    let tiles = tiles(states)?;
    let uniform = |place: usize| Choice { codings: vec![place; tiles.len()], bytes: 0, error: 0.0 };
    let formats: Vec<StateFormat> = precisions().collect();
    let named = formats.iter().enumerate().rev();
    let mut rows: Vec<Row> = named
        .map(|(place, format)| row(&format!("{}, every head", format.name()), &tiles, &uniform(place)))
        .collect();
    let chosen = BUDGETS.into_iter().filter_map(|budget| Some((budget, error_gated(&tiles, budget)?)));
    let chosen: Vec<(f64, Choice)> = chosen.collect();
    rows.extend(
        chosen
            .iter()
            .map(|(budget, choice)| row(&format!("gated at {:.0} %", budget * 100.0), &tiles, choice)),
    );
    let first = chosen.first().map_or_else(|| uniform(formats.len() - 1), |(_, choice)| choice.clone());
    Ok((rows, first.codings.into_iter().map(|place| formats[place]).collect()))
}

fn row(name: &str, tiles: &[Tile], choice: &Choice) -> Row {
    let codings = || tiles.iter().zip(&choice.codings).map(|(tile, place)| (tile, tile.codings[*place]));
    let error = |weigh: fn(&Tile) -> f64| {
        let wrong: f64 = codings().map(|(tile, coding)| weigh(tile) * coding.squared_error).sum();
        (wrong / tiles.iter().map(|tile| weigh(tile) * tile.squared_norm).sum::<f64>()).sqrt()
    };
    let coded: u64 = codings().map(|(_, coding)| coding.bytes).sum();
    let of_model = |bytes: usize| bytes * MODEL_LAYERS / LAYERS + CONVOLUTION_BYTES * MODEL_LAYERS;
    let checkpoint_bytes = of_model(coded as usize);
    let numbers = tiles.len() * SHAPE.tile();
    Row {
        name: name.to_owned(),
        bits_per_number: 8.0 * coded as f64 / numbers as f64,
        checkpoint_bytes,
        per_gb: 1e9 / checkpoint_bytes as f64,
        times_fp16: of_model(2 * numbers) as f64 / checkpoint_bytes as f64,
        error: error(|_| 1.0),
        weighted_error: error(|tile| tile.weight),
    }
}

/// Computes a prompt again and again, alone, and with a checkpoint coded and copied to another buffer beside it, by turns.
fn offload(precisions: &[StateFormat], times: usize) -> Result<Offload, RecurrentError> {
    let made = layer(TOKENS, SEED);
    let ssd = Ssd::new(SHAPE, &made.a, CHUNK)?;
    let mut y = vec![0.0; TOKENS * SHAPE.width()];
    let mut state = vec![0.0; SHAPE.state()];
    let heads = &precisions[..SHAPE.heads()];
    let (states, coded) = channel::<Vec<f32>>();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || -> Result<(), RecurrentError> {
            let mut host: Vec<u8> = Vec::new();
            for state in coded {
                let checkpoint = Checkpoint::new(SHAPE, &state, heads)?;
                host.clear();
                host.extend_from_slice(checkpoint.bytes());
            }
            Ok(())
        });
        let mut once = |offloads: bool| -> Result<f64, RecurrentError> {
            seconds(|| {
                ssd.run(made.inputs.lend(), &mut state, &mut y, &mut |_, _| {})?;
                if offloads {
                    // A worker that has failed says why when it is joined.
                    let _ = states.send(state.clone());
                }
                Ok(())
            })
        };
        once(false)?;
        let pairs: Result<Vec<(f64, f64)>, RecurrentError> =
            (0..times).map(|_| Ok((once(false)?, once(true)?))).collect();
        drop(states);
        worker.join().unwrap_or(Ok(()))?;
        let pairs = pairs?;
        let alone = median(pairs.iter().map(|pair| pair.0).collect());
        let share_kept = median(pairs.iter().map(|pair| pair.0 / pair.1).collect());
        Ok(Offload { tokens_per_s: TOKENS as f64 / alone, every: TOKENS, share_kept })
    })
}

/// Restores all states from another buffer, checked and expanded, against computing the recurrence of so many tokens again.
fn resume(states: &States, precisions: &[StateFormat]) -> Result<Resume, RecurrentError> {
    let shape = Shape::new(SHAPE.heads() * LAYERS, SHAPE.head_dim(), SHAPE.state_dim(), 1)?;
    let checkpoint = Checkpoint::new(shape, &states.numbers, precisions)?;
    let host = checkpoint.bytes().to_vec();
    let mut fast = vec![0; host.len()];
    let mut back = vec![0.0; states.numbers.len()];
    let restore = median_of(9, || {
        fast.copy_from_slice(&host);
        checkpoint.restore(&fast, &mut back)
    })? / LAYERS as f64;
    let made = layer(RESUMED, SEED);
    let ssd = Ssd::new(SHAPE, &made.a, CHUNK)?;
    let mut y = vec![0.0; RESUMED * SHAPE.width()];
    let mut state = vec![0.0; SHAPE.state()];
    let recompute = seconds(|| ssd.run(made.inputs.lend(), &mut state, &mut y, &mut |_, _| {}))?;
    Ok(Resume {
        tokens: RESUMED,
        restore_ms: restore * 1e3,
        recompute_ms: recompute * 1e3,
        times_faster: recompute / restore,
    })
}

/// What a shipped scenario reuses.
fn reused(scenario: &'static str, prefixes: u32, sessions: u32) -> Result<Reuse, Failure> {
    let path = "workload.requests.conversations";
    let set = [
        (format!("{path}.prefixes"), prefixes.to_string()),
        (format!("{path}.sessions"), sessions.to_string()),
    ];
    let loaded = scenarios::load(scenario, &set, &check_policy).map_err(Failure::refused)?;
    let case = Case::from_scenario(&loaded).map_err(Failure::failed)?;
    let (entry, params) = resolve_policy(&loaded.policy.name, &loaded.policy.params)
        .map_err(|complaint| Failure::refused(complaint.message))?;
    let outcome = case.run(entry, &params, Keep::default(), |_| {}).map_err(Failure::failed)?;
    let figures = Summary::new(&case, &outcome, entry.name, 0.0).checkpoints;
    Ok(Reuse { scenario, prefixes, reuse_rate: figures.map_or(0.0, |figures| figures.reuse_rate) })
}

fn text(report: &Report) -> String {
    let header =
        ["bits by head", "bits", "MB", "per GB", "against fp16", "error", "weighted"].map(String::from);
    let precisions = report.precisions.iter().map(|row| {
        [
            row.name.clone(),
            format!("{:.2}", row.bits_per_number),
            format!("{:.1}", row.checkpoint_bytes as f64 / 1e6),
            format!("{:.1}", row.per_gb),
            format!("{:.2}", row.times_fp16),
            format!("{:.2} %", row.error * 100.0),
            format!("{:.2} %", row.weighted_error * 100.0),
        ]
    });
    let Report { offload, resume, .. } = report;
    let mut rows = vec![
        [
            "offloading".to_owned(),
            format!(
                "a checkpoint every {} tokens leaves {:.1} % of {:.0} tok/s a layer",
                offload.every,
                offload.share_kept * 100.0,
                offload.tokens_per_s
            ),
        ],
        [
            format!("resuming at {}", resume.tokens),
            format!(
                "{:.1} ms a layer to restore, {:.0} ms to compute its recurrence again: {:.0} times faster",
                resume.restore_ms, resume.recompute_ms, resume.times_faster
            ),
        ],
    ];
    rows.extend(report.reuse.iter().map(|reuse| {
        let Reuse { scenario, prefixes, reuse_rate } = reuse;
        [
            format!("reuse, {prefixes} prefixes"),
            format!("{:.1} % (simulated: {scenario})", reuse_rate * 100.0),
        ]
    }));
    format!(
        "{}\n{}",
        output::numbers(header, precisions),
        output::words([String::new(), String::new()], rows)
    )
}
