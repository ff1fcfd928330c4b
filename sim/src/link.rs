//! One direction of a link in virtual time: copies are taken up in order by its engines, which share its rate; the
//! rate depends on whether the opposite direction is busy. Exact integers: work is kept in bytes times 10^9, so that a
//! rate in bytes a second times a span in nanoseconds is work without rounding.

use policy::machine::Link;
use policy::{Bytes, MoveId, Nanos, Time};
use std::collections::VecDeque;

const WORK_PER_BYTE: u128 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
struct Job {
    id: MoveId,
    bytes: Bytes,
    asked: Time,
    /// When its bytes begin to flow, the submit cost paid.
    flows_from: Time,
    queued: Nanos,
    left: u128,
}

/// A copy whose last byte has left its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The move.
    pub id: MoveId,
    /// Its bytes.
    pub bytes: Bytes,
    /// How long it waited before an engine took it up.
    pub queued: Nanos,
    /// When the engine took it up.
    pub taken_up: Time,
}

/// What a direction has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCount {
    /// Bytes delivered.
    pub bytes: u64,
    /// Copies delivered.
    pub copies: u64,
    /// Time with at least one engine busy.
    pub busy: Nanos,
    /// Time copies waited for an engine, all together.
    pub queued: Nanos,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct LinkSim {
    spec: Link,
    active: Vec<Job>,
    waiting: VecDeque<Job>,
    updated: Time,
    opposite_busy: bool,
    /// When the next copy will be done, as last announced.
    announced: Option<Time>,
    count: LinkCount,
}

impl LinkSim {
    /// An idle direction.
    pub fn new(spec: Link) -> LinkSim {
        LinkSim {
            spec,
            active: Vec::new(),
            waiting: VecDeque::new(),
            updated: Time(0),
            opposite_busy: false,
            announced: None,
            count: LinkCount::default(),
        }
    }

    /// What it was made from.
    pub fn spec(&self) -> &Link {
        &self.spec
    }

    /// What it has carried.
    pub fn count(&self) -> &LinkCount {
        &self.count
    }

    /// Whether an engine is busy.
    pub fn is_busy(&self) -> bool {
        !self.active.is_empty()
    }

    /// When the next copy will be done if nothing changes; `None` if that is as it was at the last call. To be asked
    /// after every change.
    pub fn announce(&mut self) -> Option<Time> {
        let next = self.next_done();
        if next == self.announced {
            return None;
        }
        self.announced = next;
        next
    }

    /// Whether a copy is done now by the last announcement.
    pub fn is_due(&self, now: Time) -> bool {
        self.announced == Some(now)
    }

    /// Hands a copy over.
    pub fn submit(&mut self, now: Time, id: MoveId, bytes: Bytes) {
        self.progress(now);
        let left = u128::from(self.spec.rate.work(bytes).0) * WORK_PER_BYTE;
        self.waiting.push_back(Job { id, bytes, asked: now, flows_from: now, queued: Nanos::ZERO, left });
        self.take_up(now);
    }

    /// Tells the direction whether the opposite one is busy.
    pub fn set_opposite_busy(&mut self, now: Time, busy: bool) {
        if self.opposite_busy != busy {
            self.progress(now);
            self.opposite_busy = busy;
        }
    }

    /// The copies whose last byte has left by `now`, in the order they were handed over.
    pub fn collect(&mut self, now: Time, delivered: &mut Vec<Delivered>) {
        self.announced = None;
        self.progress(now);
        let before = delivered.len();
        self.active.retain(|job| {
            let done = job.left == 0 && job.flows_from <= now;
            if done {
                let Job { id, bytes, queued, asked, .. } = *job;
                delivered.push(Delivered { id, bytes, queued, taken_up: asked + queued });
            }
            !done
        });
        for copy in &delivered[before..] {
            self.count.bytes += copy.bytes.0;
            self.count.copies += 1;
            self.count.queued += copy.queued;
        }
        self.take_up(now);
    }

    pub fn next_done(&self) -> Option<Time> {
        let rate = self.rate_each();
        self.active
            .iter()
            .map(|job| {
                let from = job.flows_from.max(self.updated);
                from + time_for(job.left, rate)
            })
            .min()
    }

    fn rate_each(&self) -> u64 {
        let rate = if self.opposite_busy { self.spec.duplex } else { self.spec.rate.peak() };
        (rate.0 / self.active.len().max(1) as u64).max(1)
    }

    fn progress(&mut self, now: Time) {
        if self.is_busy() {
            let rate = self.rate_each();
            for job in &mut self.active {
                let flowing = now.since(job.flows_from.max(self.updated));
                job.left = job.left.saturating_sub(u128::from(rate) * u128::from(flowing.0));
            }
            self.count.busy += now.since(self.updated);
        }
        self.updated = now;
    }

    fn take_up(&mut self, now: Time) {
        while self.active.len() < self.spec.engines.max(1) as usize {
            let Some(mut job) = self.waiting.pop_front() else { break };
            job.queued = now.since(job.asked);
            job.flows_from = now + self.spec.submit;
            self.active.push(job);
        }
    }
}

/// Work over rate, rounded up. Work seldom needs more than 64 bits, whose division is several times faster.
fn time_for(work: u128, rate: u64) -> Nanos {
    match u64::try_from(work) {
        Ok(work) => Nanos(work.div_ceil(rate)),
        Err(_) => Nanos(u64::try_from(work.div_ceil(rate.into())).unwrap_or(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{Bandwidth, Rate, TierId};

    fn link(engines: u32) -> LinkSim {
        LinkSim::new(Link {
            name: "pcie".into(),
            from: TierId(1),
            to: TierId(0),
            latency: Nanos(700),
            submit: Nanos(1_000),
            rate: Rate::with_half_size(Bandwidth(20_000_000_000), Bytes(4_000)),
            duplex: Bandwidth(10_000_000_000),
            engines,
            opposite: None,
        })
    }

    fn drain(link: &mut LinkSim) -> Vec<(u64, Time)> {
        let mut all = Vec::new();
        while let Some(at) = link.announce() {
            assert!(link.is_due(at));
            let mut delivered = Vec::new();
            link.collect(at, &mut delivered);
            all.extend(delivered.iter().map(|copy| (copy.id.0, at)));
        }
        all
    }

    #[test]
    fn an_idle_copy_takes_submit_and_bytes_over_rate_to_the_nanosecond() {
        let mut link = link(1);
        link.submit(Time(50), MoveId(1), Bytes(1_000_001));
        assert_eq!(
            drain(&mut link),
            [(1, Time(50) + link.spec().submit + link.spec().rate.time_for(Bytes(1_000_001)))]
        );
    }

    #[test]
    fn one_engine_is_first_in_first_out() {
        let mut link = link(1);
        link.submit(Time(0), MoveId(1), Bytes(996_000));
        link.submit(Time(0), MoveId(2), Bytes(996_000));
        assert_eq!(drain(&mut link), [(1, Time(51_000)), (2, Time(102_000))]);
    }

    #[test]
    fn two_engines_share_the_rate() {
        let mut link = link(2);
        link.submit(Time(0), MoveId(1), Bytes(996_000));
        link.submit(Time(0), MoveId(2), Bytes(996_000));
        assert_eq!(drain(&mut link), [(1, Time(101_000)), (2, Time(101_000))]);
    }

    #[test]
    fn the_rate_falls_while_the_other_direction_is_busy() {
        let mut link = link(1);
        link.submit(Time(0), MoveId(1), Bytes(1_996_000));
        link.set_opposite_busy(Time(51_000), true);
        link.set_opposite_busy(Time(71_000), false);
        // 50 us at full rate, 20 us at half: 40 us of work is left.
        assert_eq!(drain(&mut link), [(1, Time(71_000 + 40_000))]);
    }
}
