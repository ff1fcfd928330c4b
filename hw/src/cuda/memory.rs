//! Memory that an accelerator works with: slabs of its own, and pages of the host's that it knows of.

use super::error::{CudaError, Doing};
use super::gpu::{Gpu, Stream};
use cudarc::driver::{result, sys};
use std::ops::Range;
use std::sync::Arc;

/// A piece of the device's memory, at a multiple of 256.
pub struct Slab {
    stream: Stream,
    start: u64,
    len: u64,
}

impl Slab {
    /// Takes `len` bytes.
    #[allow(unsafe_code)]
    pub fn new(gpu: &Arc<Gpu>, len: u64) -> Result<Slab, CudaError> {
        let stream = gpu.stream(false)?;
        // SAFETY: what is in it is never read before it is written.
        let start = unsafe { result::malloc_sync(len.max(1) as usize) }.doing("taking device memory")?;
        Ok(Slab { stream, start, len })
    }

    /// The first byte's address.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        self.stream.gpu()
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads from byte `at` on, and waits for it.
    #[allow(unsafe_code)]
    pub fn load(&self, at: u64, out: &mut [u8]) -> Result<(), CudaError> {
        let from = self.within(at, out.len());
        // SAFETY: `within` keeps to the slab, and `finish` returns before the borrow ends.
        unsafe { self.stream.download(out.as_mut_ptr(), from, out.len() as u64) }?;
        self.stream.finish()
    }

    /// Writes from byte `at` on, and waits for it.
    #[allow(unsafe_code)]
    pub fn save(&self, at: u64, bytes: &[u8]) -> Result<(), CudaError> {
        let to = self.within(at, bytes.len());
        // SAFETY: as in `load`.
        unsafe { self.stream.upload(to, bytes.as_ptr(), bytes.len() as u64) }?;
        self.stream.finish()
    }

    /// Extents are cut from a tier no larger than its slab; anything else is a fault of ours.
    fn within(&self, at: u64, len: usize) -> u64 {
        assert!(at.checked_add(len as u64).is_some_and(|end| end <= self.len), "beyond a slab");
        self.start + at
    }
}

impl Drop for Slab {
    /// A device that failed takes its memory with it.
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.stream.gpu().bind().is_ok() {
            let _ = self.stream.finish();
            // SAFETY: it is ours, and whoever used it has waited for that.
            let _ = unsafe { result::free_sync(self.start) };
        }
    }
}

/// A buffer of the host's for what has no address of its own, as the bytes of a file.
pub(super) struct Pinned {
    gpu: Arc<Gpu>,
    start: usize,
    len: usize,
}

impl Pinned {
    /// Takes `len` bytes, zeros.
    pub(super) fn new(gpu: &Arc<Gpu>, len: usize) -> Result<Pinned, CudaError> {
        Pinned::with(gpu, len, 0)
    }

    /// The same for bytes that the host writes, or has a drive write, and never reads: they pass its caches by, and
    /// devices read them without asking those. Reading them would be many times slower than reading other memory.
    pub(super) fn write_combined(gpu: &Arc<Gpu>, len: usize) -> Result<Pinned, CudaError> {
        Pinned::with(gpu, len, sys::CU_MEMHOSTALLOC_WRITECOMBINED)
    }

    #[allow(unsafe_code)]
    fn with(gpu: &Arc<Gpu>, len: usize, flags: u32) -> Result<Pinned, CudaError> {
        gpu.bind()?;
        // SAFETY: the bytes are written before anybody sees them.
        let start = unsafe { result::malloc_host(len, flags | sys::CU_MEMHOSTALLOC_PORTABLE) }
            .doing("taking pinned memory")?;
        // SAFETY: they are ours, as many as asked for.
        unsafe { std::ptr::write_bytes(start.cast::<u8>(), 0, len) };
        Ok(Pinned { gpu: gpu.clone(), start: start.expose_provenance(), len })
    }

    /// The address of byte `at`.
    pub(super) fn address(&self, at: usize) -> u64 {
        (self.start + at) as u64
    }

    /// Bytes `range`, which no copy engine is using.
    #[allow(unsafe_code)]
    pub(super) fn bytes(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.len, "beyond a buffer");
        let first = std::ptr::with_exposed_provenance_mut(self.start + range.start);
        // SAFETY: inside of what was allocated and written; the caller has waited for copies of these bytes.
        unsafe { std::slice::from_raw_parts_mut(first, range.len()) }
    }
}

impl Drop for Pinned {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: it is ours.
            let _ = unsafe { result::free_host(std::ptr::with_exposed_provenance_mut(self.start)) };
        }
    }
}

/// Pages of the host's that copy engines reach by themselves, at full rate and beside other work.
pub(crate) struct Registered {
    gpu: Arc<Gpu>,
    start: usize,
}

impl Registered {
    /// Registers `len` bytes.
    ///
    /// # Safety
    /// They are mapped, and stay so until this is dropped.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn new(gpu: &Arc<Gpu>, start: *mut u8, len: usize) -> Result<Registered, CudaError> {
        gpu.bind()?;
        // SAFETY: the caller's promise.
        unsafe { sys::cuMemHostRegister_v2(start.cast(), len, sys::CU_MEMHOSTREGISTER_PORTABLE) }
            .result()
            .doing("locking host memory for the device")?;
        Ok(Registered { gpu: gpu.clone(), start: start.expose_provenance() })
    }
}

impl Drop for Registered {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: it was registered, and is still there.
            let _ = unsafe { sys::cuMemHostUnregister(std::ptr::with_exposed_provenance_mut(self.start)) };
        }
    }
}
