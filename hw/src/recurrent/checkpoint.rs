//! A checkpoint with real bytes: the states of some layers, head by head in bits of its own, one buffer that goes over a link whole,
//! and a checksum over all of it. It is valid only whole.

use super::RecurrentError;
use super::quantised::{Bits, Tile};
use super::shape::Shape;
use crate::checksum::Checksum;
use bytemuck::{cast_slice, cast_slice_mut};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// How one head of one layer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// In fewer bits, with scales of columns and groups.
    Coded(Bits),
    /// In sixteen bits.
    Half,
}

/// From the fewest bytes to the most: the order in which precision is raised.
pub const PRECISIONS: [Precision; 3] =
    [Precision::Coded(Bits::Four), Precision::Coded(Bits::Eight), Precision::Half];

impl Precision {
    /// Bytes of one head's state.
    pub fn bytes(self, shape: Shape) -> usize {
        match self {
            Precision::Coded(bits) => bits.tile_bytes(shape),
            Precision::Half => 2 * shape.tile(),
        }
    }

    fn write(self, shape: Shape, state: &[f32], to: &mut [u8]) -> Result<(), RecurrentError> {
        match self {
            Precision::Coded(bits) => Tile::quantise(shape, bits, state)?.write(to),
            Precision::Half => {
                let numbers: Vec<f16> = state.iter().map(|number| f16::from_f32(*number)).collect();
                to.copy_from_slice(cast_slice(&numbers));
            }
        }
        Ok(())
    }

    fn read(self, shape: Shape, from: &[u8], state: &mut [f32]) -> Result<(), RecurrentError> {
        match self {
            Precision::Coded(bits) => Tile::read(shape, bits, from)?.dequantise(shape, state),
            Precision::Half => {
                let mut numbers = vec![f16::ZERO; state.len()];
                cast_slice_mut::<f16, u8>(&mut numbers).copy_from_slice(from);
                numbers.convert_to_f32_slice(state);
                Ok(())
            }
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    shape: Shape,
    precisions: Vec<Precision>,
    bytes: Vec<u8>,
    checksum: Checksum,
}

impl Checkpoint {
    /// Codes the states of layers that are alike, one after the other, `precisions` for each head of each layer.
    pub fn new(shape: Shape, states: &[f32], precisions: &[Precision]) -> Result<Checkpoint, RecurrentError> {
        super::check("states", precisions.len() * shape.tile(), states.len())?;
        let whole = precisions.iter().map(|precision| precision.bytes(shape)).sum();
        let mut bytes = vec![0; whole];
        let mut rest = &mut bytes[..];
        for (state, precision) in states.chunks_exact(shape.tile()).zip(precisions) {
            let (own, others) = rest.split_at_mut(precision.bytes(shape));
            precision.write(shape, state, own)?;
            rest = others;
        }
        let checksum = Checksum::of(&bytes);
        Ok(Checkpoint { shape, precisions: precisions.to_vec(), bytes, checksum })
    }

    /// What goes over the link.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The checksum of those bytes.
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// Reads the states back from bytes that have been elsewhere.
    ///
    /// # Errors
    /// They are not the checkpoint's.
    pub fn restore(&self, bytes: &[u8], states: &mut [f32]) -> Result<(), RecurrentError> {
        super::check("states", self.precisions.len() * self.shape.tile(), states.len())?;
        super::check("bytes", self.bytes.len(), bytes.len())?;
        if Checksum::of(bytes) != self.checksum {
            return Err(RecurrentError::Torn);
        }
        let mut rest = bytes;
        for (state, precision) in states.chunks_exact_mut(self.shape.tile()).zip(&self.precisions) {
            let (own, others) = rest.split_at(precision.bytes(self.shape));
            precision.read(self.shape, own, state)?;
            rest = others;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recurrent::made;
    use crate::recurrent::ssd::Ssd;

    #[test]
    fn a_checkpoint_is_valid_only_whole() {
        let shape = Shape::new(6, 64, 128, 2).unwrap();
        let made = made::layer::<f32>(shape, 96, 3);
        let mut state = vec![0.0; shape.state()];
        let mut y = vec![0.0; 96 * shape.width()];
        Ssd::new(shape, &made.a, 32)
            .unwrap()
            .run(made.inputs.lend(), &mut state, &mut y, &mut |_, _| {})
            .unwrap();
        let precisions = [PRECISIONS, PRECISIONS].concat();
        let checkpoint = Checkpoint::new(shape, &state, &precisions).unwrap();
        let bits: usize = [19, 35, 64].iter().map(|quarters| 2 * quarters * shape.tile() / 32).sum();
        assert_eq!(checkpoint.bytes().len(), bits);
        let mut elsewhere = checkpoint.bytes().to_vec();
        let mut back = vec![0.0; state.len()];
        checkpoint.restore(&elsewhere, &mut back).unwrap();
        for (head, precision) in precisions.iter().enumerate() {
            let of = |all: &[f32]| all[head * shape.tile()..][..shape.tile()].to_vec();
            let norm: f32 = of(&state).iter().map(|number| number * number).sum();
            let error: f32 = of(&state).iter().zip(of(&back)).map(|(a, b)| (a - b) * (a - b)).sum();
            let most = [0.2, 0.02, 1e-3][PRECISIONS.iter().position(|known| known == precision).unwrap()];
            assert!((error / norm).sqrt() < most, "{precision:?}: {}", (error / norm).sqrt());
        }
        elsewhere[7] ^= 1;
        assert_eq!(checkpoint.restore(&elsewhere, &mut back), Err(RecurrentError::Torn));
        assert!(checkpoint.restore(&elsewhere[1..], &mut back).is_err());
        assert!(Checkpoint::new(shape, &state[1..], &precisions).is_err());
    }
}
