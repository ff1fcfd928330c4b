//! What any policy has to do, as a linear program: demands in their order, memory, link time and drift. Nothing here knows
//! machines or formats.
//!
//! The link is all ways into fast memory taken together (`ways`).
//! *Slots* are stretches of the link's time: slot s ends where the blocks of layer step s begin to be computed, and its link
//! time is what the accelerator computes in it, `free[s]`, plus the stall of step s, which is what is minimised. *Instants*
//! are those ends. A use at step t is served by a copy that was kept since the block's previous use, and so was in memory
//! at every instant between, or by one loaded in a slot between the two, and in memory from the end of that slot on. What
//! is in memory at an instant fits. Each use is served in one of several choices (formats); what the choices of one round
//! (a pass through all layers) drift has a budget. The first choice has every bit, and the others can be made of it; a lossy
//! copy serves nothing but its own choice.
//!
//! Every schedule of every policy, with any prefetching, is a feasible point, so that the program's optimum and whatever
//! lies below it is no more than the policy's stall. Left out, because it could only add: latency, the time to change
//! formats, room that a copy takes while it is on its way, loads that cannot be cut into pieces.

/// One way to serve a use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    /// Share of the memory that the copy takes while it waits for the use.
    pub(super) held: f64,
    /// Share of the memory that the copy takes which is read.
    pub(super) read: f64,
    /// Link time of a load, in nanoseconds.
    pub(super) load: f64,
    /// Squared error of what is read.
    pub(super) error: f64,
}

/// A block is demanded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Use {
    /// The layer step.
    pub(super) step: u32,
    /// The step of the block's previous use, or [`NEVER`].
    pub(super) previous: u32,
    /// The block.
    pub(super) block: u32,
    /// What one unit of squared error adds to the squared drift of the round.
    pub(super) weight: f32,
}

/// There was no previous use: the run begins with empty memory.
pub(super) const NEVER: u32 = u32::MAX;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Program {
    /// Link time that compute leaves free in each slot, in nanoseconds.
    pub(super) free: Vec<f64>,
    /// Whether all blocks of a step are in memory together when it is computed. Those of the other steps are computed in
    /// waves, and a load for one may be as late as the next slot.
    pub(super) whole: Vec<bool>,
    /// The uses, in order of their steps.
    pub(super) uses: Vec<Use>,
    /// The kind of each block, as an index of `kinds`.
    pub(super) kind: Vec<u16>,
    /// The choices of each kind of block, the native format first.
    pub(super) kinds: Vec<Vec<Choice>>,
    /// One past the last use of each round.
    pub(super) rounds: Vec<usize>,
    /// The squared drift that a round may have.
    pub(super) drift: f64,
}

impl Program {
    /// The number of layer steps.
    pub(super) fn steps(&self) -> usize {
        self.free.len()
    }

    /// Takes out choices of which not even one use is within a round's budget.
    pub(super) fn forget_what_drifts_too_far(&mut self) {
        let least = self.uses.iter().map(|used| f64::from(used.weight)).fold(f64::INFINITY, f64::min);
        // Weights are rounded to 32 bits.
        let most = self.drift * (1.0 + 1e-6);
        for choices in &mut self.kinds {
            choices.retain(|choice| choice.error == 0.0 || choice.error * least <= most);
        }
    }

    /// The choices of a use.
    pub(super) fn choices(&self, used: &Use) -> &[Choice] {
        &self.kinds[usize::from(self.kind[used.block as usize])]
    }

    /// The least stall, in nanoseconds, where everything fits: the first loads, each of the fewest bytes, less all compute
    /// that could hide them. A use in waves may be loaded a slot later.
    pub(super) fn cold_stall(&self) -> f64 {
        let (mut over, mut most, mut late) = (0.0, 0f64, 0.0);
        let mut uses = self.uses.iter().peekable();
        for (slot, free) in self.free.iter().enumerate() {
            over += std::mem::take(&mut late) - free;
            while let Some(used) = uses.next_if(|used| used.step as usize == slot) {
                if used.previous == NEVER {
                    let load =
                        self.choices(used).iter().map(|choice| choice.load).fold(f64::INFINITY, f64::min);
                    *if self.whole[slot] { &mut over } else { &mut late } += load;
                }
            }
            most = most.max(over);
        }
        most
    }

    /// Whether one kind of block has more than one choice.
    pub(super) fn chooses(&self) -> bool {
        self.kinds.iter().any(|choices| choices.len() > 1)
    }
}
