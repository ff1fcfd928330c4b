//! How fast copies go past the host: between two accelerators, and between files and an accelerator with GPUDirect Storage
//! and without. One JSON document.
//!
//! `path_rates [DEVICE] [FOLDER]`: the number of the device that computes, by default 0, and where files are made. The
//! other device is the first one beside it; without one, or without the library, those paths are left out and `notes`
//! says why. A rate is the bytes of a block over the median of the times that moves of blocks in turn are reported with.

use hw::content::Contents;
use hw::cuda::Cuda;
use hw::cuda::gpu::Gpu;
use hw::device::{Device, Setup};
use hw::engine::Engine;
use policy::event::{Command, EncodeAt, Form, MoveChunk, MoveClass};
use policy::machine::{Backing, Class, Link, Machine, Processor, Tier};
use policy::model::{Block, BlockKind, Layer, Matrix, Model};
use policy::units::{Bandwidth, Bytes, FlopRate, Nanos};
use policy::{BlockId, FormatId, LayerId, MoveId, Rate, TierId};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

type Failure = Box<dyn std::error::Error>;

const HBM: TierId = TierId(0);
const BLOCKS: u32 = 12;
const COLUMNS: u64 = 1024;
const SIZES: [u64; 3] = [1 << 20, 4 << 20, 16 << 20];

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let number: u32 = arguments.next().map_or(Ok(0), |number| number.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let (mut rates, mut notes) = (Vec::new(), BTreeSet::new());
    match [0, 1].into_iter().find(|&peer| peer != number && Gpu::open(peer).is_ok()) {
        Some(peer) => paths(&Cuda::open(number, &folder)?, ("peer", Some(peer)), &mut rates, &mut notes)?,
        None => drop(notes.insert("there is no second device".to_owned())),
    }
    for engine in [Cuda::open(number, &folder)?, Cuda::open(number, &folder)?.through_host()] {
        paths(&engine, ("nvme", None), &mut rates, &mut notes)?;
    }
    println!("{}", serde_json::to_string_pretty(&json!({ "paths": rates, "notes": notes }))?);
    Ok(())
}

/// Blocks of every size moved from a tier to fast memory and back.
fn paths(
    engine: &Cuda,
    (name, peer): (&str, Option<u32>),
    rates: &mut Vec<Value>,
    notes: &mut BTreeSet<String>,
) -> Result<(), Failure> {
    for size in SIZES {
        let (machine, model) = (machine(name, peer, size), model(size));
        let form = |tier| Form { tier, format: FormatId::BF16 };
        let (fast, other) = (form(HBM), form(TierId(1)));
        let copies: Vec<_> = (0..BLOCKS).map(|block| (BlockId(block), other)).collect();
        let setup = Setup {
            machine: &machine,
            contents: Contents::new(&model, 1).into(),
            copies: &copies,
            budgets: &[],
            cache: Bytes::ZERO,
            tokens: 1,
            check_reads: false,
        };
        let mut device = Device::new(engine, setup)?;
        notes.extend(device.notes());
        for (from, to, id) in [(other, fast, 0), (fast, other, u64::from(BLOCKS))] {
            let mut times = Vec::new();
            for (id, block) in (id..).map(MoveId).zip((0..BLOCKS).map(BlockId)) {
                device.submit(&whole(id, block, from, to, size))?;
                times.push(device.wait(id)?.took);
                // The way back is to a copy that is not there.
                device.submit(&Command::Drop { block, form: from })?;
            }
            times.sort();
            let median = times[times.len() / 2];
            let tier = |form: Form| machine.tier(form.tier).name.clone();
            rates.push(json!({
                "from": tier(from), "to": tier(to), "engine": engine.name(), "bytes": size,
                "median_us": median.0 as f64 / 1e3, "gb_s": size as f64 / median.0.max(1) as f64,
            }));
        }
    }
    Ok(())
}

fn whole(id: MoveId, block: BlockId, from: Form, to: Form, size: u64) -> Command {
    let (encode_at, class) = (EncodeAt::Source, MoveClass::Demand);
    let (offset, len) = (Bytes::ZERO, Bytes(size));
    Command::Move(MoveChunk {
        id,
        block,
        from: from.into(),
        to,
        keep: None,
        encode_at,
        class,
        deadline: None,
        offset,
        len,
        last: true,
    })
}

/// Fast memory, and one tier beside it.
fn machine(name: &str, device: Option<u32>, size: u64) -> Machine {
    let rate = Bandwidth(1_000_000_000);
    let backing = if device.is_some() { Backing::Device } else { Backing::File };
    let tier = |name: &str, class, backing, device| Tier {
        name: name.into(),
        capacity: Bytes(u64::from(BLOCKS) * size),
        class,
        backing,
        node: None,
        device,
        transient: false,
        endurance: None,
        granularity: Bytes(4096),
        read: rate,
        write: rate,
    };
    let link = |from, to| Link {
        name: "link".into(),
        from,
        to,
        latency: Nanos::ZERO,
        submit: Nanos::ZERO,
        rate: Rate::with_half_size(rate, Bytes::ZERO),
        duplex: rate,
        engines: 1,
        opposite: None,
    };
    Machine {
        name: "measured".into(),
        tiers: vec![
            tier("hbm", Class::Fast, Backing::Device, None),
            tier(name, if device.is_some() { Class::Staged } else { Class::Cold }, backing, device),
        ],
        links: vec![link(TierId(1), HBM), link(HBM, TierId(1))],
        accelerator: Processor { flops: FlopRate(1), read: rate, launch: Nanos::ZERO },
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

/// Blocks of one matrix of `size` bytes in bf16.
fn model(size: u64) -> Model {
    let matrices: Arc<[Matrix]> = [Matrix { rows: size / 2 / COLUMNS, columns: COLUMNS }].into();
    let block = |index| Block {
        kind: BlockKind::Dense,
        layer: LayerId(0),
        index,
        matrices: matrices.clone(),
        native: FormatId::BF16,
        mixed: None,
        recipe: None,
    };
    let layer = Layer { blocks: BLOCKS, selected: 1, ..Layer::default() };
    Model {
        name: "measured".into(),
        layers: vec![layer],
        blocks: (0..BLOCKS).map(block).collect(),
        ..Model::default()
    }
}
