//! What one controller says to the directory: the changes of its own ledger, as numbered notes.

use super::{Claim, News, Note};
use crate::homes::Homes;
use crate::id::BlockId;
use crate::ledger::Ledger;
use thiserror::Error;

/// More has happened to a block since the note that somebody acts on, or its accelerator is lost: its copies are to be asked for
/// again, or the home copy read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("what was said of block {} at accelerator {device} no longer stands", .block.0)]
pub struct Outdated {
    /// The accelerator.
    pub device: u32,
    /// The block.
    pub block: BlockId,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Herald {
    device: u32,
    epoch: u32,
    lost: bool,
    /// The number of the last note of this epoch.
    last: u64,
    /// For each block, the number of the last note of it, and the copies that it was told of or had at the beginning.
    numbers: Vec<u64>,
    told: Vec<u64>,
}

impl Herald {
    /// Speaks for an accelerator whose ledger has home copies only, and from here on notes what changes.
    pub fn new(device: u32, ledger: &mut Ledger, blocks: usize) -> Herald {
        ledger.note_changes();
        let told = (0..blocks as u32).map(|block| ledger.copies_word(BlockId(block))).collect();
        Herald { device, epoch: 0, lost: false, last: 0, numbers: vec![0; blocks], told }
    }

    /// What has changed since the last time; nothing while the accelerator is lost.
    pub fn tell(&mut self, ledger: &mut Ledger, home: &Homes, mut each: impl FnMut(Note)) {
        for block in ledger.take_changed() {
            if !self.lost && self.told[block.index()] != ledger.copies_word(block) {
                each(self.note(block, ledger, home));
            }
        }
    }

    /// Its accelerator is lost: the epoch is over.
    pub fn lose(&mut self) {
        self.lost = true;
    }

    /// Its accelerator is back, in a new epoch, with what its ledger has.
    pub fn begin(&mut self, ledger: &Ledger, home: &Homes, mut each: impl FnMut(Note)) {
        (self.lost, self.epoch, self.last) = (false, self.epoch + 1, 0);
        self.numbers.fill(0);
        each(Note { device: self.device, epoch: self.epoch, news: News::Began });
        for block in (0..self.told.len() as u32).map(BlockId) {
            self.told[block.index()] = ledger.copies_word(block);
            if ledger.copies(block).any(|form| form.tier != home.of(block)) {
                each(self.note(block, ledger, home));
            }
        }
    }

    fn note(&mut self, block: BlockId, ledger: &Ledger, home: &Homes) -> Note {
        self.last += 1;
        self.numbers[block.index()] = self.last;
        self.told[block.index()] = ledger.copies_word(block);
        let own = ledger.copies(block).filter(|form| form.tier != home.of(block));
        let news = News::Has { number: self.last, block, copies: own.collect() };
        Note { device: self.device, epoch: self.epoch, news }
    }

    /// Whether an entry of the directory still stands.
    ///
    /// # Errors
    /// More has been said of the block since, or the accelerator is lost, or was in between.
    pub fn confirm(&self, claim: Claim) -> Result<(), Outdated> {
        let Claim { device, epoch, block, number } = claim;
        let stands = !self.lost
            && (device, epoch) == (self.device, self.epoch)
            && self.numbers.get(block.index()) == Some(&number);
        if stands { Ok(()) } else { Err(Outdated { device, block }) }
    }
}
