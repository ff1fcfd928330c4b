//! STUB until the fabric lands.
pub use crate::link::LinkCount;
use crate::link::LinkSim;
use policy::{Bandwidth, Bytes, LinkId, Machine, MoveId, Nanos, Paths, TierId, Time};

pub struct Delivered<T> {
    pub cargo: T,
    pub from: TierId,
    pub to: TierId,
    pub bytes: Bytes,
    pub queued: Nanos,
    pub taken_up: Time,
}
pub struct Fabric<T> {
    links: Vec<LinkSim>,
    paths: Paths,
    cargo: Vec<(T, TierId, TierId)>,
    kernels: Vec<(Time, T, TierId, Bytes, Time)>,
}
impl<T: Copy> Fabric<T> {
    pub fn new(machine: &Machine) -> Self {
        Fabric {
            links: machine.links.iter().cloned().map(LinkSim::new).collect(),
            paths: Paths::new(machine),
            cargo: vec![],
            kernels: vec![],
        }
    }
    pub fn submit(&mut self, now: Time, cargo: T, from: TierId, to: TierId, bytes: Bytes) -> Option<()> {
        let path = self.paths.between(from, to)?;
        let link = path.links[0];
        let id = MoveId(self.cargo.len() as u64);
        self.cargo.push((cargo, from, to));
        self.links[link.index()].submit(now, id, bytes);
        self.couple(now, link);
        Some(())
    }
    fn couple(&mut self, now: Time, link: LinkId) {
        let busy = self.links[link.index()].is_busy();
        if let Some(o) = self.links[link.index()].spec().opposite {
            self.links[o.index()].set_opposite_busy(now, busy);
        }
    }
    pub fn read(&mut self, now: Time, cargo: T, tier: TierId, bytes: Bytes, most: Bandwidth) {
        self.kernels.push((now + most.time_for(bytes), cargo, tier, bytes, now));
    }
    pub fn next_due(&mut self) -> Option<Time> {
        let l = self.links.iter().filter_map(|l| l.next_done()).min();
        let k = self.kernels.iter().map(|k| k.0).min();
        match (l, k) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
    pub fn collect(&mut self, now: Time, out: &mut Vec<Delivered<T>>) {
        self.kernels.retain(|&(at, cargo, tier, bytes, since)| {
            if at <= now {
                out.push(Delivered { cargo, from: tier, to: tier, bytes, queued: Nanos(0), taken_up: since });
            }
            at > now
        });
        for i in 0..self.links.len() {
            let mut d = Vec::new();
            self.links[i].collect(now, &mut d);
            for x in d {
                let (cargo, from, to) = self.cargo[x.id.0 as usize];
                out.push(Delivered {
                    cargo,
                    from,
                    to,
                    bytes: x.bytes,
                    queued: x.queued,
                    taken_up: x.taken_up,
                });
            }
            self.couple(now, LinkId(i as u8));
        }
    }
    pub fn count(&self, link: LinkId) -> &LinkCount {
        self.links[link.index()].count()
    }
}
