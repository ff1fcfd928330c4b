//! A scenario, resolved and checked: everything a run needs to know.

use crate::conversations::Conversations;
use crate::price::Price;
use crate::sensitivity::Sensitivity;
use crate::units::ArrivalRate;
use policy::checkpoints::CheckpointSpec;
use policy::homes::Homes;
use policy::machine::Class;
use policy::model::{Block, BlockKind};
use policy::{Bytes, FormatId, Machine, Model, Nanos, TierId};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A scenario in which every name is resolved and every number has been checked.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// The machine, with its capacities as the machine file gives them: see [`Scenario::capacity`].
    pub machine: Machine,
    /// What the machine costs to rent, where its file says so.
    pub price: Option<Price>,
    /// The model.
    pub model: Model,
    /// Accelerators that compute each layer together. Where there are several, machine, model and caps are what one of them has.
    pub tensor: u32,
    /// Caps on tiers, by the tier's name.
    pub memory: BTreeMap<String, Cap>,
    /// Key-value caches.
    pub kv: Kv,
    /// Checkpoints of recurrent states, where prefixes of a model that has them are kept.
    pub checkpoints: Option<CheckpointSpec>,
    /// What else takes fast memory away from blocks.
    pub resident: Resident,
    /// The tier that everything is loaded from when the run begins; left out, it is in place.
    pub load: Option<TierId>,
    /// The tiers that hold every block in its native format from the start.
    pub home: Homes,
    /// Further formats in which its home tier holds every block from the start.
    pub encoded: Vec<FormatId>,
    /// Formats that blocks may be coded into on their way to the fast tier, with no copy kept below.
    pub recode: Vec<FormatId>,
    /// Whether the host may compute blocks where they are; the machine can.
    pub host_compute: bool,
    /// The load.
    pub workload: Workload,
    /// The policy.
    pub policy: PolicyChoice,
    /// The bound on the change of output.
    pub guard: Guard,
    /// What each format costs in output error.
    pub sensitivity: Sensitivity,
    /// The service objectives, if any.
    pub slo: Option<Slo>,
    /// How background moves share the links.
    pub schedule: Schedule,
    /// The seed of everything drawn.
    pub seed: u64,
}

/// How key-value caches have fast memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kv {
    /// This much is set aside for them.
    Reserved(Bytes),
    /// They take it from blocks as they grow.
    Paged(Paged),
}

/// A key-value cache in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paged {
    /// Tokens of a page.
    pub page: u32,
    /// The most bytes it takes.
    pub most: Bytes,
    /// Whether what prompts have in common is kept.
    pub prefixes: bool,
    /// How long, when nobody reads it; without it, until the room is needed.
    pub keep: Option<Nanos>,
}

/// Fast memory that is lost to blocks beside weights and caches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Resident {
    /// Activations and workspaces.
    pub activations: Bytes,
    /// The share of the fast tier's capacity, under its cap, that allocators lose: 0 to less than 1.
    pub fragmentation: f64,
}

/// How background moves share the links with demands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Background moves go in pieces of this size.
    pub chunk: Bytes,
    /// The largest share of a link's time that prefetches and speculation may take.
    pub background_share: f64,
    /// The largest share of a link's time that spill may take.
    pub spill_share: f64,
}

/// A cap on a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// The whole tier, resident weights and key-value caches included.
    Size(Bytes),
    /// So many of the largest block, beside what is resident.
    Slots(u32),
}

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

/// A policy by name, with the parameters that were given.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyChoice {
    /// Its name in the registry.
    pub name: String,
    /// Its parameters; those left out have the registry's defaults.
    pub params: BTreeMap<String, f64>,
    /// The script it runs, if one is named.
    pub script: Option<ScriptFile>,
}

/// A script, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptFile {
    /// Where it was read.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// What the policy registry has against a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyComplaint {
    /// The parameter meant, or the policy as a whole.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

/// Asks the policy registry whether it knows a policy, its parameters and its script.
pub type PolicyCheck<'a> = &'a dyn Fn(&PolicyChoice) -> Result<(), PolicyComplaint>;

/// The bound on the change of output.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// The largest drift, as a fraction of the output; 0 keeps full precision.
    pub drift_budget: f64,
    /// Steps over which the budget binds.
    pub window: u32,
    /// The least precise format a kind of block may take.
    pub floors: BTreeMap<BlockKind, FormatId>,
}

/// Service objectives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slo {
    /// Time to the first token.
    pub ttft: Option<Nanos>,
    /// Time per output token.
    pub tpot: Option<Nanos>,
    /// The share of requests that must meet them, in per cent.
    pub percentile: f64,
}

impl Scenario {
    /// The fast tier.
    pub fn fast(&self) -> TierId {
        // A machine with none was refused.
        self.machine.tiers_of(Class::Fast).next().unwrap_or_default()
    }

    /// What a tier may hold under its cap.
    pub fn capacity(&self, tier: TierId) -> Bytes {
        let described = self.machine.tier(tier);
        match self.memory.get(&described.name) {
            None => described.capacity,
            Some(Cap::Size(size)) => *size,
            Some(Cap::Slots(slots)) if tier == self.fast() => {
                let used = self.occupied() + slots_size(*slots, self.slot(tier));
                Bytes((used.0 as f64 / (1.0 - self.resident.fragmentation)).ceil() as u64).max(used)
            }
            Some(Cap::Slots(slots)) => slots_size(*slots, self.slot(tier)),
        }
    }

    /// What is left of the fast tier for blocks.
    pub fn fast_budget(&self) -> Bytes {
        self.capacity(self.fast()).saturating_sub(self.resident_floor())
    }

    /// Fast memory for everything that can ever be in it: what no block can have, every block in every format, and caches in
    /// pages at their largest.
    pub fn fast_at_most(&self) -> Bytes {
        let granularity = self.machine.tier(self.fast()).granularity;
        let formats = |block: &Block| {
            let others = self.encoded.iter().chain(&self.recode).copied();
            let all = std::iter::once(block.native).chain(others.filter(|&format| format != block.native));
            all.map(|format| block.bytes(format).round_up(granularity)).sum::<Bytes>()
        };
        let pages = match self.kv {
            Kv::Paged(paged) => paged.most,
            Kv::Reserved(_) => Bytes::ZERO,
        };
        self.resident_floor() + pages + self.model.blocks.iter().map(formats).sum()
    }

    /// Fast memory that no block can have: resident weights, key-value caches, checkpoints, activations, and what allocators
    /// lose.
    pub fn resident_floor(&self) -> Bytes {
        self.occupied() + self.fragmented()
    }

    /// Fast memory set aside for key-value caches.
    pub fn kv_reserve(&self) -> Bytes {
        match self.kv {
            Kv::Reserved(bytes) => bytes,
            Kv::Paged(_) => Bytes::ZERO,
        }
    }

    /// What checkpoints of recurrent states take of a tier.
    pub fn checkpoint_room(&self, tier: TierId) -> Bytes {
        let pools = self.checkpoints.iter().flat_map(|spec| &spec.pools);
        pools.filter(|pool| pool.tier == tier).map(|pool| pool.room).sum()
    }

    /// What allocators lose of the fast tier.
    pub fn fragmented(&self) -> Bytes {
        let fast = self.fast();
        let capacity = self.capacity(fast);
        match self.memory.get(&self.machine.tier(fast).name) {
            // So many slots are left whatever is lost.
            Some(Cap::Slots(slots)) => {
                capacity.saturating_sub(self.occupied() + slots_size(*slots, self.slot(fast)))
            }
            _ => Bytes((capacity.0 as f64 * self.resident.fragmentation).ceil() as u64),
        }
    }

    fn occupied(&self) -> Bytes {
        let checkpoints = self.checkpoint_room(self.fast());
        self.model.resident_bytes() + self.kv_reserve() + self.resident.activations + checkpoints
    }

    /// The largest block in its native format, as a tier allocates it.
    pub fn slot(&self, tier: TierId) -> Bytes {
        self.model.largest_block().round_up(self.machine.tier(tier).granularity)
    }
}

/// So many slots; stops at the largest size.
pub(crate) fn slots_size(slots: u32, slot: Bytes) -> Bytes {
    Bytes(slot.0.saturating_mul(u64::from(slots)))
}
