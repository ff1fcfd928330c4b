//! How many slots the cache has.

use crate::failure::Failure;
use bytesize::ByteSize;
use policy::{Bytes, Demands};

/// The capacities to replay at.
#[derive(clap::Args)]
pub(crate) struct Sizes {
    /// Capacities in slots, one block each [default: eight, from 1/16 to 7/8 of the model's blocks]
    #[arg(long, value_name = "N,M", value_delimiter = ',', allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    slots: Vec<u32>,

    /// Capacities in bytes, such as 2GiB,4GiB; needs --model or --block-bytes
    #[arg(long, value_name = "SIZE", value_delimiter = ',', allow_hyphen_values = true)]
    #[arg(value_parser = bytes, conflicts_with = "slots", requires = "block")]
    capacity: Vec<Bytes>,

    /// The model that the trace is of: a name from `hotset models` or the path of a config.json
    #[arg(long, value_name = "MODEL", group = "block")]
    model: Option<String>,

    /// Bytes of one block, where there is no model file
    #[arg(long, value_name = "BYTES", group = "block", value_parser = clap::value_parser!(u64).range(1..))]
    block_bytes: Option<u64>,
}

/// One capacity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// In slots.
    pub(crate) slots: usize,
    /// In bytes, where the size of a block is known.
    pub(crate) bytes: Option<Bytes>,
}

impl Sizes {
    /// The capacities asked for, or a spread over the blocks there are.
    pub(crate) fn resolve(&self, demands: &Demands) -> Result<Vec<Size>, Failure> {
        let block = match &self.model {
            Some(model) => Some(block_of(model, demands)?),
            None => self.block_bytes.map(Bytes),
        };
        if let (Some(block), false) = (block, self.capacity.is_empty()) {
            return self.capacity.iter().map(|&capacity| fit(capacity, block)).collect();
        }
        let slots = match self.slots.as_slice() {
            [] => spread(demands),
            asked => asked.iter().map(|&slots| slots as usize).collect(),
        };
        let bytes = |slots: usize| block.map(|block| Bytes(block.0.saturating_mul(slots as u64)));
        Ok(slots.into_iter().map(|slots| Size { slots, bytes: bytes(slots) }).collect())
    }
}

/// The bytes of one block of a model that the demands can be of.
fn block_of(name: &str, demands: &Demands) -> Result<Bytes, Failure> {
    let (model, facts) = scenarios::model(name)?;
    let (blocks, traced) = (model.blocks.len(), demands.universe());
    if blocks != traced as usize {
        return Err(Failure::refused(format!(
            "the model {name} has {blocks} blocks and the trace {traced}: it is of another model, or --experts is wrong"
        )));
    }
    Ok(facts.block_bytes)
}

fn fit(capacity: Bytes, block: Bytes) -> Result<Size, Failure> {
    match usize::try_from(capacity.0 / block.0) {
        Ok(slots) if slots > 0 => Ok(Size { slots, bytes: Some(capacity) }),
        _ => Err(Failure::refused(format!("a capacity of {capacity} holds no block of {block}"))),
    }
}

/// Sixteenths of the blocks there are, none smaller than the largest layer step.
fn spread(demands: &Demands) -> Vec<usize> {
    const SIXTEENTHS: [usize; 8] = [1, 2, 4, 6, 8, 10, 12, 14];
    let largest = (0..demands.len()).map(|step| demands.step(step).len()).max().unwrap_or(1);
    let share = |sixteenths: usize| (demands.universe() as usize * sixteenths / 16).max(largest);
    let mut slots: Vec<usize> = SIXTEENTHS.map(share).into();
    slots.dedup();
    slots
}

/// A size with its unit written out: `80G` could be either.
fn bytes(text: &str) -> Result<Bytes, String> {
    let size = text.ends_with('B').then(|| text.parse::<ByteSize>().ok()).flatten();
    size.map(|size| Bytes(size.as_u64()))
        .ok_or_else(|| format!("`{text}` is not a size such as 2GiB or 512MB"))
}
