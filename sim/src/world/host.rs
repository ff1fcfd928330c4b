//! The host's processor: it streams blocks from the memories beside it, shared with the copies that cross them, and computes
//! one command after the other.

use super::{HOST, Tick, World, WorldError};
use crate::queue::Rank;
use policy::event::{EventKind, Part, Read};
use policy::{Bytes, LayerId, Nanos, TierId, Time};

/// One command for the host.
#[derive(Clone, Debug)]
pub(super) struct HostShare {
    layer: LayerId,
    /// Bytes it reads of each tier.
    bytes: Vec<(TierId, Bytes)>,
    operations: Nanos,
    since: Time,
    /// Tiers it is still reading.
    reading: usize,
}

impl World {
    /// Takes a command for the host.
    pub(super) fn begin_host(&mut self, layer: LayerId, reads: &[Read]) -> Result<(), WorldError> {
        self.machine.host_compute.ok_or(WorldError::NoHost)?;
        let mut bytes: Vec<(TierId, Bytes)> = Vec::new();
        for read in reads {
            let of_block = self.sizes.bytes(read.block, read.form.format);
            match bytes.iter_mut().find(|(tier, _)| *tier == read.form.tier) {
                Some((_, sum)) => *sum += of_block,
                None => bytes.push((read.form.tier, of_block)),
            }
        }
        let kernel = self.operators.kernel((layer, Part::Host), &[], 0, reads);
        self.provenance.add(&kernel.booked, 1);
        let operations = kernel.operations;
        self.hosted.push_back(HostShare { layer, bytes, operations, since: self.now, reading: 0 });
        if self.hosted.len() == 1 {
            self.start_host();
        }
        Ok(())
    }

    fn start_host(&mut self) {
        self.share();
        let (Some(share), Some(host)) = (self.hosted.front_mut(), self.machine.host_compute) else { return };
        share.since = self.now;
        share.reading = share.bytes.len();
        for &(tier, bytes) in &share.bytes {
            self.fabric.read(self.now, HOST, tier, bytes, host.read);
        }
    }

    /// One of the host's streams has ended; the last one is followed by what is left of the operations.
    pub(super) fn host_read(&mut self) {
        let (Some(share), Some(host)) = (self.hosted.front_mut(), self.machine.host_compute) else { return };
        share.reading -= 1;
        if share.reading == 0 {
            let end = self.now.max(share.since + share.operations) + host.launch;
            self.queue.push(end, Rank::Completion, Tick::HostComputed);
        }
    }

    pub(super) fn host_computed(&mut self) -> Option<EventKind> {
        let HostShare { layer, since, .. } = self.hosted.pop_front()?;
        if let Some(timeline) = &mut self.timeline {
            timeline.compute(layer, Part::Host, since, self.now.since(since));
        }
        self.start_host();
        Some(EventKind::HostDone { layer })
    }
}
