//! Gated state quantisation. While a head's gate is closed its state lies in eight bits and is not written: its decay, one number a
//! head, is folded into the scale when it is read, and what tokens add to it waits in a ring of inputs. When the ring is full the two
//! are added up and coded anew. While the gate is open the head's state is in fp16 and is written at every token.
//!
//! This holds for Mamba-2, where a head has one decay. In Mamba-1 each number of a row has its own, which no common scale can hold.

use super::backlog::{Backlog, entry_bytes};
use super::inputs::Inputs;
use super::lanes;
use super::number::{Number, expanded, narrowed};
use super::quantised::{Bits, Tile, matrix};
use super::ring::Ring;
use super::shape::Shape;
use super::{RecurrentError, check};
use crate::compute::{Scratch, Weights};
use fearless_simd::{Level, dispatch};
use half::f16;
use rayon::prelude::*;

/// When states are coded and expanded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Tokens whose inputs the ring has room for; at least one.
    pub ring: usize,
    /// A head's gate is open above this.
    pub threshold: f32,
}

/// A layer's state under a rule, for one sequence.
#[derive(Clone, Debug)]
pub struct Gated {
    shape: Shape,
    a: Vec<f32>,
    threshold: f32,
    heads: Vec<Head>,
    ring: Ring<f16>,
}

/// How a head's state is kept.
#[derive(Clone, Debug)]
enum Head {
    /// As it is.
    Open(Vec<f16>),
    /// As it was before token `from` of the ring.
    Closed { tile: Tile, from: usize },
}

/// What a token took. The inputs of the token itself, which any way of keeping the state reads, do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Heads whose state was in fp16.
    pub open: usize,
    /// Heads whose codes were written anew, for a full ring.
    pub flushed: usize,
    /// Bytes of states and ring that were read.
    pub read: usize,
    /// Bytes of them that were written.
    pub written: usize,
}

impl Gated {
    /// Begins with a state in full precision, `[heads][head_dim][state_dim]`; all gates are closed.
    pub fn new(shape: Shape, a: &[f32], rule: Rule, state: &[f32]) -> Result<Gated, RecurrentError> {
        check("rates", shape.heads(), a.len())?;
        check("state", shape.state(), state.len())?;
        if rule.ring == 0 {
            return Err(RecurrentError::Shape("a ring has room for at least one token"));
        }
        let close = |state| Ok(Head::Closed { tile: Tile::quantise(shape, Bits::Eight, state)?, from: 0 });
        let heads = state.par_chunks_exact(shape.tile()).map(close).collect::<Result<_, RecurrentError>>()?;
        let ring = Ring::new(shape, rule.ring);
        Ok(Gated { shape, a: a.to_vec(), threshold: rule.threshold, heads, ring })
    }

    /// Takes one token further: `gates` is a number a head, `y` is `[heads][head_dim]`.
    pub fn step(
        &mut self,
        token: Inputs<'_, f16>,
        gates: &[f32],
        y: &mut [f32],
    ) -> Result<Taken, RecurrentError> {
        let shape = self.shape;
        check("gates", shape.heads(), gates.len())?;
        check("y", shape.width(), y.len())?;
        self.ring.push(token)?;
        let now = Present::new(&self.ring, token);
        let heads = self.heads.par_iter_mut().zip(y.par_chunks_exact_mut(shape.head_dim()));
        let taken = heads.enumerate().with_min_len(8).map(|(at, (head, y))| {
            let (a, open) = (self.a[at], gates[at] > self.threshold);
            now.switch(head, at, a, open)?;
            now.advance(head, at, a, y)
        });
        let mut taken = taken.try_reduce(Taken::default, |one, other| Ok(one.and(other)))?;
        // The shared vectors, for all closed heads at once. The token that fills the ring is never written there.
        let (shared, full) = (f16::BYTES * shape.shared(), self.ring.is_full());
        if taken.open < shape.heads() {
            taken.read += shared * (self.ring.len() - 1);
            taken.written += if full { 0 } else { shared };
        }
        if full {
            self.ring.clear();
        }
        Ok(taken)
    }

    /// The state as it stands for now.
    pub fn state(&self) -> Result<Vec<f32>, RecurrentError> {
        let mut state = vec![0.0; self.shape.state()];
        let heads = state.par_chunks_exact_mut(self.shape.tile()).zip(&self.heads).enumerate();
        heads.try_for_each(|(at, (state, head))| {
            match head {
                Head::Open(kept) => f16::expand(kept, state),
                Head::Closed { tile, from } => {
                    tile.dequantise(self.shape, state)?;
                    Backlog::new(&self.ring, at, self.a[at], *from..self.ring.len()).add_to(state);
                }
            }
            Ok::<_, RecurrentError>(())
        })?;
        Ok(state)
    }

    /// How much a token adds to each head's state, relative to what is there: a gate a head. The state's length is that of its codes
    /// times what they have decayed, as no kernel reads a state for it.
    pub fn gates(&self, token: Inputs<'_, f16>) -> Result<Vec<f32>, RecurrentError> {
        let added = injection_norms(self.shape, token)?;
        let relative = |(at, (added, head)): (usize, (f32, &Head))| {
            let there = match head {
                Head::Open(state) => norm(&expanded(state)),
                Head::Closed { tile, from } => {
                    let fold = Backlog::new(&self.ring, at, self.a[at], *from..self.ring.len()).fold();
                    let rows = self.shape.head_dim() as f32;
                    fold * rows.sqrt() * norm(&expanded(tile.columns()))
                }
            };
            if added == 0.0 { 0.0 } else { added / there }
        };
        Ok(added.into_iter().zip(&self.heads).enumerate().map(relative).collect())
    }

    /// Whether a head's state is in fp16.
    pub fn is_open(&self, head: usize) -> bool {
        matches!(self.heads.get(head), Some(Head::Open(_)))
    }
}

/// The length of what a token adds to each head's state, `dt |x| |b|`.
pub fn injection_norms<T: Number>(shape: Shape, token: Inputs<'_, T>) -> Result<Vec<f32>, RecurrentError> {
    check("tokens", 1, token.tokens(shape)?)?;
    let (x, b) = (expanded(token.x), expanded(token.b));
    let shared: Vec<f32> = b.chunks_exact(shape.state_dim()).map(norm).collect();
    let heads = x.chunks_exact(shape.head_dim()).zip(token.dt).enumerate();
    Ok(heads.map(|(head, (x, dt))| dt * norm(x) * shared[shape.group(head)]).collect())
}

fn norm(numbers: &[f32]) -> f32 {
    let level = Level::new();
    dispatch!(level, simd => lanes::dot(simd, numbers, numbers)).sqrt()
}

impl Taken {
    /// Both together.
    pub fn and(self, other: Taken) -> Taken {
        Taken {
            open: self.open + other.open,
            flushed: self.flushed + other.flushed,
            read: self.read + other.read,
            written: self.written + other.written,
        }
    }
}

/// What all heads read at a token, which is the last of the ring.
struct Present<'r> {
    shape: Shape,
    level: Level,
    ring: &'r Ring<f16>,
    x: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    /// `[groups][tokens of the ring]`: `b` of each times this token's `c`.
    products: Vec<f32>,
}

impl<'r> Present<'r> {
    fn new(ring: &'r Ring<f16>, token: Inputs<'_, f16>) -> Present<'r> {
        let (shape, level) = (ring.shape(), Level::new());
        let (kept, c) = (expanded(ring.inputs().b), expanded(token.c));
        let mut products = Vec::with_capacity(shape.groups() * ring.len());
        for (group, c) in c.chunks_exact(shape.state_dim()).enumerate() {
            for token in kept.chunks_exact(shape.shared()) {
                let b = &token[group * shape.state_dim()..][..shape.state_dim()];
                products.push(dispatch!(level, simd => lanes::dot(simd, b, c)));
            }
        }
        Present { shape, level, ring, x: expanded(token.x), b: expanded(token.b), c, products }
    }

    /// Expands the state of a head whose gate opens, and codes that of one whose gate closes.
    fn switch(&self, head: &mut Head, at: usize, a: f32, open: bool) -> Result<(), RecurrentError> {
        let present = self.ring.len() - 1;
        let next = match head {
            Head::Closed { tile, from } if open => {
                let mut state = vec![0.0; self.shape.tile()];
                tile.dequantise(self.shape, &mut state)?;
                Backlog::new(self.ring, at, a, *from..present).add_to(&mut state);
                Head::Open(narrowed(&state))
            }
            Head::Open(state) if !open => {
                let tile = Tile::quantise(self.shape, Bits::Eight, &expanded(state))?;
                Head::Closed { tile, from: present }
            }
            _ => return Ok(()),
        };
        *head = next;
        Ok(())
    }

    /// Takes one head one token further.
    fn advance(&self, head: &mut Head, at: usize, a: f32, y: &mut [f32]) -> Result<Taken, RecurrentError> {
        match head {
            Head::Open(state) => {
                self.step(state, at, a, y);
                let bytes = f16::BYTES * self.shape.tile();
                Ok(Taken { open: 1, flushed: 0, read: bytes, written: bytes })
            }
            Head::Closed { tile, from } => {
                let backlog = Backlog::new(self.ring, at, a, *from..self.ring.len());
                self.read(tile, at, y)?;
                let group = self.shape.group(at) * self.ring.len();
                backlog.read_to(&self.products[group..][..self.ring.len()], y);
                let read = tile.bytes() + backlog.bytes();
                if !self.ring.is_full() {
                    return Ok(Taken { open: 0, flushed: 0, read, written: entry_bytes(self.shape) });
                }
                let mut state = vec![0.0; self.shape.tile()];
                tile.dequantise(self.shape, &mut state)?;
                backlog.add_to(&mut state);
                (*tile, *from) = (Tile::quantise(self.shape, Bits::Eight, &state)?, 0);
                Ok(Taken { open: 0, flushed: 1, read, written: tile.bytes() })
            }
        }
    }

    /// Steps a state in fp16.
    fn step(&self, state: &mut [f16], at: usize, a: f32, y: &mut [f32]) {
        let shape = self.shape;
        let dt = self.ring.inputs().dt[(self.ring.len() - 1) * shape.heads() + at];
        let decay = libm::expf(dt * a);
        let first = shape.group(at) * shape.state_dim();
        let (b, c) = (&self.b[first..][..shape.state_dim()], &self.c[first..][..shape.state_dim()]);
        let x = &self.x[at * shape.head_dim()..][..shape.head_dim()];
        let mut row = vec![0.0; shape.state_dim()];
        for (stored, (x, y)) in state.chunks_exact_mut(shape.state_dim()).zip(x.iter().zip(y)) {
            f16::expand(stored, &mut row);
            *y = dispatch!(self.level, simd => lanes::advance(simd, &mut row, decay, dt * x, b, c));
            f16::narrow(&row, stored);
        }
    }

    /// What the codes of a head give, read as they are: the scales of the columns go to `c`.
    fn read(&self, tile: &Tile, at: usize, y: &mut [f32]) -> Result<(), RecurrentError> {
        let c = &self.c[self.shape.group(at) * self.shape.state_dim()..][..self.shape.state_dim()];
        let c: Vec<f32> = c.iter().zip(tile.columns()).map(|(c, scale)| c * scale.to_f32()).collect();
        let matrices = matrix(self.shape);
        let codes = Weights::new(tile.bits().format(), tile.coded(), &matrices)?;
        codes.product(0, 0..self.shape.head_dim() as u64, 1, &c, y, &mut Scratch::default())?;
        Ok(())
    }
}
