//! A small machine and model for the tests, and short ways to say commands.

use crate::engine::engine;
use crate::timeline::Timeline;
use hw::content::Contents;
use hw::device::{Device, Setup};
use hw::lockstep::{Lockstep, LockstepError, LockstepReport};
use policy::event::{Command, EncodeAt, Form, MoveChunk, MoveClass, Part, Platform, Read, Source};
use policy::machine::{Backing, Class, Link, Processor, Tier};
use policy::model::{Block, BlockKind, Layer, Matrix};
use policy::units::{Bandwidth, Bytes, FlopRate, Nanos};
use policy::{BlockId, FormatId, LayerId, Machine, Model, MoveId, Rate, TierId};
use std::convert::Infallible;

pub(crate) const HBM: TierId = TierId(0);
pub(crate) const DRAM: TierId = TierId(1);
pub(crate) const DISK: TierId = TierId(2);
/// No link leads there.
pub(crate) const APART: TierId = TierId(3);
/// Another accelerator's memory, where there is one to try: see [`PEER_DEVICE`].
pub(crate) const PEER: TierId = TierId(4);
/// Names the number of the accelerator that holds [`PEER`]; without it, that is the one that computes.
pub(crate) const PEER_DEVICE: &str = "HOTSET_TEST_PEER";
pub(crate) const GRANULARITY: u64 = 256;
pub(crate) const BLOCKS: u32 = 6;
pub(crate) const LINKS: [(TierId, TierId); 9] = [
    (DRAM, HBM),
    (HBM, DRAM),
    (DISK, DRAM),
    (HBM, DISK),
    (DISK, HBM),
    (PEER, HBM),
    (HBM, PEER),
    (DRAM, PEER),
    (PEER, DISK),
];
/// Every block's home copy and the one encoded ahead.
pub(crate) const COPIES_AT_START: u64 = 2 * BLOCKS as u64;

pub(crate) fn form_of(name: &str) -> FormatId {
    FormatId::named(name).unwrap()
}

pub(crate) fn form(tier: TierId, name: &str) -> Form {
    Form { tier, format: form_of(name) }
}

/// An odd number of elements, so that no plane ends where a page does.
pub(crate) fn block(index: u32) -> Block {
    let native = form_of("bf16");
    let matrices = [Matrix { rows: 17, columns: 231 }, Matrix { rows: 8, columns: 134 }].into();
    Block { kind: BlockKind::Expert, layer: LayerId(0), index, matrices, native, mixed: None, recipe: None }
}

pub(crate) fn bytes(index: u32, format: FormatId) -> Bytes {
    block(index).bytes(format)
}

pub(crate) fn model() -> Model {
    model_of((0..BLOCKS).map(block).collect())
}

/// One layer of these blocks.
pub(crate) fn model_of(blocks: Vec<Block>) -> Model {
    let layer = Layer { blocks: blocks.len() as u32, selected: 2, ..Layer::default() };
    Model { name: "small".into(), layers: vec![layer], blocks, ..Model::default() }
}

fn tier(name: &str, capacity: u64, class: Class, backing: Backing) -> Tier {
    // Files are read past the page cache only in whole pages.
    let granularity = Bytes(if backing == Backing::File { 4096 } else { GRANULARITY });
    let capacity = Bytes(capacity).round_up(granularity);
    let rate = Bandwidth(1_000_000_000);
    Tier {
        name: name.into(),
        capacity,
        class,
        backing,
        node: None,
        device: None,
        transient: false,
        endurance: None,
        granularity,
        read: rate,
        write: rate,
    }
}

fn link(from: TierId, to: TierId) -> Link {
    let rate = Bandwidth(1_000_000_000);
    Link {
        name: "link".into(),
        from,
        to,
        latency: Nanos::ZERO,
        submit: Nanos::ZERO,
        rate: Rate::with_half_size(rate, Bytes::ZERO),
        duplex: rate,
        engines: 1,
        opposite: None,
    }
}

/// `hbm` bytes of fast memory, enough of the others. Blocks spill to disk and come up directly or through DRAM.
pub(crate) fn machine(hbm: u64) -> Machine {
    let device = std::env::var(PEER_DEVICE).ok().map(|number| number.parse().unwrap());
    Machine {
        name: "small".into(),
        tiers: vec![
            tier("hbm", hbm, Class::Fast, Backing::Device),
            tier("dram", 1 << 20, Class::Staged, Backing::Pinned),
            tier("disk", 1 << 20, Class::Cold, Backing::File),
            tier("apart", 1 << 20, Class::Staged, Backing::Pinned),
            Tier { device, ..tier("peer", 1 << 20, Class::Staged, Backing::Device) },
        ],
        links: LINKS.map(|(from, to)| link(from, to)).to_vec(),
        accelerator: Processor { flops: FlopRate(1), read: Bandwidth(1), launch: Nanos::ZERO },
        codecs: vec![],
        host_codecs: vec![],
        near: vec![],
        kernels: vec![],
        peak: None,
        times: vec![],
        peers: None,
        merge: None,
    }
}

/// The copies before the run.
pub(crate) fn copies() -> Vec<(BlockId, Form)> {
    let forms = [form(DISK, "bf16"), form(DRAM, "int4_g32")];
    (0..BLOCKS).flat_map(|block| forms.map(|form| (BlockId(block), form))).collect()
}

pub(crate) fn device(hbm: u64, seed: u64) -> Device {
    let setup = Setup {
        machine: &machine(hbm),
        contents: Contents::new(&model(), seed).into(),
        copies: &copies(),
        budgets: &[],
        cache: Bytes::ZERO,
        tokens: 1,
        check_reads: true,
    };
    Device::new(&*engine(), setup).unwrap()
}

pub(crate) struct World {
    pub(crate) platform: Lockstep<Timeline>,
}

impl World {
    pub(crate) fn new(hbm: u64) -> World {
        World { platform: Lockstep::new(Timeline::default(), device(hbm, 7)) }
    }

    pub(crate) fn submit(&mut self, command: Command) -> Result<(), LockstepError<Infallible>> {
        self.platform.submit(command)
    }

    pub(crate) fn next(&mut self) {
        self.platform.next_event().unwrap().unwrap();
    }

    /// Submits a command and waits for its one event.
    pub(crate) fn run(&mut self, command: Command) {
        self.submit(command).unwrap();
        self.next();
    }

    pub(crate) fn compute(&mut self, reads: &[(u32, Form)]) {
        self.run(compute_command(reads));
    }

    /// Moves a block in `count` chunks.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn chunks(
        &mut self,
        id: u64,
        block: u32,
        from: Form,
        to: Form,
        at: EncodeAt,
        total: Bytes,
        count: u64,
    ) {
        let step = total.0.div_ceil(count);
        for offset in (0..total.0).step_by(step as usize) {
            let len = step.min(total.0 - offset);
            self.run(chunk(id, block, from, to, at, offset, len, offset + len == total.0));
        }
    }

    pub(crate) fn finish(self) -> Result<LockstepReport, LockstepError<Infallible>> {
        self.platform.finish()
    }
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn chunk(
    id: u64,
    block: u32,
    from: impl Into<Source>,
    to: Form,
    encode_at: EncodeAt,
    offset: u64,
    len: u64,
    last: bool,
) -> Command {
    Command::Move(MoveChunk {
        id: MoveId(id),
        block: BlockId(block),
        from: from.into(),
        to,
        keep: None,
        encode_at,
        class: MoveClass::Demand,
        deadline: None,
        offset: Bytes(offset),
        len: Bytes(len),
        last,
    })
}

/// A move in one chunk.
pub(crate) fn whole(id: u64, block: u32, from: Form, to: Form, at: EncodeAt) -> Command {
    let crossing = if at == EncodeAt::Source { to } else { from };
    chunk(id, block, from, to, at, 0, bytes(block, crossing.format).0, true)
}

pub(crate) fn drop_copy(block: u32, form: Form) -> Command {
    Command::Drop { block: BlockId(block), form }
}

pub(crate) fn cancel(id: u64) -> Command {
    Command::Cancel { id: MoveId(id) }
}

pub(crate) fn compute_command(reads: &[(u32, Form)]) -> Command {
    let read = |&(block, form): &(u32, Form)| Read { block: BlockId(block), form, tokens: 1 };
    Command::Compute {
        mixers: 0..0,
        layer: LayerId(0),
        part: Part::Experts,
        batch: [].into(),
        reads: reads.iter().map(read).collect(),
        through: None,
    }
}
