//! The operators of a model on a machine: what each asks of the accelerator or of another processor, from measured times where a table
//! has them, else from a roofline.

use crate::compute::{Demand, Kernel, looked_at, timed};
use crate::provenance::{Booked, Kind};
use policy::event::{Part, Read, Slice};
use policy::machine::Peers;
use policy::model::Layer;
use policy::sizes::Sizes;
use policy::times::{Basis, ModelTimes, Operator, TimeTable};
use policy::{Bytes, FormatId, LayerId, Machine, Model, Nanos, ProcessorId};
use std::sync::Arc;

/// Times the norms and residuals of a layer move a token's activations at least: two norms, each read and written.
const NORMS: u64 = 4;

/// The operators of a model on a machine.
#[derive(Clone, Debug)]
pub struct Operators {
    machine: Arc<Machine>,
    model: Arc<Model>,
    sizes: Sizes,
    /// What was measured of this model, or of any.
    times: ModelTimes,
    like: Like,
}

/// The layer that tables are of: the first that has a router, or the first.
#[derive(Clone, Copy, Debug, Default)]
struct Like {
    layer: LayerId,
    routed: bool,
    /// One block in its native format for one token, where tokens choose among them; else all of the layer's.
    block: Demand,
    /// Blocks that a token chooses.
    selected: u32,
}

impl Like {
    fn new(model: &Model) -> Like {
        let routed = model.layers.iter().position(|layer| model.is_routed(layer));
        let index = routed.unwrap_or(0);
        let Some(layer) = model.layers.get(index) else { return Like::default() };
        let number = if routed.is_some() { 1 } else { layer.blocks as usize };
        let blocks = model.blocks.iter().skip(layer.first_block.index()).take(number);
        let demands =
            blocks.map(|block| Demand { bytes: block.bytes(block.native), operations: 2 * block.elements() });
        Like {
            layer: LayerId(index as u16),
            routed: routed.is_some(),
            block: demands.fold(Demand::default(), Demand::plus),
            selected: layer.selected,
        }
    }

    /// All blocks of a layer step: so many distinct ones for so many tokens.
    fn all(&self, tokens: u32, number: u32) -> Demand {
        let (number, each) = if self.routed { (number, self.selected) } else { (1, 1) };
        Demand {
            bytes: Bytes(self.block.bytes.0.saturating_mul(number.into())),
            operations: self.block.operations.saturating_mul(u64::from(tokens) * u64::from(each)),
        }
    }

    /// One block for so many tokens.
    fn one(&self, tokens: u32) -> Demand {
        let operations = self.block.operations.saturating_mul(tokens.into());
        Demand { bytes: self.block.bytes, operations }
    }
}

impl Operators {
    /// The operators of a model on a machine.
    pub fn new(machine: Arc<Machine>, model: Arc<Model>) -> Operators {
        Operators {
            times: machine.times_of(&model.name).cloned().unwrap_or_default(),
            sizes: Sizes::new(&model),
            like: Like::new(&model),
            machine,
            model,
        }
    }

    /// The mixer, the managed blocks or the output head of a layer for the tokens of a step.
    ///
    /// The weights of a block are read once, however many tokens go through it, and so is each request's cache. The head
    /// runs for requests that get a token, `emitting` of them.
    pub fn kernel(
        &self,
        (layer, part): (LayerId, Part),
        slices: &[Slice],
        emitting: u64,
        reads: &[Read],
    ) -> Kernel {
        let mut booked = Booked::default();
        let kernel = match part {
            Part::Mixer => self.mixer(layer, slices, &mut booked),
            Part::Experts => match self.times.of(Operator::Experts) {
                Some(table) if !reads.is_empty() => self.together(table, reads, &mut booked),
                _ => self.one_by_one(None, reads, &mut booked),
            },
            Part::Near(by) => self.one_by_one(Some(by), reads, &mut booked),
            Part::Head => self.head(layer, emitting, &mut booked),
        };
        let (summing, exchanged) = self.summing(layer, part, slices, &mut booked);
        Kernel { summing, exchanged, booked, ..kernel }
    }

    fn limit(&self, demand: Demand) -> Nanos {
        self.machine.limit(demand.bytes, demand.operations)
    }

    /// What the accelerators add up, where several compute together: what their mixers gave, and before that what their
    /// blocks gave in the layer before, or their parts of the embedding. Blocks may take waves, and one sum does for all.
    /// Returns the time, and what crosses links that blocks move on.
    fn summing(&self, id: LayerId, part: Part, slices: &[Slice], booked: &mut Booked) -> (Nanos, Bytes) {
        let nothing = (Nanos::ZERO, Bytes::ZERO);
        let Some(peers) = self.machine.peers.filter(|peers| peers.ranks > 1) else { return nothing };
        let sums = match part {
            Part::Mixer => 2,
            Part::Head => 1,
            Part::Experts | Part::Near(_) => return nothing,
        };
        let tokens: u64 = slices.iter().map(|slice| u64::from(slice.tokens)).sum();
        let bytes = Bytes(self.model.layer(id).activations.0.saturating_mul(tokens));
        let times = |time: Nanos| Nanos(time.0.saturating_mul(sums));
        let crossing = Bytes(peers.reduced(bytes).0.saturating_mul(sums));
        let (all, exchanged) = match peers.shares_links() {
            true => (times(peers.all_reduce_latency()) + peers.rate.time_for(crossing), crossing),
            false => (times(peers.all_reduce(bytes)), Bytes::ZERO),
        };
        booked.add(Kind::AllReduce, Basis::Fitted, all, times(peers.all_reduce_limit(bytes)));
        (all, exchanged)
    }

    /// The way of so many tokens to a group of accelerators that has their experts, and back again: its time, of which what
    /// crosses links that blocks move on is the last part, and those bytes. There are `groups` of them.
    pub fn exchange(&self, id: LayerId, tokens: u64, groups: u32) -> (Nanos, Bytes, Booked) {
        let mut booked = Booked::default();
        let Some(peers) = self.machine.peers else { return (Nanos::ZERO, Bytes::ZERO, booked) };
        let peers = Peers { groups, ..peers };
        let bytes = Bytes(self.model.layer(id).activations.0.saturating_mul(tokens));
        let both = |time: Nanos| Nanos(time.0.saturating_mul(2));
        let crossing = Bytes(peers.gathered(bytes).0.saturating_mul(2));
        let (time, exchanged) = match peers.shares_links() {
            true => (both(peers.latency) + peers.rate.time_for(crossing), crossing),
            false => (both(peers.all_to_all(bytes)), Bytes::ZERO),
        };
        booked.add(Kind::AllToAll, Basis::Fitted, time, both(peers.all_to_all_limit(bytes)));
        (time, exchanged, booked)
    }

    /// A message of so many bytes to another accelerator: its latency, how long its bytes take, and both as they are booked.
    pub fn send(&self, bytes: Bytes) -> (Nanos, Nanos, Booked) {
        let mut booked = Booked::default();
        let Some(peers) = self.machine.peers else { return (Nanos::ZERO, Nanos::ZERO, booked) };
        let time = peers.rate.time_for(bytes);
        booked.add(Kind::Send, Basis::Fitted, peers.latency + time, time);
        (peers.latency, time, booked)
    }

    fn mixer(&self, id: LayerId, slices: &[Slice], booked: &mut Booked) -> Kernel {
        let processor = self.machine.accelerator;
        let layer = self.model.layer(id);
        let seen = slices.iter().map(|slice| slice.seen(layer.window)).sum::<u64>();
        let looking = |slice: &Slice| {
            let cached = slice.cached.min(layer.window.unwrap_or(u32::MAX));
            layer.attention_flops(looked_at(slice, layer), cached.into())
        };
        let tokens: u64 = slices.iter().map(|slice| u64::from(slice.tokens)).sum();
        let states = Bytes(layer.state.0.saturating_mul(2 * slices.len() as u64));
        let weights =
            Demand { bytes: layer.resident, operations: layer.flops_per_token.saturating_mul(tokens) };
        let attention = Demand {
            bytes: Bytes(seen.saturating_mul(layer.kv_per_token.0)) + states,
            operations: slices.iter().map(looking).fold(0, u64::saturating_add),
        };
        let both = weights.plus(attention);
        if let Some(table) = self.times.of(Operator::Mixer) {
            let step = (tokens, seen, slices.len() as u64);
            return self.measured_mixer(table, layer, step, [weights, attention], booked);
        }
        if let Some(rate) = self.machine.kernel(None, FormatId::BF16) {
            let time = rate.time(weights.bytes, whole(tokens)) + rate.time(attention.bytes, 1);
            booked.add(Kind::Mixer, Basis::Fitted, time + processor.launch, self.limit(both));
            return Kernel::lasting(&processor, time);
        }
        let moved = Bytes(layer.activations.0.saturating_mul(NORMS).saturating_mul(tokens));
        let least = self.machine.limit(moved, 0);
        booked.add(Kind::Elementwise, Basis::Missing, least, least);
        booked.add(
            Kind::Mixer,
            Basis::Roofline,
            both.roofline(&processor) + processor.launch,
            self.limit(both),
        );
        both.kernel(&processor)
    }

    /// The mixer from its table: with its attention where that depends on the cache, else followed by it.
    fn measured_mixer(
        &self,
        table: &TimeTable,
        layer: &Layer,
        (tokens, seen, requests): (u64, u64, u64),
        [weights, attention]: [Demand; 2],
        booked: &mut Booked,
    ) -> Kernel {
        let processor = self.machine.accelerator;
        let like = self.model.layer(self.like.layer);
        let with_attention = table.has_second();
        let (covered, rest) = match with_attention {
            true => (weights.plus(attention), Demand::default()),
            false => (weights, attention),
        };
        let of = |tokens: u32, cached: u32| {
            let read = if with_attention { u64::from(cached) } else { 0 };
            let cache = read.saturating_mul(requests).saturating_mul(like.kv_per_token.0);
            let pairs = u64::from(tokens).saturating_mul(read);
            let looking = like.attention_flops(pairs, requests.saturating_mul(read));
            let operations = like.flops_per_token.saturating_mul(tokens.into()).saturating_add(looking);
            Demand { bytes: like.resident + Bytes(cache), operations }
        };
        let point = (whole(tokens), whole(seen / requests.max(1)));
        let instead = (!same_mixer(layer, like)).then_some(covered);
        let (time, basis) = timed(&processor, table, point, of, instead);
        booked.add(Kind::Mixer, basis, time, self.limit(covered));
        if rest != Demand::default() {
            booked.add(Kind::Attention, Basis::Roofline, rest.roofline(&processor), self.limit(rest));
        }
        rest.kernel(&processor).after(&processor, time.saturating_sub(processor.launch))
    }

    fn head(&self, layer: LayerId, emitting: u64, booked: &mut Booked) -> Kernel {
        let processor = self.machine.accelerator;
        let (bytes, each) = self.model.head(layer);
        let of = |rows: u64| Demand { bytes, operations: each.saturating_mul(rows) };
        let demand = of(emitting);
        let (time, basis, kernel) = if let Some(table) = self.times.of(Operator::Head) {
            let like = |rows: u32, _| of(rows.into());
            let (time, basis) = timed(&processor, table, (whole(emitting), 0), like, None);
            (time, basis, Kernel::lasting(&processor, time.saturating_sub(processor.launch)))
        } else if let Some(rate) = self.machine.kernel(None, FormatId::BF16) {
            let time = rate.time(bytes, whole(emitting));
            (time + processor.launch, Basis::Fitted, Kernel::lasting(&processor, time))
        } else {
            (demand.roofline(&processor) + processor.launch, Basis::Roofline, demand.kernel(&processor))
        };
        booked.add(Kind::Head, basis, time, self.limit(demand));
        kernel
    }

    /// All blocks of a layer step from their table.
    fn together(&self, table: &TimeTable, reads: &[Read], booked: &mut Booked) -> Kernel {
        let processor = self.machine.accelerator;
        let demand = reads.iter().map(|read| self.demand(read)).fold(Demand::default(), Demand::plus);
        let tokens = reads.iter().map(|read| u64::from(read.tokens));
        let tokens = match self.like.routed {
            true => tokens.sum::<u64>().div_ceil(u64::from(self.like.selected.max(1))),
            false => tokens.max().unwrap_or(0),
        };
        let number = whole(reads.len() as u64);
        let native = reads.iter().all(|read| self.is_native(read));
        let alike = native && demand.bytes == self.like.all(1, number).bytes;
        let like = |tokens, number| self.like.all(tokens, number);
        let point = (whole(tokens), number);
        let (time, basis) = timed(&processor, table, point, like, (!alike).then_some(demand));
        booked.add(Kind::Blocks, basis, time, self.limit(demand));
        Kernel::lasting(&processor, time.saturating_sub(processor.launch))
    }

    /// Blocks one after the other, on the accelerator or on a processor beside other memories: those that were measured, and then the
    /// others together.
    fn one_by_one(&self, by: Option<ProcessorId>, reads: &[Read], booked: &mut Booked) -> Kernel {
        let processor = self.machine.processor(by);
        let kind = if by.is_some() { Kind::InPlace } else { Kind::Blocks };
        let mut sums = [(Nanos::ZERO, Demand::default()); 3];
        let mut launch = processor.launch;
        for read in reads {
            let demand = self.demand(read);
            let known = self.measured_block(by, read, demand);
            if known.is_some_and(|known| known.launched) {
                launch = Nanos::ZERO;
            }
            let (time, basis) =
                known.map_or((Nanos::ZERO, Basis::Roofline), |known| (known.time, known.basis));
            let (sum, all) = &mut sums[basis as usize];
            *sum += time;
            *all = all.plus(demand);
        }
        let [measured, fitted, rest] = &mut sums;
        rest.0 = rest.1.roofline(&processor);
        let rest = rest.1;
        let known = measured.0 + fitted.0;
        let bases = [Basis::Measured, Basis::Fitted, Basis::Roofline];
        let ran = sums.into_iter().zip(bases).filter(|((_, demand), _)| demand.operations > 0);
        // The launch belongs to whatever comes first, unless it is in the times that were measured.
        let mut not_booked = launch;
        for ((time, demand), basis) in ran {
            let limit = if by.is_some() { demand.roofline(&processor) } else { self.limit(demand) };
            booked.add(kind, basis, time + std::mem::take(&mut not_booked), limit);
        }
        let included = processor.launch.saturating_sub(launch);
        rest.kernel(&processor).after(&processor, known.saturating_sub(included))
    }

    /// What a block asks for the tokens that go through it, in the format that is read.
    fn demand(&self, read: &Read) -> Demand {
        Demand {
            bytes: self.sizes.bytes(read.block, read.form.format),
            operations: self.sizes.elements(read.block).saturating_mul(2 * u64::from(read.tokens)),
        }
    }

    fn is_native(&self, read: &Read) -> bool {
        read.form.format == self.model.block(read.block).native
    }

    /// The time of one block, from its table or from rates by format.
    fn measured_block(&self, by: Option<ProcessorId>, read: &Read, demand: Demand) -> Option<Known> {
        let table = self.times.of(Operator::Expert).filter(|_| by.is_none() && self.like.routed);
        if let Some(table) = table {
            let alike = self.is_native(read) && demand.bytes == self.like.block.bytes;
            let like = |tokens, _| self.like.one(tokens);
            let processor = &self.machine.accelerator;
            let (time, basis) = timed(processor, table, (read.tokens, 0), like, (!alike).then_some(demand));
            return Some(Known { time, basis, launched: true });
        }
        let rate = self.machine.kernel(by, read.form.format)?;
        let basis = if rate.reaches(read.tokens) { Basis::Measured } else { Basis::Fitted };
        Some(Known { time: rate.time(demand.bytes, read.tokens), basis, launched: false })
    }
}

/// The time of a block that was measured.
#[derive(Clone, Copy)]
struct Known {
    time: Nanos,
    basis: Basis,
    /// Whether launches are in it.
    launched: bool,
}

/// Whether two layers' mixers ask for the same.
fn same_mixer(one: &Layer, other: &Layer) -> bool {
    let of = |layer: &Layer| {
        (layer.resident, layer.flops_per_token, layer.flops_per_pair, layer.kv_per_token, layer.state)
    };
    of(one) == of(other)
}

/// A number of tokens or requests as tables count them.
fn whole(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
