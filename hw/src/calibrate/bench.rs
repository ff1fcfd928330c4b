//! Devices for measurements: the tiers of a machine, and blocks that are there to be moved and multiplied.

use super::{Plan, TIERS};
use crate::content::Contents;
use crate::device::{Device, Setup};
use crate::engine::Engine;
use crate::refusal::DeviceError;
use policy::event::{Command, EncodeAt, Form, MoveChunk, MoveClass, Part, Read, Source};
use policy::machine::{Class, Link, NearProcessor, Processor, Tier};
use policy::model::{Block, BlockKind, Layer, Matrix};
use policy::units::{Bandwidth, Bytes, FlopRate, Nanos};
use policy::{BlockId, FormatId, LayerId, Machine, Model, MoveId, Rate, TierId};
use std::cell::Cell;
use std::sync::Arc;

pub(super) const FAST: TierId = TierId(0);
pub(super) const DRAM: TierId = TierId(1);
pub(super) const DISK: TierId = TierId(2);

pub(super) struct Bench<'a> {
    engine: &'a dyn Engine,
    pub(super) plan: &'a Plan,
    moves: Cell<u64>,
}

/// Rates that no device looks at.
fn any() -> Bandwidth {
    Bandwidth(1_000_000_000)
}

impl<'a> Bench<'a> {
    pub(super) fn new(engine: &'a dyn Engine, plan: &'a Plan) -> Bench<'a> {
        Bench { engine, plan, moves: Cell::new(0) }
    }

    /// A device with these blocks, each with the copies given. Memory is what the copies take, once more in every tier.
    pub(super) fn device(
        &self,
        blocks: Vec<Block>,
        copies: &[(BlockId, Form)],
    ) -> Result<Device, DeviceError> {
        let machine = machine();
        let bytes: Bytes = copies.iter().map(|(id, form)| blocks[id.index()].bytes(form.format)).sum();
        let native: Bytes = blocks.iter().map(|block| block.bytes(block.native)).sum();
        let slack = Bytes(2 * GRANULARITY.0 * (copies.len() + blocks.len()) as u64);
        let room = bytes + native + slack;
        let on_disk = copies.iter().any(|(_, form)| form.tier == DISK) || self.plan.capacity[2] > Bytes::ZERO;
        let budgets = [room, room, if on_disk { room } else { Bytes::ZERO }];
        let contents = Arc::new(Contents::new(&model(blocks), SEED));
        let setup = Setup {
            machine: &machine,
            contents,
            copies,
            budgets: &budgets,
            cache: Bytes::ZERO,
            tokens: self.plan.tokens.iter().copied().max().unwrap_or(0),
            check_reads: false,
        };
        Device::new(self.engine, setup)
    }

    /// A move of a whole block in one chunk.
    pub(super) fn move_of(
        &self,
        device: &Device,
        block: BlockId,
        from: impl Into<Source>,
        to: Form,
    ) -> (MoveId, Command) {
        let from = from.into();
        let data = device.contents().block(block);
        let id = MoveId(self.moves.replace(self.moves.get() + 1));
        let chunk = MoveChunk {
            id,
            block,
            from,
            to,
            keep: None,
            encode_at: EncodeAt::Destination,
            class: MoveClass::Demand,
            deadline: None,
            offset: Bytes::ZERO,
            len: data.bytes(from.copy().map_or(data.native, |form| form.format)),
            last: true,
        };
        (id, Command::Move(chunk))
    }

    /// Moves each block in turn, waits for each, drops what was made, and gives the times.
    pub(super) fn round(
        &self,
        device: &mut Device,
        blocks: &[BlockId],
        from: impl Into<Source> + Copy,
        to: Form,
    ) -> Result<Vec<Nanos>, DeviceError> {
        let mut times = Vec::with_capacity(blocks.len());
        for &block in blocks {
            let (id, command) = self.move_of(device, block, from, to);
            device.submit(&command)?;
            times.push(device.wait(id)?.took);
        }
        for &block in blocks {
            device.submit(&Command::Drop { block, form: to })?;
        }
        Ok(times)
    }
}

const SEED: u64 = 1;
const GRANULARITY: Bytes = Bytes(4096);

/// Tiers in a row, each linked with the next.
fn machine() -> Machine {
    let tier = |&(name, class, backing): &(&str, Class, _)| Tier {
        name: name.into(),
        capacity: Bytes(1 << 50),
        class,
        backing,
        node: None,
        device: None,
        transient: false,
        endurance: None,
        granularity: GRANULARITY,
        read: any(),
        write: any(),
    };
    let link = |from, to| Link {
        name: "link".into(),
        from,
        to,
        latency: Nanos::ZERO,
        submit: Nanos::ZERO,
        rate: Rate::with_half_size(any(), Bytes::ZERO),
        duplex: any(),
        engines: 1,
        opposite: None,
    };
    let processor = Processor { flops: FlopRate(1), read: any(), launch: Nanos::ZERO };
    let (name, tiers, kernels) = ("host".to_owned(), vec![DRAM], vec![]);
    let host = NearProcessor { name, tiers, of_host: true, processor, kernels };
    Machine {
        name: "measured".into(),
        tiers: TIERS.iter().map(tier).collect(),
        links: vec![link(DRAM, FAST), link(FAST, DRAM), link(DISK, DRAM), link(DRAM, DISK)],
        accelerator: processor,
        codecs: vec![],
        host_codecs: vec![],
        near: vec![host],
        kernels: vec![],
        peak: None,
        times: vec![],
        peers: None,
        merge: None,
    }
}

fn model(blocks: Vec<Block>) -> Model {
    let layer = Layer { blocks: blocks.len() as u32, selected: 1, ..Layer::default() };
    Model { name: "measured".into(), layers: vec![layer], blocks, ..Model::default() }
}

/// A block of one matrix that takes `bytes` in bf16.
pub(super) fn plain(index: u32, bytes: Bytes) -> Block {
    let columns = (bytes.0 / 2).clamp(1, 1024);
    let matrices = [Matrix { rows: bytes.0 / 2 / columns, columns }].into();
    Block {
        kind: BlockKind::Dense,
        layer: LayerId(0),
        index,
        matrices,
        native: FormatId::BF16,
        mixed: None,
        recipe: None,
    }
}

/// An expert.
pub(super) fn expert(index: u32, [hidden, width]: [u64; 2]) -> Block {
    let wide = Matrix { rows: width, columns: hidden };
    let matrices = [wide, wide, Matrix { rows: hidden, columns: width }].into();
    Block {
        kind: BlockKind::Expert,
        layer: LayerId(0),
        index,
        matrices,
        native: FormatId::BF16,
        mixed: None,
        recipe: None,
    }
}

/// A compute command that reads these copies.
pub(super) fn compute(part: Part, reads: Vec<Read>) -> Command {
    Command::Compute { mixers: 0..0, layer: LayerId(0), part, batch: [].into(), reads, through: None }
}
