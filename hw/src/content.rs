//! What is in a block: the weights of a published model, or numbers that look like trained weights and follow from a
//! seed. Either way the bytes of any copy can be made again at any time and compared.

mod states;

use self::states::StateLibrary;
pub use self::states::{StateBytes, StateError};
pub use crate::checksum::Checksum;
use crate::codec::{self, CodecError};
use crate::merge::merge;
use crate::weights::{Weights, WeightsError};
use half::bf16;
use policy::model::{Block, Matrix, Model};
use policy::{BlockId, FormatId, LayerId};
use rand::Rng;
use rand_pcg::Pcg64Dxsm;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// The standard deviation of the numbers, as in trained projection matrices.
pub const SIGMA: f32 = 0.02;

/// Why the bytes of a block could not be had.
#[derive(Debug, Error)]
pub enum ContentError {
    /// They cannot be coded in a format.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// They cannot be read from the model's files.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// The blocks of a model and what they contain.
pub struct Contents {
    seed: u64,
    model: Model,
    /// Where the blocks' weights are, if they are not made up.
    weights: Option<Weights>,
    expected: Mutex<BTreeMap<(BlockId, FormatId), Checksum>>,
    states: StateLibrary,
}

impl Contents {
    /// The contents of every block of `model` under `seed`.
    pub fn new(model: &Model, seed: u64) -> Contents {
        Contents {
            seed,
            model: model.clone(),
            weights: None,
            expected: Mutex::default(),
            states: StateLibrary::default(),
        }
    }

    /// The contents of every block of `model` in its safetensors files at `path`, see [`Weights::open`]. `seed` decides
    /// what is not in blocks.
    pub fn published(model: &Model, path: &Path, seed: u64) -> Result<Contents, WeightsError> {
        if model.blocks.iter().any(|block| block.recipe.is_some()) {
            return Err(WeightsError::Recipe);
        }
        let weights = Some(Weights::open(path, model)?);
        Ok(Contents { weights, ..Contents::new(model, seed) })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// A block of the model.
    pub fn block(&self, id: BlockId) -> &Block {
        self.model.block(id)
    }

    /// A stretch of bf16 numbers for memory that is read but not managed.
    pub fn filler(&self, stream: u64) -> Vec<u8> {
        let numbers = bell(self.seed, FILLER + u128::from(stream), FILLER_NUMBERS);
        numbers.flat_map(|number| bf16::from_f32(number).to_le_bytes()).collect()
    }

    /// The native bytes of a layer's base, which its blocks' recipes start from.
    pub fn base(&self, layer: LayerId) -> Result<Vec<u8>, ContentError> {
        let first = self.block(self.model.layer(layer).first_block);
        let values: Vec<f32> = bell(self.seed, BASE + u128::from(layer.0), first.elements()).collect();
        let mut native = vec![0; first.bytes(first.native).0 as usize];
        codec::encode(first.native, &values, &first.matrices, &mut native)?;
        Ok(native)
    }

    /// The native bytes of the factors in a block's recipe; none without one.
    pub fn factors(&self, id: BlockId) -> Result<Vec<u8>, ContentError> {
        let block = self.block(id);
        let count = block.recipe.map_or(0, |recipe| recipe.elements(&block.matrices));
        let values: Vec<f32> = bell(self.seed, FACTORS + u128::from(id.0), count).collect();
        let mut native = vec![0; block.native.bytes(count, 0).0 as usize];
        codec::encode(block.native, &values, &[Matrix { rows: 1, columns: count }], &mut native)?;
        Ok(native)
    }

    /// The native bytes of a block, as made by its recipe or made up.
    fn made(&self, id: BlockId) -> Result<Vec<u8>, ContentError> {
        let block = self.block(id);
        let mut native = vec![0; block.bytes(block.native).0 as usize];
        let Some(recipe) = block.recipe else {
            codec::encode(block.native, &self.values(id), &block.matrices, &mut native)?;
            return Ok(native);
        };
        let (base, factors) = (self.base(block.layer)?, self.factors(id)?);
        let mut numbers = vec![0.0; recipe.elements(&block.matrices) as usize];
        let row = [Matrix { rows: 1, columns: numbers.len() as u64 }];
        codec::decode(block.native, &factors, &row, &mut numbers)?;
        let all = 0..block.elements();
        merge(block.native, &block.matrices, recipe, (&base, &numbers), all, |at, made| {
            native[at as usize..][..made.len()].copy_from_slice(made);
            Ok::<_, CodecError>(())
        })?;
        Ok(native)
    }

    /// The numbers of a made-up block before they are rounded to its native format. The generator's stream is the block's
    /// number, so that blocks do not depend on each other.
    fn values(&self, id: BlockId) -> Vec<f32> {
        bell(self.seed, id.0.into(), self.block(id).elements()).collect()
    }

    /// The bytes of a block in `format`, made from its native bytes.
    pub fn bytes(&self, id: BlockId, format: FormatId) -> Result<Vec<u8>, ContentError> {
        let block = self.block(id);
        let native = match &self.weights {
            Some(weights) => weights.native(id)?,
            None => self.made(id)?,
        };
        if format == block.native {
            return Ok(native);
        }
        let mut coded = vec![0; block.bytes(format).0 as usize];
        codec::transcode(block.native, &native, format, &block.matrices, &mut coded)?;
        Ok(coded)
    }

    /// The checksum that a copy of a block in `format` must have. Computed once for each.
    pub fn checksum(&self, id: BlockId, format: FormatId) -> Result<Checksum, ContentError> {
        let known = || self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(checksum) = known().get(&(id, format)) {
            return Ok(*checksum);
        }
        let checksum = Checksum::of(&self.bytes(id, format)?);
        known().insert((id, format), checksum);
        Ok(checksum)
    }

    /// Finds the checksums of a block's native bytes and of these formats, so that no copy waits for them later.
    pub fn learn(&self, id: BlockId, formats: &[FormatId]) -> Result<(), ContentError> {
        let block = self.block(id);
        let native = self.bytes(id, block.native)?;
        let mut checksums = vec![(block.native, Checksum::of(&native))];
        for &format in formats.iter().filter(|&&format| format != block.native) {
            let mut coded = vec![0; block.bytes(format).0 as usize];
            codec::transcode(block.native, &native, format, &block.matrices, &mut coded)?;
            checksums.push((format, Checksum::of(&coded)));
        }
        let mut known = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(checksums.into_iter().map(|(format, checksum)| ((id, format), checksum)));
        Ok(())
    }

    /// `count` numbers of unit variance for blocks to be multiplied with; shorter inputs are the beginnings of longer ones.
    pub fn input(&self, count: usize) -> Vec<f32> {
        bell(self.seed, ACTIVATION, count as u64).map(|number| number / SIGMA).collect()
    }
}

/// The first of the generator's streams for recurrent states.
const STATES: u128 = 1 << 36;
/// The generator's stream for the activation vector; blocks have numbers of 32 bits.
const ACTIVATION: u128 = 1 << 32;
/// The first of the generator's streams for what is not managed.
const FILLER: u128 = 1 << 33;
/// The first of the generator's streams for the bases of layers.
const BASE: u128 = 1 << 34;
/// The first of the generator's streams for the factors of blocks.
const FACTORS: u128 = 1 << 35;
/// A prime number of them, so that no row repeats another.
const FILLER_NUMBERS: u64 = 1_000_003;

/// Symmetric, bell-shaped numbers within 3.5 standard deviations: the sum of four 16-bit lanes of one draw, exact on
/// every machine.
fn bell(seed: u64, stream: u128, count: u64) -> impl Iterator<Item = f32> {
    let mut draws = Pcg64Dxsm::new(seed.into(), stream);
    // Four uniform lanes: mean 2 * 65535, variance (65536^2 - 1) / 3.
    let step = SIGMA * 3f32.sqrt() / 65536.0;
    (0..count).map(move |_| {
        let draw = draws.next_u64();
        let lanes = (draw & 0xffff) + (draw >> 16 & 0xffff) + (draw >> 32 & 0xffff) + (draw >> 48);
        (lanes as i32 - 2 * 65535) as f32 * step
    })
}
