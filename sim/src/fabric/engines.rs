//! Copy engines: every link direction has a number of them, and a copy holds one on each link of its path. Copies are
//! taken up in order of hand-over, and no copy overtakes an earlier one on a link that both cross: a copy that waits for
//! one link keeps later ones off all its links. That costs a little throughput and makes the order plain.

use super::sharing::Sharing;
use policy::{Bytes, LinkId, LinkSet, Machine, Nanos, Path, Time};
use std::collections::VecDeque;

/// What a link direction has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCount {
    /// Bytes delivered.
    pub bytes: u64,
    /// Copies delivered.
    pub copies: u64,
    /// Time with at least one engine busy.
    pub busy: Nanos,
    /// Time that copies waited for engines, all together.
    pub queued: Nanos,
}

/// The engines of one link direction.
#[derive(Clone, Copy, Debug)]
struct Slots {
    engines: u32,
    taken: u32,
    /// Since when at least one is taken, if any is.
    busy_since: Time,
    opposite: Option<LinkId>,
    count: LinkCount,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Engines {
    links: Vec<Slots>,
    /// For each path, the order and the job of the copies that wait, in order.
    waiting: Vec<VecDeque<(u64, u32)>>,
    /// The paths on which copies wait.
    crowded: Vec<u16>,
}

impl Engines {
    pub(super) fn new(machine: &Machine, paths: usize) -> Engines {
        let slots = |link: &policy::machine::Link| Slots {
            engines: link.engines.max(1),
            taken: 0,
            busy_since: Time(0),
            opposite: link.opposite,
            count: LinkCount::default(),
        };
        Engines {
            links: machine.links.iter().map(slots).collect(),
            waiting: vec![VecDeque::new(); paths],
            crowded: Vec::new(),
        }
    }

    /// Takes the engines of a path for a new copy, if they are free and no other copy waits anywhere.
    pub(super) fn take_at_once(&mut self, now: Time, path: &Path, sharing: &mut Sharing) -> bool {
        let free = self.crowded.is_empty() && !path.links.iter().any(|&link| self.is_full(link));
        if free {
            path.links.iter().for_each(|&link| self.take(now, link, sharing));
        }
        free
    }

    /// A copy waits for the engines of a path.
    pub(super) fn wait(&mut self, path: u16, order: u64, job: u32) {
        let waiting = &mut self.waiting[usize::from(path)];
        if waiting.is_empty() {
            self.crowded.push(path);
        }
        waiting.push_back((order, job));
    }

    /// Takes engines for the earliest copy that can have them.
    pub(super) fn take_next(&mut self, now: Time, paths: &[Path], sharing: &mut Sharing) -> Option<u32> {
        if self.crowded.is_empty() {
            return None;
        }
        // The links that earlier copies wait for.
        let mut claimed = LinkSet::NONE;
        loop {
            let first = |path: u16| self.waiting[usize::from(path)].front().map(|&(order, _)| order);
            let waiting = self.crowded.iter().copied().enumerate();
            let (place, path) = waiting
                .filter(|&(_, path)| !paths[usize::from(path)].set.overlaps(claimed))
                .min_by_key(|&(_, path)| first(path))?;
            let links = &paths[usize::from(path)];
            if links.links.iter().any(|&link| self.is_full(link)) {
                claimed = claimed.union(links.set);
                continue;
            }
            for &link in &links.links {
                self.take(now, link, sharing);
            }
            let (_, job) = self.waiting[usize::from(path)].pop_front()?;
            if self.waiting[usize::from(path)].is_empty() {
                self.crowded.swap_remove(place);
            }
            return Some(job);
        }
    }

    /// Whether each link of a path has one engine.
    pub(super) fn are_single(&self, path: &Path) -> bool {
        path.links.iter().all(|&link| self.links[link.index()].engines == 1)
    }

    /// A copy is delivered.
    pub(super) fn carried(&mut self, path: &Path, bytes: Bytes, queued: Nanos) {
        for &link in &path.links {
            let count = &mut self.links[link.index()].count;
            count.bytes += bytes.0;
            count.copies += 1;
            count.queued += queued;
        }
    }

    /// Gives back the engines of a copy that is delivered.
    pub(super) fn release(&mut self, now: Time, path: &Path, sharing: &mut Sharing) {
        for &link in &path.links {
            let slots = &mut self.links[link.index()];
            slots.taken -= 1;
            if slots.taken == 0 {
                slots.count.busy += now.since(slots.busy_since);
                if let Some(opposite) = slots.opposite {
                    sharing.set_opposed(opposite, false);
                }
            }
        }
    }

    /// What a direction has carried by `now`.
    pub(super) fn count(&self, now: Time, link: LinkId) -> LinkCount {
        let Slots { taken, busy_since, mut count, .. } = self.links[link.index()];
        if taken > 0 {
            count.busy += now.since(busy_since);
        }
        count
    }

    /// Whether the other direction of a link has an engine busy.
    pub(super) fn is_opposed(&self, link: LinkId) -> bool {
        self.links[link.index()].opposite.is_some_and(|opposite| self.links[opposite.index()].taken > 0)
    }

    fn is_full(&self, link: LinkId) -> bool {
        let slots = &self.links[link.index()];
        slots.taken >= slots.engines
    }

    fn take(&mut self, now: Time, link: LinkId, sharing: &mut Sharing) {
        let slots = &mut self.links[link.index()];
        if slots.taken == 0 {
            slots.busy_since = now;
            if let Some(opposite) = slots.opposite {
                sharing.set_opposed(opposite, true);
            }
        }
        slots.taken += 1;
    }
}
