//! The choice of a victim by a score: of the blocks whose fast copies may be given up, the one that scores least.

use crate::control::Context;
use crate::id::{BlockId, LayerId};

/// The idle block for which `key` is least, ties to the lowest id; a block without a key stays.
pub(super) fn least<K: PartialOrd>(
    context: &Context,
    mut key: impl FnMut(BlockId) -> Option<K>,
) -> Option<BlockId> {
    let layers = (0..context.model.layers.len() as u16).map(LayerId);
    let keyed = layers.flat_map(|layer| context.ledger.idle(layer));
    let keyed = keyed.filter_map(|block| key(block).map(|key| (key, block)));
    keyed.reduce(|least, other| if other.0 < least.0 { other } else { least }).map(|(_, block)| block)
}
