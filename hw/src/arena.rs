//! One arena for each tier: real memory of the tier's capacity, handed out in slots.
//!
//! Sizes are rounded up to the tier's granularity, and a slot may be several ranges. So an allocation succeeds exactly
//! when the rounded sizes of the slots that are held leave room for it: fragmentation cannot make one fail that a ledger
//! of bytes allows. A slot is known by an id with a generation; an old id is an error.
//!
//! A freed slot is gone at once for its owner. Its bytes are handed out again after the last [`Region`] to it is
//! dropped: whoever still copies from or to it holds one, and an allocation that needs those bytes waits for it.

use crate::region::{Pool, Region, Store};
use memmap2::{MmapOptions, MmapRaw};
use policy::machine::{Backing, Tier};
use policy::units::Bytes;
use slotmap::SlotMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;

slotmap::new_key_type! {
    /// A slot of an arena and its generation.
    pub struct SlotId;
}

/// What an arena refuses, or the system behind it.
#[derive(Debug, Error)]
pub enum ArenaError {
    /// The slots that are held leave no room.
    #[error("{tier} is full: {asked} asked, {held} of {capacity} held")]
    Full {
        /// The tier.
        tier: String,
        /// Bytes asked for, rounded up to the granularity.
        asked: Bytes,
        /// Bytes held, rounded up likewise.
        held: Bytes,
        /// Bytes the arena can hand out.
        capacity: Bytes,
    },
    /// The slot was freed, or never was.
    #[error("{tier}: {slot:?} is stale: the slot has been freed")]
    Stale {
        /// The tier.
        tier: String,
        /// The id.
        slot: SlotId,
    },
    /// An access beyond the end of a slot.
    #[error("bytes {offset} to {end} of a slot of {len} bytes")]
    OutOfRange {
        /// The first byte.
        offset: u64,
        /// The byte after the last.
        end: u64,
        /// Bytes of the slot.
        len: u64,
    },
    /// The memory could not be had.
    #[error("{tier}: cannot set aside {capacity}: {source}; lower the tier's capacity")]
    NoMemory {
        /// The tier.
        tier: String,
        /// Its capacity.
        capacity: Bytes,
        /// Why.
        source: io::Error,
    },
    /// The file behind a tier failed.
    #[error("the file of a tier: {0}")]
    File(#[from] io::Error),
}

/// The memory of a tier.
pub struct Arena {
    tier: String,
    granularity: Bytes,
    capacity: Bytes,
    held: Bytes,
    slots: SlotMap<SlotId, Arc<Region>>,
    pool: Arc<Pool>,
}

impl Arena {
    /// Sets aside a tier's capacity: address space, of which pages are taken when they are first written, or a
    /// temporary file in `folder`, removed when the arena goes.
    pub fn new(tier: &Tier, folder: &Path) -> Result<Arena, ArenaError> {
        let granularity = Bytes(tier.granularity.0.max(1));
        let capacity = Bytes(tier.capacity.0 / granularity.0 * granularity.0);
        let no_memory = |source| ArenaError::NoMemory { tier: tier.name.clone(), capacity, source };
        let store = match tier.backing {
            Backing::File => temporary_file(folder, capacity.0).map(Store::File),
            Backing::Device | Backing::Pinned | Backing::Pageable | Backing::Numa => {
                anonymous(capacity.0).map(Store::Memory)
            }
        };
        let pool = Pool::new(store.map_err(no_memory)?, capacity.0);
        let (tier, slots, held) = (tier.name.clone(), SlotMap::with_key(), Bytes::ZERO);
        Ok(Arena { tier, granularity, capacity, held, slots, pool: Arc::new(pool) })
    }

    /// Bytes of the slots that are held, each rounded up to the granularity.
    pub fn held(&self) -> Bytes {
        self.held
    }

    /// Takes a slot of `bytes`. Its content is whatever was there.
    pub fn allocate(&mut self, bytes: Bytes) -> Result<SlotId, ArenaError> {
        let asked = bytes.round_up(self.granularity);
        if self.held + asked > self.capacity {
            let (tier, held, capacity) = (self.tier.clone(), self.held, self.capacity);
            return Err(ArenaError::Full { tier, asked, held, capacity });
        }
        self.held += asked;
        Ok(self.slots.insert(Arc::new(Region::take(&self.pool, bytes.0, asked.0))))
    }

    /// Gives a slot back.
    pub fn free(&mut self, slot: SlotId) -> Result<(), ArenaError> {
        let region = self.slots.remove(slot).ok_or_else(|| self.stale(slot))?;
        self.held -= Bytes(region.len()).round_up(self.granularity);
        Ok(())
    }

    /// The bytes of a slot.
    pub fn region(&self, slot: SlotId) -> Result<Arc<Region>, ArenaError> {
        self.slots.get(slot).cloned().ok_or_else(|| self.stale(slot))
    }

    fn stale(&self, slot: SlotId) -> ArenaError {
        ArenaError::Stale { tier: self.tier.clone(), slot }
    }
}

fn anonymous(capacity: u64) -> io::Result<MmapRaw> {
    let len = usize::try_from(capacity.max(1)).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let map = MmapOptions::new().len(len).no_reserve_swap().map_anon()?;
    #[cfg(target_os = "linux")]
    // Advice: a kernel without huge pages says no, and nothing is lost but speed.
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map.into())
}

fn temporary_file(folder: &Path, capacity: u64) -> io::Result<File> {
    let file = tempfile::tempfile_in(folder)?;
    file.set_len(capacity)?;
    Ok(file)
}
