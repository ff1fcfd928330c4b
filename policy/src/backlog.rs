//! How long links are busy with what was handed to them, so that of several copies of a block the one is read that arrives first.

use crate::path::LinkSet;
use crate::units::{Nanos, Time};

/// Weight of the newest measurement of how slow a way is.
const SMOOTHING: f64 = 1.0 / 8.0;
/// What is left of what a way is believed to lose, each time that another one is measured: a way found slow is tried again.
const FADING: f64 = 0.98;
/// The most that a measurement counts for.
const SLOWEST: f64 = 64.0;

/// The links of one way, which copies take one after the other.
#[derive(Clone, Copy, Debug)]
struct Way {
    links: LinkSet,
    /// When what was handed over has left them.
    free: Time,
    /// How much longer a copy takes than on an idle machine: others use the links too.
    slowness: f64,
}

/// What has been handed over, by way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backlog(Vec<Way>);

impl Backlog {
    /// How long what is handed over now waits for what is on its links already.
    pub(crate) fn wait(&self, links: LinkSet, now: Time) -> Nanos {
        let ahead = self.0.iter().filter(|way| way.links.overlaps(links));
        ahead.map(|way| way.free.since(now)).max().unwrap_or_default()
    }

    /// When a copy handed over now arrives, from now on, if it takes `idle` on an idle machine.
    pub(crate) fn arrival(&self, links: LinkSet, idle: Nanos, now: Time) -> Nanos {
        self.wait(links, now) + self.slowed(links, idle)
    }

    /// A copy is handed over that occupies its links for so long on an idle machine; whether nothing was before it.
    pub(crate) fn send(&mut self, links: LinkSet, occupies: Nanos, now: Time) -> bool {
        let (wait, takes) = (self.wait(links, now), self.slowed(links, occupies));
        let free = now + wait + takes;
        match self.0.iter_mut().find(|way| way.links == links) {
            Some(way) => way.free = free,
            None => self.0.push(Way { links, free, slowness: 1.0 }),
        }
        wait == Nanos::ZERO
    }

    /// A copy that nothing was before has arrived: what it took, and what it would have taken on an idle machine.
    pub(crate) fn measured(&mut self, links: LinkSet, took: Nanos, idle: Nanos) {
        let ratio = (took.0 as f64 / idle.0.max(1) as f64).clamp(1.0, SLOWEST);
        for way in &mut self.0 {
            if way.links == links {
                way.slowness += SMOOTHING * (ratio - way.slowness);
            } else {
                way.slowness = 1.0 + FADING * (way.slowness - 1.0);
            }
        }
    }

    /// How long a copy takes that is alone on its links, if it takes `time` on an idle machine.
    pub(crate) fn slowed(&self, links: LinkSet, time: Nanos) -> Nanos {
        let way = self.0.iter().find(|way| way.links == links);
        way.map_or(time, |way| Nanos((time.0 as f64 * way.slowness) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LinkId;

    #[test]
    fn copies_wait_for_each_other_on_the_links_that_they_share() {
        let [one, other] = [0, 1].map(|link| [LinkId(link)].into_iter().collect::<LinkSet>());
        let mut backlog = Backlog::default();
        assert!(backlog.send(one, Nanos(100), Time(0)));
        assert!(!backlog.send(one, Nanos(50), Time(20)));
        assert_eq!(backlog.wait(one, Time(30)), Nanos(120));
        assert_eq!(backlog.wait(one.union(other), Time(30)), Nanos(120));
        assert_eq!(backlog.wait(other, Time(30)), Nanos(0));
        assert_eq!(backlog.wait(one, Time(500)), Nanos(0));
        assert_eq!(backlog.arrival(one, Nanos(10), Time(100)), Nanos(60));
    }

    #[test]
    fn a_way_that_others_slow_down_is_believed_slow_for_a_while() {
        let [one, other] = [0, 1].map(|link| [LinkId(link)].into_iter().collect::<LinkSet>());
        let mut backlog = Backlog::default();
        let mut now = Time(0);
        let mut copy = |backlog: &mut Backlog, links, took| {
            now = now + Nanos(10_000);
            assert!(backlog.send(links, Nanos(100), now));
            backlog.measured(links, Nanos(took), Nanos(100));
            backlog.arrival(links, Nanos(100), now + Nanos(5_000)).0
        };
        let slow = (0..60).map(|_| copy(&mut backlog, one, 300)).last().unwrap();
        assert!((295..=300).contains(&slow), "{slow}");
        assert!((0..200).map(|_| copy(&mut backlog, other, 100)).all(|idle| idle == 100));
        let again = backlog.arrival(one, Nanos(100), Time(u64::MAX / 4));
        assert!(again < Nanos(110), "{again:?}");
    }
}
