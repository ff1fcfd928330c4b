//! The keys of `workload`: which requests come, and which blocks their tokens select.

use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::{Choice as OneOf, Flag, Fraction, List, Map, Number, Text, Whole};
use crate::keys::{Choice, Key, Table, Type};
use crate::load::existing_file;
use crate::reader::{Field, Keys, flag, name_of, names};
use crate::requests::{LENGTH, MOST_REQUESTS, REQUESTS, length, requests};
use crate::served::{
    Arrivals, Dense, Fitted, Length, Prefill, RequestOrder, Requests, Routing, Workload, ZipfMarkov,
};
use crate::units::{at_most, between, count, fraction, whole};
use policy::model::BlockKind;
use policy::{Model, Nanos};
use std::path::PathBuf;

/// What counts something: at least one, and 32 bits.
pub(crate) const COUNT: Type = Whole(1, u32::MAX as u64);
/// Tokens of one step: each has a row of the routing at hand.
const MOST_CHUNK: u64 = 1 << 20;
/// Layers that a router may be asked ahead of time.
const MOST_LOOKAHEAD: usize = 64;

/// The keys of `workload`.
pub(crate) static WORKLOAD: Table = Table {
    name: "workload",
    about: "What is served",
    open: false,
    keys: &[
        Key::required(
            "routing",
            OneOf(ROUTINGS),
            "{ trace: my-trace.npz }",
            "Which blocks tokens select: recorded, generated, or every one",
        ),
        Key::default(
            "requests",
            OneOf(REQUESTS),
            "{ closed: { batch: 1 } }",
            "When requests arrive, and how many are under way at once: at random, as others end, or as recorded",
        ),
        Key::optional(
            "order",
            Type::Name(|| names(ORDERS)),
            "shuffled",
            "In which order the requests of a routing trace come: as recorded, or drawn from the seed",
        ),
        Key::optional("fit", List(&Text), "my-trace.npz", "Traces that policies may be fitted on beforehand"),
        Key::default("include_repetition", Flag, "false", "Keep traces marked as repeating themselves"),
        Key::optional("limit_tokens", Whole(1, u64::MAX), "1000", "Stop after so many decode steps"),
        Key::optional(
            "prompt_tokens",
            LENGTH,
            "512",
            "The prompt's length, or how it is distributed, for requests whose trace does not say",
        ),
        Key::optional(
            "output_tokens",
            LENGTH,
            "{ lognormal: { mean: 200, p99: 600 } }",
            "The output's length, or how it is distributed; left out, each request is one of the routing's",
        ),
        Key::optional(
            "lookahead",
            List(&Fraction),
            "[90 %, 80 %]",
            "Routers are asked ahead of time: for one layer ahead, two, ..., the share of what they say that comes true",
        ),
        Key::optional(
            "prefill",
            Map(&PREFILL),
            "{ chunk: 512 }",
            "Compute prompts too; left out, they are in the cache already",
        ),
    ],
};

const ORDERS: &[(&str, RequestOrder)] =
    &[("recorded", RequestOrder::Recorded), ("shuffled", RequestOrder::Shuffled)];

static PREFILL: Table = Table {
    name: "prefill",
    about: "How prompts are computed, together with the requests that decode",
    open: false,
    keys: &[Key::default(
        "chunk",
        Whole(1, MOST_CHUNK),
        "512",
        "The most tokens of one step, those of requests that decode included",
    )],
};

const ROUTINGS: &[Choice] = &[
    Choice { name: "trace", about: "Recorded routing: a path, or a list of paths", takes: List(&Text) },
    Choice { name: "zipf_markov", about: "Generated routing", takes: Map(&ZIPF_MARKOV) },
    Choice {
        name: "fitted",
        about: "Generated routing like recorded routing: popularity, favourites, memory and coupling are fitted",
        takes: Map(&FITTED),
    },
    Choice { name: "dense", about: "Every token reads every block of every layer", takes: Map(&DENSE) },
];

static ZIPF_MARKOV: Table = Table {
    name: "zipf_markov",
    about: "Experts drawn from a Zipf popularity with a Markov memory",
    open: false,
    keys: &[
        Key::default("tokens", COUNT, "4000", "Tokens of all traces together"),
        Key::default("traces", COUNT, "8", "Traces; each is one request at a time"),
        Key::default(
            "skew",
            Number(0.0, 4.0),
            "0.8",
            "Exponent of the popularity within a layer; 0 is uniform",
        ),
        Key::default(
            "stickiness",
            Number(0.0, 1.0),
            "0.3",
            "Probability that an expert of the previous token stays chosen",
        ),
        Key::default(
            "coupling",
            Number(0.0, 1.0),
            "0.3",
            "Probability that an expert of the previous layer hands on its successor",
        ),
        Key::default("kinds", Whole(1, 4096), "1", "Kinds of tokens, in which experts may specialise"),
        Key::default(
            "specialisation",
            Number(0.0, 4.0),
            "0",
            "How far apart kinds are in what they choose: standard deviation of the logarithm of a weight",
        ),
        Key::default(
            "favourites",
            Number(0.0, 4.0),
            "0",
            "How far apart traces are in the kinds they are made of: standard deviation of the logarithm of a kind's weight",
        ),
    ],
};

static FITTED: Table = Table {
    name: "fitted",
    about: "Routing generated like recorded routing",
    open: false,
    keys: &[
        Key::required("trace", List(&Text), "my-trace.npz", "What is fitted: a path, or a list of paths"),
        Key::default(
            "tokens",
            COUNT,
            "20000",
            "Tokens of all traces together, each as long as a recorded one",
        ),
    ],
};

static DENSE: Table = Table {
    name: "dense",
    about: "Requests to a model without routed experts",
    open: false,
    keys: &[
        Key::default(
            "requests",
            Whole(1, MOST_REQUESTS),
            "4",
            "Requests in all, where `requests` does not say",
        ),
        Key::default(
            "tokens",
            COUNT,
            "256",
            "Output tokens of each, where nothing else says; 1 where it puts out an image",
        ),
    ],
};

/// Reads `workload`.
pub(crate) fn workload(report: &mut Report, field: &Field<'_>, model: Option<&Model>) -> Option<Workload> {
    let keys = field.keys(report, &WORKLOAD)?;
    let routing = keys.need(report, "routing").and_then(|routing| read_routing(report, &routing, model));
    counts_tokens(report, &keys, model)?;
    let include_repetition = keys.or_default(report, "include_repetition", flag);
    let fit = keys.get("fit").map_or(Some(vec![]), |fit| files(report, &fit));
    let requests = match keys.get("requests") {
        Some(field) => requests(report, &field),
        None => Some(Requests { arrivals: Arrivals::Closed { think: Nanos::ZERO }, batch: 1, limit: None }),
    };
    let order = keys.optional(report, "order", name_of("order", ORDERS));
    let limit_tokens = keys.optional(report, "limit_tokens", |text| match whole(text)? {
        0 => Err(Wrong::new("zero", "at least 1, or leave it out")),
        limit => Ok(limit),
    });
    let recorded = requests.as_ref().is_some_and(|requests| requests.arrivals.have_lengths());
    let prompt_tokens = read_length(report, &keys, "prompt_tokens", recorded);
    let output_tokens = read_length(report, &keys, "output_tokens", recorded);
    let lookahead = keys.get("lookahead").map_or(Some(vec![]), |field| read_lookahead(report, &field));
    let prefill = match keys.get("prefill") {
        Some(prefill) => read_prefill(report, &prefill).map(Some),
        None => Some(None),
    };
    Some(Workload {
        routing: routing?,
        include_repetition: include_repetition?,
        fit: fit?,
        requests: requests?,
        order: order?,
        limit_tokens: limit_tokens?,
        prompt_tokens: prompt_tokens?,
        output_tokens: output_tokens?,
        lookahead: lookahead?,
        prefill: prefill?,
    })
}

/// Reports keys that count tokens where requests put out something else.
fn counts_tokens(report: &mut Report, keys: &Keys<'_>, model: Option<&Model>) -> Option<()> {
    if model.is_none_or(Model::puts_out_tokens) {
        return Some(());
    }
    let given = ["prompt_tokens", "output_tokens", "prefill"].into_iter().filter_map(|key| keys.get(key));
    let wrong = given.map(|field| {
        let hint = "leave it out: the model's `phases` say what a request computes";
        field.key_error(report, Wrong::new("the model puts out no tokens", hint));
    });
    (wrong.count() == 0).then_some(())
}

/// The length of what is not recorded.
fn read_length(report: &mut Report, keys: &Keys<'_>, key: &str, recorded: bool) -> Option<Option<Length>> {
    let Some(field) = keys.get(key) else { return Some(None) };
    if recorded {
        let wrong = Wrong::new("the recorded requests say how long they are", format!("leave `{key}` out"));
        field.key_error(report, wrong);
    }
    length(report, &field).map(Some)
}

fn read_lookahead(report: &mut Report, field: &Field<'_>) -> Option<Vec<f64>> {
    let items = field.items();
    if items.len() > MOST_LOOKAHEAD {
        let message = format!("{} layers ahead", items.len());
        field.error(report, Wrong::new(message, format!("at most {MOST_LOOKAHEAD}")));
        return None;
    }
    let shares: Vec<_> = items.iter().map(|item| item.read(report, fraction)).collect();
    shares.into_iter().collect()
}

fn read_prefill(report: &mut Report, field: &Field<'_>) -> Option<Prefill> {
    let chunk = field.keys(report, &PREFILL)?.or_default(report, "chunk", at_most(MOST_CHUNK))?;
    Some(Prefill { chunk })
}

fn read_routing(report: &mut Report, field: &Field<'_>, model: Option<&Model>) -> Option<Routing> {
    let (name, chosen) = field.choice(report, ROUTINGS)?;
    let routed = model.map(|model| model.blocks.iter().any(|block| block.kind == BlockKind::Expert));
    let wrong = match (name, routed) {
        ("dense", Some(true)) => {
            Some(("the model routes tokens to experts", "write `{ trace: ... }` or `{ zipf_markov: {} }`"))
        }
        ("trace" | "zipf_markov" | "fitted", Some(false)) => {
            Some(("the model has no routed experts", "write `{ dense: { requests: 4, tokens: 256 } }`"))
        }
        _ => None,
    };
    let routing = match name {
        "trace" => files(report, &chosen).map(Routing::Trace),
        "zipf_markov" => zipf_markov(report, &chosen).map(Routing::ZipfMarkov),
        "fitted" => fitted(report, &chosen).map(Routing::Fitted),
        _ => dense(report, &chosen, model).map(Routing::Dense),
    };
    if let Some((message, hint)) = wrong {
        chosen.key_error(report, Wrong::new(message, hint));
        return None;
    }
    routing
}

fn files(report: &mut Report, field: &Field<'_>) -> Option<Vec<PathBuf>> {
    let items = field.items();
    if items.is_empty() {
        field.error(report, Wrong::new("no file", "a path, or a list of paths"));
        return None;
    }
    let files: Vec<_> = items.iter().map(|item| existing_file(report, item)).collect();
    files.into_iter().collect()
}

fn fitted(report: &mut Report, field: &Field<'_>) -> Option<Fitted> {
    let keys = field.keys(report, &FITTED)?;
    let traces = keys.need(report, "trace").and_then(|trace| files(report, &trace));
    let tokens = keys.or_default(report, "tokens", count);
    Some(Fitted { traces: traces?, tokens: tokens? })
}

fn zipf_markov(report: &mut Report, field: &Field<'_>) -> Option<ZipfMarkov> {
    let keys = field.keys(report, &ZIPF_MARKOV)?;
    let tokens = keys.or_default(report, "tokens", count);
    let traces = keys.or_default(report, "traces", count);
    let skew = keys.or_default(report, "skew", |text| between(text, 0.0, 4.0));
    let stickiness = keys.or_default(report, "stickiness", |text| between(text, 0.0, 1.0));
    let coupling = keys.or_default(report, "coupling", |text| between(text, 0.0, 1.0));
    let kinds = keys.or_default(report, "kinds", at_most(4096));
    let specialisation = keys.or_default(report, "specialisation", |text| between(text, 0.0, 4.0));
    let favourites = keys.or_default(report, "favourites", |text| between(text, 0.0, 4.0));
    let drawn = ZipfMarkov {
        tokens: tokens?,
        traces: traces?,
        skew: skew?,
        stickiness: stickiness?,
        coupling: coupling?,
        kinds: kinds?,
        specialisation: specialisation?,
        favourites: favourites?,
    };
    if drawn.traces > drawn.tokens {
        let message = format!("{} traces share {} tokens", drawn.traces, drawn.tokens);
        field.key_error(report, Wrong::new(message, "at least one token a trace"));
        return None;
    }
    Some(drawn)
}

fn dense(report: &mut Report, field: &Field<'_>, model: Option<&Model>) -> Option<Dense> {
    let keys = field.keys(report, &DENSE)?;
    let requests = keys.or_default(report, "requests", at_most(MOST_REQUESTS));
    let one_thing = model.is_some_and(|model| !model.puts_out_tokens());
    let tokens = match keys.get("tokens") {
        None if one_thing => Some(1),
        Some(field) if one_thing => field.read(report, |text| match count(text)? {
            1 => Ok(1),
            _ => Err(Wrong::new("each request of this model puts out one thing", "leave `tokens` out")),
        }),
        _ => keys.or_default(report, "tokens", count),
    };
    let (requests, tokens) = (requests?, tokens?);
    if requests.checked_mul(tokens).is_none() {
        let message = format!("{requests} requests of {tokens} tokens");
        field.key_error(report, Wrong::new(message, format!("at most {} tokens in all", u32::MAX)));
        return None;
    }
    Some(Dense { requests, tokens })
}
