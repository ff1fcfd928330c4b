//! Phase two: what a choice costs and saves. Every term is kept, so that a decision can be explained.

use crate::event::{EncodeAt, Form};
use crate::format::FormatId;
use crate::id::{BlockId, LinkId, TierId};
use crate::ledger::Ledger;
use crate::machine::{Class, Machine};
use crate::model::Model;
use crate::sizes::Sizes;
use crate::units::{Bytes, Nanos};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The terms of a score, in nanoseconds unless said otherwise. `total = moving + decode + drift + memory - saved`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Probability that the block is needed when its layer comes next.
    pub probability: f64,
    /// Expected tokens until its next use.
    pub next_use: f64,
    /// Stall that the choice is expected to save.
    pub saved: f64,
    /// Time on the link.
    pub moving: f64,
    /// Time to expand or to read a costlier format.
    pub decode: f64,
    /// Price of the drift it adds.
    pub drift: f64,
    /// Price of the fast memory it takes.
    pub memory: f64,
    /// The sum: least is best.
    pub total: f64,
}

impl Terms {
    /// Fills in the sum.
    pub fn sum(mut self) -> Terms {
        self.total = self.moving + self.decode + self.drift + self.memory - self.saved;
        self
    }
}

/// How a fast copy can be made: from which copy, over which link, and how long that takes on an idle machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The copy read.
    pub from: Form,
    /// The copy made.
    pub to: Form,
    /// On which side of the link the format changes.
    pub encode_at: EncodeAt,
    /// The link, or none within a tier.
    pub link: Option<LinkId>,
    /// Bytes that cross it; for a change of format within a tier, the native bytes worked through.
    pub crossing: Bytes,
    /// Idle time from hand-over to publication.
    pub time: Nanos,
}

/// Costs of moves and codings on an idle machine.
#[derive(Clone, Debug)]
pub struct Costs {
    model: Arc<Model>,
    machine: Arc<Machine>,
    sizes: Sizes,
    /// The tier that compute reads.
    pub fast: TierId,
    /// Formats that fast copies may take, the native one first.
    pub formats: Vec<FormatId>,
}

impl Costs {
    /// Costs for a run in which fast copies may take these formats.
    pub fn new(model: Arc<Model>, machine: Arc<Machine>, fast: TierId, formats: Vec<FormatId>) -> Costs {
        Costs { sizes: Sizes::new(&model), model, machine, fast, formats }
    }

    /// The quickest way to make a fast copy of `block` in `format`, if there is one: from a lower copy in that very
    /// format, or from a lower copy that has every bit, coded on arrival.
    pub fn fetch(&self, ledger: &Ledger, block: BlockId, format: FormatId) -> Option<Route> {
        let native = self.model.block(block).native;
        let to = Form { tier: self.fast, format };
        ledger
            .copies(block)
            .filter(|from| self.machine.tier(from.tier).class != Class::Fast)
            .filter(|from| from.format == format || from.format.keeps(native))
            .filter_map(|from| {
                let link = self.machine.link_between(from.tier, self.fast)?;
                let crossing = self.sizes.bytes(block, from.format);
                let coding = self.coding(block, from.format, format);
                let time = self.machine.link(link).transfer(crossing) + coding;
                Some(Route { from, to, encode_at: EncodeAt::Destination, link: Some(link), crossing, time })
            })
            .min_by_key(|route| (route.time, route.from))
    }

    /// Making a fast copy in `format` from another fast copy: an expansion or a requantisation.
    pub fn recode(&self, ledger: &Ledger, block: BlockId, format: FormatId) -> Option<Route> {
        let native = self.model.block(block).native;
        let to = Form { tier: self.fast, format };
        ledger
            .fast_copies(block)
            .filter(|from| from.format != format && from.format.keeps(native))
            .map(|from| Route {
                from,
                to,
                encode_at: EncodeAt::Source,
                link: None,
                crossing: self.sizes.bytes(block, format),
                time: self.coding(block, from.format, format),
            })
            .min_by_key(|route| (route.time, route.from))
    }

    /// Time to expand a copy before use: zero for formats that kernels read directly.
    pub fn expand(&self, block: BlockId, format: FormatId) -> Nanos {
        if format.get().direct {
            Nanos::ZERO
        } else {
            self.coding(block, format, self.model.block(block).native)
        }
    }

    /// Time on the accelerator to turn one format into another.
    pub fn coding(&self, block: BlockId, from: FormatId, to: FormatId) -> Nanos {
        if from == to {
            return Nanos::ZERO;
        }
        let native = self.model.block(block).native;
        coding_time(&self.machine, self.sizes.bytes(block, native), from, to)
    }
}

/// Time on the accelerator to turn `native_bytes` worth of a block from one format into another: the rates of the
/// machine file where the format has any, else a pass over the memory.
pub fn coding_time(machine: &Machine, native_bytes: Bytes, from: FormatId, to: FormatId) -> Nanos {
    if from == to {
        return Nanos::ZERO;
    }
    let accelerator = &machine.accelerator;
    let one = |rate: Option<crate::units::Bandwidth>| rate.unwrap_or(accelerator.read).time_for(native_bytes);
    let decode =
        if from.get().direct { Nanos::ZERO } else { one(machine.codec(from).map(|codec| codec.decode)) };
    let encode = if decode == Nanos::ZERO || !to.get().direct {
        one(machine.codec(to).map(|codec| codec.encode))
    } else {
        Nanos::ZERO
    };
    accelerator.launch + decode + encode
}
