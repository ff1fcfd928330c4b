//! Where blocks are from the start: their home copies, which are never lost.

use crate::format::FormatId;
use crate::id::{BlockId, TierId};
use crate::machine::Machine;
use crate::model::{Block, Model};
use crate::units::Bytes;
use std::sync::Arc;

/// The tier of each block's home copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Homes {
    /// The tiers, in the order in which they are filled; at least one.
    tiers: Arc<[TierId]>,
    /// For each block its tier, as a place in that list. Empty where all are in the first.
    places: Arc<[u8]>,
}

impl From<TierId> for Homes {
    fn from(tier: TierId) -> Homes {
        Homes { tiers: [tier].into(), places: [].into() }
    }
}

impl Homes {
    /// As much in the first tier as there is room, then in the next, and so on: each tier's part spread evenly over the
    /// layers, so that no layer waits for the slow ones alone. `room` gives each tier of the machine the bytes that are there
    /// for home copies. `None` if they do not fit.
    pub fn spread(
        tiers: &[TierId],
        model: &Model,
        machine: &Machine,
        encoded: &[FormatId],
        room: &[Bytes],
    ) -> Option<Homes> {
        let takes = |block: &Block, tier: TierId| -> Bytes {
            let granularity = machine.tier(tier).granularity;
            block.home_formats(encoded).map(|format| block.bytes(format).round_up(granularity)).sum()
        };
        let first = *tiers.first()?;
        let mut left: u64 = model.blocks.iter().map(|block| takes(block, first).0).sum();
        let parts: Vec<f64> = tiers
            .iter()
            .map(|tier| {
                let part = room[tier.index()].0.min(left);
                left -= part;
                part as f64
            })
            .collect();
        let whole: f64 = parts.iter().sum();
        let (mut given, mut used) = (0.0, vec![0u64; tiers.len()]);
        let mut places = Vec::with_capacity(model.blocks.len());
        for block in &model.blocks {
            given += takes(block, first).0 as f64;
            let fits =
                |place: &usize| used[*place] + takes(block, tiers[*place]).0 <= room[tiers[*place].index()].0;
            // The tier that lags furthest behind its part of what has been given out.
            let behind = |place: &usize| given * parts[*place] / whole.max(1.0) - used[*place] as f64;
            let place = (0..tiers.len())
                .filter(fits)
                .max_by(|a, b| behind(a).total_cmp(&behind(b)).then(b.cmp(a)))?;
            used[place] += takes(block, tiers[place]).0;
            places.push(u8::try_from(place).ok()?);
        }
        Some(Homes { tiers: tiers.into(), places: places.into() })
    }

    /// The tier of a block's home copies.
    #[inline]
    pub fn of(&self, block: BlockId) -> TierId {
        self.tiers[self.places.get(block.index()).map_or(0, |&place| usize::from(place))]
    }

    /// The tiers, in the order in which they are filled.
    pub fn tiers(&self) -> &[TierId] {
        &self.tiers
    }

    /// The tier that is filled first.
    pub fn first(&self) -> TierId {
        self.tiers[0]
    }
}
