//! The time of recurrent layers on an accelerator, by its own events. Attention is timed by a library that is not ours, see
//! `hw/peers/torch_mixers.py`.

use super::error::CudaError;
use super::gpu::{Gpu, Stream};
use super::launch::Launch;
use super::memory::Slab;
use super::recurrent::{
    Places, Prompt, Rings, Workspace, dequantise, quantise, read_coded, replay, step, tile_stride,
};
use crate::calibrate::Steady;
use crate::recurrent::inputs::Owned;
use crate::recurrent::made;
use crate::recurrent::mixers::{Kept, Mixer, MixerError, Mixers, SEED};
use crate::recurrent::quantised::Bits;
use crate::recurrent::shape::Shape;
use bytemuck::Pod;
use half::f16;
use policy::units::Nanos;
use std::sync::Arc;

/// Tokens of a chunk, and of what is run at once: a sequence's states between chunks are in memory.
const CHUNK: u64 = 128;
const PART: usize = 2048;

/// An accelerator.
pub(crate) struct GpuMixers {
    gpu: Arc<Gpu>,
    patience: Nanos,
}

impl GpuMixers {
    pub(crate) fn new(gpu: Arc<Gpu>, patience: Nanos) -> GpuMixers {
        GpuMixers { gpu, patience }
    }

    fn put<T: Pod>(&self, numbers: &[T]) -> Result<Slab, CudaError> {
        let bytes: &[u8] = bytemuck::cast_slice(numbers);
        let slab = Slab::new(&self.gpu, bytes.len() as u64)?;
        slab.save(0, bytes)?;
        Ok(slab)
    }

    fn room(&self, bytes: u64) -> Result<Slab, CudaError> {
        Slab::new(&self.gpu, bytes)
    }

    fn inputs(&self, inputs: &Owned<f16>) -> Result<(Places, [Slab; 4]), CudaError> {
        let slabs = [self.put(&inputs.x)?, self.put(&inputs.dt)?, self.put(&inputs.b)?, self.put(&inputs.c)?];
        let [x, dt, b, c] = slabs.each_ref().map(Slab::start);
        Ok((Places { x, dt, b, c }, slabs))
    }

    /// Runs launches over and over; the device's time of one round.
    #[allow(unsafe_code)]
    fn timed(&self, launches: &[Launch]) -> Result<Steady, CudaError> {
        let stream: Stream = self.gpu.stream(false)?;
        Steady::brief(self.patience, || {
            let begin = stream.mark()?;
            // SAFETY: the callers' slabs are of the sizes that the launches are made for, and live until `wait` returns.
            launches.iter().try_for_each(|launch| unsafe { stream.launch(launch) })?;
            let end = stream.mark()?;
            end.wait()?;
            end.since(&begin)
        })
    }

    /// Prompts, in parts that read the same inputs.
    fn prompts(&self, shape: Shape, batch: usize, tokens: usize) -> Result<Steady, MixerError> {
        let made = made::layer::<f16>(shape, batch * tokens.min(PART), SEED);
        let (at, _inputs) = self.inputs(&made.inputs)?;
        let (a, state) = (self.put(&made.a)?, self.put(&vec![0.0f32; batch * shape.state()])?);
        let part = |tokens| Prompt { shape, sequences: batch as u64, tokens, chunk: CHUNK };
        let largest = part(tokens.min(PART) as u64);
        let work = [
            self.room(4 * largest.decay_numbers())?,
            self.room(4 * largest.decay_numbers())?,
            self.room(4 * largest.state_numbers())?,
            self.room(4 * largest.pair_numbers())?,
        ];
        let [high, low, states, pairs] = work.each_ref().map(Slab::start);
        let y = self.room(2 * made.inputs.x.len() as u64)?;
        let mut launches = Vec::new();
        for first in (0..tokens).step_by(PART) {
            let prompt = part(PART.min(tokens - first) as u64);
            let work = Workspace { high, low, states, pairs };
            launches.extend(prompt.run(a.start(), at, work, state.start(), y.start(), None)?);
        }
        Ok(self.timed(&launches)?)
    }

    /// A ring of tokens in states of eight bits: each is read, and at the last the ring is added and the states are coded anew.
    fn gated(&self, shape: Shape, ring: usize, batch: usize) -> Result<Steady, MixerError> {
        let made = made::layer::<f16>(shape, batch * ring, SEED);
        let (at, _inputs) = self.inputs(&made.inputs)?;
        let (a, heads) = (self.put(&made.a)?, (batch * shape.heads()) as u64);
        let numbers: Vec<f32> = (0..shape.state()).map(|at| libm::sinf(at as f32)).collect();
        let states = self.put(&numbers.repeat(batch))?;
        let tiles = self.room(heads * tile_stride(shape, Bits::Eight))?;
        let (refused, y) = (self.put(&[u64::MAX])?, self.room(4 * (batch * shape.width()) as u64)?);
        let coded = quantise(shape, Bits::Eight, heads, states.start(), tiles.start(), refused.start())?;
        self.timed(&coded)?;
        let mut launches = Vec::new();
        for kept in 1..=ring as u64 {
            let rings = Rings { at, kept, room: ring as u64 };
            launches.push(read_coded(shape, batch as u64, tiles.start(), rings, a.start(), y.start())?);
        }
        let rings = Rings { at, kept: ring as u64, room: ring as u64 };
        launches.push(dequantise(shape, Bits::Eight, heads, tiles.start(), states.start())?);
        launches.push(replay(shape, batch as u64, states.start(), rings, a.start())?);
        launches.extend(coded);
        let round = self.timed(&launches)?;
        Ok(Steady::of(vec![Nanos(round.median().0 / ring as u64)]))
    }
}

impl Mixers for GpuMixers {
    fn name(&self) -> String {
        format!("cuda:{} ({})", self.gpu.ordinal(), self.gpu.name())
    }

    fn prefill(&self, mixer: Mixer, batch: usize, tokens: usize) -> Result<Option<Steady>, MixerError> {
        match mixer {
            Mixer::Attention { .. } => Ok(None),
            Mixer::Recurrent(shape) => self.prompts(shape, batch, tokens).map(Some),
        }
    }

    fn decode(&self, mixer: Mixer, batch: usize, _: usize) -> Result<Option<Steady>, MixerError> {
        match mixer {
            Mixer::Attention { .. } => Ok(None),
            Mixer::Recurrent(shape) => self.step(shape, Kept::Fp16, batch),
        }
    }

    fn step(&self, shape: Shape, kept: Kept, batch: usize) -> Result<Option<Steady>, MixerError> {
        let (format, bytes) = match kept {
            Kept::Gated(ring) => return self.gated(shape, ring, batch).map(Some),
            Kept::Fp32 => ("fp32", 4),
            Kept::Fp16 => ("fp16", 2),
        };
        let made = made::layer::<f16>(shape, batch, SEED);
        let (at, _inputs) = self.inputs(&made.inputs)?;
        let states = self.put(&vec![0u8; bytes * batch * shape.state()])?;
        let (a, y) = (self.put(&made.a)?, self.room(4 * (batch * shape.width()) as u64)?);
        let launch = step(shape, format, batch as u64, a.start(), at, states.start(), y.start())?;
        Ok(Some(self.timed(&[launch])?))
    }
}
