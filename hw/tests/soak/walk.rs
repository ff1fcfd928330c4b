//! A random walk over the legal commands of a device whose memories fail by plan: what a controller knows is kept
//! beside it, and must be true of the device at every step and at the end.

use hw::arena::{Arena, ArenaError};
use hw::content::Contents;
use hw::device::{Device, Setup};
use hw::engine::{Engine, LaneKind, Worker};
use hw::faults::{FAULTS, Fault, Faults};
use hw::host::Host;
use hw::refusal::DeviceError;
use policy::event::{Command, EncodeAt, Form, MoveChunk, MoveClass, Part, Read};
use policy::machine::{Backing, Class, Link, Processor, Tier};
use policy::model::{Block, BlockKind, Layer, Matrix};
use policy::units::{Bandwidth, Bytes, FlopRate, Nanos};
use policy::{BlockId, FormatId, LayerId, Machine, Model, MoveId, Rate, TierId};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Dxsm;
use std::path::Path;
use std::sync::Arc;

const HBM: TierId = TierId(0);
const DRAM: TierId = TierId(1);
const DISK: TierId = TierId(2);
const LINKS: [(TierId, TierId); 5] = [(DRAM, HBM), (HBM, DRAM), (DISK, DRAM), (DRAM, DISK), (HBM, DISK)];
/// Formats for a walk that codes; the first is the native one.
pub(crate) const CODED: &[&str] = &["bf16", "bf16_packed", "int8", "int4_g32", "mxfp4"];
/// Moves under way at once, so that most of a walk is not waiting.
const MOVING: usize = 12;

/// How large things are.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    /// How many blocks there are.
    pub(crate) blocks: u32,
    /// The formats of copies.
    pub(crate) formats: &'static [&'static str],
    /// The one matrix of a block.
    pub(crate) matrix: Matrix,
    /// Native copies that each tier has room for, in quarters.
    pub(crate) quarters: [u64; 3],
    /// Granularity of the file tier: of 4096 it is read and written past the page cache.
    pub(crate) file_granularity: u64,
}

/// What a walk did.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Changes of a block's copies: begun, published, failed, cancelled, dropped, refused for want of memory.
    pub(crate) transitions: u64,
    /// Moves whose copy was published.
    pub(crate) published: u64,
    /// Moves that failed on the way, by plan or because the block does not pack without loss.
    pub(crate) failed: u64,
    /// Moves given up.
    pub(crate) cancelled: u64,
    /// Copies dropped.
    pub(crate) dropped: u64,
    /// Moves for which an allocation failed by plan.
    pub(crate) refused: u64,
    /// Compute commands done, and failed.
    pub(crate) computes: [u64; 2],
    /// Copies found wrong when they were to be published.
    pub(crate) mismatches: u64,
    /// Failures by plan, as in [`FAULTS`].
    pub(crate) struck: Vec<(Fault, u64)>,
}

/// The host, with memories that fail.
struct Failing {
    host: Host,
    faults: Arc<Faults>,
}

impl Engine for Failing {
    fn name(&self) -> String {
        "failing host".into()
    }

    fn capacity(&self) -> [Bytes; 3] {
        self.host.capacity()
    }

    fn room(&self, needed: [Bytes; 3]) -> Result<(), DeviceError> {
        self.host.room(needed)
    }

    fn arena(&self, tier: &Tier, capacity: Bytes) -> Result<Arena, ArenaError> {
        let arena = self.host.arena(tier, capacity)?;
        arena.fail(self.faults.clone());
        Ok(arena)
    }

    fn worker(&self, lane: LaneKind, contents: &Arc<Contents>) -> Result<Box<dyn Worker>, DeviceError> {
        self.host.worker(lane, contents)
    }
}

type Copy = (BlockId, Form);

struct Moving {
    id: MoveId,
    block: BlockId,
    from: Form,
    to: Form,
    encode_at: EncodeAt,
    next: u64,
    total: u64,
    /// Chunks submitted and not waited for.
    outstanding: u64,
}

/// What a controller knows.
pub(crate) struct Walk {
    device: Device,
    machine: Machine,
    block: Block,
    blocks: u32,
    formats: Vec<FormatId>,
    faults: Arc<Faults>,
    draws: Pcg64Dxsm,
    published: Vec<Copy>,
    moving: Vec<Moving>,
    computing: bool,
    ids: u64,
    tally: Tally,
}

impl Walk {
    /// Every block is in the file tier to begin with. `plan` fails one call in so many, of each kind.
    pub(crate) fn new(size: Size, seed: u64, plan: &[(Fault, u64)], folder: &Path) -> Walk {
        let native = FormatId::named(size.formats[0]).unwrap();
        let block = Block {
            kind: BlockKind::Expert,
            layer: LayerId(0),
            index: 0,
            matrices: [size.matrix].into(),
            native,
            mixed: None,
            recipe: None,
        };
        let (machine, model) = (machine(size, block.bytes(native)), model(&block, size.blocks));
        let published: Vec<Copy> =
            (0..size.blocks).map(|id| (BlockId(id), Form { tier: DISK, format: native })).collect();
        let faults = Arc::new(Faults::new(seed, plan));
        let setup = Setup {
            machine: &machine,
            contents: Arc::new(Contents::new(&model, seed)),
            copies: &published,
            budgets: &[],
            cache: Bytes::ZERO,
            tokens: 1,
            check_reads: true,
        };
        let device =
            Device::new(&Failing { host: Host::new(folder), faults: faults.clone() }, setup).unwrap();
        faults.arm(true);
        let formats = size.formats.iter().map(|name| FormatId::named(name).unwrap()).collect();
        let draws = Pcg64Dxsm::seed_from_u64(seed);
        let (moving, tally) = (Vec::new(), Tally::default());
        Walk {
            device,
            machine,
            block,
            blocks: size.blocks,
            formats,
            faults,
            draws,
            published,
            moving,
            computing: false,
            ids: 0,
            tally,
        }
    }

    /// Walks until `transitions` have been made, then looks at everything.
    pub(crate) fn run(mut self, transitions: u64) -> Tally {
        while self.tally.transitions < transitions {
            match self.draws.random_range(0..24) {
                0..8 => self.begin(),
                8..12 => self.go_on(),
                12 => self.cancel(),
                13..16 => self.drop_copy(),
                16 => self.compute(),
                _ => self.see(),
            }
        }
        self.finish()
    }

    fn pick(&mut self, of: usize) -> usize {
        self.draws.random_range(0..of)
    }

    /// Starts a random move that a ledger would allow.
    fn begin(&mut self) {
        let source = self.pick(self.published.len());
        let (block, from) = self.published[source];
        let tier = TierId(self.pick(3) as u8);
        let format = if self.draws.random() {
            from.format
        } else {
            self.formats[self.draws.random_range(0..self.formats.len())]
        };
        let to = Form { tier, format };
        let coded = from.format != format;
        let linked = from.tier == tier || LINKS.contains(&(from.tier, tier));
        if self.moving.len() >= MOVING
            || !linked
            || coded && !from.format.keeps(self.block.native)
            || self.held().any(|copy| copy == (block, to))
            || self.bytes_held(tier) + self.rounded(to) > self.machine.tier(tier).capacity
        {
            return;
        }
        let encode_at = if self.draws.random() { EncodeAt::Source } else { EncodeAt::Destination };
        let crossing = if coded && encode_at == EncodeAt::Destination { from.format } else { format };
        let total = self.block.bytes(crossing).0;
        self.ids += 1;
        self.tally.transitions += 1;
        let id = MoveId(self.ids);
        let mut moving = Moving { id, block, from, to, encode_at, next: 0, total, outstanding: 0 };
        match self.submit_chunk(&mut moving) {
            Ok(()) => self.moving.push(moving),
            Err(DeviceError::Arena(ArenaError::NoMemory { .. })) => self.tally.refused += 1,
            Err(error) => panic!("{error}"),
        }
    }

    /// Submits the next chunk of a move, of random length.
    fn submit_chunk(&mut self, moving: &mut Moving) -> Result<(), DeviceError> {
        let left = moving.total - moving.next;
        let len = if self.draws.random() { left } else { self.draws.random_range(1..=left) };
        let Moving { id, block, from, to, encode_at, next, .. } = *moving;
        self.device.submit(&Command::Move(MoveChunk {
            id,
            block,
            from: from.into(),
            to,
            keep: None,
            encode_at,
            class: MoveClass::Demand,
            deadline: None,
            offset: Bytes(next),
            len: Bytes(len),
            last: len == left,
        }))?;
        moving.next += len;
        moving.outstanding += 1;
        Ok(())
    }

    /// Takes a random move out of the list, if it is one with more to submit.
    fn take_open(&mut self) -> Option<Moving> {
        let open = |moving: &Moving| moving.next < moving.total;
        let which = self.pick(self.moving.len().max(1));
        self.moving.get(which).is_some_and(open).then(|| self.moving.swap_remove(which))
    }

    fn go_on(&mut self) {
        if let Some(mut moving) = self.take_open() {
            self.submit_chunk(&mut moving).unwrap();
            self.moving.push(moving);
        }
    }

    fn cancel(&mut self) {
        if let Some(moving) = self.take_open() {
            self.device.submit(&Command::Cancel { id: moving.id }).unwrap();
            self.tally.transitions += 1;
            self.tally.cancelled += 1;
        }
    }

    fn drop_copy(&mut self) {
        let which = self.pick(self.published.len());
        let copy = self.published[which];
        let whole = |other: &Copy| other.0 == copy.0 && other.1.format.keeps(self.block.native);
        let last = whole(&copy) && self.published.iter().filter(|other| whole(other)).count() == 1;
        let read = |moving: &Moving| (moving.block, moving.from) == copy && moving.next < moving.total;
        if !last && !self.computing && !self.moving.iter().any(read) {
            self.device.submit(&Command::Drop { block: copy.0, form: copy.1 }).unwrap();
            self.published.swap_remove(which);
            self.tally.transitions += 1;
            self.tally.dropped += 1;
        }
    }

    fn compute(&mut self) {
        if self.computing {
            return;
        }
        let which = self.pick(self.published.len());
        let (block, form) = self.published[which];
        let (layer, reads) = (LayerId(0), vec![Read { block, form, tokens: 1 }]);
        let (part, batch, through) = (Part::Experts, [].into(), None);
        self.device.submit(&Command::Compute { mixers: 0..0, layer, part, batch, reads, through }).unwrap();
        self.computing = true;
    }

    /// Waits for something random.
    fn see(&mut self) {
        let which = self.pick(self.moving.len() + 1);
        if which < self.moving.len() {
            self.see_chunk(which);
        } else if self.computing {
            self.computing = false;
            match self.device.wait_compute(Part::Experts) {
                Ok(_) => self.tally.computes[0] += 1,
                Err(DeviceError::Job(_)) => self.tally.computes[1] += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn see_chunk(&mut self, which: usize) {
        let moving = &mut self.moving[which];
        if moving.outstanding == 0 {
            return;
        }
        moving.outstanding -= 1;
        match self.device.wait(moving.id) {
            Ok(_) if moving.outstanding == 0 && moving.next == moving.total => {
                self.published.push((moving.block, moving.to));
                self.tally.published += 1;
            }
            Ok(_) => return,
            Err(DeviceError::Job(_)) => self.tally.failed += 1,
            Err(error) => panic!("{error}"),
        }
        self.tally.transitions += 1;
        self.moving.swap_remove(which);
        // What the device counts is what the commands imply, whatever has failed.
        for tier in [HBM, DRAM, DISK] {
            let held = self.device.held(tier).unwrap();
            assert_eq!(held, self.bytes_held(tier));
            assert!(held <= self.machine.tier(tier).capacity);
        }
    }

    /// Every copy that takes memory.
    fn held(&self) -> impl Iterator<Item = Copy> + '_ {
        let coming = self.moving.iter().map(|moving| (moving.block, moving.to));
        self.published.iter().copied().chain(coming)
    }

    fn bytes_held(&self, tier: TierId) -> Bytes {
        self.held().filter(|copy| copy.1.tier == tier).map(|copy| self.rounded(copy.1)).sum()
    }

    fn rounded(&self, form: Form) -> Bytes {
        self.block.bytes(form.format).round_up(self.machine.tier(form.tier).granularity)
    }

    /// Ends all moves, with nothing failing any more, and compares the device with what is known.
    fn finish(mut self) -> Tally {
        self.faults.arm(false);
        while !self.moving.is_empty() || self.computing {
            self.go_on();
            self.see();
        }
        let found = self.device.audit().unwrap();
        let mut known = self.published.clone();
        known.sort_unstable();
        assert_eq!(found.iter().copied().collect::<Vec<_>>(), known);
        for id in (0..self.blocks).map(BlockId) {
            let whole = |copy: &Copy| copy.0 == id && copy.1.format.keeps(self.block.native);
            assert!(found.iter().any(whole), "block {} is lost", id.0);
        }
        for (index, tier) in self.machine.tiers.iter().enumerate() {
            let id = TierId(index as u8);
            assert_eq!(
                self.device.held(id).unwrap(),
                self.bytes_held(id),
                "{}: a slot has leaked",
                tier.name
            );
            assert!(self.device.totals().peak[index] <= tier.capacity);
        }
        self.tally.mismatches = self.device.totals().mismatches;
        self.tally.struck = FAULTS.map(|fault| (fault, self.faults.struck(fault))).to_vec();
        self.tally
    }
}

fn model(block: &Block, blocks: u32) -> Model {
    let layer = Layer { blocks, selected: 2, ..Layer::default() };
    let blocks = (0..blocks).map(|index| Block { index, ..block.clone() }).collect();
    Model { name: "soak".into(), layers: vec![layer], blocks, ..Model::default() }
}

fn machine(size: Size, block: Bytes) -> Machine {
    let rate = Bandwidth(1);
    let tier = |name: &str, index: usize, class, backing, granularity| Tier {
        name: name.into(),
        capacity: Bytes(block.0 * size.quarters[index] / 4).round_up(Bytes(granularity)),
        class,
        backing,
        node: None,
        device: None,
        transient: false,
        endurance: None,
        granularity: Bytes(granularity),
        read: rate,
        write: rate,
    };
    let link = |(from, to): (TierId, TierId)| Link {
        name: format!("link {}-{}", from.0, to.0),
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
        name: "soak".into(),
        tiers: vec![
            tier("hbm", 0, Class::Fast, Backing::Device, 64),
            tier("dram", 1, Class::Staged, Backing::Pinned, 64),
            tier("disk", 2, Class::Cold, Backing::File, size.file_granularity),
        ],
        links: LINKS.map(link).to_vec(),
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
