//! Changes of format and checks of copies by the device's own kernels, on one stream.

use super::error::CudaError;
use super::gpu::{Gpu, Stream};
use super::launch::{Launch, Place, Status, checksum, packed_room, recode, scratch_bytes};
use super::memory::Slab;
use crate::cargo::Cargo;
use crate::content::{Checksum, Contents};
use crate::engine::JobError;
use crate::region::{Addresses, Region};
use policy::format::FormatId;
use policy::model::Matrix;
use std::sync::Arc;

/// What kernels read a copy at multiples of.
const ALIGNMENT: u64 = 256;

/// A stream, what its kernels report in, and memory beside the tiers.
pub(super) struct Coder {
    stream: Stream,
    status: Slab,
    spare: Vec<Slab>,
}

impl Coder {
    pub(super) fn new(gpu: &Arc<Gpu>, urgent: bool) -> Result<Coder, CudaError> {
        let status = Slab::new(gpu, size_of::<Status>() as u64)?;
        status.save(0, bytemuck::bytes_of(&Status::FRESH))?;
        Ok(Coder { stream: gpu.stream(urgent)?, status, spare: Vec::new() })
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Memory of at least `len` bytes; [`Coder::give`] it back.
    pub(super) fn take(&mut self, len: u64) -> Result<Slab, CudaError> {
        let fitting = self.spare.iter().enumerate().filter(|(_, slab)| slab.len() >= len);
        match fitting.min_by_key(|(_, slab)| slab.len()).map(|(index, _)| index) {
            Some(index) => Ok(self.spare.swap_remove(index)),
            None => Slab::new(self.stream.gpu(), len),
        }
    }

    /// For the next who takes memory.
    pub(super) fn give(&mut self, slab: Slab) {
        self.spare.push(slab);
    }

    /// Runs launches one after another.
    ///
    /// # Safety
    /// As [`Stream::launch`].
    #[allow(unsafe_code)]
    pub(super) unsafe fn run(&self, launches: &[Launch]) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        launches.iter().try_for_each(|launch| unsafe { self.stream.launch(launch) })
    }

    /// Writes a copy at `from` in another format to `to`, both whole and in the device's memory, and waits for it. False
    /// if the kernels refused: the host's codec then says why.
    #[allow(unsafe_code)]
    pub(super) fn recode(&mut self, from: Place, to: Place, matrices: &[Matrix]) -> Result<bool, CudaError> {
        let elements = matrices.iter().map(|matrix| matrix.elements()).sum();
        let Some(room) = (if packs(to.format) { packed_room(elements) } else { Some(0) }) else {
            return Ok(false);
        };
        let scratch = self.take(scratch_bytes(from.format, to.format, elements))?;
        self.status.save(0, bytemuck::bytes_of(&Status::FRESH))?;
        let launches = recode(from, to, matrices, scratch.start(), self.status.start())?;
        // SAFETY: the callers pass copies whose sizes follow from the formats and the matrices; nobody else uses the
        // scratch or the status before `finish`.
        let started = unsafe { self.run(&launches) };
        self.stream.finish()?;
        started?;
        self.give(scratch);
        let status = self.report()?;
        Ok(status.refused == u64::MAX && (!packs(to.format) || status.without_code <= room))
    }

    /// Writes bytes of the host's to an address that is the caller's to write to, and waits for it.
    #[allow(unsafe_code)]
    pub(super) fn put(&self, to: u64, bytes: &[u8]) -> Result<(), CudaError> {
        // SAFETY: the callers pass memory of a move's that is as long and that nobody else uses; the bytes are there until `finish`.
        let started = unsafe { self.stream.upload(to, bytes.as_ptr(), bytes.len() as u64) };
        self.stream.finish()?;
        started
    }

    fn report(&self) -> Result<Status, CudaError> {
        let mut status = Status::FRESH;
        self.status.load(0, bytemuck::bytes_of_mut(&mut status))?;
        Ok(status)
    }

    /// Compares a copy with what it must be: by a kernel where it lies in one piece of the device's memory, else by the host.
    #[allow(unsafe_code)]
    pub(super) fn verify(
        &self,
        contents: &Contents,
        cargo: &Cargo,
        region: &Region,
    ) -> Result<Checksum, JobError> {
        let Some(address) = whole(region, self.stream.gpu())? else {
            return cargo.check(contents, region);
        };
        let launch = checksum(address, region.len(), self.status.start()).map_err(CudaError::from)?;
        // SAFETY: the region is whole at this address and is held; the status is ours.
        unsafe { self.stream.launch(&launch) }?;
        self.stream.finish()?;
        cargo.compare(contents, Checksum(self.report()?.checksum[0]))
    }

    /// A copy's address for kernels: its own, or that of a piece put together in `kept`.
    #[allow(unsafe_code)]
    pub(super) fn readable(&mut self, region: &Region, kept: &mut Vec<Slab>) -> Result<u64, JobError> {
        if let Some(address) = whole(region, self.stream.gpu())? {
            return Ok(address);
        }
        let slab = self.take(region.len())?;
        let mut to = slab.start();
        match region.addresses(0, region.len())? {
            Addresses::Device(holder, pieces) => {
                for (from, len) in pieces {
                    // SAFETY: pieces of a region that is held, into memory of our own.
                    unsafe { self.stream.copy_across((slab.gpu(), to), (&holder, from), len) }?;
                    to += len;
                }
            }
            Addresses::Host(_) | Addresses::File => region.with_bytes(|bytes| slab.save(0, bytes))??,
        }
        let address = slab.start();
        kept.push(slab);
        Ok(address)
    }
}

/// The address of a region that lies in one piece of a device's memory, where its kernels can use it.
pub(super) fn whole(region: &Region, gpu: &Gpu) -> Result<Option<u64>, JobError> {
    Ok(match region.addresses(0, region.len())? {
        Addresses::Device(holder, pieces) if holder.ordinal() == gpu.ordinal() => match pieces.as_slice() {
            [(address, _)] if address.is_multiple_of(ALIGNMENT) => Some(*address),
            _ => None,
        },
        Addresses::Device(..) | Addresses::Host(_) | Addresses::File => None,
    })
}

fn packs(format: FormatId) -> bool {
    format.get().lossless_of.is_some()
}
