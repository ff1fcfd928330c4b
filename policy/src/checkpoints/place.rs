//! Where on a prompt checkpoints are made.

use super::{Checkpoints, Place};

impl Checkpoints {
    /// The positions of a prompt at which checkpoints are made, in order, behind `from`: `alike` tokens are like those of
    /// earlier prompts, and `blocks` of its blocks have numbers. At least one token is always left to compute, so none is at
    /// the very end.
    pub(super) fn marks(&mut self, alike: u32, from: u32, prompt: u32, blocks: u32) -> Vec<u32> {
        let numbered = blocks.saturating_mul(self.block);
        let end = whole(prompt.saturating_sub(1).min(numbered), self.stride);
        let mut marks = match self.spec.place {
            Place::Every(tokens) => {
                let step = whole(tokens, self.stride).max(self.stride);
                (1..=end / step).map(|place| place * step).collect()
            }
            Place::Branch => vec![whole(alike, self.stride)],
            Place::Optimal(count) => self.depths.best(count).to_vec(),
        };
        marks.push(end);
        marks.retain(|&mark| mark > from && mark <= end);
        marks.sort_unstable();
        marks.dedup();
        marks
    }
}

/// The last multiple of `step` that is not behind `tokens`.
fn whole(tokens: u32, step: u32) -> u32 {
    tokens / step * step
}
