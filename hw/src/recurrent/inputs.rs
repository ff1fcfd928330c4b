//! What a recurrent layer takes at each token, made up or given.

use super::number::Number;
use super::shape::Shape;
use super::{RecurrentError, check};
use std::ops::Range;

/// The inputs of a Mamba-2 layer at some tokens, token after token; of one sequence, or of as many sequences at one token each.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a, T> {
    /// `[tokens][heads][head_dim]`.
    pub x: &'a [T],
    /// Steps, positive: `[tokens][heads]`.
    pub dt: &'a [f32],
    /// `[tokens][groups][state_dim]`.
    pub b: &'a [T],
    /// `[tokens][groups][state_dim]`.
    pub c: &'a [T],
}

impl<'a, T: Number> Inputs<'a, T> {
    /// How many tokens there are; an error where the lengths do not agree.
    pub fn tokens(&self, shape: Shape) -> Result<usize, RecurrentError> {
        let tokens = self.dt.len() / shape.heads();
        check("dt", tokens * shape.heads(), self.dt.len())?;
        check("x", tokens * shape.width(), self.x.len())?;
        check("b", tokens * shape.shared(), self.b.len())?;
        check("c", tokens * shape.shared(), self.c.len())?;
        Ok(tokens)
    }

    /// Those of some tokens, which are there.
    pub fn of(&self, shape: Shape, tokens: Range<usize>) -> Inputs<'a, T> {
        let part = |size: usize| tokens.start * size..tokens.end * size;
        Inputs {
            x: &self.x[part(shape.width())],
            dt: &self.dt[part(shape.heads())],
            b: &self.b[part(shape.shared())],
            c: &self.c[part(shape.shared())],
        }
    }
}

/// Inputs that own their numbers.
#[derive(Clone, Debug, Default)]
pub struct Owned<T> {
    /// As [`Inputs::x`].
    pub x: Vec<T>,
    /// As [`Inputs::dt`].
    pub dt: Vec<f32>,
    /// As [`Inputs::b`].
    pub b: Vec<T>,
    /// As [`Inputs::c`].
    pub c: Vec<T>,
}

impl<T: Number> Owned<T> {
    /// As a kernel takes them.
    pub fn lend(&self) -> Inputs<'_, T> {
        Inputs { x: &self.x, dt: &self.dt, b: &self.b, c: &self.c }
    }
}
