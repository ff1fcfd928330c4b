//! A scenario, resolved and checked: everything a run needs to know.

use crate::pressure::Pressure;
use crate::price::Price;
use crate::sensitivity::Sensitivity;
use crate::served::Workload;
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
    /// Accelerators that serve the same requests. Where there are several, machine, model and caps are what the first one has.
    pub parallel: Parallel,
    /// What the later stages of a pipeline have, in order: see [`Scenario::at_stage`].
    pub later: Vec<StageShare>,
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
    /// What others take of memories and links, and when, in order of time.
    pub pressure: Vec<Pressure>,
    /// The tiers that hold every block in its native format from the start.
    pub home: Homes,
    /// Tiers that hold copies beside the home ones, in the order in which they are asked.
    pub staging: Vec<TierId>,
    /// Further formats in which its home tier holds every block from the start.
    pub encoded: Vec<FormatId>,
    /// Formats that blocks may be coded into on their way to the fast tier, with no copy kept below.
    pub recode: Vec<FormatId>,
    /// Whether the host may compute blocks where they are; the machine can.
    pub host_compute: bool,
    /// The load.
    pub workload: Workload,
    /// Further models on the machine; `model` has their phases too.
    pub tenants: Vec<Tenant>,
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

/// A further model on the machine.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// What it is called in reports.
    pub name: String,
    /// What is asked of it.
    pub workload: Workload,
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

/// Accelerators that serve the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parallel {
    /// How many compute each layer together.
    pub tensor: u32,
    /// How many groups of so many have experts of their own.
    pub expert: u32,
    /// Experts of a layer that further groups may have too.
    pub replicas: u32,
    /// Whether some are lost during the run, and others take their experts over.
    pub losable: bool,
    /// How many times as many have layers of their own, one stage of a pipeline after the other.
    pub pipeline: u32,
    /// The batches that such a pipeline computes side by side.
    pub micro_batches: u32,
}

impl Default for Parallel {
    fn default() -> Parallel {
        Parallel { tensor: 1, expert: 1, replicas: 0, losable: false, pipeline: 1, micro_batches: 1 }
    }
}

impl Parallel {
    /// Whether any expert may be at any group: all have the home copies of all experts in common.
    pub fn is_common(self) -> bool {
        self.replicas > 0 || self.losable
    }

    /// How many there are.
    pub fn accelerators(self) -> u32 {
        self.tensor * self.expert * self.pipeline
    }
}

/// What a later stage of a pipeline has of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct StageShare {
    /// Its layers.
    pub model: Model,
    /// Their key-value caches.
    pub kv: Kv,
    /// The tiers of their blocks.
    pub home: Homes,
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

    /// The scenario as a stage of its pipeline has it.
    pub fn at_stage(&self, index: usize) -> Scenario {
        let of = |StageShare { model, kv, home }: StageShare| Scenario { model, kv, home, ..self.clone() };
        match index.checked_sub(1).and_then(|later| self.later.get(later)) {
            Some(share) => of(share.clone()),
            None => self.clone(),
        }
    }

    /// The models of all stages, in order: of the only one where there is no pipeline.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        std::iter::once(&self.model).chain(self.later.iter().map(|stage| &stage.model))
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
