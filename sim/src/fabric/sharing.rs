//! Who shares what: every link direction and every memory is a resource; classes of flows cross some of them.

use super::class::{Class, Use, fixed, fixed_work, time_for};
use super::fill::Resources;
use policy::machine::{Link, Tier};
use policy::{Bandwidth, Bytes, LinkId, Machine, Nanos, Path, TierId, Time};

/// How a memory is shared: reads at rate r and writes at rate w fit while r / read + w / write <= 1. Capacity is the read
/// rate, so that a write takes `writing` of it.
#[derive(Clone, Copy, Debug)]
struct Bus {
    capacity: u64,
    writing: f64,
    /// Whether all links of the memory at once can fill it.
    scarce: bool,
    resource: u16,
}

/// What a read takes.
const READING: f64 = 1.0;
/// Weights are multiples of the inverse, so that sums of them are exact: what is taken out leaves nothing behind.
const WEIGHT_STEPS: f64 = (1u64 << 30) as f64;

impl Bus {
    /// The memories of a machine. As resources they come after its links, and the scarce ones first.
    fn all(machine: &Machine) -> Vec<Bus> {
        let tiers = (0..).map(TierId).zip(&machine.tiers);
        let mut buses: Vec<Bus> = tiers.map(|(id, tier)| Bus::new(machine, id, tier)).collect();
        let mut order: Vec<&mut Bus> = buses.iter_mut().collect();
        order.sort_by_key(|bus| !bus.scarce);
        for (place, bus) in order.into_iter().enumerate() {
            bus.resource = (machine.links.len() + place) as u16;
        }
        buses
    }

    fn new(machine: &Machine, id: TierId, tier: &Tier) -> Bus {
        let (read, write) = (fixed(tier.read), fixed(tier.write));
        let writing = read as f64 / write as f64;
        let writing = libm::ceil(writing * WEIGHT_STEPS) / WEIGHT_STEPS;
        let demand = |link: &Link| {
            let weight = match id {
                _ if link.from == id => READING,
                _ if link.to == id => writing,
                _ => 0.0,
            };
            fixed(link.rate.peak()) as f64 * weight
        };
        let scarce = machine.links.iter().map(demand).sum::<f64>() > read as f64;
        Bus { capacity: read, writing, scarce, resource: 0 }
    }
}

/// What a link direction carries, alone and against the other one.
#[derive(Clone, Copy, Debug)]
struct Width {
    alone: u64,
    opposed: u64,
    /// What others take of it.
    taken: u64,
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
    /// The read rates of memories, and which resources they are.
    memories: Vec<(Bandwidth, u16)>,
    /// Link directions, then memories.
    resources: Resources,
    /// One a path, then those of `readers`.
    classes: Vec<Class>,
    readers: Vec<Reader>,
    paths: usize,
    /// The classes with flows.
    active: Vec<u16>,
    /// When the first flow ends, as of the last settling.
    next_end: Time,
    /// Something has changed since rates were worked out.
    changed: bool,
}

impl Sharing {
    pub(super) fn new(machine: &Machine, paths: &[Path]) -> Sharing {
        let buses = Bus::all(machine);
        let width = |link: &Link| {
            let alone = fixed(link.rate.peak());
            Width { alone, opposed: fixed(link.duplex).min(alone), taken: 0 }
        };
        let widths: Vec<Width> = machine.links.iter().map(width).collect();
        let mut capacity: Vec<u64> = widths.iter().map(|width| width.alone).collect();
        capacity.resize(widths.len() + buses.len(), 0);
        buses.iter().for_each(|bus| capacity[usize::from(bus.resource)] = bus.capacity);
        let scarce = widths.len() + buses.iter().filter(|bus| bus.scarce).count();
        let mut resources = Resources::new(capacity, scarce);
        let classes: Vec<Class> = paths.iter().map(|path| class_of(machine, &buses, path)).collect();
        for (index, class) in (0..).zip(&classes) {
            resources.set_class(index, class.uses(true));
        }
        Sharing {
            resources,
            widths,
            memories: machine.tiers.iter().zip(&buses).map(|(tier, bus)| (tier.read, bus.resource)).collect(),
            classes,
            readers: Vec::new(),
            paths: paths.len(),
            active: Vec::new(),
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
        let (read, resource) = self.memories[tier.index()];
        let class = Class::new(most, read, vec![Use { resource, weight: READING }], 1);
        let reader = Reader { tier, most };
        let place = idle().unwrap_or(self.readers.len());
        if place == self.readers.len() {
            self.readers.push(reader);
            self.classes.push(class);
        } else {
            self.readers[place] = reader;
            self.classes[self.paths + place] = class;
        }
        let index = (self.paths + place) as u16;
        self.resources.set_class(index, self.classes[usize::from(index)].uses(true));
        index
    }

    /// Tells whether the other direction of a link has an engine busy.
    pub(super) fn set_opposed(&mut self, link: LinkId, opposed: bool) {
        let Width { alone, opposed: less, taken } = self.widths[link.index()];
        let carries = if opposed { less } else { alone };
        self.resources.set_capacity(link.index(), carries.saturating_sub(taken).max(1));
        self.changed = true;
    }

    /// Others take so much of a link direction from here on.
    pub(super) fn take(&mut self, link: LinkId, rate: Bandwidth, opposed: bool) {
        self.widths[link.index()].taken = fixed(rate);
        self.set_opposed(link, opposed);
    }

    /// The time that a flow takes which has all it crosses to itself.
    pub(super) fn alone(&mut self, class: u16, work: Bytes) -> Nanos {
        let flows = &self.classes[usize::from(class)];
        self.resources.fill_alone(class, flows, self.widths.len());
        time_for(fixed_work(work), self.resources.rate(class))
    }

    /// A flow begins.
    pub(super) fn join(&mut self, now: Time, class: u16, work: Bytes, job: u32) {
        let flows = &mut self.classes[usize::from(class)];
        if flows.len() == 0 {
            self.active.push(class);
        }
        flows.join(now, work, job);
        self.resources.add(flows.uses(true));
        self.changed = true;
    }

    /// Works out the rates from now on, if anything has changed.
    pub(super) fn settle(&mut self, now: Time) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let read = self.active.iter().any(|&class| usize::from(class) >= self.paths);
        match self.active[..] {
            [only] => self.resources.fill_alone(only, &self.classes[usize::from(only)], self.widths.len()),
            _ => self.resources.fill(&self.classes, &self.active, read),
        }
        self.next_end = Time(u64::MAX);
        for &index in &self.active {
            let class = &mut self.classes[usize::from(index)];
            class.set_rate(now, self.resources.rate(index));
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
            let flows = class.len();
            class.take_ended(now, ended);
            if class.len() < flows {
                self.resources.remove(class.uses(true), flows - class.len());
            }
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
    let links = path.links.iter().map(|link| Use { resource: u16::from(link.0), weight: 1.0 });
    let bus = |tier: TierId| buses[tier.index()];
    let through = path.links.iter().skip(1).map(|&link| machine.link(link).from);
    let passing = through.map(|tier| (tier, READING + bus(tier).writing));
    let ends = [(path.from, READING), (path.to, bus(path.to).writing)];
    let memory = |(tier, weight): (TierId, f64)| Use { resource: bus(tier).resource, weight };
    let (scarce, ample): (Vec<_>, Vec<_>) = passing.chain(ends).partition(|&(tier, _)| bus(tier).scarce);
    let mut uses: Vec<Use> = links.chain(scarce.into_iter().map(memory)).collect();
    let scarce = uses.len();
    uses.extend(ample.into_iter().map(memory));
    Class::new(path.peak, path.peak, uses, scarce)
}
