//! The keys of `workload.requests`, and of how long requests are.

use crate::conversations::{CONVERSATIONS, conversations};
use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::{AboveZero, Either, Map, Number, Quantity, Text, Whole};
use crate::keys::{Choice, Key, Table, Type};
use crate::load::file_from;
use crate::reader::{Field, Keys};
use crate::served::{Arrivals, Length, Process, Recording, RequestFormat, Requests};
use crate::tree::Value;
use crate::units::{ARRIVALS, TIME, arrival_rate, arrivals, at_most, between, time, time_above_zero};

/// Requests of a run: each is kept from the start.
pub(crate) const MOST_REQUESTS: u64 = 10_000_000;
/// Tokens of a prompt or an output: more than any model's context.
pub(crate) const MOST_TOKENS: u64 = 1 << 24;
/// How much faster or slower a trace is played.
const RATE_SCALE: (f64, f64) = (1e-6, 1e6);
/// Coefficients of variation of the gaps between requests.
const CV: (f64, f64) = (0.01, 100.0);
/// Shapes of Weibull gaps; their coefficients of variation are 429 and 0.06.
const SHAPE: (f64, f64) = (0.1, 20.0);
/// The largest ratio of a lognormal distribution's 99th percentile to its mean: `exp(z^2 / 2)` at its 2.326 standard deviations.
const LOGNORMAL_RATIO: f64 = 14.96;

pub(crate) const BATCH: Key = Key::default("batch", COUNT, "64", "The most requests under way at once");
pub(crate) const LIMIT: Key = Key::optional(
    "limit",
    Whole(1, MOST_REQUESTS),
    "1000",
    "The most requests; where `output_tokens` is given, exactly so many",
);
const COUNT: Type = crate::workload::COUNT;

/// How many requests come in a second, or how they come in as others end.
pub(crate) const REQUESTS: &[Choice] = &[
    Choice {
        name: "closed",
        about: "So many at any time: the next starts when one ends",
        takes: Map(&CLOSED),
    },
    Choice { name: "poisson", about: "Arrivals that know nothing of each other", takes: Map(&POISSON) },
    Choice { name: "gamma", about: "Arrivals in bursts, by how much the gaps vary", takes: Map(&GAMMA) },
    Choice {
        name: "weibull",
        about: "Arrivals in bursts, most gaps short and some long",
        takes: Map(&WEIBULL),
    },
    Choice { name: "ramp", about: "Arrivals at a rate that changes evenly, then stays", takes: Map(&RAMP) },
    Choice {
        name: "conversations",
        about: "Sessions that begin like others and go on turn by turn, with numbered blocks",
        takes: Map(&CONVERSATIONS),
    },
    recording("azure_csv", "Azure's traces: CSV with TIMESTAMP, ContextTokens, GeneratedTokens"),
    recording(
        "mooncake_jsonl",
        "Mooncake's traces: JSON lines with timestamp, input_length, output_length, hash_ids",
    ),
    recording("burstgpt_csv", "BurstGPT: CSV with Timestamp, Request tokens, Response tokens"),
    recording("sharegpt_csv", "Lengths of ShareGPT: CSV with arrival_time_ns, input_toks, output_toks"),
    recording("vllm_json", "A result of `vllm bench serve --save-result --save-detailed`"),
    recording("csv", "CSV with arrival_s (or arrival_ms, arrival_ns), prompt_tokens, output_tokens"),
];

/// The formats of recorded requests, and where to get such a file.
const FORMATS: [(&str, RequestFormat, &str); 6] = [
    ("azure_csv", RequestFormat::AzureCsv, "it is at https://github.com/Azure/AzurePublicDataset"),
    ("mooncake_jsonl", RequestFormat::MooncakeJsonl, "it is at https://github.com/kvcache-ai/Mooncake"),
    ("burstgpt_csv", RequestFormat::BurstgptCsv, "it is at https://github.com/HPMLL/BurstGPT"),
    ("sharegpt_csv", RequestFormat::SharegptCsv, "it is at https://github.com/casys-kaist/LLMServingSim"),
    ("vllm_json", RequestFormat::VllmJson, "`vllm bench serve --save-result --save-detailed` writes one"),
    ("csv", RequestFormat::Csv, "`hotset trace convert` writes one of any other format"),
];

const fn recording(name: &'static str, about: &'static str) -> Choice {
    Choice { name, about, takes: Map(&RECORDING) }
}

static CLOSED: Table = Table {
    name: "closed",
    about: "A fixed number of clients, each with one request at a time",
    open: false,
    keys: &[
        Key::default("batch", COUNT, "1", "Clients"),
        Key::default(
            "think",
            Quantity(&TIME),
            "0 s",
            "The mean of the exponential time between a request's end and its client's next request",
        ),
        LIMIT,
    ],
};

static POISSON: Table =
    Table { name: "poisson", about: "Requests at random times", open: false, keys: &[RATE, BATCH, LIMIT] };

const RATE: Key = Key::required("rate", AboveZero(&ARRIVALS), "4 /s", "The mean rate");

static GAMMA: Table = Table {
    name: "gamma",
    about: "Requests with gaps from a gamma distribution",
    open: false,
    keys: &[
        RATE,
        Key::required(
            "cv",
            Number(CV.0, CV.1),
            "2",
            "The gaps' standard deviation over their mean; 1 is Poisson",
        ),
        BATCH,
        LIMIT,
    ],
};

static WEIBULL: Table = Table {
    name: "weibull",
    about: "Requests with gaps from a Weibull distribution",
    open: false,
    keys: &[
        RATE,
        Key::required(
            "shape",
            Number(SHAPE.0, SHAPE.1),
            "0.6",
            "Its shape; 1 is Poisson, less comes in bursts",
        ),
        BATCH,
        LIMIT,
    ],
};

static RAMP: Table = Table {
    name: "ramp",
    about: "Requests at random times, at a rate that changes evenly over a time and then stays",
    open: false,
    keys: &[
        Key::required("from", Quantity(&ARRIVALS), "1 /s", "The rate at the beginning"),
        Key::required("to", AboveZero(&ARRIVALS), "10 /s", "The rate at the end of that time, and after it"),
        Key::required("over", AboveZero(&TIME), "600 s", "How long the rate changes"),
        BATCH,
        LIMIT,
    ],
};

static RECORDING: Table = Table {
    name: "recording",
    about: "Requests as they were recorded: when they came in, and how long they were",
    open: false,
    keys: &[
        Key::required("path", Text, "${HOTSET_DATA}/requests.csv", "The file"),
        Key::default(
            "rate_scale",
            Number(RATE_SCALE.0, RATE_SCALE.1),
            "1",
            "How much faster requests come than they were recorded",
        ),
        Key::default("from", Quantity(&TIME), "0 s", "Leave out what came before, in the recording's time"),
        Key::optional("until", AboveZero(&TIME), "600 s", "Leave out what came from here on"),
        BATCH,
        LIMIT,
    ],
};

/// A length of prompts or outputs, in tokens: a number, or a distribution.
pub(crate) const LENGTH: Type = Either(&Whole(1, MOST_TOKENS), &Type::Choice(LENGTHS));

const LENGTHS: &[Choice] = &[
    Choice { name: "lognormal", about: "Many short ones and some long ones", takes: Map(&LOGNORMAL) },
    Choice { name: "uniform", about: "Any length between two equally often", takes: Map(&UNIFORM) },
];

static LOGNORMAL: Table = Table {
    name: "lognormal",
    about: "Lengths whose logarithm is normally distributed",
    open: false,
    keys: &[
        Key::required("mean", Number(1.0, MOST_TOKENS as f64), "1000", "The mean"),
        Key::required(
            "p99",
            Number(1.0, MOST_TOKENS as f64),
            "4000",
            "The length that 1 % pass: more than the mean, and less than 14.96 times as much",
        ),
    ],
};

static UNIFORM: Table = Table {
    name: "uniform",
    about: "Lengths between two",
    open: false,
    keys: &[
        Key::required("from", Whole(1, MOST_TOKENS), "100", "The shortest"),
        Key::required("to", Whole(1, MOST_TOKENS), "1000", "The longest"),
    ],
};

/// Reads `workload.requests`.
pub(crate) fn requests(report: &mut Report, field: &Field<'_>) -> Option<Requests> {
    let (name, chosen) = field.choice(report, REQUESTS)?;
    let (keys, arrivals) = match name {
        "closed" => {
            let keys = chosen.keys(report, &CLOSED)?;
            let think = keys.or_default(report, "think", time);
            (keys, think.map(|think| Arrivals::Closed { think }))
        }
        "poisson" => {
            let keys = chosen.keys(report, &POISSON)?;
            let rate = keys.required(report, "rate", arrivals);
            (keys, rate.map(|rate| Arrivals::Drawn(Process::Poisson { rate })))
        }
        "gamma" => {
            let keys = chosen.keys(report, &GAMMA)?;
            let rate = keys.required(report, "rate", arrivals);
            let cv = keys.required(report, "cv", |text| between(text, CV.0, CV.1));
            (keys, rate.zip(cv).map(|(rate, cv)| Arrivals::Drawn(Process::Gamma { rate, cv })))
        }
        "weibull" => {
            let keys = chosen.keys(report, &WEIBULL)?;
            let rate = keys.required(report, "rate", arrivals);
            let shape = keys.required(report, "shape", |text| between(text, SHAPE.0, SHAPE.1));
            (keys, rate.zip(shape).map(|(rate, shape)| Arrivals::Drawn(Process::Weibull { rate, shape })))
        }
        "ramp" => {
            let keys = chosen.keys(report, &RAMP)?;
            let process = ramp(report, &keys);
            (keys, process.map(Arrivals::Drawn))
        }
        "conversations" => {
            let keys = chosen.keys(report, &CONVERSATIONS)?;
            let conversations = conversations(report, &chosen, &keys);
            (keys, conversations.map(Arrivals::Conversations))
        }
        recorded => {
            let keys = chosen.keys(report, &RECORDING)?;
            let recording = read_recording(report, recorded, &chosen, &keys);
            (keys, recording.map(Arrivals::Recorded))
        }
    };
    let batch = keys.or_default(report, "batch", crate::units::count);
    let limit = keys.optional(report, "limit", at_most(MOST_REQUESTS));
    Some(Requests { arrivals: arrivals?, batch: batch?, limit: limit? })
}

fn ramp(report: &mut Report, keys: &Keys<'_>) -> Option<Process> {
    let from = keys.required(report, "from", arrival_rate);
    let to = keys.required(report, "to", arrivals);
    let over = keys.required(report, "over", time_above_zero);
    Some(Process::Ramp { from: from?, to: to?, over: over? })
}

fn read_recording(report: &mut Report, name: &str, field: &Field<'_>, keys: &Keys<'_>) -> Option<Recording> {
    let (_, format, origin) = FORMATS.into_iter().find(|(known, ..)| *known == name)?;
    let path = keys.need(report, "path").and_then(|path| file_from(report, &path, origin));
    let rate_scale = keys.or_default(report, "rate_scale", |text| between(text, RATE_SCALE.0, RATE_SCALE.1));
    let from = keys.or_default(report, "from", time);
    let until = keys.optional(report, "until", time_above_zero);
    let (from, until) = (from?, until?);
    if until.is_some_and(|until| until <= from) {
        field
            .key_error(report, Wrong::new("nothing is left: `until` is not after `from`", "a later `until`"));
        return None;
    }
    Some(Recording { format, path: path?, rate_scale: rate_scale?, from, until })
}

/// Reads a length, or a distribution of lengths.
pub(crate) fn length(report: &mut Report, field: &Field<'_>) -> Option<Length> {
    let tokens = |report: &mut Report, keys: &Keys<'_>, key| keys.required(report, key, at_most(MOST_TOKENS));
    if matches!(field.node.value, Value::Scalar(_)) {
        return field.read(report, at_most(MOST_TOKENS)).map(Length::Fixed);
    }
    let (name, chosen) = field.choice(report, LENGTHS)?;
    if name == "uniform" {
        let keys = chosen.keys(report, &UNIFORM)?;
        let (from, to) = (tokens(report, &keys, "from"), tokens(report, &keys, "to"));
        let (from, to) = (from?, to?);
        if to < from {
            chosen.key_error(report, Wrong::new(format!("from {from} to {to}"), "the shortest first"));
            return None;
        }
        return Some(Length::Uniform { from, to });
    }
    let keys = chosen.keys(report, &LOGNORMAL)?;
    let number = |text: &str| between(text, 1.0, MOST_TOKENS as f64);
    let (mean, p99) = (keys.required(report, "mean", number), keys.required(report, "p99", number));
    let (mean, p99) = (mean?, p99?);
    if p99 <= mean || p99 > LOGNORMAL_RATIO * mean {
        let message =
            format!("no lognormal distribution has a mean of {mean} and a 99th percentile of {p99}");
        let hint = format!("`p99` is more than the mean, and at most {LOGNORMAL_RATIO} times as much");
        chosen.key_error(report, Wrong::new(message, hint));
        return None;
    }
    Some(Length::Lognormal { mean, p99 })
}
