//! The simulator's own book of what memory holds. It trusts no controller: a copy read before it is complete, a tier
//! over its capacity, or a copy dropped twice ends the run.

use policy::event::Form;
use policy::format::FORMATS;
use policy::machine::Class;
use policy::sizes::Sizes;
use policy::{BlockId, Bytes, Machine, Model, Nanos, TierId, Time};
use std::sync::Arc;
use thiserror::Error;

/// A command that memory cannot obey.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MemoryError {
    /// A copy is named that is not there, or not complete.
    #[error("block {block:?} has no complete copy {form:?}")]
    Absent {
        /// The block.
        block: BlockId,
        /// The copy.
        form: Form,
    },
    /// A copy is made that is there already.
    #[error("block {block:?} has the copy {form:?} already")]
    Present {
        /// The block.
        block: BlockId,
        /// The copy.
        form: Form,
    },
    /// A tier is over its capacity.
    #[error("tier {tier} holds {used} of {capacity}")]
    Full {
        /// The tier.
        tier: String,
        /// Bytes it would hold.
        used: Bytes,
        /// Bytes it can hold.
        capacity: Bytes,
    },
}

/// Bytes read from and written to one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes read by moves and by compute.
    pub read: u64,
    /// Bytes written by moves.
    pub written: u64,
    /// Compute reads of a copy in this tier.
    pub hits: u64,
}

/// What one block has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Stay {
    /// Since when it has had a complete copy in fast memory; of no meaning while it has none.
    since: Time,
    /// Time with such a copy, over the stays that have ended.
    ended: Nanos,
    reads: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Memory {
    machine: Arc<Machine>,
    sizes: Sizes,
    /// What a copy takes in each tier.
    footprints: Vec<Sizes>,
    /// The formats a block is complete in, a bit each, tier by tier.
    complete: Vec<u64>,
    used: Vec<Bytes>,
    traffic: Vec<Traffic>,
    now: Time,
    /// The fast tiers, as indices.
    fast: Vec<usize>,
    stays: Vec<Stay>,
}

const _: () = assert!(FORMATS.len() <= u64::BITS as usize, "a block's copies in a tier are bits of one word");

impl Memory {
    /// Memory that holds nothing.
    pub fn new(machine: Arc<Machine>, model: &Model) -> Memory {
        let (tiers, sizes) = (machine.tiers.len(), Sizes::new(model));
        Memory {
            now: Time(0),
            fast: machine.tiers_of(Class::Fast).map(TierId::index).collect(),
            stays: vec![Stay::default(); model.blocks.len()],
            complete: vec![0; model.blocks.len() * tiers],
            used: vec![Bytes::ZERO; tiers],
            traffic: vec![Traffic::default(); tiers],
            footprints: machine.tiers.iter().map(|tier| sizes.rounded_up(tier.granularity)).collect(),
            sizes,
            machine,
        }
    }

    /// Time goes on: what is done from here on is done at `now`.
    pub fn advance(&mut self, now: Time) {
        self.now = now;
    }

    /// Takes room for a copy that is being made.
    ///
    /// # Errors
    /// The copy is there already, or the tier would be over its capacity.
    pub fn reserve(&mut self, block: BlockId, form: Form) -> Result<(), MemoryError> {
        if self.complete[self.place(block, form)] & bit(form) != 0 {
            return Err(MemoryError::Present { block, form });
        }
        let tier = self.machine.tier(form.tier);
        let used = self.used[form.tier.index()] + self.footprint(block, form);
        if used > tier.capacity {
            return Err(MemoryError::Full { tier: tier.name.clone(), used, capacity: tier.capacity });
        }
        self.used[form.tier.index()] = used;
        Ok(())
    }

    /// The copy is complete.
    pub fn publish(&mut self, block: BlockId, form: Form) {
        if !self.is_fast(block) {
            self.stays[block.index()].since = self.now;
        }
        let place = self.place(block, form);
        self.complete[place] |= bit(form);
    }

    /// Gives the room of an unfinished copy back.
    pub fn abandon(&mut self, block: BlockId, form: Form) {
        let bytes = self.footprint(block, form);
        self.used[form.tier.index()] -= bytes;
    }

    /// Frees a complete copy.
    ///
    /// # Errors
    /// The copy is not there.
    pub fn free(&mut self, block: BlockId, form: Form) -> Result<(), MemoryError> {
        self.expect(block, form)?;
        let was = self.fast_time(block);
        let place = self.place(block, form);
        self.complete[place] &= !bit(form);
        if !self.is_fast(block) {
            self.stays[block.index()].ended = was;
        }
        self.abandon(block, form);
        Ok(())
    }

    /// Checks that a complete copy is there.
    ///
    /// # Errors
    /// It is not.
    pub fn expect(&self, block: BlockId, form: Form) -> Result<(), MemoryError> {
        if self.has(block, form) { Ok(()) } else { Err(MemoryError::Absent { block, form }) }
    }

    /// Whether a complete copy is there.
    pub fn has(&self, block: BlockId, form: Form) -> bool {
        self.complete[self.place(block, form)] & bit(form) != 0
    }

    /// Books bytes that compute reads.
    pub fn compute_reads(&mut self, block: BlockId, form: Form) {
        let traffic = &mut self.traffic[form.tier.index()];
        traffic.read += self.sizes.bytes(block, form.format).0;
        traffic.hits += 1;
        self.stays[block.index()].reads += 1;
    }

    /// Books bytes that a move carries.
    pub fn carried(&mut self, from: TierId, to: TierId, bytes: Bytes) {
        self.traffic[from.index()].read += bytes.0;
        self.traffic[to.index()].written += bytes.0;
    }

    /// Bytes that managed blocks take in a tier, unfinished copies included.
    pub fn used(&self, tier: TierId) -> Bytes {
        self.used[tier.index()]
    }

    /// What has gone through a tier.
    pub fn traffic(&self, tier: TierId) -> &Traffic {
        &self.traffic[tier.index()]
    }

    /// Where `complete` has a block's copies in a tier.
    fn place(&self, block: BlockId, form: Form) -> usize {
        block.index() * self.machine.tiers.len() + form.tier.index()
    }

    /// Time that a block has had a complete copy in fast memory, in any format.
    pub fn fast_time(&self, block: BlockId) -> Nanos {
        let Stay { since, ended, .. } = self.stays[block.index()];
        if self.is_fast(block) { ended + self.now.since(since) } else { ended }
    }

    /// Layer steps that have read a block.
    pub fn reads(&self, block: BlockId) -> u64 {
        self.stays[block.index()].reads
    }

    fn is_fast(&self, block: BlockId) -> bool {
        let first = block.index() * self.machine.tiers.len();
        self.fast.iter().any(|tier| self.complete[first + tier] != 0)
    }

    fn footprint(&self, block: BlockId, form: Form) -> Bytes {
        self.footprints[form.tier.index()].bytes(block, form.format)
    }
}

fn bit(form: Form) -> u64 {
    1 << form.format.0
}
