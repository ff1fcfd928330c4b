//! Who shares what: every link direction and every memory is a resource; classes of flows cross some of them.

use super::class::{Class, Use, fixed};
use super::fill::{Filling, fill};
use policy::machine::Tier;
use policy::{Bandwidth, Bytes, LinkId, Machine, Path, TierId, Time};

/// One memory's share of reads and writes: reads at rate r and writes at rate w fit while r / read + w / write <= 1. In
/// whole numbers: r * `reading` + w * `writing` <= `capacity`.
#[derive(Clone, Copy, Debug)]
struct Bus {
    capacity: u128,
    reading: u64,
    writing: u64,
}

impl Bus {
    fn new(tier: &Tier) -> Bus {
        let (read, write) = (fixed(tier.read), fixed(tier.write));
        let divisor = common_divisor(read, write);
        let (reading, writing) = (write / divisor, read / divisor);
        Bus { capacity: u128::from(read) * u128::from(reading), reading, writing }
    }
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { common_divisor(b, a % b) }
}

/// What a link direction carries, alone and against the other one.
#[derive(Clone, Copy, Debug)]
struct Width {
    alone: u64,
    opposed: u64,
}

/// A class of kernels that read a memory.
#[derive(Clone, Copy, Debug)]
struct Reader {
    tier: TierId,
    most: Bandwidth,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Sharing {
    widths: Vec<Width>,
    buses: Vec<Bus>,
    /// Of every resource: link directions, then memories.
    capacity: Vec<u128>,
    /// One a path, then those of `readers`.
    classes: Vec<Class>,
    readers: Vec<Reader>,
    paths: usize,
    /// The classes with flows.
    active: Vec<u16>,
    filling: Filling,
    /// Something has changed since rates were worked out.
    changed: bool,
}

impl Sharing {
    pub(super) fn new(machine: &Machine, paths: &[Path]) -> Sharing {
        let buses: Vec<Bus> = machine.tiers.iter().map(Bus::new).collect();
        let width = |link: &policy::machine::Link| {
            let alone = fixed(link.rate.peak());
            Width { alone, opposed: fixed(link.duplex).min(alone) }
        };
        let widths: Vec<Width> = machine.links.iter().map(width).collect();
        let alone = widths.iter().map(|width| u128::from(width.alone));
        let classes = paths.iter().map(|path| Class::new(path.peak, uses(machine, &buses, path))).collect();
        Sharing {
            capacity: alone.chain(buses.iter().map(|bus| bus.capacity)).collect(),
            widths,
            buses,
            classes,
            readers: Vec::new(),
            paths: paths.len(),
            active: Vec::new(),
            filling: Filling::default(),
            changed: false,
        }
    }

    /// The class of kernels that read a memory, each at most this fast. A class without flows is used anew.
    pub(super) fn reader(&mut self, tier: TierId, most: Bandwidth) -> u16 {
        let same = |reader: &Reader| reader.tier == tier && reader.most == most;
        let known = self.readers.iter().position(same);
        let idle = || self.classes[self.paths..].iter().position(|class| class.len() == 0);
        if let Some(place) = known {
            return (self.paths + place) as u16;
        }
        let resource = (self.widths.len() + tier.index()) as u16;
        let class = Class::new(most, vec![Use { resource, weight: self.buses[tier.index()].reading }]);
        let reader = Reader { tier, most };
        let place = idle().unwrap_or(self.readers.len());
        if place == self.readers.len() {
            self.readers.push(reader);
            self.classes.push(class);
        } else {
            self.readers[place] = reader;
            self.classes[self.paths + place] = class;
        }
        (self.paths + place) as u16
    }

    /// Tells whether the other direction of a link has an engine busy.
    pub(super) fn set_opposed(&mut self, link: LinkId, opposed: bool) {
        let Width { alone, opposed: less } = self.widths[link.index()];
        self.capacity[link.index()] = u128::from(if opposed { less } else { alone });
        self.changed = true;
    }

    /// A flow begins.
    pub(super) fn join(&mut self, now: Time, class: u16, work: Bytes, order: u64, job: u32) {
        let flows = &mut self.classes[usize::from(class)];
        if flows.len() == 0 {
            self.active.push(class);
        }
        flows.join(now, work, order, job);
        self.changed = true;
    }

    /// Works out the rates from now on, if anything has changed.
    pub(super) fn settle(&mut self, now: Time) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        fill(&self.capacity, &self.classes, &self.active, &mut self.filling);
        for (&class, &rate) in self.active.iter().zip(self.filling.rates()) {
            self.classes[usize::from(class)].set_rate(now, rate);
        }
    }

    /// When the next flow ends at the present rates.
    pub(super) fn next_end(&self) -> Option<Time> {
        self.active.iter().map(|&class| self.classes[usize::from(class)].end()).min()
    }

    /// Takes out the flows that have ended: their order and their job.
    pub(super) fn take_ended(&mut self, now: Time, ended: &mut Vec<(u64, u32)>) {
        let (classes, before) = (&mut self.classes, ended.len());
        self.active.retain(|&class| {
            let class = &mut classes[usize::from(class)];
            class.take_ended(now, ended);
            class.len() > 0
        });
        self.changed |= ended.len() > before;
    }
}

/// What a path crosses: its links, the memory it is read from, those it passes through, and the one it is written to.
fn uses(machine: &Machine, buses: &[Bus], path: &Path) -> Vec<Use> {
    let links = path.links.iter().map(|link| Use { resource: u16::from(link.0), weight: 1 });
    let memory =
        |tier: TierId, weight: u64| Use { resource: (machine.links.len() + tier.index()) as u16, weight };
    let bus = |tier: TierId| buses[tier.index()];
    let through = path.links.iter().skip(1).map(|&link| machine.link(link).from);
    let passing = through.map(|tier| memory(tier, bus(tier).reading + bus(tier).writing));
    let ends = [memory(path.from, bus(path.from).reading), memory(path.to, bus(path.to).writing)];
    links.chain(passing).chain(ends).collect()
}
