//! One arena for each tier: real memory of the tier's capacity, handed out in slots.
//!
//! Sizes are rounded up to the tier's granularity, and a slot may be several ranges. So an allocation succeeds exactly
//! when the rounded sizes of the slots that are held leave room for it: fragmentation cannot make one fail that a ledger
//! of bytes allows. A slot is known by an id with a generation; an old id is an error.
//!
//! Slots are in one piece where that can be, since kernels read them in place, see `extents`.
//!
//! A freed slot is gone at once for its owner. Its bytes are handed out again after the last [`Region`] to it is
//! dropped: whoever still copies from or to it holds one, and an allocation that needs those bytes waits for it.

use crate::cuda::error::CudaError;
use crate::faults::{Fault, Faults};
use crate::region::{Pool, Region};
use crate::store::{FileStore, Memory, Note, Store};
use policy::machine::{Backing, Tier};
use policy::units::Bytes;
use slotmap::SlotMap;
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
    /// The accelerator that a tier lies in is not there.
    #[error("{tier}: {source}; correct the tier's `device`, or leave the tier out")]
    NoAccelerator {
        /// The tier.
        tier: String,
        /// Why.
        source: CudaError,
    },
    /// The system has not the memory: for the tier, or for the pages of a slot.
    #[error("{tier}: cannot set aside {capacity}: {source}; lower the tier's capacity")]
    NoMemory {
        /// The tier.
        tier: String,
        /// Bytes asked for.
        capacity: Bytes,
        /// Why.
        source: io::Error,
    },
    /// Bytes could not be read.
    #[error("{tier}: cannot read at byte {at}: {source}")]
    Read {
        /// The tier.
        tier: String,
        /// Where in the tier.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// Bytes could not be written.
    #[error("{tier}: cannot write at byte {at}: {source}")]
    Write {
        /// The tier.
        tier: String,
        /// Where in the tier.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// The file behind a tier is shorter than it was made.
    #[error("{tier}: its file has shrunk, byte {at} is gone; nobody else may change the files of a run")]
    Ended {
        /// The tier.
        tier: String,
        /// A byte that is no longer there.
        at: u64,
    },
}

/// The memory of a tier.
pub struct Arena {
    tier: String,
    granularity: Bytes,
    capacity: Bytes,
    held: Bytes,
    slots: SlotMap<SlotId, Arc<Region>>,
    pool: Arc<Pool>,
    notes: Vec<Note>,
}

impl Arena {
    /// Sets aside a tier's capacity: address space, of which slots take pages when they are allocated, on its NUMA node
    /// if one is named; or a temporary file in `folder`, removed when the arena goes.
    pub fn new(tier: &Tier, folder: &Path) -> Result<Arena, ArenaError> {
        Arena::with_store(tier, |capacity, granularity, notes| match tier.backing {
            Backing::File => FileStore::new(folder, capacity, granularity, notes).map(Store::File),
            Backing::Device | Backing::Pinned | Backing::Pageable | Backing::Numa => {
                Memory::new(capacity, tier.backing, tier.node, notes).map(Store::Memory)
            }
        })
    }

    /// The same in a store of the caller's, who is told capacity and granularity.
    pub(crate) fn with_store(
        tier: &Tier,
        store: impl FnOnce(u64, u64, &mut Vec<Note>) -> io::Result<Store>,
    ) -> Result<Arena, ArenaError> {
        let granularity = Bytes(tier.granularity.0.max(1));
        let capacity = Bytes(tier.capacity.0 / granularity.0 * granularity.0);
        let mut notes = Vec::new();
        let no_memory = |source| ArenaError::NoMemory { tier: tier.name.clone(), capacity, source };
        let store = store(capacity.0, granularity.0, &mut notes).map_err(no_memory)?;
        let pool = Pool::new(tier.name.clone(), store, capacity.0);
        let (tier, slots, held) = (tier.name.clone(), SlotMap::with_key(), Bytes::ZERO);
        Ok(Arena { tier, granularity, capacity, held, slots, pool: Arc::new(pool), notes })
    }

    /// What the tier asks for and this host does not give.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// From now on the memory fails as planned, for tests. False if it has a plan already, which it keeps.
    pub fn fail(&self, faults: Arc<Faults>) -> bool {
        self.pool.fail(faults)
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
        let no_memory = |source| ArenaError::NoMemory { tier: self.tier.clone(), capacity: asked, source };
        if self.pool.faults().is_some_and(|faults| faults.strike(Fault::Allocation).is_some()) {
            return Err(no_memory(io::ErrorKind::OutOfMemory.into()));
        }
        let region = Region::take(&self.pool, bytes.0, asked.0).map_err(no_memory)?;
        self.held += asked;
        Ok(self.slots.insert(Arc::new(region)))
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
