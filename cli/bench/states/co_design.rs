//! Attention and a recurrent layer beside each other: prompts, decoding, memory, and from what length on the recurrence is ahead.

use super::{Bench, Findings, Section};
use crate::failure::Failure;
use crate::output;
use hw::calibrate::Steady;
use hw::recurrent::mixers::{Mixer, MixerError};
use hw::recurrent::shape::Shape;
use serde::Serialize;

pub(super) const SECTION: Section = Section { name: "co_design", run };

/// The seed's layer: 256 numbers a token, four sequences; and the length that it measured.
const WIDTH: usize = 256;
const BATCH: usize = 4;
const LENGTH: usize = 4096;
const HEADS: usize = 4;
/// Sequences that decode at once.
const BATCHES: [usize; 4] = [1, 8, 32, 128];
const QUICK_BATCHES: [usize; 2] = [1, 32];
/// Tokens of a prompt that a server runs at once.
const PART: usize = 512;
/// A run that is expected to take longer than this is left out, in ms.
const LONGEST_MS: f64 = 5e3;
/// Caches larger than this are left out, in bytes.
const LARGEST_CACHE: usize = 2 << 30;
const FP16: usize = 2;
const FP32: usize = 4;

/// A length of prompt, with the four times at it in ms; what is not there is in `left_out`.
#[derive(Serialize)]
struct Row {
    tokens: usize,
    prefill_attention_ms: Option<f64>,
    prefill_recurrent_ms: Option<f64>,
    decode_attention_ms: Option<f64>,
    decode_recurrent_ms: Option<f64>,
    left_out: Vec<String>,
}

/// Decoding with a cache of [`LENGTH`] tokens.
#[derive(Serialize)]
struct Decode {
    batch: usize,
    attention_tokens_per_s: Option<f64>,
    recurrent_tokens_per_s: Option<f64>,
}

/// Bytes at a length, of all sequences.
#[derive(Serialize)]
struct Memory {
    tokens: usize,
    what: &'static str,
    attention_bytes: usize,
    recurrent_bytes: usize,
}

#[derive(Serialize)]
struct Report {
    lengths: Vec<Row>,
    decode: Vec<Decode>,
    memory: Vec<Memory>,
    prefill_crossover_tokens: Option<f64>,
    decode_crossover_tokens: Option<f64>,
}

/// The layers that are compared.
struct Pair {
    attention: Mixer,
    recurrent: Mixer,
}

fn run(bench: &Bench) -> Result<Findings, Failure> {
    // Mamba-2 as it is built for this width: an inner width twice as large, heads of 64, states of 128.
    let shape = Shape::new(2 * WIDTH / 64, 64, 128, 1).map_err(Failure::failed)?;
    let attention = Mixer::Attention { heads: HEADS, head_dim: WIDTH / HEADS };
    let pair = Pair { attention, recurrent: Mixer::Recurrent(shape) };
    let lengths = rows(bench, &pair).map_err(Failure::failed)?;
    let batches = if bench.quick { &QUICK_BATCHES[..] } else { &BATCHES };
    let decode = batches.iter().map(|batch| decode(bench, &pair, *batch));
    let decode = decode.collect::<Result<_, MixerError>>().map_err(Failure::failed)?;
    let report = Report {
        memory: memory(shape),
        prefill_crossover_tokens: crossover(&lengths, |row| {
            Some((row.prefill_attention_ms?, row.prefill_recurrent_ms?))
        }),
        decode_crossover_tokens: crossover(&lengths, |row| {
            Some((row.decode_attention_ms?, row.decode_recurrent_ms?))
        }),
        lengths,
        decode,
    };
    Findings::new(report.text(shape), &report)
}

/// Times at each length, the shortest first.
fn rows(bench: &Bench, pair: &Pair) -> Result<Vec<Row>, MixerError> {
    let mut lengths = bench.lengths.clone();
    lengths.sort_unstable();
    lengths.dedup();
    // What the last length took, or would have.
    let (mut attention, mut recurrent) = (Expected::default(), Expected::default());
    let mut row = |tokens| {
        bench.progress.say(&format!("{tokens} tokens"));
        let mut left_out = Vec::new();
        let mut prefill = |name, mixer, expected: &mut Expected, power| {
            let ms = expected.at(tokens, power);
            if ms > LONGEST_MS {
                left_out.push(format!("{name} over the prompt, about {:.0} s", ms / 1e3));
                return Ok(None);
            }
            let ms = milliseconds(bench.device.prefill(mixer, BATCH, tokens)?);
            expected.ms = ms.unwrap_or_default();
            Ok::<_, MixerError>(ms)
        };
        let prefill_attention_ms = prefill("attention", pair.attention, &mut attention, 2)?;
        let prefill_recurrent_ms = prefill("the recurrence", pair.recurrent, &mut recurrent, 1)?;
        let cache = BATCH * tokens * 2 * WIDTH * FP16;
        let fits = cache <= LARGEST_CACHE;
        if !fits {
            left_out.push(format!("decoding with a cache of {} MiB", cache >> 20));
        }
        let decode = |mixer| Ok::<_, MixerError>(milliseconds(bench.device.decode(mixer, BATCH, tokens)?));
        Ok(Row {
            tokens,
            prefill_attention_ms,
            prefill_recurrent_ms,
            decode_attention_ms: if fits { decode(pair.attention)? } else { None },
            decode_recurrent_ms: decode(pair.recurrent)?,
            left_out,
        })
    };
    lengths.into_iter().map(&mut row).collect()
}

/// What a prompt took at the last length, or is expected to have.
#[derive(Default)]
struct Expected {
    tokens: usize,
    ms: f64,
}

impl Expected {
    /// The time at another length, which grows with a power of it.
    fn at(&mut self, tokens: usize, power: i32) -> f64 {
        let grown = tokens as f64 / self.tokens.max(1) as f64;
        *self = Expected { tokens, ms: self.ms * grown.powi(power) };
        self.ms
    }
}

fn milliseconds(time: Option<Steady>) -> Option<f64> {
    time.map(|time| time.median().0.max(1) as f64 / 1e6)
}

fn decode(bench: &Bench, pair: &Pair, batch: usize) -> Result<Decode, MixerError> {
    bench.progress.say(&format!("decoding {batch} sequences"));
    let rate = |mixer| -> Result<Option<f64>, MixerError> {
        let time = milliseconds(bench.device.decode(mixer, batch, LENGTH)?);
        Ok(time.map(|ms| batch as f64 * 1e3 / ms))
    };
    Ok(Decode {
        batch,
        attention_tokens_per_s: rate(pair.attention)?,
        recurrent_tokens_per_s: rate(pair.recurrent)?,
    })
}

/// What is kept after a prompt, and what running it takes, at once and in parts as a server does.
fn memory(shape: Shape) -> Vec<Memory> {
    let activations = |tokens| {
        let (attention, recurrent) = (4 * WIDTH, 2 * shape.width() + 2 * shape.shared());
        [BATCH * tokens * attention * FP16, BATCH * tokens * (recurrent * FP16 + shape.heads() * FP32)]
    };
    let cache = BATCH * LENGTH * 2 * WIDTH * FP16;
    // The recurrence carries fp32 over a prompt and keeps fp16; and the convolution's last three inputs.
    let convolution = BATCH * 3 * (shape.width() + 2 * shape.shared()) * FP16;
    let state = |bytes| BATCH * shape.state() * bytes + convolution;
    let of = |what, [attention, recurrent]: [usize; 2]| Memory {
        tokens: LENGTH,
        what,
        attention_bytes: attention,
        recurrent_bytes: recurrent,
    };
    let [attention, recurrent] = activations(LENGTH);
    let [part_attention, part_recurrent] = activations(PART);
    // In parts, attention's own keys and values go to the cache.
    let part_attention = part_attention / 2 + cache;
    vec![
        of("kept while decoding", [cache, state(FP16)]),
        of("prompt in parts of 512", [part_attention, part_recurrent + state(FP32)]),
        of("prompt at once", [attention, recurrent + state(FP32)]),
    ]
}

/// The length from which on the recurrence takes less time, between the last two measured where they change places.
fn crossover(rows: &[Row], times: impl Fn(&Row) -> Option<(f64, f64)>) -> Option<f64> {
    let points = rows.iter().filter_map(|row| {
        times(row).map(|(attention, recurrent)| (row.tokens as f64, recurrent / attention))
    });
    let points: Vec<(f64, f64)> = points.collect();
    if points.first()?.1 <= 1.0 {
        return Some(points.first()?.0);
    }
    let turn = points.windows(2).find(|two| two[0].1 > 1.0 && two[1].1 <= 1.0)?;
    let [(from, high), (to, low)] = [turn[0], turn[1]];
    // Both are straight lines on logarithmic scales.
    let share = high.ln() / (high.ln() - low.ln());
    Some(from * (to / from).powf(share))
}

impl Row {
    fn cells(&self, shape: Shape) -> [String; 8] {
        let time = |ms: Option<f64>| ms.map_or("-".into(), |ms| format!("{ms:.3}"));
        let flops =
            |ms: Option<f64>, flops: f64| ms.map_or("-".into(), |ms| format!("{:.0}", flops / ms / 1e6));
        let [attention, recurrent] = operations(self.tokens, shape);
        [
            self.tokens.to_string(),
            time(self.prefill_attention_ms),
            time(self.prefill_recurrent_ms),
            ratio(self.prefill_attention_ms, self.prefill_recurrent_ms),
            format!(
                "{} / {}",
                flops(self.prefill_attention_ms, attention),
                flops(self.prefill_recurrent_ms, recurrent)
            ),
            time(self.decode_attention_ms),
            time(self.decode_recurrent_ms),
            ratio(self.decode_attention_ms, self.decode_recurrent_ms),
        ]
    }
}

/// Operations over a prompt that are of use, of all sequences: pairs of tokens that see each other, in chunks of 64 for the recurrence.
fn operations(tokens: usize, shape: Shape) -> [f64; 2] {
    let (tokens, batch) = (tokens as f64, BATCH as f64);
    let pairs = (64f64.min(tokens) + 1.0) / 2.0;
    let states = 4.0 * shape.state() as f64;
    let recurrent = 2.0 * pairs * (shape.width() + shape.shared()) as f64 + states;
    [batch * 2.0 * tokens * (tokens + 1.0) * WIDTH as f64, batch * tokens * recurrent]
}

fn ratio(one: Option<f64>, other: Option<f64>) -> String {
    one.zip(other).map_or("-".into(), |(one, other)| format!("{:.2}", one / other))
}

impl Report {
    fn text(&self, shape: Shape) -> String {
        let lengths = output::numbers(
            [
                "tokens",
                "attention ms",
                "recurrent ms",
                "ratio",
                "GFLOP/s",
                "decode att. ms",
                "decode rec. ms",
                "ratio",
            ]
            .map(String::from),
            self.lengths.iter().map(|row| row.cells(shape)),
        );
        let rate = |rate: Option<f64>| rate.map_or("-".into(), |rate| format!("{rate:.0}"));
        let decode = output::numbers(
            ["sequences", "attention tok/s", "recurrent tok/s", "ratio"].map(String::from),
            self.decode.iter().map(|row| {
                let (attention, recurrent) = (row.attention_tokens_per_s, row.recurrent_tokens_per_s);
                [row.batch.to_string(), rate(attention), rate(recurrent), ratio(recurrent, attention)]
            }),
        );
        let megabytes = |bytes: usize| format!("{:.2}", bytes as f64 / 1e6);
        let memory = output::numbers(
            ["memory at 4096 tokens", "attention MB", "recurrent MB", "share"].map(String::from),
            self.memory.iter().map(|row| {
                let share = row.recurrent_bytes as f64 / row.attention_bytes as f64;
                [
                    row.what.into(),
                    megabytes(row.attention_bytes),
                    megabytes(row.recurrent_bytes),
                    format!("{share:.3}"),
                ]
            }),
        );
        format!("{lengths}{}{decode}{memory}{}", self.remarks(), self.verdict())
    }

    fn remarks(&self) -> String {
        let left_out = self.lengths.iter().flat_map(|row| {
            row.left_out.iter().map(move |why| format!("  {} tokens, left out: {why}\n", row.tokens))
        });
        left_out.collect()
    }

    fn verdict(&self) -> String {
        let from = |at: Option<f64>| {
            at.map_or("at no length measured".into(), |at| format!("from {at:.0} tokens on"))
        };
        format!(
            "The recurrence is faster over prompts {}, while decoding {}.\nMixers alone, fp16, 4 sequences: projections, \
             convolution and norms are not in these times.\n",
            from(self.prefill_crossover_tokens),
            from(self.decode_crossover_tokens)
        )
    }
}
