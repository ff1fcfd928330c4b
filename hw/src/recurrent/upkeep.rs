//! Ways to keep a state while decoding, followed beside the exact one in float64: what each loses, and how many bytes it moves.

use super::RecurrentError;
use super::gated::{Gated, Rule, Taken};
use super::inputs::Inputs;
use super::made::Made;
use super::number::{Number, expanded, narrowed};
use super::quantised::{Bits, Tile};
use super::reference;
use super::shape::Shape;
use super::ssd::Ssd;
use super::step::Steps;
use half::f16;

/// A way to keep a state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// In fp32, read and written at every token.
    Fp32,
    /// In fp16, read and written at every token.
    Fp16,
    /// In eight bits, coded anew at every token.
    Int8,
    /// Under a rule: in eight bits beside a ring while a head's gate is closed. A gate is what the token adds, relative to the state.
    Gated(Rule),
}

/// What a way lost, over the heads of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Relative errors, on average over the heads.
    pub mean: f64,
    /// The worst head's.
    pub worst: f64,
}

/// What a way lost after some tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Tokens since the prompt.
    pub tokens: usize,
    /// Of the state.
    pub state: Loss,
    /// Of the outputs of the last tokens up to there, 16 at most: errors differ from one end of a ring to the other.
    pub output: Loss,
}

/// A way, followed.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// Which.
    pub way: Way,
    /// The share of heads and tokens at which the state was in fp16 or fp32.
    pub open: f64,
    /// The share at which it was coded anew.
    pub coded: f64,
    /// Bytes of the state, and of a ring, that a token read and wrote, on average.
    pub bytes: f64,
    /// What it lost.
    pub marks: Vec<Mark>,
}

/// Tokens whose outputs a mark stands for.
const OUTPUTS: usize = 16;
/// Tokens of a chunk of the prompt.
const CHUNK: usize = 64;

/// Follows ways from the state that a prompt left, over as many tokens as the last of `marks`, which ascend. `made` has inputs for both;
/// what is exact begins with that state too.
pub fn follow(
    shape: Shape,
    made: &Made<f16>,
    prompt: usize,
    ways: &[Way],
    marks: &[usize],
) -> Result<Vec<Course>, RecurrentError> {
    let inputs = made.inputs.lend();
    let tokens = marks.last().copied().unwrap_or(0);
    super::check("tokens", prompt + tokens, inputs.tokens(shape)?)?;
    let mut begin = vec![0.0; shape.state()];
    let mut y = vec![f16::ZERO; prompt * shape.width()];
    Ssd::new(shape, &made.a, CHUNK)?.run(inputs.of(shape, 0..prompt), &mut begin, &mut y, &mut |_, _| ())?;
    let mut exact: Vec<f64> = begin.iter().map(|number| f64::from(*number)).collect();
    let walkers = ways.iter().map(|way| Walker::new(*way, shape, &made.a, &begin));
    let mut walkers: Vec<Walker<'_>> = walkers.collect::<Result<_, _>>()?;
    for token in 0..tokens {
        let now = inputs.of(shape, prompt + token..prompt + token + 1);
        let exact_y = reference::ssd(shape, &made.a, now, &mut exact);
        for walker in &mut walkers {
            walker.step(now)?;
            walker.outputs.push(Loss::of(&walker.y, &exact_y, shape.head_dim()));
            if marks.contains(&(token + 1)) {
                walker.mark(token + 1, &exact)?;
            }
        }
    }
    Ok(walkers.into_iter().map(|walker| walker.finish(tokens)).collect())
}

/// One way under way.
struct Walker<'a> {
    way: Way,
    shape: Shape,
    steps: Steps<'a>,
    state: State,
    y: Vec<f32>,
    taken: Taken,
    /// Of each token.
    outputs: Vec<Loss>,
    marks: Vec<Mark>,
}

enum State {
    Fp32(Vec<f32>),
    Fp16(Vec<f16>),
    Coded(Vec<Tile>),
    Gated(Box<Gated>),
}

impl<'a> Walker<'a> {
    fn new(way: Way, shape: Shape, a: &'a [f32], begin: &[f32]) -> Result<Walker<'a>, RecurrentError> {
        let tile = |state| Tile::quantise(shape, Bits::Eight, state);
        let state = match way {
            Way::Fp32 => State::Fp32(begin.to_vec()),
            Way::Fp16 => State::Fp16(narrowed(begin)),
            Way::Int8 => State::Coded(begin.chunks_exact(shape.tile()).map(tile).collect::<Result<_, _>>()?),
            Way::Gated(rule) => State::Gated(Box::new(Gated::new(shape, a, rule, begin)?)),
        };
        let (steps, y) = (Steps::new(shape, a)?, vec![0.0; shape.width()]);
        Ok(Walker {
            way,
            shape,
            steps,
            state,
            y,
            taken: Taken::default(),
            outputs: Vec::new(),
            marks: Vec::new(),
        })
    }

    fn step(&mut self, token: Inputs<'_, f16>) -> Result<(), RecurrentError> {
        let Walker { shape, steps, y, .. } = self;
        let whole = |bytes| Taken { open: shape.heads(), flushed: 0, read: bytes, written: bytes };
        let taken = match &mut self.state {
            State::Fp32(state) => steps.step(token, state, y).map(|()| whole(f32::BYTES * shape.state()))?,
            State::Fp16(state) => steps.step(token, state, y).map(|()| whole(f16::BYTES * shape.state()))?,
            State::Coded(tiles) => {
                let bytes = tiles.iter().map(Tile::bytes).sum();
                steps.step_coded(token, tiles, y)?;
                Taken { open: 0, flushed: shape.heads(), read: bytes, written: bytes }
            }
            State::Gated(gated) => {
                let gates = gated.gates(token)?;
                gated.step(token, &gates, y)?
            }
        };
        self.taken = self.taken.and(taken);
        Ok(())
    }

    fn mark(&mut self, tokens: usize, exact: &[f64]) -> Result<(), RecurrentError> {
        let shape = self.shape;
        let state = match &self.state {
            State::Fp32(state) => state.clone(),
            State::Fp16(state) => expanded(state),
            State::Coded(tiles) => {
                let mut state = vec![0.0; shape.state()];
                let mut heads = state.chunks_exact_mut(shape.tile()).zip(tiles);
                heads.try_for_each(|(state, tile)| tile.dequantise(shape, state))?;
                state
            }
            State::Gated(gated) => gated.state()?,
        };
        let state = Loss::of(&state, exact, shape.tile());
        let last = &self.outputs[self.outputs.len().saturating_sub(OUTPUTS)..];
        let output = Loss::over(last);
        self.marks.push(Mark { tokens, state, output });
        Ok(())
    }

    fn finish(self, tokens: usize) -> Course {
        let (Taken { open, flushed, read, written }, tokens) = (self.taken, tokens.max(1) as f64);
        let heads = tokens * self.shape.heads() as f64;
        Course {
            way: self.way,
            open: open as f64 / heads,
            coded: flushed as f64 / heads,
            bytes: (read + written) as f64 / tokens,
            marks: self.marks,
        }
    }
}

impl Loss {
    /// Of several tokens.
    fn over(tokens: &[Loss]) -> Loss {
        Loss {
            mean: tokens.iter().map(|loss| loss.mean).sum::<f64>() / tokens.len().max(1) as f64,
            worst: tokens.iter().map(|loss| loss.worst).fold(0.0, f64::max),
        }
    }

    /// Of numbers of which each head has so many.
    fn of(got: &[f32], exact: &[f64], each: usize) -> Loss {
        let heads = got.chunks_exact(each).zip(exact.chunks_exact(each));
        let errors: Vec<f64> = heads.map(|(got, exact)| reference::relative_error(got, exact)).collect();
        let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        Loss { mean, worst: errors.into_iter().fold(0.0, f64::max) }
    }
}
