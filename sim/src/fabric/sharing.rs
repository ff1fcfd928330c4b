//! Who shares what: every link direction and every memory is a resource; classes of flows cross some of them.

use super::class::{Class, Use, fixed};
use super::fill::Filling;
use policy::machine::{Link, Tier};
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

    /// Whether all links of the memory at once can fill it.
    fn can_be_filled(&self, machine: &Machine, tier: TierId) -> bool {
        let demand = |link: &Link| {
            let weight = match tier {
                _ if link.from == tier => self.reading,
                _ if link.to == tier => self.writing,
                _ => 0,
            };
            u128::from(fixed(link.rate.peak())) * u128::from(weight)
        };
        machine.links.iter().map(demand).fold(0, u128::saturating_add) > self.capacity
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
    /// When the first flow ends, as of the last settling.
    next_end: Time,
    /// Something has changed since rates were worked out.
    changed: bool,
}

impl Sharing {
    pub(super) fn new(machine: &Machine, paths: &[Path]) -> Sharing {
        let buses: Vec<Bus> = machine.tiers.iter().map(Bus::new).collect();
        let width = |link: &Link| {
            let alone = fixed(link.rate.peak());
            Width { alone, opposed: fixed(link.duplex).min(alone) }
        };
        let widths: Vec<Width> = machine.links.iter().map(width).collect();
        let alone = widths.iter().map(|width| u128::from(width.alone));
        let classes = paths.iter().map(|path| class_of(machine, &buses, path)).collect();
        Sharing {
            capacity: alone.chain(buses.iter().map(|bus| bus.capacity)).collect(),
            widths,
            buses,
            classes,
            readers: Vec::new(),
            paths: paths.len(),
            active: Vec::new(),
            filling: Filling::default(),
            next_end: Time(u64::MAX),
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
        let class = Class::new(most, vec![Use { resource, weight: self.buses[tier.index()].reading }], 1);
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
    pub(super) fn join(&mut self, now: Time, class: u16, work: Bytes, job: u32) {
        let flows = &mut self.classes[usize::from(class)];
        if flows.len() == 0 {
            self.active.push(class);
        }
        flows.join(now, work, job);
        self.changed = true;
    }

    /// Works out the rates from now on, if anything has changed.
    pub(super) fn settle(&mut self, now: Time) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let read = self.active.iter().any(|&class| usize::from(class) >= self.paths);
        let rates = self.filling.fill(&self.capacity, &self.classes, &self.active, |class| class.uses(read));
        self.next_end = Time(u64::MAX);
        for (&class, &rate) in self.active.iter().zip(rates) {
            let class = &mut self.classes[usize::from(class)];
            class.set_rate(now, rate);
            self.next_end = self.next_end.min(class.end());
        }
    }

    /// When the next flow ends at the present rates, which are settled.
    pub(super) fn next_end(&self) -> Option<Time> {
        (!self.active.is_empty()).then_some(self.next_end)
    }

    /// Takes out the flows that have ended: their jobs.
    pub(super) fn take_ended(&mut self, now: Time, ended: &mut Vec<u32>) {
        if self.next_end > now && !self.changed {
            return;
        }
        let classes = &mut self.classes;
        let mut emptied = false;
        for &class in &self.active {
            let class = &mut classes[usize::from(class)];
            class.take_ended(now, ended);
            emptied |= class.len() == 0;
        }
        if emptied {
            self.active.retain(|&class| classes[usize::from(class)].len() > 0);
        }
        self.changed |= !ended.is_empty();
    }
}

/// The flows of a path. They cross its links, the memory they are read from, those they pass through, and the one they
/// are written to.
fn class_of(machine: &Machine, buses: &[Bus], path: &Path) -> Class {
    let links = path.links.iter().map(|link| Use { resource: u16::from(link.0), weight: 1 });
    let bus = |tier: TierId| buses[tier.index()];
    let through = path.links.iter().skip(1).map(|&link| machine.link(link).from);
    let passing = through.map(|tier| (tier, bus(tier).reading + bus(tier).writing));
    let ends = [(path.from, bus(path.from).reading), (path.to, bus(path.to).writing)];
    let memory =
        |(tier, weight): (TierId, u64)| Use { resource: (machine.links.len() + tier.index()) as u16, weight };
    let (scarce, ample): (Vec<_>, Vec<_>) =
        passing.chain(ends).partition(|&(tier, _)| bus(tier).can_be_filled(machine, tier));
    let mut uses: Vec<Use> = links.chain(scarce.into_iter().map(memory)).collect();
    let scarce = uses.len();
    uses.extend(ample.into_iter().map(memory));
    Class::new(path.peak, uses, scarce)
}
