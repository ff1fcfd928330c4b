//! A checkpoint with real bytes: the states of some layers, head by head in bits of its own, one buffer that goes over a link whole,
//! and a checksum over all of it. It is valid only whole.

use super::RecurrentError;
use super::coded;
use super::shape::Shape;
use crate::checksum::Checksum;
use policy::state_format::StateFormat;

/// What one head of one layer may be coded in, by name, from the fewest bytes to the most: the order in which precision is raised.
const PRECISIONS: [&str; 4] = ["int4", "int8", "int8_g32", "fp16"];

/// See [`PRECISIONS`].
pub fn precisions() -> impl Iterator<Item = StateFormat> {
    PRECISIONS.into_iter().filter_map(StateFormat::named)
}

fn sides(shape: Shape) -> coded::Sides {
    (shape.head_dim(), shape.state_dim())
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    shape: Shape,
    precisions: Vec<StateFormat>,
    bytes: Vec<u8>,
    checksum: Checksum,
}

impl Checkpoint {
    /// Codes the states of layers that are alike, one after the other, `precisions` for each head of each layer.
    pub fn new(
        shape: Shape,
        states: &[f32],
        precisions: &[StateFormat],
    ) -> Result<Checkpoint, RecurrentError> {
        super::check("states", precisions.len() * shape.tile(), states.len())?;
        let of_head = sides(shape);
        let whole = precisions.iter().map(|format| coded::bytes(*format, of_head)).sum();
        let mut bytes = vec![0; whole];
        let mut rest = &mut bytes[..];
        for (state, format) in states.chunks_exact(shape.tile()).zip(precisions) {
            let (own, others) = rest.split_at_mut(coded::bytes(*format, of_head));
            coded::encode(*format, of_head, state, own)?;
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
        let of_head = sides(self.shape);
        for (state, format) in states.chunks_exact_mut(self.shape.tile()).zip(&self.precisions) {
            let (own, others) = rest.split_at(coded::bytes(*format, of_head));
            coded::decode(*format, of_head, own, state)?;
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
        let shape = Shape::new(8, 64, 128, 2).unwrap();
        let made = made::layer::<f32>(shape, 96, 3);
        let mut state = vec![0.0; shape.state()];
        let mut y = vec![0.0; 96 * shape.width()];
        Ssd::new(shape, &made.a, 32)
            .unwrap()
            .run(made.inputs.lend(), &mut state, &mut y, &mut |_, _| {})
            .unwrap();
        let precisions: Vec<StateFormat> = precisions().chain(precisions()).collect();
        let checkpoint = Checkpoint::new(shape, &state, &precisions).unwrap();
        // Quarters of a bit: four bits and a half and a quarter for scales, eight and a quarter, eight and both, sixteen.
        let bits: usize = [19, 33, 35, 64].iter().map(|quarters| 2 * quarters * shape.tile() / 32).sum();
        assert_eq!(checkpoint.bytes().len(), bits);
        let mut elsewhere = checkpoint.bytes().to_vec();
        let mut back = vec![0.0; state.len()];
        checkpoint.restore(&elsewhere, &mut back).unwrap();
        for (head, format) in precisions.iter().enumerate() {
            let of = |all: &[f32]| all[head * shape.tile()..][..shape.tile()].to_vec();
            let norm: f32 = of(&state).iter().map(|number| number * number).sum();
            let error: f32 = of(&state).iter().zip(of(&back)).map(|(a, b)| (a - b) * (a - b)).sum();
            let most = [0.2, 0.03, 0.01, 1e-3][head % 4];
            assert!((error / norm).sqrt() < most, "{}: {}", format.name(), (error / norm).sqrt());
        }
        elsewhere[7] ^= 1;
        assert_eq!(checkpoint.restore(&elsewhere, &mut back), Err(RecurrentError::Torn));
        assert!(checkpoint.restore(&elsewhere[1..], &mut back).is_err());
        assert!(Checkpoint::new(shape, &state[1..], &precisions).is_err());
    }
}
