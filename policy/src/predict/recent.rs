//! What was chosen at the last layer steps, one token back.

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    /// A step's slot is its number modulo their count.
    steps: Vec<Step>,
    /// Steps observed. The first is numbered one token on, so that every number looked back to is positive.
    next: usize,
}

#[derive(Clone, Debug)]
struct Step {
    chosen: Vec<u32>,
    scale: f32,
}

impl Recent {
    /// Nothing was chosen yet. `experts` can be at most.
    pub(super) fn new(layers: usize, experts: usize) -> Recent {
        let step = || Step { chosen: Vec::with_capacity(experts), scale: 0.0 };
        Recent { steps: std::iter::repeat_with(step).take(layers + 1).collect(), next: layers + 1 }
    }

    /// The next layer was routed.
    pub(super) fn push(&mut self, chosen: &[u32], scale: f32) {
        let slot = self.next % self.steps.len();
        let step = &mut self.steps[slot];
        step.chosen.clear();
        step.chosen.extend_from_slice(chosen);
        step.scale = scale;
        self.next += 1;
    }

    /// Layer steps so far.
    pub(super) fn observed(&self) -> usize {
        self.next - self.steps.len()
    }

    /// What was chosen `back` layer steps before the newest, up to a token, and how much of one token's choice each
    /// stands for.
    #[inline]
    pub(super) fn back(&self, back: usize) -> (&[u32], f32) {
        let step = &self.steps[(self.next - 1 - back) % self.steps.len()];
        (&step.chosen, step.scale)
    }
}
