//! Layers of models whose states are kept in different ways: shares, bytes, errors, times.

use super::super::Bench;
use super::RING;
use crate::failure::Failure;
use crate::output;
use hw::recurrent::gated::Rule;
use hw::recurrent::made;
use hw::recurrent::mixers::{Kept, MixerError};
use hw::recurrent::shape::Shape;
use hw::recurrent::upkeep::{Course, Loss, Way, follow};
use serde::Serialize;

/// Layers by the model that has them.
const LAYERS: [(&str, Shape); 2] =
    [("Nemotron-H-8B", Shape::NEMOTRON_H), ("Mamba2-2.7b", Shape::MAMBA2_2_7B)];
/// Tokens before the first that is decoded, and those after which errors are read.
const PROMPT: usize = 256;
const MARKS: [usize; 3] = [1, 64, 512];
const QUICK_MARKS: [usize; 2] = [1, 64];
const SEED: u64 = 11;
/// A token that adds half of what a state holds opens its head's gate, in one of the ways.
const OPEN: f32 = 0.5;

/// Ways to keep a state, as the tables call them; the time of those that the device has a kernel for.
const WAYS: [(&str, Way, Option<Kept>); 5] = [
    ("fp32", Way::Fp32, Some(Kept::Fp32)),
    ("fp16", Way::Fp16, Some(Kept::Fp16)),
    ("int8 anew", Way::Int8, None),
    ("gated, ring", Way::Gated(Rule { ring: RING, threshold: f32::MAX }), Some(Kept::Gated(RING))),
    ("gated at 0.5", Way::Gated(Rule { ring: RING, threshold: OPEN }), None),
];
/// Sequences whose time is measured: one, and as many as no cache of a processor holds.
const BATCHES: [usize; 2] = [1, 64];

/// A layer, and a row for each way.
#[derive(Serialize)]
pub(super) struct Layer {
    model: &'static str,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    state: &'static str,
    int8_share: f64,
    coded_anew_share: f64,
    bytes_per_token: f64,
    share_of_fp16: f64,
    errors: Vec<Error>,
    /// At each of [`BATCHES`].
    us_per_token: Option<[f64; 2]>,
}

#[derive(Serialize)]
struct Error {
    tokens: usize,
    state_mean: f64,
    state_worst_head: f64,
    output_mean: f64,
    output_worst_head: f64,
}

pub(super) fn measure(bench: &Bench) -> Result<Vec<Layer>, Failure> {
    LAYERS.iter().map(|(model, shape)| layer(bench, model, *shape)).collect()
}

fn layer(bench: &Bench, model: &'static str, shape: Shape) -> Result<Layer, Failure> {
    bench.progress.say(model);
    let marks = if bench.quick { &QUICK_MARKS[..] } else { &MARKS };
    let made = made::layer(shape, PROMPT + marks.last().copied().unwrap_or(0), SEED);
    let ways = WAYS.map(|(_, way, _)| way);
    let courses = follow(shape, &made, PROMPT, &ways, marks).map_err(Failure::failed)?;
    let fp16 = 4.0 * shape.state() as f64;
    let row = |((name, _, kept), course): (&(&'static str, Way, Option<Kept>), Course)| {
        Ok(Row {
            state: name,
            int8_share: 1.0 - course.open,
            coded_anew_share: course.coded,
            bytes_per_token: course.bytes,
            share_of_fp16: course.bytes / fp16,
            errors: course
                .marks
                .iter()
                .map(|mark| Error::new(mark.tokens, mark.state, mark.output))
                .collect(),
            us_per_token: kept.map(|kept| times(bench, shape, kept)).transpose()?.flatten(),
        })
    };
    let rows =
        WAYS.iter().zip(courses).map(row).collect::<Result<_, MixerError>>().map_err(Failure::failed)?;
    Ok(Layer { model, rows })
}

/// Microseconds a token and sequence.
fn times(bench: &Bench, shape: Shape, kept: Kept) -> Result<Option<[f64; 2]>, MixerError> {
    let mut found = [0.0; 2];
    for (found, batch) in found.iter_mut().zip(BATCHES) {
        let Some(time) = bench.device.step(shape, kept, batch)? else { return Ok(None) };
        *found = time.median().0 as f64 / 1e3 / batch as f64;
    }
    Ok(Some(found))
}

impl Error {
    fn new(tokens: usize, state: Loss, output: Loss) -> Error {
        Error {
            tokens,
            state_mean: state.mean,
            state_worst_head: state.worst,
            output_mean: output.mean,
            output_worst_head: output.worst,
        }
    }
}

impl Layer {
    /// The table, and whether one sequence gains anything.
    pub(super) fn text(&self) -> String {
        let errors = self.rows.first().map_or(&[][..], |row| &row.errors);
        let at: Vec<String> = errors.iter().map(|error| error.tokens.to_string()).collect();
        let at = at.join(" / ");
        let header = [
            self.model,
            "in int8",
            "coded anew",
            "kB a token",
            "of fp16",
            &format!("state % at {at}"),
            &format!("output % at {at}"),
            "worst head",
            "us, batch 1",
            "us each, batch 64",
        ];
        let rows = self.rows.iter().map(Row::cells);
        format!("{}{}", output::numbers(header.map(String::from), rows), self.verdict())
    }

    fn verdict(&self) -> String {
        let of = |name| self.rows.iter().find(|row| row.state == name).and_then(|row| row.us_per_token);
        let Some((fp16, gated)) = of("fp16").zip(of("gated, ring")) else { return String::new() };
        let speed = |batch: usize| fp16[batch] / gated[batch];
        let one = if speed(0) > 1.05 { "gains" } else { "gains nothing" };
        let many = if speed(1) > 1.05 { "gain" } else { "gain nothing" };
        format!(
            "Against fp16, one sequence {one} ({:.2} times the speed), {} sequences {many} ({:.2} times).\n",
            speed(0),
            BATCHES[1],
            speed(1)
        )
    }
}

impl Row {
    fn cells(&self) -> [String; 10] {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let errors = |of: fn(&Error) -> f64| {
            let parts: Vec<String> =
                self.errors.iter().map(|error| format!("{:.2}", of(error) * 100.0)).collect();
            parts.join(" / ")
        };
        let time =
            |batch: usize| self.us_per_token.map_or("-".into(), |times| format!("{:.0}", times[batch]));
        [
            self.state.into(),
            percent(self.int8_share),
            percent(self.coded_anew_share),
            format!("{:.0}", self.bytes_per_token / 1e3),
            format!("{:.3}", self.share_of_fp16),
            errors(|error| error.state_mean),
            errors(|error| error.output_mean),
            self.errors.last().map_or("-".into(), |error| format!("{:.2}", error.output_worst_head * 100.0)),
            time(0),
            time(1),
        ]
    }
}
