//! Processors beside other memories: each streams blocks from the memories beside it, shared with the copies that cross them, and
//! computes one command after the other.
//!
//! What a memory gives inside is one bus for its processor and for copies; what leaves it is held by links as well. So a processor
//! that takes nearly all that its cells give slows a copy down only by its fair share, and a copy the processor by no more than a
//! link carries.

use super::{NEAR, Tick, World, WorldError};
use crate::queue::Rank;
use policy::event::{EventKind, Part, Read};
use policy::machine::NearProcessor;
use policy::{Bytes, LayerId, Nanos, ProcessorId, TierId, Time};
use std::collections::VecDeque;

/// One command for a processor.
#[derive(Clone, Debug)]
struct Share {
    layer: LayerId,
    blocks: u64,
    /// Bytes it reads of each tier.
    bytes: Vec<(TierId, Bytes)>,
    operations: Nanos,
    since: Time,
    /// Tiers it is still reading.
    reading: usize,
}

/// What a processor beside memories has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NearCount {
    /// Blocks computed.
    pub blocks: u64,
    /// Time it was busy: from when it took each command up to its answer.
    pub busy: Nanos,
}

/// A processor's commands, in order, of which the first is running; and what it has done.
#[derive(Clone, Debug, Default)]
pub(super) struct Near {
    shares: VecDeque<Share>,
    count: NearCount,
}

impl Near {
    /// Whether it has nothing to compute.
    pub(super) fn is_idle(&self) -> bool {
        self.shares.is_empty()
    }
}

impl World {
    /// Takes a command for a processor.
    pub(super) fn begin_near(
        &mut self,
        layer: LayerId,
        by: ProcessorId,
        reads: &[Read],
    ) -> Result<(), WorldError> {
        let processor = self.machine.near.get(by.index()).ok_or(WorldError::NoProcessor(by))?;
        let mut bytes: Vec<(TierId, Bytes)> = Vec::new();
        for read in reads {
            if !processor.tiers.contains(&read.form.tier) {
                return Err(WorldError::NotBeside { by, form: read.form });
            }
            let of_block = self.sizes.bytes(read.block, read.form.format);
            match bytes.iter_mut().find(|(tier, _)| *tier == read.form.tier) {
                Some((_, sum)) => *sum += of_block,
                None => bytes.push((read.form.tier, of_block)),
            }
        }
        let kernel = self.operators.kernel((layer, Part::Near(by)), &[], 0, reads);
        self.provenance.add(&kernel.booked, 1);
        let (operations, blocks) = (kernel.operations, reads.len() as u64);
        let shares = &mut self.near[by.index()].shares;
        shares.push_back(Share { layer, blocks, bytes, operations, since: self.now, reading: 0 });
        if shares.len() == 1 {
            self.start_near(by);
        }
        Ok(())
    }

    fn start_near(&mut self, by: ProcessorId) {
        self.share();
        let Some(share) = self.near[by.index()].shares.front_mut() else { return };
        share.since = self.now;
        share.reading = share.bytes.len();
        let read = self.machine.near(by).processor.read;
        for &(tier, bytes) in &share.bytes {
            self.fabric.read(self.now, NEAR + u64::from(by.0), tier, bytes, read);
        }
    }

    /// One of a processor's streams has ended; the last one is followed by what is left of the operations.
    pub(super) fn near_read(&mut self, by: ProcessorId) {
        let Some(share) = self.near[by.index()].shares.front_mut() else { return };
        share.reading -= 1;
        if share.reading == 0 {
            let launch = self.machine.near(by).processor.launch;
            let end = self.now.max(share.since + share.operations) + launch;
            self.queue.push(end, Rank::Completion, Tick::NearComputed(by));
        }
    }

    pub(super) fn near_computed(&mut self, by: ProcessorId) -> Option<EventKind> {
        let near = &mut self.near[by.index()];
        let Share { layer, blocks, since, .. } = near.shares.pop_front()?;
        let took = self.now.since(since);
        near.count.blocks += blocks;
        near.count.busy += took;
        if let Some(timeline) = &mut self.timeline {
            timeline.compute(layer, Part::Near(by), since, took);
        }
        self.start_near(by);
        Some(EventKind::NearDone { layer, by })
    }

    /// What each processor beside memories has done, in the machine's order.
    pub fn near(&self) -> impl Iterator<Item = (&NearProcessor, NearCount)> {
        self.machine.near.iter().zip(self.near.iter().map(|near| near.count))
    }
}
