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
pub(super) type Early = Vec<f64>;

/// What a choice costs a use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Priced {
    /// To keep the copy since the previous use; endless where there was none.
    pub(super) keep: f64,
    /// To load it at the best time.
    pub(super) load: f64,
    /// The memory of the copy that is read; drift apart.
    pub(super) read: f64,
    /// Squared drift it adds.
    pub(super) drift: f64,
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
        let (mut total, mut begin, mut priced) = (self.spare(program), 0, Vec::new());
        for (round, &end) in program.rounds.iter().enumerate() {
            let uses = &program.uses[begin..end];
            priced.clear();
            for used in uses {
                let kind = usize::from(program.kind[used.block as usize]);
                let choices = program.kinds[kind].iter().zip(&early[kind]);
                priced
                    .extend(choices.map(|(choice, early)| self.priced(program, used, choice, &level, early)));
            }
            self.drift[round] = best_drift_price(program, uses, &priced, self.drift[round]);
            let price = self.drift[round];
            total -= price * program.drift;
            let served = each_use(program, uses, &priced).filter_map(|choices| cheapest(choices, price));
            total += served.map(|choice| choice.cost(price)).sum::<f64>();
            begin = end;
        }
        total
    }

    /// What memory and free link time are worth, taken off.
    pub(super) fn spare(&self, program: &Program) -> f64 {
        let worth = |(price, free): (&f64, &f64)| price * free;
        -self.memory.iter().sum::<f64>() - self.link.iter().zip(&program.free).map(worth).sum::<f64>()
    }

    /// What a choice costs a use. `level` are the sums of the prices of memory.
    #[inline]
    pub(super) fn priced(
        &self,
        program: &Program,
        used: &Use,
        choice: &Choice,
        level: &[f64],
        early: &Early,
    ) -> Priced {
        let step = used.step as usize;
        let whole = program.whole[step];
        let late = if whole { None } else { self.link.get(step + 1) };
        let keep = match used.previous {
            NEVER => f64::INFINITY,
            previous => choice.held * (level[step] - level[previous as usize + 1]),
        };
        let load = early[step] + choice.held * level[step];
        Priced {
            keep,
            load: late.map_or(load, |price| load.min(price * choice.load)),
            read: if whole { choice.read * self.memory[step] } else { 0.0 },
            drift: f64::from(used.weight) * choice.error,
        }
    }

    /// For every kind and choice.
    pub(super) fn early(&self, program: &Program, level: &[f64]) -> Vec<Vec<Early>> {
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

impl Priced {
    /// The cheapest way to it, drift included.
    fn cost(&self, price: f64) -> f64 {
        self.keep.min(self.load) + self.read + price * self.drift
    }
}

/// The choices of each use.
fn each_use<'a>(
    program: &'a Program,
    uses: &'a [Use],
    mut priced: &'a [Priced],
) -> impl Iterator<Item = &'a [Priced]> {
    uses.iter().map(move |used| {
        let (own, rest) = priced.split_at(program.choices(used).len());
        priced = rest;
        own
    })
}

fn cheapest(choices: &[Priced], price: f64) -> Option<&Priced> {
    choices.iter().reduce(|best, choice| if choice.cost(price) < best.cost(price) { choice } else { best })
}

/// The price of squared drift that proves most for one round, near enough: the budget is spent there. `guess` is where to
/// look first.
fn best_drift_price(program: &Program, uses: &[Use], priced: &[Priced], guess: f64) -> f64 {
    if priced.len() == uses.len() {
        return 0.0;
    }
    let overspent = |price: f64| {
        let spent = each_use(program, uses, priced).filter_map(|choices| cheapest(choices, price));
        spent.map(|choice| choice.drift).sum::<f64>() > program.drift
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
pub(super) fn sums(values: &[f64]) -> Vec<f64> {
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
