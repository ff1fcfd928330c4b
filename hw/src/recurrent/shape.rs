//! The dimensions of a recurrent layer.

use super::RecurrentError;

/// The dimensions of a Mamba-2 layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    heads: usize,
    head_dim: usize,
    state_dim: usize,
    groups: usize,
}

/// Numbers of a layer's state beyond which a size would overflow somewhere.
const MOST_NUMBERS: usize = 1 << 32;

impl Shape {
    /// Nemotron-H-8B's recurrent layers (its config.json: `mamba_num_heads`, `mamba_head_dim`, `ssm_state_size`, `n_groups`).
    pub const NEMOTRON_H: Shape = Shape { heads: 128, head_dim: 64, state_dim: 128, groups: 8 };
    /// Mamba2-2.7b's (state-spaces/mamba2-2.7b: `d_model` 2560, expansion 2, `headdim` 64, `d_state` 128, one group).
    pub const MAMBA2_2_7B: Shape = Shape { heads: 80, head_dim: 64, state_dim: 128, groups: 1 };

    /// `heads` states of `head_dim` by `state_dim`; each of `groups` groups of heads shares the vectors `b` and `c`.
    pub fn new(
        heads: usize,
        head_dim: usize,
        state_dim: usize,
        groups: usize,
    ) -> Result<Shape, RecurrentError> {
        if heads == 0 || head_dim == 0 || state_dim == 0 || groups == 0 {
            return Err(RecurrentError::Shape("a layer has heads, groups, and states of some numbers"));
        }
        if !heads.is_multiple_of(groups) {
            return Err(RecurrentError::Shape("the heads of a layer divide evenly into its groups"));
        }
        let numbers = heads.checked_mul(head_dim).and_then(|rows| rows.checked_mul(state_dim));
        if numbers.is_none_or(|numbers| numbers > MOST_NUMBERS) {
            return Err(RecurrentError::Shape("a layer's state has at most 2^32 numbers"));
        }
        Ok(Shape { heads, head_dim, state_dim, groups })
    }

    /// States of their own decay.
    pub fn heads(self) -> usize {
        self.heads
    }

    /// Rows of a head's state, P.
    pub fn head_dim(self) -> usize {
        self.head_dim
    }

    /// Columns of a head's state, N.
    pub fn state_dim(self) -> usize {
        self.state_dim
    }

    /// Groups of heads that share `b` and `c`.
    pub fn groups(self) -> usize {
        self.groups
    }

    /// The group of a head.
    pub fn group(self, head: usize) -> usize {
        head / (self.heads / self.groups)
    }

    /// Numbers of `x` and of `y` at a token: the layer's inner width.
    pub fn width(self) -> usize {
        self.heads * self.head_dim
    }

    /// Numbers of `b`, and of `c`, at a token.
    pub fn shared(self) -> usize {
        self.groups * self.state_dim
    }

    /// Numbers of a head's state.
    pub fn tile(self) -> usize {
        self.head_dim * self.state_dim
    }

    /// Numbers of the layer's state.
    pub fn state(self) -> usize {
        self.heads * self.tile()
    }

    /// Bytes of the inputs that one token adds to a state, as a ring keeps them: `x` and `b` in fp16, `dt` in fp32.
    pub fn ring_bytes(self) -> usize {
        2 * (self.width() + self.shared()) + 4 * self.heads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_no_layer_has_are_refused() {
        assert!(Shape::new(0, 64, 128, 1).is_err() && Shape::new(8, 64, 128, 0).is_err());
        assert!(Shape::new(8, 64, 128, 3).is_err() && Shape::new(usize::MAX, 2, 2, 1).is_err());
        assert_eq!(Shape::new(128, 64, 128, 8), Ok(Shape::NEMOTRON_H));
    }

    #[test]
    fn sizes_are_those_of_the_models() {
        let shape = Shape::NEMOTRON_H;
        assert_eq!((shape.state(), shape.ring_bytes()), (1_048_576, 18_944));
        assert_eq!((shape.group(15), shape.group(16), shape.group(127)), (0, 1, 7));
    }
}
