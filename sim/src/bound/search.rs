//! Good prices: whole ones for memory and link time, and by turns the price of drift that goes with them.

use super::chain;
use super::dual::Prices;
use super::program::{Choice, NEVER, Program, Use};
use super::whole::{self, Stretch};

/// A point costs as much as makes a load of any block worth it. Where that differs from block to block by more than this,
/// the least is tried too.
const ALIKE: f64 = 0.9;
/// Turns in which the bound grows by less than this share of itself are the last.
const WORTH_A_TURN: f64 = 1e-3;
/// Prices of drift that are tried: what is won after the first few is little.
const DRIFT_TURNS: u32 = 6;
/// The most turns: each takes a second for four million uses.
const TURNS: u32 = 6;

/// The most stall that the prices found prove, in nanoseconds.
pub(super) fn stall(program: &Program) -> f64 {
    let ratios = program.kinds.iter().flatten().map(|choice| choice.load / choice.held);
    let (mut least, mut most) = (f64::INFINITY, 0f64);
    for ratio in ratios.filter(|ratio| ratio.is_finite()) {
        (least, most) = (least.min(ratio), most.max(ratio));
    }
    let dear = with_points(program, most);
    if least < ALIKE * most { dear.max(with_points(program, least)) } else { dear }
}

/// The same, where a point costs so much.
fn with_points(program: &Program, price: f64) -> f64 {
    let mut prices = Prices::zero(program);
    prices.drift.fill(drift_that_matters(program));
    let mut best = 0f64;
    for _ in 0..TURNS {
        set_whole(program, &mut prices, price);
        let proved = prices.prove(program);
        let enough = proved <= best * (1.0 + WORTH_A_TURN);
        best = best.max(proved);
        if enough || !program.chooses() {
            break;
        }
    }
    if program.chooses() { best.max(with_drift(program, &mut prices)) } else { best }
}

/// Where a block may be left out, the price of drift that makes that as dear as loading it: free, it would leave nothing for
/// the other prices to do. Elsewhere nothing.
fn drift_that_matters(program: &Program) -> f64 {
    let choices = || program.kinds.iter().flatten();
    let dearest = choices().map(|choice| choice.load).fold(0.0, f64::max);
    let weight: f64 = program.uses.iter().map(|used| f64::from(used.weight)).sum();
    let mean = weight / program.uses.len().max(1) as f64;
    let without = choices().filter(|choice| choice.load == 0.0 && choice.error > 0.0);
    without
        .map(|choice| dearest / (mean * choice.error))
        .filter(|price| price.is_finite())
        .fold(0.0, f64::max)
}

/// The same at these prices of memory and link time, each block on its way through all of its uses. The price of drift
/// follows what is spent.
fn with_drift(program: &Program, prices: &mut Prices) -> f64 {
    let mut best = 0f64;
    for turn in 0..DRIFT_TURNS {
        let (proved, spent) = chain::prove(program, prices);
        best = best.max(proved);
        for (price, spent) in prices.drift.iter_mut().zip(spent) {
            let over = (spent / program.drift.max(f64::MIN_POSITIVE)).clamp(0.5, 2.0);
            *price *= libm::pow(over, 1.0 / (1.0 + 0.25 * f64::from(turn)));
        }
    }
    best
}

/// The best whole prices for memory and link time at the present price of drift.
fn set_whole(program: &Program, prices: &mut Prices, price: f64) {
    let mut cost = vec![price; program.steps()];
    let mut stretches = Vec::with_capacity(program.uses.len());
    let mut begin = 0;
    for (&end, &drift) in program.rounds.iter().zip(&prices.drift) {
        for used in &program.uses[begin..end] {
            let drifts = |choice: &Choice| drift * f64::from(used.weight) * choice.error;
            let least = |of: &dyn Fn(&Choice) -> f64| {
                let costs = program.choices(used).iter().map(|choice| of(choice) + drifts(choice));
                costs.fold(f64::INFINITY, f64::min)
            };
            let loaded = least(&|choice| choice.load);
            if program.whole[used.step as usize] {
                cost[used.step as usize] -= least(&|choice| choice.load + price * choice.read) - loaded;
            }
            stretches.push(stretch(used, loaded - least(&|_| 0.0)));
        }
        begin = end;
    }
    let whole = whole::best(&stretches, &program.free, &cost);
    prices.memory.fill(0.0);
    prices.link.fill(0.0);
    whole.points.iter().for_each(|&point| prices.memory[point] = price);
    whole.spans.into_iter().for_each(|span| prices.link[span].fill(1.0));
}

fn stretch(used: &Use, worth: f64) -> Stretch {
    let first = used.previous == NEVER;
    let from = if first { 0 } else { used.previous + 1 };
    Stretch { from, slot: used.step, worth, first }
}
