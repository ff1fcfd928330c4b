//! One token: every number of the state is read, decayed, added to and written back.

use super::inputs::Inputs;
use super::lanes;
use super::number::{Number, expanded};
use super::quantised::Tile;
use super::shape::Shape;
use super::{RecurrentError, check};
use fearless_simd::{Level, Simd, dispatch};
use rayon::prelude::*;

/// A layer's single-token update.
#[derive(Clone, Copy, Debug)]
pub struct Steps<'a> {
    level: Level,
    shape: Shape,
    /// The rate of each head.
    a: &'a [f32],
}

/// What one head takes at one token, in f32.
#[derive(Clone, Copy)]
struct Head<'a> {
    decay: f32,
    dt: f32,
    x: &'a [f32],
    b: &'a [f32],
    c: &'a [f32],
}

impl<'a> Steps<'a> {
    /// The update of a layer whose heads have the rates `a`.
    pub fn new(shape: Shape, a: &'a [f32]) -> Result<Steps<'a>, RecurrentError> {
        check("rates", shape.heads(), a.len())?;
        Ok(Steps { level: Level::new(), shape, a })
    }

    /// Takes as many sequences as `inputs` has tokens one token further: `states` is `[sequences][heads][head_dim][state_dim]`, kept as
    /// `T`; `y` is `[sequences][heads][head_dim]`.
    pub fn step<T: Number, U: Number>(
        &self,
        inputs: Inputs<'_, U>,
        states: &mut [T],
        y: &mut [f32],
    ) -> Result<(), RecurrentError> {
        let shape = self.shape;
        let sequences = inputs.tokens(shape)?;
        check("states", sequences * shape.state(), states.len())?;
        check("y", sequences * shape.width(), y.len())?;
        let (x, b, c) = (expanded(inputs.x), expanded(inputs.b), expanded(inputs.c));
        let inputs = Inputs { x: &x, dt: inputs.dt, b: &b, c: &c };
        let heads = states.par_chunks_exact_mut(shape.tile()).zip(y.par_chunks_exact_mut(shape.head_dim()));
        heads.enumerate().with_min_len(8).for_each_init(
            || vec![0.0f32; shape.state_dim()],
            |row, (at, (state, y))| {
                let head = self.head(inputs, at);
                dispatch!(self.level, simd => advance(simd, head, state, row, y));
            },
        );
        Ok(())
    }

    /// The same for one sequence whose state is coded anew at every token: what a state in fewer bits costs in error where nothing
    /// is done about it.
    pub fn step_coded<U: Number>(
        &self,
        inputs: Inputs<'_, U>,
        tiles: &mut [Tile],
        y: &mut [f32],
    ) -> Result<(), RecurrentError> {
        let shape = self.shape;
        check("tokens", 1, inputs.tokens(shape)?)?;
        check("tiles", shape.heads(), tiles.len())?;
        check("y", shape.width(), y.len())?;
        let (x, b, c) = (expanded(inputs.x), expanded(inputs.b), expanded(inputs.c));
        let inputs = Inputs { x: &x, dt: inputs.dt, b: &b, c: &c };
        let heads = tiles.par_iter_mut().zip(y.par_chunks_exact_mut(shape.head_dim()));
        heads.enumerate().try_for_each_init(
            || vec![0.0f32; shape.tile() + shape.state_dim()],
            |room, (at, (tile, y))| {
                let (state, row) = room.split_at_mut(shape.tile());
                tile.dequantise(shape, state)?;
                dispatch!(self.level, simd => advance(simd, self.head(inputs, at), state, row, y));
                *tile = Tile::quantise(shape, tile.bits(), state)?;
                Ok(())
            },
        )
    }

    /// What head `at`, counted over all sequences, takes.
    fn head<'i>(&self, inputs: Inputs<'i, f32>, at: usize) -> Head<'i> {
        let shape = self.shape;
        let (token, head) = (at / shape.heads(), at % shape.heads());
        let shared = (token * shape.groups() + shape.group(head)) * shape.state_dim();
        let dt = inputs.dt[at];
        Head {
            decay: libm::expf(dt * self.a[head]),
            dt,
            x: &inputs.x[at * shape.head_dim()..][..shape.head_dim()],
            b: &inputs.b[shared..][..shape.state_dim()],
            c: &inputs.c[shared..][..shape.state_dim()],
        }
    }
}

/// One head at one token; `row` is room for one row.
#[inline(always)]
fn advance<S: Simd, T: Number>(simd: S, head: Head<'_>, state: &mut [T], row: &mut [f32], y: &mut [f32]) {
    let Head { decay, dt, x, b, c } = head;
    for (stored, (x, y)) in state.chunks_exact_mut(b.len()).zip(x.iter().zip(y)) {
        T::expand(stored, row);
        *y = lanes::advance(simd, row, decay, dt * x, b, c);
        T::narrow(row, stored);
    }
}
