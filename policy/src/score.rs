//! Phase two: what a choice costs and saves. Every term is kept, so that a decision can be explained.

mod carried;
mod nearer;

use crate::event::{EncodeAt, Form, Source};
use crate::format::FormatId;
use crate::id::{BlockId, ProcessorId, TierId};
use crate::ledger::Ledger;
use crate::machine::{Class, Machine, NearProcessor};
use crate::model::Model;
use crate::path::LinkSet;
use crate::sizes::Sizes;
use crate::units::{Bandwidth, Bytes, Nanos};
use carried::Carried;
use nearer::Nearer;
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

/// How a fast copy can be made: from which copy, over which links, and how long that takes on an idle machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it is made of.
    pub from: Source,
    /// The copy made.
    pub to: Form,
    /// On which side of the link the format changes.
    pub encode_at: EncodeAt,
    /// The links it crosses; none within a tier, the workshop for a recipe.
    pub links: LinkSet,
    /// Bytes that cross them; within a tier, the native bytes worked through.
    pub crossing: Bytes,
    /// Idle time from hand-over to publication.
    pub time: Nanos,
    /// The part of it in which its links are busy.
    pub occupies: Nanos,
}

/// Costs of moves and codings on an idle machine.
#[derive(Clone, Debug)]
pub struct Costs {
    model: Arc<Model>,
    machine: Arc<Machine>,
    sizes: Sizes,
    carried: Carried,
    nearer: Nearer,
    /// The tier that compute reads.
    pub fast: TierId,
    /// Formats that fast copies may take, the native one first.
    pub formats: Vec<FormatId>,
    /// By tier, the processor that may compute from it where copies lie; empty if there is none.
    beside: Vec<Option<ProcessorId>>,
}

impl Costs {
    /// Costs for a run in which fast copies may take these formats.
    pub fn new(model: Arc<Model>, machine: Arc<Machine>, fast: TierId, formats: Vec<FormatId>) -> Costs {
        let sizes = Sizes::new(&model);
        Costs {
            carried: Carried::new((&model, &sizes), &machine, fast, &formats),
            nearer: Nearer::default(),
            sizes,
            model,
            machine,
            fast,
            formats,
            beside: vec![],
        }
        .computing_in_place(|near| !near.of_host)
    }

    /// The same, with the host's processor allowed to compute too, if the machine has one that can.
    pub fn with_host(self) -> Costs {
        self.computing_in_place(|_| true)
    }

    /// The same, with copies kept in these tiers too, in the order in which they are asked.
    pub fn with_staging(mut self, staging: &[TierId]) -> Costs {
        let (made_of, tiers) = ((&self.sizes, &self.carried), (self.fast, staging));
        self.nearer = Nearer::new(made_of, &self.machine, tiers, &self.formats);
        self
    }

    fn computing_in_place(self, may: impl Fn(&NearProcessor) -> bool) -> Costs {
        let by = |tier: u8| self.machine.beside(TierId(tier)).filter(|&by| may(self.machine.near(by)));
        let beside: Vec<_> = (0..self.machine.tiers.len() as u8).map(by).collect();
        let any = beside.iter().any(Option::is_some);
        Costs { beside: if any { beside } else { vec![] }, ..self }
    }

    /// The processor that may compute from a tier where copies lie.
    pub fn beside(&self, tier: TierId) -> Option<ProcessorId> {
        self.beside.get(tier.index()).copied().flatten()
    }

    /// Ways to compute a block where it is, for so many tokens: one for each copy with a processor beside it that can read it.
    pub fn in_place(&self, ledger: &Ledger, block: BlockId, tokens: u32) -> impl Iterator<Item = Route> {
        let copies = (!self.beside.is_empty()).then(|| ledger.copies(block));
        // A memory that gives no room has failed, or is about to give up all it holds.
        let usable =
            move |copy: &Form| copy.format.get().direct && ledger.usage(copy.tier).capacity > Bytes::ZERO;
        copies.into_iter().flatten().filter(usable).filter_map(move |copy| {
            let by = self.beside(copy.tier)?;
            let processor = self.machine.near(by).processor;
            let crossing = self.sizes.bytes(block, copy.format);
            let rate = processor.read.min(self.machine.tier(copy.tier).read);
            let measured = self.machine.kernel(Some(by), copy.format);
            let multiply = match measured {
                Some(kernel) => kernel.time(crossing, tokens),
                None => {
                    let operations = self.model.block(block).elements().saturating_mul(2 * u64::from(tokens));
                    processor.flops.time_for(operations)
                }
            };
            let time = rate.time_for(crossing).max(multiply) + processor.launch;
            Some(Route { crossing, time, ..Costs::stay(copy) })
        })
    }

    /// A way to serve a block that makes no copy: the one there is, read in place or left alone.
    pub fn stay(copy: Form) -> Route {
        Route {
            from: Source::Copy(copy),
            to: copy,
            encode_at: EncodeAt::Source,
            links: LinkSet::NONE,
            crossing: Bytes::ZERO,
            time: Nanos::ZERO,
            occupies: Nanos::ZERO,
        }
    }

    /// The quickest way to make a fast copy of `block` in `format`, if there is one: from a lower copy in that very
    /// format, from a lower copy that has every bit, coded on arrival or by the host before it leaves, or by its recipe.
    pub fn fetch(&self, ledger: &Ledger, block: BlockId, format: FormatId) -> Option<Route> {
        self.first_to_arrive(ledger, block, format, |route| route.time)
    }

    /// The same, with what is on the links already: `arrival` is how long a move is expected to take.
    pub fn first_to_arrive(
        &self,
        ledger: &Ledger,
        block: BlockId,
        format: FormatId,
        arrival: impl Fn(&Route) -> Nanos,
    ) -> Option<Route> {
        let shape = self.sizes.shape(block);
        let carried =
            ledger.copies(block).filter_map(|from| self.carried.route(shape, from, format).copied());
        let ways = carried.chain(self.recompute(block, format));
        ways.min_by_key(|route| (arrival(route), route.time, route.from))
    }

    /// How a copy is carried to the fast tier as it is, if there is a way.
    pub(crate) fn carried(&self, block: BlockId, from: Form) -> Option<&Route> {
        self.made_of(block, from, from.format)
    }

    /// How a lower copy is made into a fast one in `format`, if there is a way.
    pub(crate) fn made_of(&self, block: BlockId, from: Form, format: FormatId) -> Option<&Route> {
        self.carried.route(self.sizes.shape(block), from, format)
    }

    /// How a copy is read into a staging tier from where it is nearer, if there is one.
    #[inline]
    pub(crate) fn nearer(&self, block: BlockId, from: Form) -> Option<&Route> {
        self.nearer.route(self.sizes.shape(block), from)
    }

    /// Whether a block has no copy but such that could be read into a staging tier first.
    pub fn is_far(&self, ledger: &Ledger, block: BlockId) -> bool {
        if self.nearer.is_empty() {
            return false;
        }
        let could = |from: Form| {
            let to = self.nearer(block, from).map(|route| route.to);
            to.is_some_and(|to| ledger.footprint(block, to) <= ledger.usage(to.tier).capacity)
        };
        let mut copies = ledger.copies(block).peekable();
        copies.peek().is_some() && copies.all(could)
    }

    /// Bytes of a block in a format.
    pub(crate) fn bytes(&self, block: BlockId, format: FormatId) -> Bytes {
        self.sizes.bytes(block, format)
    }

    /// Making a fast copy by the block's recipe, coded once it is whole.
    fn recompute(&self, block: BlockId, format: FormatId) -> Option<Route> {
        let data = self.model.block(block);
        let crossing = self.sizes.bytes(block, data.native);
        let time = data.recipe?.time(&self.machine, data, crossing);
        Some(Route {
            from: Source::Recipe,
            to: Form { tier: self.fast, format },
            encode_at: EncodeAt::Destination,
            links: LinkSet::WORKSHOP,
            crossing,
            time: time + self.coding(block, self.fast, data.native, format)?,
            occupies: time,
        })
    }

    /// Making a fast copy in `format` from another fast copy: an expansion or a requantisation.
    pub fn recode(&self, ledger: &Ledger, block: BlockId, format: FormatId) -> Option<Route> {
        let native = self.model.block(block).native;
        let to = Form { tier: self.fast, format };
        ledger
            .fast_copies(block)
            .filter(|from| from.format != format && from.format.keeps(native))
            .filter_map(|from| {
                let (links, crossing) = (LinkSet::NONE, self.sizes.bytes(block, format));
                let time = self.coding(block, self.fast, from.format, format)?;
                let from = Source::Copy(from);
                let occupies = Nanos::ZERO;
                Some(Route { from, to, encode_at: EncodeAt::Source, links, crossing, time, occupies })
            })
            .min_by_key(|route| (route.time, route.from))
    }

    /// Time to expand a copy before use: zero for formats that kernels read directly.
    pub fn expand(&self, block: BlockId, format: FormatId) -> Nanos {
        if format.get().direct {
            return Nanos::ZERO;
        }
        let native = self.model.block(block).native;
        self.coding(block, self.fast, format, native).unwrap_or_default()
    }

    /// Time for the processor beside `tier` to turn one format into another, if it can.
    fn coding(&self, block: BlockId, tier: TierId, from: FormatId, to: FormatId) -> Option<Nanos> {
        let native = self.model.block(block).native;
        coding_time(&self.machine, tier, self.sizes.bytes(block, native), from, to)
    }
}

/// Time to turn `native_bytes` worth of a block from one format into another, with the rates of the machine file: on
/// the accelerator for the fast tier, where a format without rates costs a pass over the memory; else on the host,
/// which cannot code a format that it has no rate for.
pub fn coding_time(
    machine: &Machine,
    tier: TierId,
    native_bytes: Bytes,
    from: FormatId,
    to: FormatId,
) -> Option<Nanos> {
    if from == to {
        return Some(Nanos::ZERO);
    }
    let accelerator = &machine.accelerator;
    let on_accelerator = machine.tier(tier).class == Class::Fast;
    let one = |rate: Option<Bandwidth>| match rate {
        None if on_accelerator => Some(accelerator.read.time_for(native_bytes)),
        rate => Some(rate?.time_for(native_bytes)),
    };
    let decodes = !from.get().direct;
    let encodes = !decodes || !to.get().direct;
    let decode =
        if decodes { one(machine.codec(tier, from).map(|codec| codec.decode))? } else { Nanos::ZERO };
    let encode = if encodes { one(machine.codec(tier, to).map(|codec| codec.encode))? } else { Nanos::ZERO };
    let launch = if on_accelerator { accelerator.launch } else { Nanos::ZERO };
    Some(launch + decode + encode)
}
