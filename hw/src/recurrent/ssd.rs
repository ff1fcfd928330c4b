//! The chunked form of Mamba-2's recurrence (Dao and Gu 2024, section 6): within a chunk of tokens it is a product of matrices as
//! attention is, between chunks a short recurrence. Four stages: the sums of the steps, what each chunk adds to a state, the states
//! between chunks, the outputs. Their boundaries are where a checkpoint costs nothing, because the state is there anyway.

use super::chunk::{Decays, Group};
use super::inputs::Inputs;
use super::number::Number;
use super::shape::Shape;
use super::{RecurrentError, check};
use fearless_simd::Level;
use rayon::prelude::*;
use std::ops::Range;

/// A layer over the tokens of a prompt.
#[derive(Clone, Copy, Debug)]
pub struct Ssd<'a> {
    level: Level,
    shape: Shape,
    /// The rate of each head.
    a: &'a [f32],
    chunk: usize,
}

/// Is told the state, `[heads][head_dim][state_dim]`, before the token at this place, at each boundary of chunks and at the end.
pub type Checkpoint<'a> = &'a mut dyn FnMut(usize, &[f32]);

impl<'a> Ssd<'a> {
    /// A layer whose heads have the rates `a`, in chunks of so many tokens.
    pub fn new(shape: Shape, a: &'a [f32], chunk: usize) -> Result<Ssd<'a>, RecurrentError> {
        check("rates", shape.heads(), a.len())?;
        if chunk == 0 || chunk > 4096 {
            return Err(RecurrentError::Shape("a chunk has 1 to 4096 tokens"));
        }
        Ok(Ssd { level: Level::new(), shape, a, chunk })
    }

    /// Runs the layer over `inputs` from `state` on, which is left as it is after the last token; `y` is
    /// `[tokens][heads][head_dim]`. All chunks' states are held at once: a long prompt is run in parts.
    pub fn run<T: Number>(
        &self,
        inputs: Inputs<'_, T>,
        state: &mut [f32],
        y: &mut [T],
        checkpoint: Checkpoint<'_>,
    ) -> Result<(), RecurrentError> {
        let shape = self.shape;
        let tokens = inputs.tokens(shape)?;
        check("state", shape.state(), state.len())?;
        check("y", tokens * shape.width(), y.len())?;
        let chunks: Vec<Range<usize>> =
            (0..tokens).step_by(self.chunk).map(|first| first..tokens.min(first + self.chunk)).collect();
        let decays: Vec<Decays> =
            chunks.par_iter().map(|chunk| Decays::new(inputs.of(shape, chunk.clone()).dt, self.a)).collect();
        let mut states = vec![0.0; chunks.len() * shape.state()];
        let each = states.par_chunks_exact_mut(shape.state()).zip(&chunks).zip(&decays);
        each.for_each(|((added, chunk), decays)| {
            for group in 0..shape.groups() {
                let part = Group::new(shape, group, inputs.of(shape, chunk.clone()), decays);
                part.add_to_state(self.level, &mut added[part.states()]);
            }
        });
        self.pass_states(&chunks, &decays, &mut states, state, checkpoint);
        let outputs = y.par_chunks_mut(self.chunk * shape.width());
        let each = outputs.zip(states.par_chunks_exact(shape.state())).zip(&chunks).zip(&decays);
        each.for_each(|(((y, state), chunk), decays)| {
            for group in 0..shape.groups() {
                let part = Group::new(shape, group, inputs.of(shape, chunk.clone()), decays);
                part.read(self.level, &state[part.states()], y);
            }
        });
        Ok(())
    }

    /// Turns what each chunk adds into the state before it, and `state` into that after the last.
    fn pass_states(
        &self,
        chunks: &[Range<usize>],
        decays: &[Decays],
        states: &mut [f32],
        state: &mut [f32],
        checkpoint: Checkpoint<'_>,
    ) {
        let shape = self.shape;
        for ((chunk, decays), added) in chunks.iter().zip(decays).zip(states.chunks_exact_mut(shape.state()))
        {
            checkpoint(chunk.start, state);
            let heads =
                state.par_chunks_exact_mut(shape.tile()).zip(added.par_chunks_exact_mut(shape.tile()));
            heads.enumerate().with_min_len(8).for_each(|(head, (state, added))| {
                let decay = libm::expf(decays.whole(head));
                for (state, added) in state.iter_mut().zip(added) {
                    let before = *state;
                    *state = before * decay + *added;
                    *added = before;
                }
            });
        }
        checkpoint(chunks.last().map_or(0, |chunk| chunk.end), state);
    }
}
