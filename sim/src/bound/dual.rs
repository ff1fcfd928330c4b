//! Prices for memory, link time and drift, and what any prices prove (weak duality).
//!
//! With prices, every use is on its own: it takes the cheapest way to be served. The sum of those costs, less what memory,
//! free link time and the drift budget are worth, is never more than the least stall, whatever the prices are; the best
//! prices give the optimum of the program. A price of link time between 0 and 1 says how much stall a load in that slot
//! costs: 1 where the link is what is waited for, 0 where it is slack. Prices of memory alone, equal at all instants, are
//! the bound PFOO-L of Berger, Beckmann and Harchol-Balter (SIGMETRICS 2018).

use super::program::{Choice, NEVER, Program, Use};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prices {
    /// Of the whole memory at each instant, in nanoseconds; not negative.
    pub(super) memory: Vec<f64>,
    /// Of link time in each slot, from 0 to 1.
    pub(super) link: Vec<f64>,
    /// Of squared drift in each round, in nanoseconds; not negative.
    pub(super) drift: Vec<f64>,
}

/// For one size of copy and each slot, the least cost of a load in any slot up to it, less that of the room before then.
type Early = Vec<f64>;

/// One way to serve a use, at some prices.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// The cheaper of keeping and loading, and the memory that is read; drift apart.
    cost: f64,
    /// Squared drift it adds.
    drift: f64,
}

impl Prices {
    /// All for nothing.
    pub(super) fn zero(program: &Program) -> Prices {
        let nothing = vec![0.0; program.steps()];
        Prices { memory: nothing.clone(), link: nothing, drift: vec![0.0; program.rounds.len()] }
    }

    /// The stall that these prices prove, in nanoseconds. The price of drift is made the best for the others first.
    pub(super) fn prove(&mut self, program: &Program) -> f64 {
        let level = sums(&self.memory);
        let early = self.early(program, &level);
        let (mut total, mut begin, mut ways) = (0.0, 0, Vec::new());
        for (round, &end) in program.rounds.iter().enumerate() {
            let uses = &program.uses[begin..end];
            ways.clear();
            for used in uses {
                self.ways(program, used, &level, &early, &mut ways);
            }
            self.drift[round] = best_drift_price(program, uses, &ways, self.drift[round]);
            let price = self.drift[round];
            total -= price * program.drift;
            let served = each_use(program, uses, &ways).filter_map(|ways| cheapest(ways, price));
            total += served.map(|way| way.cost + price * way.drift).sum::<f64>();
            begin = end;
        }
        let worth = |(price, free): (&f64, &f64)| price * free;
        total - self.memory.iter().sum::<f64>() - self.link.iter().zip(&program.free).map(worth).sum::<f64>()
    }

    /// Adds every way to serve a use.
    fn ways(&self, program: &Program, used: &Use, level: &[f64], early: &[Vec<Early>], ways: &mut Vec<Way>) {
        let step = used.step as usize;
        let kind = usize::from(program.kind[used.block as usize]);
        let whole = program.whole[step];
        let late =
            if whole { f64::INFINITY } else { self.link.get(step + 1).copied().unwrap_or(f64::INFINITY) };
        for (choice, early) in program.kinds[kind].iter().zip(&early[kind]) {
            let keep = match used.previous {
                NEVER => f64::INFINITY,
                previous => choice.held * (level[step] - level[previous as usize + 1]),
            };
            let load = (early[step] + choice.held * level[step]).min(late * choice.load);
            let own = if whole { choice.read * self.memory[step] } else { 0.0 };
            let drift = f64::from(used.weight) * choice.error;
            ways.push(Way { cost: keep.min(load) + own, drift });
        }
    }

    /// For every kind and choice.
    fn early(&self, program: &Program, level: &[f64]) -> Vec<Vec<Early>> {
        let of = |choice: &Choice| {
            let mut best = f64::INFINITY;
            let upto = |(price, level): (&f64, &f64)| {
                best = best.min(price * choice.load - choice.held * level);
                best
            };
            self.link.iter().zip(level).map(upto).collect()
        };
        program.kinds.iter().map(|choices| choices.iter().map(of).collect()).collect()
    }
}

/// The ways of each use.
fn each_use<'a>(
    program: &'a Program,
    uses: &'a [Use],
    mut ways: &'a [Way],
) -> impl Iterator<Item = &'a [Way]> {
    uses.iter().map(move |used| {
        let (own, rest) = ways.split_at(program.choices(used).len());
        ways = rest;
        own
    })
}

fn cheapest(ways: &[Way], price: f64) -> Option<&Way> {
    let cost = |way: &Way| way.cost + price * way.drift;
    ways.iter().reduce(|best, way| if cost(way) < cost(best) { way } else { best })
}

/// The price of squared drift that proves most for one round, near enough: the budget is spent there. `guess` is where to
/// look first.
fn best_drift_price(program: &Program, uses: &[Use], ways: &[Way], guess: f64) -> f64 {
    if ways.len() == uses.len() {
        return 0.0;
    }
    let overspent = |price: f64| {
        let spent = each_use(program, uses, ways).filter_map(|ways| cheapest(ways, price));
        spent.map(|way| way.drift).sum::<f64>() > program.drift
    };
    if !overspent(0.0) {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, if guess > 0.0 { guess } else { 1.0 });
    for _ in 0..MANY_DOUBLINGS {
        if !overspent(high) {
            break;
        }
        (low, high) = (high, 4.0 * high);
    }
    if low == 0.0 {
        low = 0.25 * high;
        while low > f64::MIN_POSITIVE && !overspent(low) {
            (low, high) = (0.25 * low, low);
        }
    }
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        (low, high) = if overspent(middle) { (middle, high) } else { (low, middle) };
    }
    high
}

/// Enough to reach any price; where even that overspends, no policy can serve the round.
const MANY_DOUBLINGS: u32 = 100;
/// Steps of the search between a price and four times as much.
const HALVINGS: u32 = 14;

/// The sums before each place, and the whole.
fn sums(values: &[f64]) -> Vec<f64> {
    let mut sum = 0.0;
    let before = values.iter().map(|value| {
        let before = sum;
        sum += value;
        before
    });
    let mut all: Vec<f64> = before.collect();
    all.push(sum);
    all
}
