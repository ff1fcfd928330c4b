//! The time that layers take on a device: attention and a recurrent layer beside each other, and ways to keep a state.

use super::RecurrentError;
use super::attention::{Attention, Qkv};
use super::gated::{Gated, Rule};
use super::inputs::Inputs;
use super::made;
use super::number::narrowed;
use super::shape::Shape;
use super::ssd::Ssd;
use super::step::Steps;
use crate::calibrate::Steady;
use crate::cuda::error::CudaError;
use crate::cuda::launch::LaunchError;
use crate::lane::{now, since};
use half::f16;
use policy::units::Nanos;
use rayon::prelude::*;
use std::time::Instant;
use thiserror::Error;

/// Why a time could not be taken.
#[derive(Debug, Error)]
pub enum MixerError {
    /// A kernel refused its inputs.
    #[error(transparent)]
    Kernel(#[from] RecurrentError),
    /// The accelerator failed.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// No launch does it.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// What mixes tokens in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixer {
    /// Causal attention with this many heads of this many numbers, its cache in fp16.
    Attention {
        /// Heads.
        heads: usize,
        /// Numbers of each.
        head_dim: usize,
    },
    /// Mamba-2's recurrence, its inputs in fp16; over a prompt its state is in fp32, while decoding in fp16.
    Recurrent(Shape),
}

/// How a state is kept while decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In fp32, read and written at every token.
    Fp32,
    /// In fp16, read and written at every token.
    Fp16,
    /// In eight bits, with a ring of inputs of so many tokens.
    Gated(usize),
}

/// A device that layers are timed on.
pub trait Mixers {
    /// What it is called.
    fn name(&self) -> String;

    /// The time of a prompt of `tokens` tokens in each of `batch` sequences; `None` where this device has no such kernel here.
    fn prefill(&self, mixer: Mixer, batch: usize, tokens: usize) -> Result<Option<Steady>, MixerError>;

    /// The time of one more token in each of `batch` sequences of `tokens` tokens.
    fn decode(&self, mixer: Mixer, batch: usize, tokens: usize) -> Result<Option<Steady>, MixerError>;

    /// The time of one more token in each of `batch` sequences, on average over a ring; by how the state is kept.
    fn step(&self, shape: Shape, kept: Kept, batch: usize) -> Result<Option<Steady>, MixerError>;
}

/// Tokens of a prompt that are made up: a longer one reads them again, from memory as they do not fit a cache.
pub(crate) const PROMPT: usize = 4096;
/// Tokens of a prompt that are run at once, and those of a chunk: few, so that a sequence's states between chunks stay in the
/// cache; measured.
const PART: usize = 1024;
const CHUNK: usize = 64;
pub(crate) const SEED: u64 = 7;

/// The processor, all of its threads.
#[derive(Debug)]
pub struct HostMixers {
    patience: Nanos,
}

impl HostMixers {
    /// The machine this runs on. One thing is measured for as long as `patience`, at least three times; once if it takes longer.
    pub fn new(patience: Nanos) -> HostMixers {
        HostMixers { patience }
    }

    /// The time of `run`, over and over.
    fn timed(&self, mut run: impl FnMut() -> Result<(), RecurrentError>) -> Result<Steady, RecurrentError> {
        Steady::brief(self.patience, || {
            let start: Instant = now();
            run()?;
            Ok(since(start))
        })
    }
}

impl Mixers for HostMixers {
    fn name(&self) -> String {
        format!("host ({} threads)", rayon::current_num_threads())
    }

    fn prefill(&self, mixer: Mixer, batch: usize, tokens: usize) -> Result<Option<Steady>, MixerError> {
        Ok(Some(match mixer {
            Mixer::Attention { heads, head_dim } => {
                let attention = Attention::new(heads, head_dim)?;
                let [q, k, v] = [1, 2, 3].map(|seed| repeated(tokens * heads * head_dim, seed));
                let mut y = vec![f16::ZERO; batch * q.len()];
                self.timed(|| {
                    // Every sequence has the same numbers, and memory of its own only for what it writes.
                    let run = |y: &mut [f16]| attention.prefill(Qkv { q: &q, k: &k, v: &v }, y);
                    y.chunks_exact_mut(q.len()).try_for_each(run)
                })?
            }
            Mixer::Recurrent(shape) => {
                let made = made::layer::<f16>(shape, batch * tokens.min(PROMPT), SEED);
                let ssd = Ssd::new(shape, &made.a, CHUNK)?;
                self.timed(|| run_prompts(&ssd, shape, made.inputs.lend(), batch, tokens))?
            }
        }))
    }

    fn decode(&self, mixer: Mixer, batch: usize, tokens: usize) -> Result<Option<Steady>, MixerError> {
        match mixer {
            Mixer::Attention { heads, head_dim } => {
                let attention = Attention::new(heads, head_dim)?;
                let [q, k, v] =
                    [1, tokens, tokens].map(|tokens| repeated(batch * tokens * heads * head_dim, 1));
                let mut y = vec![0.0; q.len()];
                Ok(Some(self.timed(|| attention.decode(Qkv { q: &q, k: &k, v: &v }, &mut y))?))
            }
            Mixer::Recurrent(shape) => self.step(shape, Kept::Fp16, batch),
        }
    }

    fn step(&self, shape: Shape, kept: Kept, batch: usize) -> Result<Option<Steady>, MixerError> {
        let made = made::layer::<f16>(shape, batch, SEED);
        let (inputs, steps) = (made.inputs.lend(), Steps::new(shape, &made.a)?);
        let mut y = vec![0.0; batch * shape.width()];
        Ok(Some(match kept {
            Kept::Fp32 => {
                let mut states = vec![0.5f32; batch * shape.state()];
                self.timed(|| steps.step(inputs, &mut states, &mut y))?
            }
            Kept::Fp16 => {
                let mut states = vec![f16::ONE; batch * shape.state()];
                self.timed(|| steps.step(inputs, &mut states, &mut y))?
            }
            Kept::Gated(ring) => timed_gated(self.patience, shape, &made, ring, &mut y)?,
        }))
    }
}

/// Prompts of `batch` sequences, in parts; the made-up inputs are read again where a prompt is longer.
fn run_prompts(
    ssd: &Ssd<'_>,
    shape: Shape,
    inputs: Inputs<'_, f16>,
    batch: usize,
    tokens: usize,
) -> Result<(), RecurrentError> {
    let made = inputs.dt.len() / shape.heads() / batch;
    (0..batch).into_par_iter().try_for_each(|sequence| {
        let (mut state, mut y) = (vec![0.0; shape.state()], vec![f16::ZERO; PART * shape.width()]);
        for first in (0..tokens).step_by(PART) {
            let count = PART.min(tokens - first);
            let from = sequence * made + first % made;
            let y = &mut y[..count * shape.width()];
            ssd.run(inputs.of(shape, from..from + count), &mut state, y, &mut |_, _| ())?;
        }
        Ok(())
    })
}

/// As many tokens as the ring has room for, so that each sequence flushes once; the time of one of them.
fn timed_gated(
    patience: Nanos,
    shape: Shape,
    made: &made::Made<f16>,
    ring: usize,
    y: &mut [f32],
) -> Result<Steady, RecurrentError> {
    let closed = vec![0.0; shape.heads()];
    let rule = Rule { ring, threshold: f32::MAX };
    let state: Vec<f32> = (0..shape.state()).map(|at| libm::sinf(at as f32)).collect();
    let first = Gated::new(shape, &made.a, rule, &state)?;
    let mut states = vec![first; y.len() / shape.width()];
    let inputs = made.inputs.lend();
    let ring_of_tokens = || -> Result<Nanos, RecurrentError> {
        let start = now();
        for _ in 0..ring {
            let sequences = states.par_iter_mut().zip(y.par_chunks_exact_mut(shape.width())).enumerate();
            sequences.try_for_each(|(sequence, (state, y))| {
                state.step(inputs.of(shape, sequence..sequence + 1), &closed, y).map(drop)
            })?;
        }
        Ok(Nanos(since(start).0 / ring as u64))
    };
    Steady::brief(patience, ring_of_tokens)
}

/// So many numbers in fp16, those of a prompt again and again.
fn repeated(count: usize, seed: u64) -> Vec<f16> {
    let block = made::layer::<f32>(Shape::NEMOTRON_H, 64, seed).inputs.x;
    let block: Vec<f16> = narrowed(&block);
    let mut numbers = Vec::with_capacity(count);
    while numbers.len() < count {
        numbers.extend_from_slice(&block[..block.len().min(count - numbers.len())]);
    }
    numbers
}
