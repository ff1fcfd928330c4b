//! Rules that evict the least of what can leave, by a score of each.

use super::{Definition, HALF_LIFE, Model, Step};
use crate::replay::{Order, ReplayInput};
use std::cmp::Ordering;

/// What there is to know of an id.
#[derive(Clone, Default)]
struct Known {
    /// The last demand: its time, and its number among all demands.
    last: u64,
    last_number: usize,
    /// The number of the demand it came in with.
    arrived: usize,
    /// The numbers of its demands so far, and of those since it came in.
    demands: Vec<usize>,
    since: u64,
    visited: bool,
    priority: f64,
    pass: u64,
}

pub(super) struct Scored<'a> {
    definition: Definition,
    order: Order,
    steps: &'a [Step],
    known: Vec<Known>,
    layer_of: Box<[u32]>,
    layers: u32,
    capacity: usize,
    resident: Vec<bool>,
    /// Demands so far.
    number: usize,
    /// Residents in order of arrival, and which of them SIEVE's hand looks at next.
    arrivals: Vec<u32>,
    hand: usize,
    /// GDSF's age, now and when room was asked for.
    age: f64,
    arriving_age: Option<f64>,
    /// Where Least-Stale is.
    pass: u64,
    layer: u32,
    time: usize,
}

impl<'a> Scored<'a> {
    pub(super) fn new(definition: Definition, input: &ReplayInput, steps: &'a [Step]) -> Scored<'a> {
        let universe = input.demands.universe() as usize;
        Scored {
            definition,
            order: input.order,
            steps,
            known: vec![Known::default(); universe],
            layer_of: input.demands.layer_of_each(),
            layers: input.demands.layers(),
            capacity: input.capacity,
            resident: vec![false; universe],
            number: 0,
            arrivals: Vec::new(),
            hand: 0,
            age: 0.0,
            arriving_age: None,
            pass: 1,
            layer: 0,
            time: 0,
        }
    }

    fn id(&self, id: u32) -> &Known {
        &self.known[id as usize]
    }

    fn demanded(&mut self, id: u32, now: usize) {
        self.advance(id, now);
        let (number, pass) = (self.number, self.pass);
        let known = &mut self.known[id as usize];
        (known.last, known.last_number, known.pass) = (now as u64, number, pass);
        known.demands.push(number);
        known.since += 1;
        self.number += 1;
    }

    fn advance(&mut self, id: u32, now: usize) {
        let layer = self.layer_of[id as usize];
        self.pass += u64::from(layer < self.layer || (self.layers == 1 && now != self.time));
        (self.layer, self.time) = (layer, now);
    }

    fn leave(&mut self, id: u32) {
        let known = &mut self.known[id as usize];
        known.since = 0;
        self.age = self.age.max(known.priority);
        self.resident[id as usize] = false;
        let place = self.arrivals.iter().position(|&other| other == id).unwrap();
        self.arrivals.remove(place);
        if place < self.hand {
            self.hand -= 1;
        }
        // Past the newest the hand is at the oldest at once: what arrives next is behind it.
        if self.hand == self.arrivals.len() {
            self.hand = 0;
        }
    }

    fn compare(&self, a: u32, b: u32, now: usize) -> Ordering {
        let (x, y) = (self.id(a), self.id(b));
        let recency = |known: &Known| if self.order == Order::Access { known.last } else { 0 };
        match self.definition {
            Definition::Fifo => x.arrived.cmp(&y.arrived),
            Definition::Lru => x.last.cmp(&y.last),
            Definition::Lfu => (x.demands.len(), recency(x)).cmp(&(y.demands.len(), recency(y))),
            Definition::InCacheLfu => (x.since, recency(x)).cmp(&(y.since, recency(y))),
            Definition::LfuDecayed => self.faded(x).total_cmp(&self.faded(y)),
            Definition::Lfru => {
                let age = |known: &Known| now as u64 - known.last + 1;
                (x.demands.len() as u64 * age(y)).cmp(&(y.demands.len() as u64 * age(x)))
            }
            Definition::Gdsf => x.priority.total_cmp(&y.priority).then(x.last.cmp(&y.last)),
            Definition::LruLayer => self.layer_order(a, b).then(x.last_number.cmp(&y.last_number)),
            Definition::LeastStale => {
                (self.staleness(a), x.last_number).cmp(&(self.staleness(b), y.last_number))
            }
            Definition::Belady => self.next(b, now).cmp(&self.next(a, now)),
            _ => Ordering::Equal,
        }
    }

    fn faded(&self, known: &Known) -> f64 {
        let half_life = HALF_LIFE * self.capacity.max(1) as f64;
        known.demands.iter().map(|&at| libm::exp2(-((self.number - at) as f64) / half_life)).sum()
    }

    fn next(&self, id: u32, now: usize) -> usize {
        let ahead = self.steps[now + 1..].iter().position(|step| step.ids.contains(&id));
        ahead.unwrap_or(usize::MAX)
    }

    /// Residents of a layer beyond its share of the slots.
    fn excess(&self, layer: u32) -> i64 {
        let of_layer = |&&id: &&u32| self.layer_of[id as usize] == layer;
        let (layers, capacity) = (self.layers as usize, self.capacity);
        let share = capacity / layers + usize::from((layer as usize) < capacity % layers);
        self.arrivals.iter().filter(of_layer).count() as i64 - share as i64
    }

    /// The layer that asks, if it has its share; then by excess.
    fn layer_order(&self, a: u32, b: u32) -> Ordering {
        let (a, b) = (self.layer_of[a as usize], self.layer_of[b as usize]);
        let own = |layer: u32| layer == self.layer && self.excess(layer) >= 0;
        own(b).cmp(&own(a)).then(self.excess(b).cmp(&self.excess(a))).then(a.cmp(&b))
    }

    /// Stale before current, layers behind from the first on before those to come from the last back.
    fn staleness(&self, id: u32) -> (bool, bool, u32) {
        let layer = self.layer_of[id as usize];
        let to_come = layer >= self.layer;
        (self.id(id).pass == self.pass, to_come, if to_come { self.layers - layer } else { layer })
    }

    fn sieve(&mut self, open: &[u32]) -> u32 {
        loop {
            self.hand %= self.arrivals.len();
            let id = self.arrivals[self.hand];
            if open.contains(&id) && !std::mem::replace(&mut self.known[id as usize].visited, false) {
                return id;
            }
            self.hand += 1;
        }
    }
}

impl Model for Scored<'_> {
    fn hit(&mut self, id: u32, now: usize) {
        self.demanded(id, now);
        let age = self.age;
        let known = &mut self.known[id as usize];
        known.visited = true;
        known.priority = age + known.since as f64;
    }

    fn make_room(&mut self, id: u32, now: usize, open: &[u32]) -> Option<u32> {
        self.advance(id, now);
        self.arriving_age = Some(self.age);
        let victim = match self.definition {
            Definition::Static => None,
            _ if open.is_empty() => None,
            Definition::Sieve => Some(self.sieve(open)),
            _ => open.iter().copied().min_by(|&a, &b| self.compare(a, b, now).then(a.cmp(&b))),
        };
        victim.inspect(|&victim| self.leave(victim))
    }

    fn come_in(&mut self, id: u32, now: usize) {
        self.demanded(id, now);
        let (age, number) = (self.arriving_age.take().unwrap_or(self.age), self.number);
        let known = &mut self.known[id as usize];
        (known.arrived, known.visited, known.since, known.priority) = (number, false, 1, age + 1.0);
        self.resident[id as usize] = true;
        self.arrivals.push(id);
    }

    fn pass_by(&mut self, id: u32, now: usize) {
        self.demanded(id, now);
        self.known[id as usize].since = 0;
        self.arriving_age = None;
    }
}
