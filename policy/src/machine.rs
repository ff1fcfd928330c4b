//! A machine as data: memories, the links between them, the accelerator, and what coding a format costs.

use crate::format::FormatId;
use crate::id::{LinkId, ProcessorId, TierId};
use crate::kernel::KernelRate;
use crate::path::LinkSet;
use crate::rate::Rate;
use crate::times::{ANY_MODEL, ModelTimes};
use crate::units::{Bandwidth, Bytes, FlopRate, Nanos};
use serde::{Deserialize, Serialize};

/// How a block in this tier counts for the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Compute reads it directly: states S1, S2, S3.
    Fast,
    /// One move away: state S4.
    Staged,
    /// Slow or far: state S5.
    Cold,
}

/// What the memory is made of, for the hardware backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backing {
    /// An accelerator's own memory: that of the one that computes, or of the one that [`Tier::device`] names.
    Device,
    /// Page-locked host memory.
    Pinned,
    /// Ordinary host memory.
    Pageable,
    /// A NUMA node (a CXL expander is one without processors).
    Numa,
    /// A file or a block device.
    File,
}

/// A memory of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The id its machine file gives it.
    pub name: String,
    /// Bytes it can hold.
    pub capacity: Bytes,
    /// How copies in it count.
    pub class: Class,
    /// What it is made of.
    pub backing: Backing,
    /// The NUMA node its pages come from, if that is said.
    pub node: Option<u32>,
    /// The number of the accelerator whose memory it is, where that is not the one that computes.
    pub device: Option<u32>,
    /// Whether its owner may take it back at any time, as a peer may its own memory: it holds no home copies.
    pub transient: bool,
    /// Bytes that may be written to it in a day for as long as it is to last, where that is said.
    pub endurance: Option<Bytes>,
    /// Allocations are rounded up to a multiple of this.
    pub granularity: Bytes,
    /// Sustained read rate.
    pub read: Bandwidth,
    /// Sustained write rate.
    pub write: Bandwidth,
}

impl Tier {
    /// The rate of bytes that are written to it and read again, both at once.
    pub fn passing(&self) -> Bandwidth {
        let (read, write) = (u128::from(self.read.0), u128::from(self.write.0));
        Bandwidth((read * write / (read + write).max(1)) as u64)
    }
}

/// One direction of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The name of the link; both directions share it.
    pub name: String,
    /// Where bytes come from.
    pub from: TierId,
    /// Where they go.
    pub to: TierId,
    /// Time before the first byte arrives.
    pub latency: Nanos,
    /// Cost of handing one copy to the engine; the engine is busy for it.
    pub submit: Nanos,
    /// Rate with the other direction idle, by the size of the copy.
    pub rate: Rate,
    /// The most it carries while the other direction is busy (PCIe 4: 24.8 GB/s alone, 11 GB/s shared).
    pub duplex: Bandwidth,
    /// Copies that can be under way at once: copy engines, or the queue depth of storage.
    pub engines: u32,
    /// The other direction.
    pub opposite: Option<LinkId>,
}

/// A processor that computes: the accelerator, from the fast tier, or another one from the tiers that it is beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Sustained matrix rate.
    pub flops: FlopRate,
    /// Sustained rate at which its kernels read weights.
    pub read: Bandwidth,
    /// Fixed cost of one kernel: its launch, and beside other memories the activations' way there and back.
    pub launch: Nanos,
}

/// A processor beside memories that the accelerator does not read directly, which computes blocks where they lie: the host's own, or
/// that of one memory, as a CXL expander or a DIMM with matrix units has, or another server beside its DRAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearProcessor {
    /// `host`, or the name of the memory that it is part of.
    pub name: String,
    /// The memories that it computes from; no other one does. The host's are those of class staged without one of their own.
    pub tiers: Vec<TierId>,
    /// Whether it is the host's, which computes only where that is allowed.
    pub of_host: bool,
    /// What it sustains. It reads at most what its memory gives, which for a memory of its own may be far more than any link
    /// takes out of it: copies and kernels share what the memory gives, and copies alone what the links carry.
    pub processor: Processor,
    /// Measured matrix products on it.
    pub kernels: Vec<KernelRate>,
}

/// The physical limits of a processor, as its data sheet has them: what no kernel passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// Matrix rate, dense, in the native format of the models that it serves.
    pub flops: FlopRate,
    /// Bandwidth of its memory.
    pub read: Bandwidth,
}

/// Accelerators that serve the same requests, and how fast they send to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Time of the smallest message from one to another.
    pub latency: Nanos,
    /// Rate of large messages, each direction.
    pub rate: Bandwidth,
    /// The link directions that messages take beside the blocks that move on them; none where they have links of their own.
    pub over: LinkSet,
    /// How many compute each layer together: one where no layer is cut.
    pub ranks: u32,
    /// How many groups of so many have experts of their own: one where none has.
    pub groups: u32,
}

impl Peers {
    /// The time in which all have the sum of what each has, `bytes` of it: by halving and doubling, two messages for each
    /// doubling of the ranks, which move all but one rank's share twice (Thakur, Rabenseifner and Gropp, 2005).
    pub fn all_reduce(&self, bytes: Bytes) -> Nanos {
        self.all_reduce_latency() + self.all_reduce_limit(bytes)
    }

    /// The part of that which does not depend on the bytes.
    pub fn all_reduce_latency(&self) -> Nanos {
        let messages = 2 * u64::from(self.ranks.max(1).next_power_of_two().ilog2());
        Nanos(self.latency.0.saturating_mul(messages))
    }

    /// The time in which each group has what the others have for it, of `bytes` that go to the group to which the most go:
    /// sends and receives side by side, as NCCL groups them; an equal share of the bytes comes from the group itself.
    pub fn all_to_all(&self, bytes: Bytes) -> Nanos {
        self.latency + self.all_to_all_limit(bytes)
    }

    /// What that takes at least: what the group must receive, at the rate of the links.
    pub fn all_to_all_limit(&self, bytes: Bytes) -> Nanos {
        self.rate.time_for(self.gathered(bytes))
    }

    /// The bytes that a group must receive of `bytes` that go to it.
    pub fn gathered(&self, bytes: Bytes) -> Bytes {
        let groups = u128::from(self.groups.max(1));
        let moved = u128::from(bytes.0) * (groups - 1) / groups;
        Bytes(u64::try_from(moved).unwrap_or(u64::MAX))
    }

    /// What that takes at least: what each must send, at the rate of the links.
    pub fn all_reduce_limit(&self, bytes: Bytes) -> Nanos {
        self.rate.time_for(self.reduced(bytes))
    }

    /// The bytes that each must send, and receive, for a sum of `bytes`.
    pub fn reduced(&self, bytes: Bytes) -> Bytes {
        let ranks = u128::from(self.ranks.max(1));
        let moved = u128::from(bytes.0) * 2 * (ranks - 1) / ranks;
        Bytes(u64::try_from(moved).unwrap_or(u64::MAX))
    }

    /// Whether messages share links with blocks.
    pub fn shares_links(&self) -> bool {
        !self.over.is_empty()
    }
}

/// What it costs a processor to code a format: rates over the native bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec {
    /// The coded format.
    pub format: FormatId,
    /// Native bytes consumed a second when encoding.
    pub encode: Bandwidth,
    /// Native bytes produced a second when expanding.
    pub decode: Bandwidth,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its name in the catalogue.
    pub name: String,
    /// The memories; a [`TierId`] is an index here. Exactly one is of class fast.
    pub tiers: Vec<Tier>,
    /// The link directions; a [`LinkId`] is an index here.
    pub links: Vec<Link>,
    /// The accelerator.
    pub accelerator: Processor,
    /// Sustained rate at which it sums the products of recipes, where that is not the matrix rate.
    pub merge: Option<FlopRate>,
    /// Coding costs on the accelerator, for the formats that have any.
    pub codecs: Vec<Codec>,
    /// Coding costs on the host's processor, for the formats that it can code.
    pub host_codecs: Vec<Codec>,
    /// The processors beside other memories; a [`ProcessorId`] is an index here.
    pub near: Vec<NearProcessor>,
    /// Measured matrix products on the accelerator, by format.
    pub kernels: Vec<KernelRate>,
    /// What the accelerator could do at most, where that is said.
    pub peak: Option<Peak>,
    /// Measured times of whole operators on the accelerator, by model.
    pub times: Vec<ModelTimes>,
    /// The accelerators that compute together, where the machine has more than one.
    pub peers: Option<Peers>,
}

impl Machine {
    /// A memory of the machine.
    #[inline]
    pub fn tier(&self, id: TierId) -> &Tier {
        &self.tiers[id.index()]
    }

    /// A link direction of the machine.
    #[inline]
    pub fn link(&self, id: LinkId) -> &Link {
        &self.links[id.index()]
    }

    /// The tiers of a class, in the order of the file.
    pub fn tiers_of(&self, class: Class) -> impl Iterator<Item = TierId> + '_ {
        (0..self.tiers.len() as u8).map(TierId).filter(move |&id| self.tier(id).class == class)
    }

    /// A processor beside other memories.
    #[inline]
    pub fn near(&self, id: ProcessorId) -> &NearProcessor {
        &self.near[id.index()]
    }

    /// The processor that computes from a tier where its copies lie, if one does.
    pub fn beside(&self, tier: TierId) -> Option<ProcessorId> {
        let place = self.near.iter().position(|near| near.tiers.contains(&tier));
        place.map(|place| ProcessorId(place as u8))
    }

    /// The host's processor, if it can compute blocks where they are.
    pub fn host_compute(&self) -> Option<&NearProcessor> {
        self.near.iter().find(|near| near.of_host)
    }

    /// The accelerator, or a processor beside other memories: what it sustains.
    pub fn processor(&self, by: Option<ProcessorId>) -> Processor {
        by.map_or(self.accelerator, |by| self.near(by).processor)
    }

    /// Measured matrix products in a format, on the accelerator or on a processor beside other memories.
    pub fn kernel(&self, by: Option<ProcessorId>, format: FormatId) -> Option<&KernelRate> {
        let kernels = by.map_or(&self.kernels, |by| &self.near(by).kernels);
        kernels.iter().find(|kernel| kernel.format() == format)
    }

    /// What was measured of a model's operators, or else of any model's.
    pub fn times_of(&self, model: &str) -> Option<&ModelTimes> {
        let named = |name: &str| self.times.iter().find(|times| times.model == name);
        named(model).or_else(|| named(ANY_MODEL))
    }

    /// The least time that bytes and operations can take on the accelerator: at its peak, or at the rates it sustains where
    /// no peak is said.
    pub fn limit(&self, bytes: Bytes, operations: u64) -> Nanos {
        let Processor { flops, read, .. } = self.accelerator;
        let peak = self.peak.unwrap_or(Peak { flops, read });
        peak.read.max(read).time_for(bytes).max(peak.flops.max(flops).time_for(operations))
    }

    /// What coding a format costs the processor beside a tier: the accelerator for the fast one, else the host's.
    pub fn codec(&self, tier: TierId, format: FormatId) -> Option<&Codec> {
        let codecs = if self.tier(tier).class == Class::Fast { &self.codecs } else { &self.host_codecs };
        codecs.iter().find(|codec| codec.format == format)
    }
}
