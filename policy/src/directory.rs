//! The directory: which accelerator has which copies in memories of its own, as the controllers of all of them say.
//!
//! Each controller knows its own ledger and nobody else's. It says what changed there in notes, each with the accelerator, its
//! epoch and a number. An accelerator that is lost ends its epoch, and with it all that was said in it; one that comes back
//! begins the next, with nothing. So notes may come late, twice and in any order: of a block the highest number of the latest
//! epoch stands, and late notes of the dead count for nothing. When all have come, the directory is the union of the ledgers.
//!
//! An entry is a hint and never the truth. Who acts on one names its number, and the controller of that accelerator says
//! whether it still stands ([`Herald::confirm`]); if not, the block is read from its home copy, which is never lost.

mod herald;

pub use self::herald::{Herald, Outdated};

use crate::event::Form;
use crate::id::{BlockId, TierId};

/// What a controller says of an accelerator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which accelerator, from 0.
    pub device: u32,
    /// How often it had come back when this was so.
    pub epoch: u32,
    /// What is so.
    pub news: News,
}

/// What a note says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It is there, with nothing in its memories so far. The first epoch begins without a note.
    Began,
    /// It has these copies of a block in memories of its own, and no others.
    Has {
        /// Higher than that of whatever it said before in this epoch.
        number: u64,
        /// The block.
        block: BlockId,
        /// All of them.
        copies: Vec<Form>,
    },
    /// It is lost, and this epoch over. Any other controller may say so.
    Lost,
}

/// An entry of the directory, as one who acts on it names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The accelerator that has the copy.
    pub device: u32,
    /// Its epoch.
    pub epoch: u32,
    /// The block.
    pub block: BlockId,
    /// The number of the note that said so.
    pub number: u64,
}

/// What is known of a block at one accelerator; numbers of notes begin at 1.
#[derive(Clone, Debug, Default)]
struct Entry {
    number: u64,
    copies: Vec<Form>,
}

#[derive(Clone, Debug, Default)]
struct Device {
    /// The latest epoch of which anything is known, and the first that is not known to be over.
    epoch: u32,
    alive_from: u32,
    entries: Vec<Entry>,
}

impl Device {
    fn is_lost(&self) -> bool {
        self.epoch < self.alive_from
    }

    /// All epochs up to this one are over.
    fn end(&mut self, epoch: u32) {
        self.alive_from = self.alive_from.max(epoch.saturating_add(1));
        if self.is_lost() {
            self.entries.fill(Entry::default());
        }
    }

    /// An epoch has begun, so all before it are over.
    fn begin(&mut self, epoch: u32) {
        if epoch > self.epoch {
            self.entries.fill(Entry::default());
            (self.epoch, self.alive_from) = (epoch, self.alive_from.max(epoch));
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    devices: Vec<Device>,
}

impl Directory {
    /// All accelerators are there, and none has a copy of any of so many blocks.
    pub fn new(devices: u32, blocks: usize) -> Directory {
        let device = Device { entries: vec![Entry::default(); blocks], ..Device::default() };
        Directory { devices: vec![device; devices as usize] }
    }

    /// Takes a note in, in whatever order it comes.
    pub fn take(&mut self, note: Note) {
        let Some(device) = self.devices.get_mut(note.device as usize) else { return };
        match note.news {
            News::Lost => device.end(note.epoch),
            _ if note.epoch < device.epoch.max(device.alive_from) => {}
            News::Began => device.begin(note.epoch),
            News::Has { number, block, copies } => {
                device.begin(note.epoch);
                if let Some(entry) = device.entries.get_mut(block.index()).filter(|e| e.number < number) {
                    *entry = Entry { number, copies };
                }
            }
        }
    }

    /// How many accelerators there were at the beginning.
    pub fn devices(&self) -> u32 {
        self.devices.len() as u32
    }

    /// Whether an accelerator is lost, as far as is known.
    pub fn is_lost(&self, device: u32) -> bool {
        self.devices.get(device as usize).is_none_or(Device::is_lost)
    }

    /// The accelerators that are not known to be lost.
    pub fn alive(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.devices()).filter(|&device| !self.is_lost(device))
    }

    /// The copies that an accelerator is known to have of a block.
    pub fn copies(&self, device: u32, block: BlockId) -> &[Form] {
        let entry = self.devices.get(device as usize).and_then(|device| device.entries.get(block.index()));
        entry.map_or(&[], |entry| &entry.copies)
    }

    /// What is to be named by one who counts on a copy in this memory of an accelerator; `None` where none is known.
    pub fn claim(&self, device: u32, block: BlockId, tier: TierId) -> Option<Claim> {
        let of = self.devices.get(device as usize)?;
        let entry = of.entries.get(block.index())?;
        let has = entry.copies.iter().any(|form| form.tier == tier);
        has.then_some(Claim { device, epoch: of.epoch, block, number: entry.number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::FormatId;

    const FAST: TierId = TierId(0);
    const BLOCK: BlockId = BlockId(3);

    fn has(epoch: u32, number: u64, there: bool) -> Note {
        let copies = if there { vec![Form { tier: FAST, format: FormatId::BF16 }] } else { vec![] };
        Note { device: 1, epoch, news: News::Has { number, block: BLOCK, copies } }
    }

    fn told(notes: &[Note]) -> Directory {
        let mut directory = Directory::new(2, 8);
        notes.iter().cloned().for_each(|note| directory.take(note));
        directory
    }

    #[test]
    fn the_highest_number_stands_in_whatever_order_it_comes() {
        let (gone, back) = (has(0, 2, false), has(0, 3, true));
        let claim = |notes: &[Note]| told(notes).claim(1, BLOCK, FAST);
        let last = Some(Claim { device: 1, epoch: 0, block: BLOCK, number: 3 });
        assert_eq!(claim(&[has(0, 1, true), gone.clone(), back.clone()]), last);
        assert_eq!(claim(&[back.clone(), gone.clone(), back]), last);
        assert_eq!(
            claim(&[gone, has(0, 1, true)]),
            None,
            "a copy that is gone does not come back with a late note"
        );
        assert_eq!(claim(&[]), None);
        assert!(told(&[has(0, 1, true)]).copies(0, BLOCK).is_empty(), "nor does another have it");
    }

    #[test]
    fn the_dead_have_nothing_and_are_not_believed() {
        let lost = |epoch| Note { device: 1, epoch, news: News::Lost };
        let began = |epoch| Note { device: 1, epoch, news: News::Began };
        let dead = told(&[has(0, 1, true), lost(0), has(0, 2, true)]);
        assert!(dead.is_lost(1) && dead.copies(1, BLOCK).is_empty());
        assert_eq!(dead.alive().collect::<Vec<_>>(), [0]);
        // What it says in its next epoch means that it is back, even if nobody had said that it was lost.
        for notes in [vec![lost(0), began(1)], vec![began(1), lost(0)], vec![has(0, 9, true), began(1)]] {
            let back = told(&notes);
            assert!(!back.is_lost(1) && back.copies(1, BLOCK).is_empty(), "{notes:?}");
        }
        // Numbers of an epoch say nothing of those of another.
        let again = told(&[has(0, 9, false), has(1, 1, true), lost(0), has(0, 10, false)]);
        assert_eq!(again.claim(1, BLOCK, FAST).map(|claim| (claim.epoch, claim.number)), Some((1, 1)));
        // An epoch that was over before anything of it was heard.
        assert!(told(&[lost(1), has(1, 1, true), began(1)]).is_lost(1));
    }
}
