//! A ring of inputs: what the last tokens added to a state, in place of the states themselves. For Nemotron-H's shape a token is
//! 18.9 kB where a state in fp16 is 2.10 MB, and with the state before them any state after them can be made again.

use super::inputs::{Inputs, Owned};
use super::number::{Number, expanded};
use super::shape::Shape;
use super::step::Steps;
use super::{RecurrentError, check};

/// The inputs of the last tokens of one sequence, at most `capacity` of them, stored as `T`.
#[derive(Clone, Debug)]
pub struct Ring<T> {
    shape: Shape,
    capacity: usize,
    kept: Owned<T>,
}

impl<T: Number> Ring<T> {
    /// An empty ring.
    pub fn new(shape: Shape, capacity: usize) -> Ring<T> {
        Ring { shape, capacity, kept: Owned::default() }
    }

    /// The layer whose inputs these are.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How many tokens are kept.
    pub fn len(&self) -> usize {
        self.kept.dt.len() / self.shape.heads()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is no room for another.
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Keeps the inputs of one token.
    pub fn push(&mut self, token: Inputs<'_, T>) -> Result<(), RecurrentError> {
        check("tokens", 1, token.tokens(self.shape)?)?;
        if self.is_full() {
            return Err(RecurrentError::WrongLength {
                what: "ring",
                expected: self.len() + 1,
                got: self.capacity,
            });
        }
        self.kept.x.extend_from_slice(token.x);
        self.kept.dt.extend_from_slice(token.dt);
        self.kept.b.extend_from_slice(token.b);
        self.kept.c.extend_from_slice(token.c);
        Ok(())
    }

    /// Forgets all tokens, after their state was made.
    pub fn clear(&mut self) {
        self.kept = Owned::default();
    }

    /// The inputs that are kept.
    pub fn inputs(&self) -> Inputs<'_, T> {
        self.kept.lend()
    }

    /// Turns the state before the first kept token into that after `tokens` of them, as stepping did: bit for bit where the
    /// state is in fp32. `a` is the rate of each head.
    pub fn replay(&self, a: &[f32], tokens: usize, state: &mut [f32]) -> Result<(), RecurrentError> {
        check("tokens to replay", tokens.min(self.len()), tokens)?;
        let steps = Steps::new(self.shape, a)?;
        let mut y = vec![0.0f32; self.shape.width()];
        for token in 0..tokens {
            let token = self.kept.lend().of(self.shape, token..token + 1);
            let (x, b, c) = (expanded(token.x), expanded(token.b), expanded(token.c));
            steps.step(Inputs { x: &x, dt: token.dt, b: &b, c: &c }, state, &mut y)?;
        }
        Ok(())
    }
}
