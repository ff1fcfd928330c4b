//! The event queue: integer time, then rank, then order of insertion.
//!
//! The next few events stand in a short sorted array, the front; all later ones in a hierarchical timing wheel behind
//! it. A simulation with few events pending never touches the wheel; with many, an event is moved a few times between
//! contiguous buckets and sorted once among its neighbours, so the cost hardly grows with what is pending.

mod wheel;

use policy::Time;
use std::cmp::Reverse;
use wheel::Wheel;

/// What comes first among events of one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Compute that has ended.
    Completion,
    /// Bytes that have arrived.
    Transfer,
    /// Requests that come in.
    Admission,
}

/// Names one pushed event, to cancel it by. It never names another one, however often its place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    place: u32,
    order: u64,
}

/// Where an event stands.
#[derive(Clone, Copy, Debug)]
struct Entry {
    time: u64,
    /// The rank in the top bits, then the number of the push: unique, so it also tells whether the place below still
    /// holds this event.
    order: u64,
    place: u32,
}

impl Entry {
    /// What the queue is sorted by, as one number: it compares without a branch.
    fn key(&self) -> u128 {
        (self.time as u128) << 64 | self.order as u128
    }

    fn rank(&self) -> u64 {
        self.order >> RANK_SHIFT
    }
}

/// Room for 2^62 pushes under the two bits of the rank.
const RANK_SHIFT: u32 = 62;
/// The order of an empty place: the rank 3, which no event has.
const VACANT: u64 = u64::MAX;
/// Entries the front takes before the later ones go to the wheel.
const FRONT: usize = 32;
/// Cancelled entries that may stand around beside as many as there are live ones.
const DEAD: usize = 64;

/// What an event carries, and whose it is.
#[derive(Clone, Copy, Debug)]
struct Place<T> {
    order: u64,
    payload: T,
}

/// See the module. At most 2^32 events can be pending.
#[derive(Clone, Debug)]
pub struct Queue<T> {
    /// The earliest entries, the next one last. All are before all of the wheel's.
    front: Vec<Entry>,
    wheel: Wheel,
    places: Vec<Place<T>>,
    free: Vec<u32>,
    /// The time of the last pop.
    now: u64,
    pushed: u64,
    /// Entries whose event was cancelled, in front and wheel.
    dead: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            front: Vec::new(),
            wheel: Wheel::default(),
            places: Vec::new(),
            free: Vec::new(),
            now: 0,
            pushed: 0,
            dead: 0,
        }
    }
}

impl<T: Copy> Queue<T> {
    /// Adds an event. Time does not run backwards: an event for an instant before that of the last pop comes up at the
    /// instant of the last pop.
    pub fn push(&mut self, at: Time, rank: Rank, payload: T) -> Handle {
        let order = (rank as u64) << RANK_SHIFT | self.pushed;
        self.pushed += 1;
        let held = Place { order, payload };
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = held;
                place
            }
            None => {
                self.places.push(held);
                (self.places.len() - 1) as u32
            }
        };
        self.stand(Entry { time: at.0.max(self.now), order, place });
        Handle { place, order }
    }

    /// Takes the next event out.
    pub fn pop(&mut self) -> Option<(Time, T)> {
        if self.front.is_empty() {
            self.refill();
        }
        let entry = self.front.pop()?;
        let payload = self.vacate(entry.place);
        self.now = entry.time;
        self.trim();
        Some((Time(entry.time), payload))
    }

    /// The time of the next event. Constant, but for one call in some dozens of pops, which looks through a bucket.
    pub fn next_time(&self) -> Option<Time> {
        let next = self.front.last().or_else(|| self.wheel.first(|entry| holds(&self.places, entry)));
        next.map(|entry| Time(entry.time))
    }

    /// Takes an event back and answers what it carried; nothing, if it has come up or was cancelled before.
    pub fn cancel(&mut self, handle: Handle) -> Option<T> {
        self.places.get(handle.place as usize).filter(|place| place.order == handle.order)?;
        let payload = self.vacate(handle.place);
        self.dead += 1;
        self.trim();
        if self.dead > self.len() + DEAD {
            self.sweep();
        }
        Some(payload)
    }

    /// Events that have neither come up nor been cancelled.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts an entry into the front or the wheel, so that the front stays short and before the wheel.
    fn stand(&mut self, entry: Entry) {
        let full = self.front.len() >= FRONT;
        if (full || !self.wheel.is_empty())
            && self.front.first().is_none_or(|latest| latest.key() < entry.key())
        {
            self.wheel.push(entry, self.now);
            return;
        }
        let mut at = self.front.len();
        self.front.push(entry);
        while at > 0 && self.front[at - 1].key() < entry.key() {
            self.front[at] = self.front[at - 1];
            at -= 1;
        }
        self.front[at] = entry;
        if full {
            let half = self.front.len() / 2;
            self.front.drain(..half).for_each(|late| self.wheel.push(late, self.now));
        }
    }

    /// Fills the empty front with the next entries of the wheel.
    fn refill(&mut self) {
        while self.front.is_empty() && !self.wheel.is_empty() {
            self.wheel.take(&mut self.front);
            let taken = self.front.len();
            self.front.retain(|entry| holds(&self.places, entry));
            self.dead -= taken - self.front.len();
            self.front.sort_unstable_by_key(|entry| Reverse(entry.key()));
        }
    }

    /// Drops cancelled entries from the head of the front, so that what is next is always live.
    fn trim(&mut self) {
        while self.dead > 0 && self.front.last().is_some_and(|entry| !holds(&self.places, entry)) {
            self.front.pop();
            self.dead -= 1;
        }
    }

    /// Drops all cancelled entries.
    fn sweep(&mut self) {
        self.front.retain(|entry| holds(&self.places, entry));
        self.wheel.retain(|entry| holds(&self.places, entry));
        self.dead = 0;
    }

    fn vacate(&mut self, place: u32) -> T {
        let held = &mut self.places[place as usize];
        held.order = VACANT;
        self.free.push(place);
        held.payload
    }
}

fn holds<T>(places: &[Place<T>], entry: &Entry) -> bool {
    places[entry.place as usize].order == entry.order
}
