//! What a scenario serves, resolved and checked: routing, requests, lengths.

use crate::conversations::Conversations;
use crate::units::ArrivalRate;
use policy::Nanos;
use std::path::PathBuf;

/// What is served.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Which experts tokens select.
    pub routing: Routing,
    /// Keep traces marked as repeating themselves.
    pub include_repetition: bool,
    /// Traces that static policies may be fitted on; they exist.
    pub fit: Vec<PathBuf>,
    /// The requests that come.
    pub requests: Requests,
    /// In which order they come; as recorded where nothing is said.
    pub order: Option<RequestOrder>,
    /// Stop after so many decode steps.
    pub limit_tokens: Option<u64>,
    /// The prompt's length, for requests whose trace does not say.
    pub prompt_tokens: Option<Length>,
    /// The output's length; left out, requests are recorded ones, or those of the routing.
    pub output_tokens: Option<Length>,
    /// How well routers are foreseen: for each number of layers ahead, the share of the blocks expected that are chosen.
    pub lookahead: Vec<f64>,
    /// How prompts are computed; left out, they are in the cache already.
    pub prefill: Option<Prefill>,
}

/// In which order the requests of a routing trace come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestOrder {
    /// As they stand in the trace.
    #[default]
    Recorded,
    /// As the seed has it.
    Shuffled,
}

/// Prompts are computed together with the requests that decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefill {
    /// The most tokens of one step, those of requests that decode included.
    pub chunk: u32,
}

/// Which experts tokens select.
#[derive(Clone, Debug, PartialEq)]
pub enum Routing {
    /// Recorded traces, one after the other; they exist.
    Trace(Vec<PathBuf>),
    /// Generated routing.
    ZipfMarkov(ZipfMarkov),
    /// Routing generated like recorded routing.
    Fitted(Fitted),
    /// Every token reads every block of every layer: a model without routed experts.
    Dense(Dense),
}

/// Routing like that of recorded traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitted {
    /// What is fitted; they exist.
    pub traces: Vec<PathBuf>,
    /// Tokens of all generated traces together; they are as long as the recorded ones.
    pub tokens: u32,
}

/// Requests to a model without routed experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dense {
    /// Requests in all.
    pub requests: u32,
    /// Output tokens of each.
    pub tokens: u32,
}

/// Routing drawn from a Zipf popularity with a Markov memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZipfMarkov {
    /// Tokens of all traces together.
    pub tokens: u32,
    /// Traces.
    pub traces: u32,
    /// Exponent of the popularity within a layer, 0 (uniform) to 4.
    pub skew: f64,
    /// Probability that an expert of the previous token stays chosen.
    pub stickiness: f64,
    /// Probability that an expert of the previous layer hands on its successor.
    pub coupling: f64,
    /// Kinds of tokens, 1 to 4096.
    pub kinds: u32,
    /// Standard deviation of the logarithm of an expert's weight among kinds, 0 (kinds choose alike) to 4.
    pub specialisation: f64,
    /// Standard deviation of the logarithm of a kind's weight among traces, 0 (none has favourites) to 4.
    pub favourites: f64,
}

/// The requests that come.
#[derive(Clone, Debug, PartialEq)]
pub struct Requests {
    /// When they arrive.
    pub arrivals: Arrivals,
    /// The most requests under way.
    pub batch: u32,
    /// The most requests in all.
    pub limit: Option<u32>,
}

/// When requests arrive.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrivals {
    /// As many clients as requests may be under way, each sending its next when the last one has ended, and it has thought.
    Closed {
        /// The mean of a client's exponential think time.
        think: Nanos,
    },
    /// At times that are drawn from the seed.
    Drawn(Process),
    /// As they were recorded, with their lengths.
    Recorded(Recording),
    /// Turn by turn, with lengths of their own.
    Conversations(Conversations),
}

impl Arrivals {
    /// Whether requests say themselves how long they are.
    pub fn have_lengths(&self) -> bool {
        matches!(self, Arrivals::Recorded(_) | Arrivals::Conversations(_))
    }
}

/// A process that draws arrivals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Process {
    /// Arrivals that know nothing of each other.
    Poisson {
        /// The mean rate.
        rate: ArrivalRate,
    },
    /// Gaps from a gamma distribution.
    Gamma {
        /// The mean rate.
        rate: ArrivalRate,
        /// The gaps' standard deviation over their mean, 0.01 to 100.
        cv: f64,
    },
    /// Gaps from a Weibull distribution.
    Weibull {
        /// The mean rate.
        rate: ArrivalRate,
        /// Its shape, 0.1 to 20: below 1, arrivals come in bursts.
        shape: f64,
    },
    /// Arrivals that know nothing of each other, at a rate that changes evenly and then stays.
    Ramp {
        /// The rate at the beginning.
        from: ArrivalRate,
        /// The rate at the end of the change, and after it; not 0.
        to: ArrivalRate,
        /// How long it changes; not 0.
        over: Nanos,
    },
}

/// A request trace, and what is taken of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// Its format.
    pub format: RequestFormat,
    /// The file; it exists.
    pub path: PathBuf,
    /// How much faster requests come than they were recorded, 1e-6 to 1e6.
    pub rate_scale: f64,
    /// Requests before this time of the recording are left out.
    pub from: Nanos,
    /// Requests from this time of the recording on are left out.
    pub until: Option<Nanos>,
}

/// A format of request traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFormat {
    /// `azure_csv`.
    AzureCsv,
    /// `mooncake_jsonl`.
    MooncakeJsonl,
    /// `burstgpt_csv`.
    BurstgptCsv,
    /// `sharegpt_csv`.
    SharegptCsv,
    /// `vllm_json`.
    VllmJson,
    /// `csv`.
    Csv,
}

/// How long prompts or outputs are, in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// All alike.
    Fixed(u32),
    /// Any length between two, both included, equally often.
    Uniform {
        /// The shortest.
        from: u32,
        /// The longest.
        to: u32,
    },
    /// The logarithm is normally distributed.
    Lognormal {
        /// The mean.
        mean: f64,
        /// The 99th percentile: more than the mean, at most 14.96 times as much.
        p99: f64,
    },
}

impl Length {
    /// A length that hardly any passes.
    pub fn long(self) -> u32 {
        match self {
            Length::Fixed(tokens) | Length::Uniform { to: tokens, .. } => tokens,
            Length::Lognormal { p99, .. } => p99 as u32,
        }
    }
}
