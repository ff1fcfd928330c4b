//! What prices prove where blocks have several formats: every block takes its cheapest way through all of its uses.
//!
//! Use by use (`dual`), a copy in full precision may be kept for the next use although fewer bits were there for the last.
//! Here a block's way knows what it has: every bit, or a lossy copy that nothing but itself can be made of. The bound is
//! never less for it.

use super::dual::{Priced, Prices, sums};
use super::program::{NEVER, Program, Use};

/// What a block has after a use: every bit, or only the lossy copy with this place among its choices.
type Has = u8;
/// See [`Has`]; the first choice of every kind has every bit.
const EVERY_BIT: Has = 0;

/// The way to be somewhere after a use.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    cost: f64,
    /// What the block had after the use before.
    before: Has,
    /// The choice that was read.
    read: u8,
}

/// The stall that prices prove, in nanoseconds, and what each round drifts at them.
pub(super) fn prove(program: &Program, prices: &Prices) -> (f64, Vec<f64>) {
    let level = sums(&prices.memory);
    let early = prices.early(program, &level);
    let width = program.kinds.iter().map(Vec::len).max().unwrap_or(0);
    let mut costs = vec![0.0; program.kind.len() * width];
    let mut total = prices.spare(program);
    let mut arrivals = Vec::with_capacity(program.uses.len() * width);
    let (mut begin, mut choices) = (0, Vec::new());
    for (&end, &drift) in program.rounds.iter().zip(&prices.drift) {
        for used in &program.uses[begin..end] {
            let kind = usize::from(program.kind[used.block as usize]);
            let costs = &mut costs[used.block as usize * width..][..program.kinds[kind].len()];
            let from = arrivals.len();
            choices.clear();
            for (choice, early) in program.kinds[kind].iter().zip(&early[kind]) {
                let priced = prices.priced(program, used, choice, &level, early);
                choices.push(Priced { read: priced.read + drift * priced.drift, ..priced });
            }
            arrive(&choices, costs, used, &mut arrivals);
            arrivals[from..].iter().zip(costs).for_each(|(arrival, cost)| *cost = arrival.cost);
            arrivals.resize(from + width, Arrival { cost: f64::INFINITY, before: 0, read: 0 });
        }
        total -= drift * program.drift;
        begin = end;
    }
    let mut has = Vec::new();
    for (block, &kind) in program.kind.iter().enumerate() {
        let costs = &costs[block * width..][..program.kinds[usize::from(kind)].len()];
        let (place, cost) = least(costs);
        has.push(place);
        total += cost;
    }
    (total, spent(program, &arrivals, width, has))
}

/// Every way to have something after a use, the cheapest for each. `costs` are those of what the block had before.
fn arrive(choices: &[Priced], costs: &[f64], used: &Use, arrivals: &mut Vec<Arrival>) {
    let (before, so_far) = if used.previous == NEVER { (EVERY_BIT, 0.0) } else { least(costs) };
    let reads = choices.iter().map(|choice| choice.read);
    let (read, reading) = reads
        .zip(0u8..)
        .fold((0, f64::INFINITY), |best, (cost, place)| if cost < best.1 { (place, cost) } else { best });
    for (has, choice) in (0u8..).zip(choices) {
        let (read, reading) = if has == EVERY_BIT { (read, reading) } else { (has, choice.read) };
        let mut best = Arrival { cost: so_far + choice.load, before, read };
        for kept in [EVERY_BIT, has] {
            let cost = costs[usize::from(kept)] + choice.keep;
            if cost < best.cost {
                best = Arrival { cost, before: kept, read };
            }
        }
        best.cost += reading;
        arrivals.push(best);
    }
}

fn least(costs: &[f64]) -> (Has, f64) {
    let places = (0..).zip(costs.iter().copied());
    places.fold((EVERY_BIT, f64::INFINITY), |best, next| if next.1 < best.1 { next } else { best })
}

/// What each round drifts where every block goes its cheapest way to what it has at the end.
fn spent(program: &Program, arrivals: &[Arrival], width: usize, mut has: Vec<Has>) -> Vec<f64> {
    let mut spent = vec![0.0; program.rounds.len()];
    let mut round = spent.len();
    for (index, used) in program.uses.iter().enumerate().rev() {
        while round > 0 && index < program.rounds[round - 1] {
            round -= 1;
        }
        let has = &mut has[used.block as usize];
        let arrival = arrivals[index * width + usize::from(*has)];
        spent[round] += f64::from(used.weight) * program.choices(used)[usize::from(arrival.read)].error;
        *has = arrival.before;
    }
    spent
}
