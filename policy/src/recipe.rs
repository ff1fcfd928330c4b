//! Blocks that can be made again where they are read: what a recipe keeps in fast memory, and what following it takes.

use crate::format::FormatId;
use crate::machine::{Class, Machine};
use crate::model::{Block, Matrix};
use crate::units::{Bytes, Nanos};

/// A block as an update of low rank: each of its matrices is that of its layer's base plus the product of a left factor,
/// `rows x rank`, and a right one, `rank x columns` (LoRA, Hu et al., arXiv 2106.09685). The base and the factors stay in
/// fast memory in the block's native format, so the block itself needs a copy nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recipe {
    /// Columns of the left factors and rows of the right ones.
    pub rank: u32,
}

impl Recipe {
    /// Numbers of a block's factors.
    pub fn elements(self, matrices: &[Matrix]) -> u64 {
        matrices.iter().map(|matrix| u64::from(self.rank) * (matrix.rows + matrix.columns)).sum()
    }

    /// Bytes of a block's factors in its native format.
    pub fn bytes(self, matrices: &[Matrix], native: FormatId) -> Bytes {
        native.bytes(self.elements(matrices), 0)
    }

    /// Time of the accelerator for `made` of the native bytes of a block: base and factors are read and the result is
    /// written, over one bus, while the products are summed.
    pub fn time(self, machine: &Machine, block: &Block, made: Bytes) -> Nanos {
        let whole = block.bytes(block.native).0.max(1);
        let share = |all: u64| (u128::from(all) * u128::from(made.0)).div_ceil(u128::from(whole)) as u64;
        let fast = machine.tiers_of(Class::Fast).next().map(|fast| machine.tier(fast).write);
        let written = fast.unwrap_or(machine.accelerator.read).time_for(made);
        let factors = share(self.bytes(&block.matrices, block.native).0);
        let moving = machine.accelerator.read.time_for(made + Bytes(factors)) + written;
        let operations = share(block.elements().saturating_mul(2 * u64::from(self.rank)));
        let rate = machine.merge.unwrap_or(machine.accelerator.flops);
        moving.max(rate.time_for(operations)) + machine.accelerator.launch
    }
}
