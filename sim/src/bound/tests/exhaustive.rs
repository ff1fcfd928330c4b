//! The best of all schedules of a tiny run, prefetching included, by trying them all: time goes in units, one copy at a time
//! is on the link, and takes its room from the beginning.

use super::Tiny;
use std::collections::{BTreeSet, VecDeque};

/// A copy: a block and which of its formats.
type Copy = (usize, usize);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    step: usize,
    /// Units of compute left before the step's blocks are asked for.
    compute: u32,
    resident: BTreeSet<Copy>,
    /// What is on the link, and the units it still takes.
    coming: Option<(Copy, u32)>,
}

/// The least stall, in units.
pub(super) fn stall(tiny: &Tiny) -> u32 {
    let start = State { step: 0, compute: tiny.free[0], resident: BTreeSet::new(), coming: None };
    // Breadth first by stall: what costs nothing goes to the front.
    let mut queue = VecDeque::from([(start, 0)]);
    let mut seen = BTreeSet::new();
    while let Some((state, stall)) = queue.pop_front() {
        if state.step == tiny.demands.len() {
            return stall;
        }
        if !seen.insert(state.clone()) {
            continue;
        }
        free_moves(tiny, &state).into_iter().for_each(|next| queue.push_front((next, stall)));
        let waits = state.compute == 0;
        let next = (wait(state), stall + u32::from(waits));
        if waits { queue.push_back(next) } else { queue.push_front(next) }
    }
    unreachable!("every demand fits")
}

fn size(tiny: &Tiny, copy: Copy) -> u32 {
    tiny.blocks[copy.0][copy.1].0
}

/// What takes no time: to give up a copy, to begin a load, to begin to compute a step's blocks.
fn free_moves(tiny: &Tiny, state: &State) -> Vec<State> {
    let mut moves = Vec::new();
    for copy in &state.resident {
        let mut next = state.clone();
        next.resident.remove(copy);
        moves.push(next);
    }
    let taken: u32 = state.resident.iter().map(|&copy| size(tiny, copy)).sum();
    if state.coming.is_none() {
        let copies = tiny.blocks.iter().enumerate();
        let all = copies.flat_map(|(block, formats)| (0..formats.len()).map(move |format| (block, format)));
        for copy in all.filter(|copy| !state.resident.contains(copy)) {
            if taken + size(tiny, copy) <= tiny.capacity {
                moves.push(State { coming: Some((copy, tiny.blocks[copy.0][copy.1].1)), ..state.clone() });
            }
        }
    }
    if state.compute == 0 && can_compute(tiny, state) {
        let step = state.step + 1;
        moves.push(State { step, compute: tiny.free.get(step).copied().unwrap_or(0), ..state.clone() });
    }
    moves
}

/// Whether each block of the step has a copy, and those that have only a lossy one do not drift too far.
fn can_compute(tiny: &Tiny, state: &State) -> bool {
    let drift = tiny.demands[state.step].iter().map(|&(block, weight)| {
        let whole = state.resident.contains(&(block, 0)).then_some(0);
        whole.or_else(|| state.resident.contains(&(block, 1)).then_some(weight))
    });
    drift.sum::<Option<u32>>().is_some_and(|drift| drift <= tiny.drift)
}

/// One unit passes.
fn wait(mut state: State) -> State {
    state.compute = state.compute.saturating_sub(1);
    state.coming = match state.coming {
        Some((copy, 1)) => {
            state.resident.insert(copy);
            None
        }
        coming => coming.map(|(copy, left)| (copy, left - 1)),
    };
    state
}
