//! What is in a checkpoint: made-up states of all recurrent layers, which follow from the seed and the checkpoint's number.
//!
//! A layer's state is one of a few that are made up once for each shape of layer, chosen by checkpoint and layer. So the bytes of any
//! checkpoint in any format can be put together at any time, while a device that codes one codes all of its numbers.
//!
//! A copy is layer by layer: the state's numbers in the copy's format, then what the convolution has yet to see, in 16 bits.

use super::{Checksum, Contents, STATES, bell};
use crate::recurrent::RecurrentError;
use crate::recurrent::coded::{self, Sides};
use crate::recurrent::number::{expanded, narrowed};
use half::f16;
use policy::CheckpointId;
use policy::model::RecurrentState;
use policy::state_format::StateFormat;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;

/// Made-up states of each shape.
const VARIANTS: u64 = 8;

/// Why the bytes of a checkpoint cannot be had.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum StateError {
    /// They cannot be coded.
    #[error(transparent)]
    Coding(#[from] RecurrentError),
    /// The numbers of a layer's state do not fill its columns.
    #[error("a layer's state of {numbers} numbers has {columns} columns, which do not divide it")]
    Ragged {
        /// Numbers.
        numbers: u64,
        /// Columns.
        columns: u64,
    },
}

/// What the bytes of a checkpoint's copy are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StateBytes {
    /// Coded in a format from what was computed.
    Coded(StateFormat),
    /// As states are served, read back from a copy in a format.
    Restored(StateFormat),
}

impl StateBytes {
    /// The format that they are in.
    pub fn format(self) -> StateFormat {
        match self {
            StateBytes::Coded(format) => format,
            StateBytes::Restored(_) => StateFormat::SERVED,
        }
    }
}

/// The numbers of one of the made-up states, coded.
type Numbers = Arc<Vec<u8>>;

/// The made-up states, by shape, variant and what their bytes are; and checksums of whole checkpoints.
#[derive(Default)]
pub(super) struct StateLibrary {
    numbers: Mutex<BTreeMap<(Sides, u64, StateBytes), Numbers>>,
    checksums: Mutex<BTreeMap<(CheckpointId, StateBytes), Checksum>>,
}

fn sides(state: &RecurrentState) -> Result<Sides, StateError> {
    let &RecurrentState { numbers, columns, .. } = state;
    if columns == 0 || !numbers.is_multiple_of(columns) {
        return Err(StateError::Ragged { numbers, columns });
    }
    Ok(((numbers / columns) as usize, columns as usize))
}

/// Which of the made-up states a layer of a checkpoint has: SplitMix64's step, spread over them.
fn variant(checkpoint: CheckpointId, layer: usize) -> u64 {
    let mixed = (checkpoint.0 << 16 ^ layer as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 29) % VARIANTS
}

impl Contents {
    fn recurrent_layers(&self) -> impl Iterator<Item = (usize, RecurrentState)> + '_ {
        let layers = self.model.layers.iter().enumerate();
        layers.filter_map(|(index, layer)| Some((index, layer.recurrent?)))
    }

    /// Whether checkpoints of the model can be made up.
    pub fn has_states(&self) -> Result<(), StateError> {
        self.recurrent_layers().try_for_each(|(_, state)| sides(&state).map(drop))
    }

    /// The bytes of a checkpoint's copy.
    pub fn state_bytes(&self, checkpoint: CheckpointId, what: StateBytes) -> Result<Vec<u8>, StateError> {
        let mut bytes = Vec::with_capacity(self.model.state_bytes(what.format()).0 as usize);
        for (layer, state) in self.recurrent_layers() {
            let variant = variant(checkpoint, layer);
            bytes.extend_from_slice(&self.numbers(sides(&state)?, variant, what)?);
            let convolution = bell(self.seed, STATES + u128::from(VARIANTS + variant), state.convolution);
            bytes.extend(convolution.flat_map(|number| f16::from_f32(number).to_le_bytes()));
        }
        Ok(bytes)
    }

    /// The checksum that a checkpoint's copy must have. Computed once for each.
    pub fn state_checksum(&self, checkpoint: CheckpointId, what: StateBytes) -> Result<Checksum, StateError> {
        let known = || self.states.checksums.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(checksum) = known().get(&(checkpoint, what)) {
            return Ok(*checksum);
        }
        let checksum = Checksum::of(&self.state_bytes(checkpoint, what)?);
        known().insert((checkpoint, what), checksum);
        Ok(checksum)
    }

    /// Writes a checkpoint's copy in another format: `out` is as long as that takes.
    pub fn recode_states(
        &self,
        (from, bytes): (StateFormat, &[u8]),
        (to, out): (StateFormat, &mut [u8]),
    ) -> Result<(), StateError> {
        let (mut bytes, mut out) = (bytes, out);
        for (_, state) in self.recurrent_layers() {
            let (sides, beside) = (sides(&state)?, 2 * state.convolution as usize);
            let [before, after] = [from, to].map(|format| coded::bytes(format, sides));
            crate::recurrent::check("bytes of states", before + beside, bytes.len().min(before + beside))?;
            crate::recurrent::check("bytes of states", after + beside, out.len().min(after + beside))?;
            let (read, rest) = bytes.split_at(before + beside);
            let (written, left) = out.split_at_mut(after + beside);
            let mut numbers = vec![0.0; sides.0 * sides.1];
            coded::decode(from, sides, &read[..before], &mut numbers)?;
            coded::encode(to, sides, &numbers, &mut written[..after])?;
            written[after..].copy_from_slice(&read[before..]);
            (bytes, out) = (rest, left);
        }
        Ok(())
    }

    /// The numbers of a made-up state. Made once for each.
    fn numbers(&self, sides: Sides, variant: u64, what: StateBytes) -> Result<Numbers, StateError> {
        let known = || self.states.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(numbers) = known().get(&(sides, variant, what)) {
            return Ok(numbers.clone());
        }
        let count = sides.0 * sides.1;
        let served: Vec<f16> =
            narrowed(&bell(self.seed, STATES + u128::from(variant), count as u64).collect::<Vec<f32>>());
        let served = expanded(&served);
        let coded = |format, numbers: &[f32]| -> Result<Vec<u8>, RecurrentError> {
            let mut bytes = vec![0; coded::bytes(format, sides)];
            coded::encode(format, sides, numbers, &mut bytes)?;
            Ok(bytes)
        };
        let bytes = match what {
            StateBytes::Coded(format) => coded(format, &served)?,
            StateBytes::Restored(format) => {
                let mut back = vec![0.0; count];
                coded::decode(format, sides, &coded(format, &served)?, &mut back)?;
                coded(StateFormat::SERVED, &back)?
            }
        };
        let numbers = Arc::new(bytes);
        known().insert((sides, variant, what), numbers.clone());
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Model;
    use policy::model::Layer;

    #[test]
    fn coding_a_checkpoint_gives_what_is_said_of_it() {
        let recurrent =
            |numbers, columns| Some(RecurrentState { numbers, columns, convolution: 33, chunk: 64 });
        let layer = |recurrent| Layer { recurrent, ..Layer::default() };
        let layers = vec![layer(recurrent(32 * 96, 96)), layer(None), layer(recurrent(16 * 64, 64))];
        let contents = Contents::new(&Model { layers, ..Model::default() }, 5);
        contents.has_states().unwrap();
        let checkpoint = CheckpointId(9);
        let exact = contents.state_bytes(checkpoint, StateBytes::Coded(StateFormat::SERVED)).unwrap();
        for format in StateFormat::all() {
            let size = contents.model().state_bytes(format).0 as usize;
            let mut coded = vec![0; size];
            contents.recode_states((StateFormat::SERVED, &exact), (format, &mut coded)).unwrap();
            assert!(
                coded == contents.state_bytes(checkpoint, StateBytes::Coded(format)).unwrap(),
                "{}",
                format.name()
            );
            let mut back = vec![0; exact.len()];
            contents.recode_states((format, &coded), (StateFormat::SERVED, &mut back)).unwrap();
            assert!(
                back == contents.state_bytes(checkpoint, StateBytes::Restored(format)).unwrap(),
                "{}",
                format.name()
            );
            assert_eq!(back == exact, format.is_exact(), "{}", format.name());
            assert!(contents.recode_states((format, &coded[1..]), (StateFormat::SERVED, &mut back)).is_err());
        }
        let other = contents.state_bytes(CheckpointId(10), StateBytes::Coded(StateFormat::SERVED)).unwrap();
        assert!(other != exact);
        let ragged = Model { layers: vec![layer(recurrent(100, 33))], ..Model::default() };
        assert!(Contents::new(&ragged, 1).has_states().is_err());
    }
}
