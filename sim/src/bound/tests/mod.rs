//! The bound from both sides: below the optimum of its linear program, which is below the best of all schedules.

mod exact;
mod exhaustive;

use super::chain;
use super::dual::Prices;
use super::program::{Choice, NEVER, Program, Use};
use super::search;
use proptest::prelude::*;

/// A run small enough to try every schedule of it. Sizes and times are small whole numbers.
#[derive(Clone, Debug)]
struct Tiny {
    capacity: u32,
    /// Size and load time of each block's copies, the lossy one last if there is one.
    blocks: Vec<Vec<(u32, u32)>>,
    /// Of each step, the blocks and how much drift a lossy read of each adds.
    demands: Vec<Vec<(usize, u32)>>,
    free: Vec<u32>,
    /// What the lossy reads of a step may drift.
    drift: u32,
}

impl Tiny {
    /// Every step is a round of its own.
    fn program(&self) -> Program {
        let share = |size: u32| f64::from(size) / f64::from(self.capacity);
        let choice = |(index, &(size, load)): (usize, &(u32, u32))| Choice {
            held: share(size),
            read: share(size),
            load: f64::from(load),
            error: index as f64,
        };
        let mut program = Program {
            free: self.free.iter().copied().map(f64::from).collect(),
            whole: vec![true; self.free.len()],
            kind: (0..self.blocks.len() as u16).collect(),
            kinds: self.blocks.iter().map(|copies| copies.iter().enumerate().map(choice).collect()).collect(),
            drift: f64::from(self.drift),
            ..Program::default()
        };
        let mut latest = vec![NEVER; self.blocks.len()];
        for (step, demand) in (0..).zip(&self.demands) {
            for &(block, weight) in demand {
                let previous = std::mem::replace(&mut latest[block], step);
                program.uses.push(Use { step, previous, block: block as u32, weight: weight as f32 });
            }
            program.rounds.push(program.uses.len());
        }
        program
    }
}

prop_compose! {
    /// Up to four blocks in up to two formats, six steps of up to two blocks. Every demand fits.
    fn tiny()(
        lossy in any::<bool>(),
        blocks in prop::collection::vec((2u32..4, 1u32..5), 2..=4),
    )(
        demands in prop::collection::vec(
            prop::sample::subsequence((0..blocks.len()).collect::<Vec<_>>(), 1..=2), 1..=6),
        weights in prop::collection::vec(0u32..3, 12),
        free in prop::collection::vec(0u32..4, 6),
        capacity in 6u32..9,
        drift in 0u32..4,
        lossy in Just(lossy),
        blocks in Just(blocks),
    ) -> Tiny {
        let copies = |&(size, load): &(u32, u32)| match lossy {
            true => vec![(size, load + 1), (size - 1, load)],
            false => vec![(size, load)],
        };
        let mut weights = weights.into_iter();
        let weighed = |demand: Vec<usize>| demand.into_iter().zip(&mut weights).collect();
        Tiny {
            capacity,
            blocks: blocks.iter().map(copies).collect(),
            free: free[..demands.len()].to_vec(),
            demands: demands.into_iter().map(weighed).collect(),
            drift,
        }
    }
}

/// What rounding may add.
const ROUNDING: f64 = 1e-6;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_bound_is_below_the_program_and_the_program_below_every_schedule(tiny in tiny()) {
        let program = tiny.program();
        let (bound, optimum) = (search::stall(&program), exact::stall(&program));
        prop_assert!(bound <= optimum + ROUNDING, "{bound} > {optimum}");
        let least = f64::from(exhaustive::stall(&tiny));
        prop_assert!(optimum <= least + ROUNDING, "{optimum} > {least}");
        prop_assert!(program.cold_stall() <= optimum + ROUNDING);
    }

    #[test]
    fn any_prices_prove_no_more_than_the_program(
        tiny in tiny(),
        memory in prop::collection::vec(0f64..8.0, 6),
        link in prop::collection::vec(0f64..=1.0, 6),
        drift in prop::collection::vec(0f64..4.0, 6),
        waves in prop::collection::vec(any::<bool>(), 6),
    ) {
        let mut program = tiny.program();
        let steps = program.steps();
        program.whole.copy_from_slice(&waves[..steps]);
        let mut prices = Prices { memory: memory[..steps].to_vec(), link: link[..steps].to_vec(), ..Prices::zero(&program) };
        let (proved, optimum) = (prices.prove(&program), exact::stall(&program));
        prop_assert!(proved <= optimum + ROUNDING, "{proved} > {optimum}");
        // By way of each block no less is proved, and still no more than is true; at other prices of drift as well.
        let (chained, _) = chain::prove(&program, &prices);
        prop_assert!(proved <= chained + ROUNDING && chained <= optimum + ROUNDING, "{proved}, {chained}, {optimum}");
        prices.drift.iter_mut().zip(drift).for_each(|(price, other)| *price = other);
        let (chained, _) = chain::prove(&program, &prices);
        prop_assert!(chained <= optimum + ROUNDING, "{chained} > {optimum}");
        prop_assert!(search::stall(&program) <= optimum + ROUNDING);
        prop_assert!(program.cold_stall() <= optimum + ROUNDING);
    }

    #[test]
    fn no_whole_prices_prove_more_than_those_found(tiny in tiny(), load in 1u32..4) {
        let blocks = tiny.blocks.iter().map(|copies| vec![(copies[0].0, copies[0].0 * load)]).collect();
        let program = Tiny { blocks, ..tiny }.program();
        let point = program.kinds.iter().flatten().map(|choice| choice.load / choice.held).fold(0.0, f64::max);
        let steps = program.steps();
        let bits = |bits: u32, price: f64| (0..steps).map(|bit| price * f64::from(bits >> bit & 1)).collect();
        let all = (0..1 << steps).flat_map(|points| (0..1 << steps).map(move |spans| (points, spans)));
        let best = all.map(|(points, spans)| {
            let (memory, link) = (bits(points, point), bits(spans, 1.0));
            Prices { memory, link, ..Prices::zero(&program) }.prove(&program)
        });
        let best = best.fold(0.0, f64::max);
        prop_assert!((search::stall(&program) - best).abs() < ROUNDING, "{} of {best}", search::stall(&program));
    }
}
