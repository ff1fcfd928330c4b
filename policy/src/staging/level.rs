//! One staging tier's copies: those that are held for what they are worth, and guests.

use crate::event::Form;
use crate::format::FormatId;
use crate::id::{BlockId, LayerId, TierId};
use crate::units::Bytes;
use std::collections::BTreeSet;

/// A held copy by the bits of its worth (none is negative), so that the least is first.
pub(super) type Key = (u64, BlockId, FormatId);

/// A copy that came in on its way to fast memory, or ahead of a demand: not for what it is worth later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Guest {
    pub(super) block: BlockId,
    pub(super) form: Form,
    pub(super) layer: LayerId,
    /// Whether it is yet to be used. One that was is the first to go.
    pub(super) awaited: bool,
    /// Whether it was read before anybody asked for it.
    pub(super) ahead: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) tier: TierId,
    /// Bytes it has when nobody else takes any.
    pub(super) budget: Bytes,
    /// The copies, complete or under way, the least first: all, and those of each layer.
    held: BTreeSet<Key>,
    of_layer: Vec<BTreeSet<Key>>,
    guests: Vec<Guest>,
}

impl Level {
    pub(super) fn new(tier: TierId, budget: Bytes, layers: usize) -> Level {
        let (held, of_layer, guests) = (BTreeSet::new(), vec![BTreeSet::new(); layers], Vec::new());
        Level { tier, budget, held, of_layer, guests }
    }

    pub(super) fn hold(&mut self, layer: LayerId, key: Key) {
        self.held.insert(key);
        self.of_layer[layer.index()].insert(key);
    }

    /// Returns whether it was held.
    pub(super) fn let_go(&mut self, layer: LayerId, key: Key) -> bool {
        self.of_layer[layer.index()].remove(&key);
        self.held.remove(&key)
    }

    /// Held copies, those worth least first.
    pub(super) fn held(&self) -> impl Iterator<Item = &Key> {
        self.held.iter()
    }

    /// The same, of one layer.
    pub(super) fn held_of(&self, layer: LayerId) -> impl Iterator<Item = &Key> {
        self.of_layer[layer.index()].iter()
    }

    pub(super) fn guests(&self) -> impl Iterator<Item = &Guest> {
        self.guests.iter()
    }

    pub(super) fn guests_mut(&mut self) -> impl Iterator<Item = &mut Guest> {
        self.guests.iter_mut()
    }

    pub(super) fn welcome(&mut self, guest: Guest) {
        self.guests.push(guest);
    }

    /// Takes a guest out, if that is what a copy is.
    pub(super) fn dismiss(&mut self, block: BlockId, form: Form) -> Option<Guest> {
        let place = self.guests.iter().position(|guest| guest.block == block && guest.form == form)?;
        Some(self.guests.remove(place))
    }

    /// All copies: guests, then those worth least first.
    pub(super) fn copies(&self) -> impl Iterator<Item = (BlockId, Form)> + '_ {
        let guests = self.guests.iter().map(|guest| (guest.block, guest.form));
        let held = self.held.iter().map(|&(_, block, format)| (block, Form { tier: self.tier, format }));
        guests.chain(held)
    }
}
