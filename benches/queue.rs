//! Events a second through the simulator's queue, beside a bare std heap without cancellation. Times are exponential
//! and drawn beforehand, outside the timed loop, into a table that is read round and round.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use policy::Time;
use rand::SeedableRng;
use rand::distr::Distribution;
use rand_distr::Exp1;
use rand_pcg::Pcg64;
use sim::queue::{Queue, Rank};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;

/// Events of one iteration.
const EVENTS: u64 = 1_000_000;
/// Draws in a table; a power of two.
const DRAWS: usize = 1 << 16;
/// Mean time of the hold model, in nanoseconds.
const MEAN: f64 = 1e6;
/// Mean service time of M/M/1 in nanoseconds, and how busy the server is.
const SERVICE: f64 = 1e6;
const LOAD: f64 = 0.8;

/// What a simulation asks of its queue.
trait Events: Default {
    fn push(&mut self, at: u64, payload: u32);
    fn pop(&mut self) -> Option<(u64, u32)>;
}

impl Events for Queue<u32> {
    fn push(&mut self, at: u64, payload: u32) {
        Queue::push(self, Time(at), Rank::Transfer, payload);
    }
    fn pop(&mut self) -> Option<(u64, u32)> {
        Queue::pop(self).map(|(at, payload)| (at.0, payload))
    }
}

/// The yardstick: time and number of the push order, nothing can be taken back.
#[derive(Default)]
struct Heap {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    pushed: u64,
}

impl Events for Heap {
    fn push(&mut self, at: u64, payload: u32) {
        self.pushed += 1;
        self.heap.push(Reverse((at, self.pushed, payload)));
    }
    fn pop(&mut self) -> Option<(u64, u32)> {
        self.heap.pop().map(|Reverse((at, _, payload))| (at, payload))
    }
}

/// Exponential times of a mean, in whole nanoseconds, read round and round.
struct Draws {
    table: Vec<u64>,
    next: usize,
}

impl Draws {
    fn new(mean: f64, seed: u64) -> Draws {
        let mut rng = Pcg64::seed_from_u64(seed);
        let draw = |_| {
            let unit: f64 = Exp1.sample(&mut rng);
            (unit * mean) as u64
        };
        Draws { table: (0..DRAWS).map(draw).collect(), next: 0 }
    }

    fn next(&mut self) -> u64 {
        self.next = (self.next + 1) % DRAWS;
        self.table[self.next]
    }
}

/// The hold model: the next event comes up and is pushed again, later.
fn hold<E: Events>(events: &mut E, draws: &mut Draws, times: u64) {
    for _ in 0..times {
        let (now, payload) = events.pop().expect("events are pending");
        events.push(now + draws.next(), payload);
    }
}

/// A queue with `pending` events, after each has come up a few times.
fn settled<E: Events>(pending: u64, draws: &mut Draws) -> E {
    let mut events = E::default();
    for payload in 0..pending {
        events.push(draws.next(), payload as u32);
    }
    hold(&mut events, draws, 4 * pending);
    events
}

const ARRIVAL: u32 = 0;
const DEPARTURE: u32 = 1;

/// One server, one line: answers the customers' summed time in the line and at the server.
fn one_server<E: Events>(arrivals: &mut Draws, services: &mut Draws, count: u64) -> u64 {
    let mut events = E::default();
    let (mut present, mut last, mut area) = (0, 0, 0);
    events.push(arrivals.next(), ARRIVAL);
    for _ in 0..count {
        let (now, event) = events.pop().expect("an arrival is always pending");
        area += present * (now - last);
        last = now;
        if event == ARRIVAL {
            present += 1;
            events.push(now + arrivals.next(), ARRIVAL);
            if present == 1 {
                events.push(now + services.next(), DEPARTURE);
            }
        } else {
            present -= 1;
            if present > 0 {
                events.push(now + services.next(), DEPARTURE);
            }
        }
    }
    area
}

fn hold_model(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hold");
    group.throughput(Throughput::Elements(EVENTS)).sample_size(10);
    for pending in [2, 4, 8, 64, 1 << 10, 1 << 14, 1 << 18] {
        let mut draws = Draws::new(MEAN, 1);
        let mut queue: Queue<u32> = settled(pending, &mut draws);
        let id = BenchmarkId::new("queue", pending);
        group.bench_function(id, |bench| bench.iter(|| hold(&mut queue, &mut draws, EVENTS)));
        let mut heap: Heap = settled(pending, &mut draws);
        let id = BenchmarkId::new("std heap", pending);
        group.bench_function(id, |bench| bench.iter(|| hold(&mut heap, &mut draws, EVENTS)));
    }
    group.finish();
}

fn mm1(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("M/M/1");
    group.throughput(Throughput::Elements(EVENTS)).sample_size(20);
    let (mut arrivals, mut services) = (Draws::new(SERVICE / LOAD, 2), Draws::new(SERVICE, 3));
    group.bench_function("queue", |bench| {
        bench.iter(|| black_box(one_server::<Queue<u32>>(&mut arrivals, &mut services, EVENTS)))
    });
    group.bench_function("std heap", |bench| {
        bench.iter(|| black_box(one_server::<Heap>(&mut arrivals, &mut services, EVENTS)))
    });
    group.finish();
}

criterion_group!(benches, mm1, hold_model);
criterion_main!(benches);
