//! Ways between memories: the links a copy crosses, one after the other, as one pipelined flow.

use crate::id::{LinkId, TierId};
use crate::machine::Machine;
use crate::rate::Rate;
use crate::units::{Bandwidth, Bytes, Nanos};

/// The most link directions a machine may have: the bits of a word, but for one.
pub const MAX_LINKS: usize = 127;

/// A set of link directions, and the accelerator's workshop, which takes one piece of work after another as a link does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkSet(u128);

impl LinkSet {
    /// No link: a change of format within a memory.
    pub const NONE: LinkSet = LinkSet(0);

    /// Where recipes are followed.
    pub const WORKSHOP: LinkSet = LinkSet(1 << MAX_LINKS);

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the two have a link in common.
    pub fn overlaps(self, other: LinkSet) -> bool {
        self.0 & other.0 != 0
    }

    /// The directions, in the machine's order.
    pub fn iter(self) -> impl Iterator<Item = LinkId> {
        (0..MAX_LINKS as u8).filter(move |&link| self.0 >> link & 1 == 1).map(LinkId)
    }

    /// The directions of both.
    pub fn union(self, other: LinkSet) -> LinkSet {
        LinkSet(self.0 | other.0)
    }
}

impl FromIterator<LinkId> for LinkSet {
    fn from_iter<I: IntoIterator<Item = LinkId>>(links: I) -> LinkSet {
        LinkSet(links.into_iter().fold(0, |set, link| set | 1 << (link.index() % MAX_LINKS)))
    }
}

/// The links from one tier to another. Latencies and submit costs add up; the bytes flow through all links at once, at
/// the pace of the slowest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where bytes come from.
    pub from: TierId,
    /// Where they go.
    pub to: TierId,
    /// The links, in order.
    pub links: Vec<LinkId>,
    /// The same as a set.
    pub set: LinkSet,
    /// Time before the first byte arrives.
    pub latency: Nanos,
    /// Cost of handing one copy over.
    pub submit: Nanos,
    /// The most that links and memories on the way carry for one flow.
    pub peak: Bandwidth,
    rates: Vec<Rate>,
}

impl Path {
    fn new(machine: &Machine, from: TierId, links: Vec<LinkId>) -> Path {
        let over = || links.iter().map(|&id| machine.link(id));
        let to = over().next_back().map_or(from, |link| link.to);
        let through = over().skip(1).map(|link| machine.tier(link.from).passing());
        let memories = through.chain([machine.tier(from).read, machine.tier(to).write]);
        Path {
            from,
            to,
            set: links.iter().copied().collect(),
            latency: over().fold(Nanos::ZERO, |sum, link| sum + link.latency),
            submit: over().fold(Nanos::ZERO, |sum, link| sum + link.submit),
            peak: over().map(|link| link.rate.peak()).chain(memories).min().unwrap_or(Bandwidth(1)),
            rates: over().map(|link| link.rate.clone()).collect(),
            links,
        }
    }

    /// The bytes that the path's peak carries in the time of a copy of `bytes`.
    pub fn work(&self, bytes: Bytes) -> Bytes {
        let of = |rate: &Rate| {
            let work = rate.work(bytes);
            if rate.peak() == self.peak {
                return work;
            }
            let scaled = (u128::from(work.0) * u128::from(self.peak.0)).div_ceil(rate.peak().0.max(1).into());
            Bytes(u64::try_from(scaled).unwrap_or(u64::MAX))
        };
        self.rates.iter().map(of).max().unwrap_or(bytes).max(bytes)
    }

    /// From hand-over to the last byte gone, on an idle machine.
    pub fn busy(&self, bytes: Bytes) -> Nanos {
        self.submit + self.peak.time_for(self.work(bytes))
    }

    /// From hand-over to the last byte arrived, on an idle machine.
    pub fn transfer(&self, bytes: Bytes) -> Nanos {
        self.latency + self.busy(bytes)
    }
}

/// The way from every tier to every other that can be reached: the one over the fewest links, and of several such the
/// widest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    tiers: usize,
    paths: Vec<Option<Path>>,
}

impl Paths {
    /// The paths of a machine.
    pub fn new(machine: &Machine) -> Paths {
        let tiers = machine.tiers.len();
        let mut paths = vec![None; tiers * tiers];
        for from in (0..tiers as u8).map(TierId) {
            // Breadth first: `reached` holds paths of one length before those of the next.
            let mut reached: Vec<Path> = vec![Path::new(machine, from, Vec::new())];
            let mut next = 0;
            while next < reached.len() {
                let (at, so_far) = (reached[next].to, reached[next].links.clone());
                for (id, link) in (0u8..).map(LinkId).zip(&machine.links) {
                    if link.from != at || link.to == from {
                        continue;
                    }
                    let longer = Path::new(machine, from, so_far.iter().copied().chain([id]).collect());
                    match reached.iter_mut().find(|known| known.to == link.to) {
                        Some(known)
                            if known.links.len() == longer.links.len() && known.peak < longer.peak =>
                        {
                            *known = longer;
                        }
                        Some(_) => {}
                        None => reached.push(longer),
                    }
                }
                next += 1;
            }
            for path in reached.into_iter().skip(1) {
                let place = from.index() * tiers + path.to.index();
                paths[place] = Some(path);
            }
        }
        Paths { tiers, paths }
    }

    /// The way from one tier to another, if there is one.
    #[inline]
    pub fn between(&self, from: TierId, to: TierId) -> Option<&Path> {
        self.paths.get(from.index() * self.tiers + to.index())?.as_ref()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Backing, Class, Link, Processor, Tier};
    use crate::units::FlopRate;

    const GB: u64 = 1_000_000_000;

    fn tier(name: &str, class: Class, rate: u64) -> Tier {
        let rate = Bandwidth(rate * GB);
        let (capacity, granularity) = (Bytes(1 << 30), Bytes(1));
        let backing = Backing::Pinned;
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

    fn link(from: u8, to: u8, rate: u64) -> Link {
        Link {
            name: format!("{from}>{to}"),
            from: TierId(from),
            to: TierId(to),
            latency: Nanos(1_000),
            submit: Nanos(500),
            rate: Rate::with_half_size(Bandwidth(rate * GB), Bytes(1_000)),
            duplex: Bandwidth(rate * GB),
            engines: 1,
            opposite: None,
        }
    }

    /// Fast memory, DRAM beside it, a disk behind DRAM; and a second, slower way to the disk.
    fn machine(dram: u64) -> Machine {
        let rate = Bandwidth(1_000 * GB);
        Machine {
            name: "chain".into(),
            tiers: vec![
                tier("hbm", Class::Fast, 1_000),
                tier("dram", Class::Staged, dram),
                tier("disk", Class::Cold, 100),
                tier("slow", Class::Staged, 1),
            ],
            links: vec![link(1, 0, 20), link(2, 3, 9), link(3, 0, 9), link(2, 1, 5)],
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

    #[test]
    fn a_path_adds_up_latencies_and_flows_at_the_pace_of_its_slowest_link() {
        let paths = Paths::new(&machine(100));
        let path = paths.between(TierId(2), TierId(0)).unwrap();
        assert_eq!(path.links, [LinkId(3), LinkId(0)], "the wider of two ways over two links");
        assert_eq!((path.latency, path.submit, path.peak), (Nanos(2_000), Nanos(1_000), Bandwidth(5 * GB)));
        // The slow link's copy takes (n + 1000) / 5 GB/s; the fast one's is done earlier.
        assert_eq!(path.transfer(Bytes(9_000)), Nanos(2_000 + 1_000 + 2_000));
        assert!(paths.between(TierId(0), TierId(2)).is_none());
        assert!(paths.between(TierId(0), TierId(0)).is_none());
    }

    #[test]
    fn what_passes_through_a_memory_is_written_and_read_there() {
        let machine = machine(8);
        assert_eq!(machine.tier(TierId(1)).passing(), Bandwidth(4 * GB));
        assert_eq!(Paths::new(&machine).between(TierId(2), TierId(0)).unwrap().peak, Bandwidth(4 * GB));
        // Read only, it gives its whole rate.
        assert_eq!(Paths::new(&machine).between(TierId(1), TierId(0)).unwrap().peak, Bandwidth(8 * GB));
    }
}
