//! A knapsack of which each block takes exactly one of several choices, under two limits: bytes by marginal value, drift
//! by a price.

/// One way to hold a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    /// Bytes of fast memory it takes for good.
    pub(super) bytes: u64,
    /// Stall expected a token, in nanoseconds.
    pub(super) stall: f64,
    /// Squared drift expected a token.
    pub(super) drift: f64,
}

/// The most doublings and halvings of the price of drift.
const DOUBLINGS: usize = 64;
const HALVINGS: usize = 32;

/// A choice for each block, given by its place, such that the bytes of all fit `room`, their drift is at most `drift`, and
/// their stall is about the least. Every block needs a choice that takes neither: then these two can be kept. `None`
/// where a block has no choice at all, or drift stays above the limit at any price.
///
/// At a price of drift each choice has one cost, and memory goes to the steps that save most cost a byte: the optimum of the
/// linear relaxation, but for the last step that fits. The price is the least that keeps the limit. Many blocks change
/// their choice at that very price, as all that are absent do: they change in the given order while the limit holds.
pub(super) fn solve(blocks: &[Vec<Choice>], room: u64, drift: f64) -> Option<Vec<usize>> {
    let at = |price: f64| {
        let taken = fill(blocks, room, price)?;
        Some(if total(blocks, &taken, |c| c.drift) <= drift { Ok(taken) } else { Err(taken) })
    };
    let all = blocks.iter().flatten();
    let (stall, most) = all.fold((0.0f64, 0.0f64), |(s, d), c| (s.max(c.stall), d.max(c.drift)));
    let first = if stall > 0.0 && most > 0.0 { stall / most } else { 1.0 };
    // So low a price decides between equals alone: no drift where memory would do.
    let (mut below, mut spends) = match at(first * 1e-9)? {
        Ok(taken) => return Some(taken),
        Err(taken) => (0.0, taken),
    };
    let mut prices = std::iter::successors(Some(first), |price| Some(price * 2.0)).take(DOUBLINGS);
    let (mut above, mut keeps) = prices.find_map(|price| Some((price, at(price)?.ok()?)))?;
    for _ in 0..HALVINGS {
        let middle = (below + above) / 2.0;
        match at(middle)? {
            Ok(taken) => (above, keeps) = (middle, taken),
            Err(taken) => (below, spends) = (middle, taken),
        }
    }
    Some(blend(blocks, keeps, &spends, room, drift))
}

/// Goes from a choice that keeps the limit of drift towards one that does not, as far as both limits allow.
fn blend(blocks: &[Vec<Choice>], keeps: Vec<usize>, spends: &[usize], room: u64, drift: f64) -> Vec<usize> {
    let mut taken = keeps;
    let mut bytes: u64 = blocks.iter().zip(&taken).map(|(choices, &place)| choices[place].bytes).sum();
    let mut spent = total(blocks, &taken, |c| c.drift);
    for ((choices, place), &other) in blocks.iter().zip(&mut taken).zip(spends) {
        let (now, then) = (choices[*place], choices[other]);
        let (new_bytes, new_spent) = (bytes - now.bytes + then.bytes, spent - now.drift + then.drift);
        if then.stall < now.stall && new_bytes <= room && new_spent <= drift {
            (*place, bytes, spent) = (other, new_bytes, new_spent);
        }
    }
    taken
}

fn total(blocks: &[Vec<Choice>], taken: &[usize], of: impl Fn(&Choice) -> f64) -> f64 {
    blocks.iter().zip(taken).map(|(choices, &place)| of(&choices[place])).sum()
}

/// A step from one choice of a block to a larger one.
struct Step {
    saves_a_byte: f64,
    block: usize,
    to: usize,
    bytes: u64,
}

/// Fills the room at a price of drift, by marginal value per byte.
fn fill(blocks: &[Vec<Choice>], room: u64, price: f64) -> Option<Vec<usize>> {
    let (mut taken, mut steps) = (Vec::with_capacity(blocks.len()), Vec::new());
    for (block, choices) in blocks.iter().enumerate() {
        taken.push(hull(choices, price, block, &mut steps)?);
    }
    let floor: u64 = blocks.iter().zip(&taken).map(|(choices, &place)| choices[place].bytes).sum();
    let mut left = room.checked_sub(floor)?;
    // Steps of one block come in falling order, and a stable sort keeps them so.
    steps.sort_by(|a: &Step, b: &Step| b.saves_a_byte.total_cmp(&a.saves_a_byte));
    let mut closed = vec![false; blocks.len()];
    for Step { block, to, bytes, .. } in steps {
        if closed[block] || bytes > left {
            closed[block] = true;
            continue;
        }
        left -= bytes;
        taken[block] = to;
    }
    Some(taken)
}

/// Appends the steps of a block that can be worth their bytes at some price of memory, and returns the place of its
/// smallest choice.
fn hull(choices: &[Choice], price: f64, block: usize, steps: &mut Vec<Step>) -> Option<usize> {
    let cost = |place: usize| choices[place].stall + price * choices[place].drift;
    let smaller = |&a: &usize, &b: &usize| {
        choices[a].bytes.cmp(&choices[b].bytes).then(cost(a).total_cmp(&cost(b))).then(a.cmp(&b))
    };
    let mut at = (0..choices.len()).min_by(smaller)?;
    let first = at;
    let step = |from: usize, to: usize| {
        let bytes = choices[to].bytes - choices[from].bytes;
        Step { saves_a_byte: (cost(from) - cost(to)) / bytes as f64, block, to, bytes }
    };
    loop {
        let larger =
            (0..choices.len()).filter(|&to| choices[to].bytes > choices[at].bytes && cost(to) < cost(at));
        let steepest =
            larger.map(|to| step(at, to)).reduce(|a, b| if b.saves_a_byte > a.saves_a_byte { b } else { a });
        let Some(steepest) = steepest else { return Some(first) };
        at = steepest.to;
        steps.push(steepest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choice(bytes: u64, stall: f64, drift: f64) -> Choice {
        Choice { bytes, stall, drift }
    }

    /// Every way to take one choice of each block.
    fn all(blocks: &[Vec<Choice>]) -> Vec<Vec<usize>> {
        blocks.iter().fold(vec![Vec::new()], |ways, choices| {
            let with = |way: &Vec<usize>, place| way.iter().copied().chain([place]).collect();
            ways.iter().flat_map(|way| (0..choices.len()).map(move |place| with(way, place))).collect()
        })
    }

    fn bytes(blocks: &[Vec<Choice>], taken: &[usize]) -> u64 {
        blocks.iter().zip(taken).map(|(choices, &place)| choices[place].bytes).sum()
    }

    fn blocks() -> impl Strategy<Value = Vec<Vec<Choice>>> {
        let any = (0u64..9, 0.0f64..9.0, prop::sample::select(vec![0.0, 0.5, 2.0]));
        let rest = prop::collection::vec(any, 0..4);
        let block = (0.0f64..20.0, rest).prop_map(|(stall, rest)| {
            let free = choice(0, stall, 0.0);
            std::iter::once(free).chain(rest.into_iter().map(|(b, s, d)| choice(b, s, d))).collect()
        });
        prop::collection::vec(block, 0..6)
    }

    proptest! {
        #[test]
        fn both_limits_hold(blocks in blocks(), room in 0u64..30, drift in 0.0f64..6.0) {
            let taken = solve(&blocks, room, drift).unwrap();
            prop_assert!(bytes(&blocks, &taken) <= room);
            prop_assert!(total(&blocks, &taken, |c| c.drift) <= drift);
        }

        /// By marginal value per byte, no more is lost than what one more step would have saved.
        #[test]
        fn nothing_that_fits_one_step_less_is_better(blocks in blocks(), room in 0u64..30) {
            let taken = solve(&blocks, room, f64::INFINITY).unwrap();
            let largest = blocks.iter().flatten().map(|choice| choice.bytes).max().unwrap_or(0);
            let fits = |way: &Vec<usize>| bytes(&blocks, way) + largest <= room;
            let stall = |way: &Vec<usize>| total(&blocks, way, |c| c.stall);
            let best = all(&blocks).into_iter().filter(fits).map(|way| stall(&way)).fold(f64::INFINITY, f64::min);
            prop_assert!(stall(&taken) <= best + 1e-9);
        }
    }

    #[test]
    fn drift_is_spent_where_it_saves_most() {
        // Absent, whole, or in half the bytes with some drift: of three alike but for how often they are needed.
        let block = |needed: f64| vec![choice(0, needed, 0.0), choice(2, 0.0, 0.0), choice(1, 0.0, needed)];
        let blocks = [block(5.0), block(4.0), block(3.0)];
        assert_eq!(solve(&blocks, 6, 12.0).unwrap(), [1, 1, 1]);
        assert_eq!(solve(&blocks, 3, 12.0).unwrap(), [2, 2, 2]);
        assert_eq!(solve(&blocks, 3, 0.0).unwrap(), [1, 0, 0]);
        assert_eq!(solve(&blocks, 3, 4.5).unwrap(), [1, 2, 0]);
    }

    #[test]
    fn a_block_without_a_choice_has_no_plan() {
        assert_eq!(solve(&[vec![]], 9, 9.0), None);
        assert_eq!(solve(&[vec![choice(2, 0.0, 0.0)]], 1, 9.0), None);
    }
}
