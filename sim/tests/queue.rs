//! The queue against a sorted map, and against queueing theory.

use policy::Time;
use proptest::prelude::*;
use rand_distr::{Distribution, Exp1};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::SeedableRng;
use sim::queue::{Handle, Queue, Rank};
use std::collections::BTreeMap;

const RANKS: [Rank; 3] = [Rank::Completion, Rank::Transfer, Rank::Admission];

#[derive(Clone, Debug)]
enum Act {
    /// Pushes so long after the last pop.
    Push(u64, usize),
    /// Pushes for an instant, past or future.
    PushAt(u64, usize),
    Pop,
    /// Cancels one of all events ever pushed.
    Cancel(prop::sample::Index),
}

/// Small delays collide, large ones reach every level of the wheel.
fn act() -> impl Strategy<Value = Act> {
    let delay = (0u32..64).prop_flat_map(|bits| 0..=u64::MAX >> bits);
    prop_oneof![
        6 => (delay.clone(), 0usize..3).prop_map(|(delay, rank)| Act::Push(delay, rank)),
        1 => (delay, 0usize..3).prop_map(|(at, rank)| Act::PushAt(at, rank)),
        5 => Just(Act::Pop),
        2 => any::<prop::sample::Index>().prop_map(Act::Cancel),
    ]
}

/// A queue beside its model: a map in the order of the queue.
#[derive(Default)]
struct Pair {
    queue: Queue<usize>,
    model: BTreeMap<(u64, Rank, usize), ()>,
    handles: Vec<(Handle, (u64, Rank, usize))>,
    now: u64,
}

impl Pair {
    fn push(&mut self, at: u64, rank: usize) {
        let number = self.handles.len();
        let key = (at.max(self.now), RANKS[rank], number);
        self.handles.push((self.queue.push(Time(at), RANKS[rank], number), key));
        self.model.insert(key, ());
    }

    fn pop(&mut self) -> bool {
        let expected = self.model.pop_first().map(|((time, _, number), ())| (Time(time), number));
        assert_eq!(self.queue.next_time(), expected.map(|(time, _)| time));
        assert_eq!(self.queue.pop(), expected);
        self.now = expected.map_or(self.now, |(time, _)| time.0);
        expected.is_some()
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Push(delay, rank) => self.push(self.now.saturating_add(*delay), *rank),
            Act::PushAt(at, rank) => self.push(*at, *rank),
            Act::Pop => drop(self.pop()),
            Act::Cancel(index) if !self.handles.is_empty() => {
                let (handle, key) = *index.get(&self.handles);
                let expected = self.model.remove(&key).map(|()| key.2);
                assert_eq!(self.queue.cancel(handle), expected);
            }
            Act::Cancel(_) => {}
        }
        assert_eq!(self.queue.len(), self.model.len());
        assert_eq!(self.queue.is_empty(), self.model.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn it_agrees_with_a_sorted_map(acts in prop::collection::vec(act(), 0..600)) {
        let mut pair = Pair::default();
        acts.iter().for_each(|act| pair.act(act));
        while pair.pop() {}
    }

    #[test]
    fn so_it_does_when_all_is_pushed_first(
        times in prop::collection::vec((0u64..2_000, 0usize..3), 0..2_000),
        cancelled in prop::collection::vec(any::<prop::sample::Index>(), 0..1_500),
    ) {
        let mut pair = Pair::default();
        times.iter().for_each(|&(at, rank)| pair.push(at, rank));
        cancelled.into_iter().for_each(|index| pair.act(&Act::Cancel(index)));
        while pair.pop() {}
    }
}

#[test]
fn equal_times_keep_rank_then_insertion() {
    let mut queue = Queue::default();
    for (at, rank, name) in [(5, 2, 'd'), (5, 1, 'b'), (5, 1, 'c'), (5, 0, 'a'), (4, 2, '0')] {
        queue.push(Time(at), RANKS[rank], name);
    }
    let order: String = std::iter::from_fn(|| queue.pop().map(|(_, name)| name)).collect();
    assert_eq!(order, "0abcd");
}

#[test]
fn the_ends_of_time_come_up_in_order() {
    let mut queue = Queue::default();
    let times = [u64::MAX, 0, u64::MAX - 1, 1 << 63, (1 << 63) - 1, u64::MAX];
    for at in times.iter().cycle().take(600) {
        queue.push(Time(*at), Rank::Transfer, *at);
    }
    let mut sorted: Vec<u64> = times.iter().copied().cycle().take(600).collect();
    sorted.sort_unstable();
    let popped: Vec<u64> = std::iter::from_fn(|| queue.pop().map(|(_, at)| at)).collect();
    assert_eq!(popped, sorted);
}

#[test]
fn a_handle_cancels_its_own_event_once() {
    let mut queue = Queue::default();
    let first = queue.push(Time(1), Rank::Transfer, 'a');
    assert_eq!(queue.cancel(first), Some('a'));
    assert_eq!(queue.cancel(first), None);
    let second = queue.push(Time(1), Rank::Transfer, 'b');
    assert_eq!(queue.cancel(first), None, "the place is the same, the event is not");
    assert_eq!(queue.pop(), Some((Time(1), 'b')));
    assert_eq!(queue.cancel(second), None);
}

/// M/D/1: Poisson arrivals, one server, every service equally long.
struct Line {
    queue: Queue<Tick>,
    rng: Pcg64,
    gap: f64,
    waiting: std::collections::VecDeque<u64>,
    busy: bool,
    waited: u128,
    served: u64,
}

#[derive(Clone, Copy)]
enum Tick {
    Arrival,
    Departure,
}

impl Line {
    const SERVICE: u64 = 1_000_000;

    fn expect_arrival(&mut self, now: u64) {
        let unit: f64 = Exp1.sample(&mut self.rng);
        self.queue.push(Time(now + (unit * self.gap) as u64), Rank::Admission, Tick::Arrival);
    }

    fn serve_next(&mut self, now: u64) {
        self.busy = match self.waiting.pop_front() {
            Some(since) => {
                self.waited += u128::from(now - since);
                self.served += 1;
                self.queue.push(Time(now + Self::SERVICE), Rank::Completion, Tick::Departure);
                true
            }
            None => false,
        };
    }

    /// Mean nanoseconds in the line before service, over `customers`.
    fn mean_wait(load: f64, customers: u64) -> f64 {
        let mut line = Line {
            queue: Queue::default(),
            rng: Pcg64::seed_from_u64(5),
            gap: Self::SERVICE as f64 / load,
            waiting: Default::default(),
            busy: false,
            waited: 0,
            served: 0,
        };
        line.expect_arrival(0);
        while line.served < customers {
            let (Time(now), tick) = line.queue.pop().expect("an arrival is always pending");
            match tick {
                Tick::Arrival => {
                    line.waiting.push_back(now);
                    line.expect_arrival(now);
                    if !line.busy {
                        line.serve_next(now);
                    }
                }
                Tick::Departure => line.serve_next(now),
            }
        }
        line.waited as f64 / customers as f64
    }
}

#[test]
fn waiting_in_m_d_1_is_what_theory_says() {
    for load in [0.5, 0.8] {
        let theory = load / (2.0 * (1.0 - load)) * Line::SERVICE as f64;
        let simulated = Line::mean_wait(load, 1_000_000);
        let error = simulated / theory - 1.0;
        assert!(error.abs() < 0.02, "load {load}: {simulated} ns against {theory} ns");
    }
}
