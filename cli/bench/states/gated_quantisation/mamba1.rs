//! The same for Mamba-1, whose decay is a number's own.

use super::RING;
use crate::failure::Failure;
use hw::recurrent::RecurrentError;
use hw::recurrent::folded::{Fold, decay};
use hw::recurrent::made;
use hw::recurrent::quantised::{Bits, Tile};
use hw::recurrent::reference::{self, Channels, relative_error};
use hw::recurrent::scan::selective_scan;
use hw::recurrent::shape::Shape;
use serde::Serialize;

/// A layer of mamba-2.8b: `d_model` 2560, expansion 2, `d_state` 16; rates 1 to 16, as it begins.
const CHANNELS: usize = 5120;
const STATE: usize = 16;
const PROMPT: usize = 256;
const SEED: u64 = 12;

/// Relative errors of the state after a ring of tokens.
#[derive(Serialize)]
pub(super) struct Report {
    tokens: usize,
    /// With one decay a channel in the scale.
    error_common_decay: f64,
    /// With each number's own decay, worked out when the state is read.
    error_own_decay: f64,
    /// Of int8 itself, of the exact state after the same tokens.
    error_int8: f64,
}

pub(super) fn measure() -> Result<Report, Failure> {
    errors().map_err(Failure::failed)
}

fn errors() -> Result<Report, RecurrentError> {
    // A head of one row a channel has steps of its own, as Mamba-1's channels do.
    let inputs = made::layer::<f32>(Shape::new(CHANNELS, 1, STATE, 1)?, PROMPT + RING, SEED).inputs;
    let rates: Vec<f32> = (0..CHANNELS * STATE).map(|at| -((at % STATE + 1) as f32)).collect();
    let of = |from: usize, to: usize| Channels {
        x: &inputs.x[from * CHANNELS..to * CHANNELS],
        dt: &inputs.dt[from * CHANNELS..to * CHANNELS],
        b: &inputs.b[from * STATE..to * STATE],
        c: &inputs.c[from * STATE..to * STATE],
    };
    let mut begin = vec![0.0; rates.len()];
    selective_scan(STATE, &rates, of(0, PROMPT), &mut begin)?;
    let ring = of(PROMPT, PROMPT + RING);
    let mut exact: Vec<f64> = begin.iter().map(|number| f64::from(*number)).collect();
    reference::selective_scan(STATE, &rates, ring, &mut exact);
    let tile_shape = Shape::new(1, CHANNELS, STATE, 1)?;
    let rounded = |state: &[f32]| {
        let mut back = vec![0.0; state.len()];
        Tile::quantise(tile_shape, Bits::Eight, state)?.dequantise(tile_shape, &mut back)?;
        Ok::<_, RecurrentError>(back)
    };
    // What the ring adds is the same whatever is done about the state before it.
    let mut added = vec![0.0; rates.len()];
    selective_scan(STATE, &rates, ring, &mut added)?;
    let steps: Vec<f32> =
        (0..CHANNELS).map(|channel| ring.dt.iter().skip(channel).step_by(CHANNELS).sum()).collect();
    let error = |fold| {
        let mut state = rounded(&begin)?;
        decay(fold, &rates, &steps, &mut state);
        state.iter_mut().zip(&added).for_each(|(number, added)| *number += added);
        Ok::<_, RecurrentError>(relative_error(&state, &exact))
    };
    let last: Vec<f32> = exact.iter().map(|number| *number as f32).collect();
    Ok(Report {
        tokens: RING,
        error_common_decay: error(Fold::Common)?,
        error_own_decay: error(Fold::Each)?,
        error_int8: relative_error(&rounded(&last)?, &exact),
    })
}

impl Report {
    pub(super) fn text(&self) -> String {
        format!(
            "Mamba-1 ({CHANNELS} channels of {STATE}) has a decay a number: after {} tokens, one a channel in the scale is {:.1} % \
             off; each number's own,\nworked out from the channel's summed steps at an exponential a number and read, {:.2} % \
             (int8 itself: {:.2} %).\n",
            self.tokens,
            self.error_common_decay * 100.0,
            self.error_own_decay * 100.0,
            self.error_int8 * 100.0
        )
    }
}
