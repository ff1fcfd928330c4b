//! Mamba-1's decay, folded. A number's rate does not change, so what a row has decayed by over some tokens is the exponential of its
//! rates times the sum of the channel's steps: one number a channel says all, but it takes an exponential a number to read the
//! state. One common decay a channel, as Mamba-2's heads have it, is not what the recurrence does.

/// How a channel's decay is applied to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// One factor a channel, that of its mean rate: a scale takes it.
    Common,
    /// Each number's own.
    Each,
}

/// Decays a state, `[channels][state_dim]`, by the sum of each channel's steps; `a` is the rate of each number.
pub fn decay(fold: Fold, a: &[f32], steps: &[f32], state: &mut [f32]) {
    let depth = a.len() / steps.len().max(1);
    for ((row, rates), sum) in state.chunks_exact_mut(depth).zip(a.chunks_exact(depth)).zip(steps) {
        let mean = rates.iter().sum::<f32>() / depth as f32;
        for (number, rate) in row.iter_mut().zip(rates) {
            *number *= libm::expf(sum * if fold == Fold::Common { mean } else { *rate });
        }
    }
}
