//! The bytes of a slot: copied, read and written by several threads, in memory or in a file.
//!
//! This is the one place where a tier's memory is borrowed as slices. What makes that sound: the free list hands no range
//! out twice, a region gives its ranges back only when it is dropped, and a slice lives as long as a guard of the
//! region's lock: `Reading` shares the bytes, `Writing` has them alone.

use crate::arena::ArenaError;
use crate::cuda::error::CudaError;
use crate::cuda::gpu::Gpu;
use crate::cuda::places::pairs;
use crate::extents::{Extent, FreeList};
use crate::faults::{Fault, Faults};
use crate::store::{Broken, Memory, PAGE, Pages, Store, Way};
use policy::units::Bytes;
use std::io;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What slots are cut from; shared with the regions, which give their ranges back.
pub(crate) struct Pool {
    tier: String,
    store: Store,
    free: Mutex<FreeList>,
    returned: Condvar,
    /// Buffers for slots that do not lie in one piece of memory.
    scratch: Mutex<Vec<Pages>>,
    faults: OnceLock<Arc<Faults>>,
}

/// The bytes of a slot, for as long as somebody uses them.
pub struct Region {
    pool: Arc<Pool>,
    extents: Vec<Extent>,
    len: u64,
    lock: RwLock<()>,
}

/// Where bytes lie: pieces of an address and a length each.
pub(crate) enum Addresses {
    /// In this host's memory.
    Host(Vec<(u64, u64)>),
    /// In an accelerator's.
    Device(Arc<Gpu>, Vec<(u64, u64)>),
    /// In a file, which has none.
    File,
}

/// Bytes of a file, or of an accelerator's memory, that are carried to another at a time.
const WINDOW: u64 = 16 << 20;

impl Pool {
    /// `store` has at least `capacity` bytes.
    pub(crate) fn new(tier: String, store: Store, capacity: u64) -> Pool {
        let free = Mutex::new(FreeList::new(capacity));
        let (returned, scratch, faults) = (Condvar::new(), Mutex::default(), OnceLock::new());
        Pool { tier, store, free, returned, scratch, faults }
    }

    /// Takes up a plan of failures; false if there is one already.
    pub(crate) fn fail(&self, faults: Arc<Faults>) -> bool {
        self.faults.set(faults).is_ok()
    }

    pub(crate) fn faults(&self) -> Option<&Faults> {
        self.faults.get().map(Arc::as_ref)
    }

    fn strike(&self, fault: Fault) -> Option<u64> {
        self.faults()?.strike(fault)
    }

    /// An error of the system's, if the plan has one for this call.
    fn maybe_refuse(&self, way: Way, at: u64) -> Result<(), ArenaError> {
        let fault = if way == Way::Load { Fault::Read } else { Fault::Write };
        let refused = || Broken::System { way, at, source: io::Error::from_raw_os_error(libc::EIO) };
        self.strike(fault).map_or(Ok(()), |_| Err(self.broken(refused())))
    }

    fn broken(&self, broken: Broken) -> ArenaError {
        let tier = self.tier.clone();
        match broken {
            Broken::System { way: Way::Load, at, source } => ArenaError::Read { tier, at, source },
            Broken::System { way: Way::Save, at, source } => ArenaError::Write { tier, at, source },
            Broken::Ended { at } => ArenaError::Ended { tier, at },
        }
    }

    fn device(&self, way: Way, extent: Extent, source: CudaError) -> ArenaError {
        self.broken(Broken::System { way, at: extent.start, source: io::Error::other(source) })
    }

    /// Calls `work` with a buffer of `len` bytes; what is in it is arbitrary.
    fn with_scratch<R>(
        &self,
        len: u64,
        work: impl FnOnce(&mut [u8]) -> Result<R, ArenaError>,
    ) -> Result<R, ArenaError> {
        let idle = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pages = idle().pop().unwrap_or_default();
        let no_memory =
            |source| ArenaError::NoMemory { tier: self.tier.clone(), capacity: Bytes(len), source };
        let result = pages.bytes(len as usize).map_err(no_memory).and_then(work);
        idle().push(pages);
        result
    }
}

impl Region {
    /// A region of `len` bytes on ranges of `rounded` bytes in all. Waits for freed ranges that are still in use; the
    /// arena has checked that the slots it holds leave enough. Pages are there when it returns.
    pub(crate) fn take(pool: &Arc<Pool>, len: u64, rounded: u64) -> io::Result<Region> {
        let mut free = pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        let extents = loop {
            match free.take(rounded) {
                Some(extents) => break extents,
                None => free = pool.returned.wait(free).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(free);
        let region = Region { pool: pool.clone(), extents, len, lock: RwLock::new(()) };
        if let Store::Memory(memory) = &pool.store {
            memory.populate(&region.extents)?;
        }
        Ok(region)
    }

    /// Bytes of the slot.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads from byte `offset` on.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), ArenaError> {
        self.reading().load(offset, out)
    }

    /// Writes from byte `offset` on.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), ArenaError> {
        self.writing().store(offset, bytes)
    }

    /// Copies bytes `offset .. offset + len` of `source`, another region, to the same place here.
    pub fn copy_from(&self, source: &Region, offset: u64, len: u64) -> Result<(), ArenaError> {
        let (reading, mut writing) = (source.reading(), self.writing());
        match (&source.pool.store, &self.pool.store) {
            (Store::Memory(memory), _) => {
                source.pool.maybe_refuse(Way::Load, offset)?;
                for (at, extent) in source.pieces(offset, len)? {
                    writing.store(at, reading.slice(memory, extent))?;
                }
            }
            (Store::File(_) | Store::Device(_), Store::Memory(memory)) => {
                self.pool.maybe_refuse(Way::Save, offset)?;
                for (at, extent) in self.pieces(offset, len)? {
                    reading.load(at, writing.slice(memory, extent))?;
                }
                writing.maybe_flip(offset, len)?;
            }
            (Store::File(_) | Store::Device(_), Store::File(_) | Store::Device(_)) => {
                let end = offset.saturating_add(len);
                self.pool.with_scratch(WINDOW.min(len), |window| {
                    for at in (offset..end).step_by(WINDOW as usize) {
                        let part = &mut window[..WINDOW.min(end - at) as usize];
                        reading.load(at, part)?;
                        writing.store(at, part)?;
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Calls `read` with all bytes: in place where they lie in one piece of memory, else in a copy.
    pub fn with_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, ArenaError> {
        let reading = self.reading();
        if let (Store::Memory(memory), [extent]) = (&self.pool.store, self.extents.as_slice()) {
            self.pool.maybe_refuse(Way::Load, 0)?;
            return Ok(read(reading.slice(memory, Extent { len: self.len, ..*extent })));
        }
        self.pool.with_scratch(self.len, |buffer| {
            reading.load(0, buffer)?;
            Ok(read(buffer))
        })
    }

    /// Calls `write` with all bytes, which it is to fill: in place where they lie in one piece of memory, else in a
    /// buffer that is stored afterwards.
    pub fn fill<R>(&self, write: impl FnOnce(&mut [u8]) -> R) -> Result<R, ArenaError> {
        let mut writing = self.writing();
        if let (Store::Memory(memory), [extent]) = (&self.pool.store, self.extents.as_slice()) {
            self.pool.maybe_refuse(Way::Save, 0)?;
            let result = write(writing.slice(memory, Extent { len: self.len, ..*extent }));
            writing.maybe_flip(0, self.len)?;
            return Ok(result);
        }
        self.pool.with_scratch(self.len, |buffer| {
            let result = write(buffer);
            writing.store(0, buffer)?;
            Ok(result)
        })
    }

    /// Where bytes `offset .. offset + len` lie, for copy engines and kernels, piece by piece. Whoever uses the addresses
    /// holds the region until nothing does any more, and keeps to what a device promises: nobody writes a copy while it is
    /// read, nobody reads one while it is made.
    pub(crate) fn addresses(&self, offset: u64, len: u64) -> Result<Addresses, ArenaError> {
        let pieces = self.pieces(offset, len)?;
        let from =
            |start: u64| pieces.iter().map(move |(_, piece)| (start + piece.start, piece.len)).collect();
        Ok(match &self.pool.store {
            Store::Memory(memory) => Addresses::Host(from(memory.start().expose_provenance() as u64)),
            Store::Device(slab) => Addresses::Device(slab.gpu().clone(), from(slab.start())),
            Store::File(_) => Addresses::File,
        })
    }

    /// Carries bytes from `offset` on between this slot of a file and pieces of an accelerator's memory, past the host's.
    /// False, and nothing done, where the file cannot do that, or the bytes are not blocks of its own: a block that is
    /// shared would be loaded and saved again as a whole. The accelerator is this thread's.
    ///
    /// # Safety
    /// The pieces are of memory that the caller holds; nobody else writes them meanwhile, nor reads them where they are
    /// loaded.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn carry_directly(
        &self,
        way: Way,
        offset: u64,
        memory: &[(u64, u64)],
    ) -> Result<bool, ArenaError> {
        let pool = &self.pool;
        let Store::File(file) = &pool.store else { return Ok(false) };
        if !file.is_direct() {
            return Ok(false);
        }
        let len = memory.iter().map(|(_, len)| len).sum();
        let pieces = self.pieces(offset, len)?;
        let pieces: Vec<_> = pieces.iter().map(|(_, piece)| (piece.start, piece.len)).collect();
        let begins = pieces.iter().all(|(start, _)| start.is_multiple_of(PAGE as u64));
        let ends = offset.saturating_add(len) == self.len || len.is_multiple_of(PAGE as u64);
        if !begins || !ends {
            return Ok(false);
        }
        let carry = || {
            pool.maybe_refuse(way, offset)?;
            pairs(&pieces, memory).into_iter().try_for_each(|(at, address, len)| {
                // SAFETY: the caller's promise.
                let carried = unsafe { file.carry_directly(way, at, address, len, pool.faults()) };
                carried.map_err(|broken| pool.broken(broken))
            })
        };
        match way {
            Way::Load => {
                let _reading = self.reading();
                carry()?;
            }
            Way::Save => {
                let mut writing = self.writing();
                carry()?;
                writing.maybe_flip(offset, len)?;
            }
        }
        Ok(true)
    }

    fn reading(&self) -> Reading<'_> {
        Reading { region: self, _guard: self.lock.read().unwrap_or_else(PoisonError::into_inner) }
    }

    fn writing(&self) -> Writing<'_> {
        Writing { region: self, _guard: self.lock.write().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Where bytes `offset .. offset + len` lie: the place in the slot and the range of the store, piece by piece.
    fn pieces(&self, offset: u64, len: u64) -> Result<Vec<(u64, Extent)>, ArenaError> {
        let end = offset.saturating_add(len);
        if end > self.len {
            return Err(ArenaError::OutOfRange { offset, end, len: self.len });
        }
        let mut pieces = Vec::with_capacity(1);
        let mut begin = 0;
        for extent in &self.extents {
            let (from, to) = (offset.max(begin), end.min(begin + extent.len));
            if from < to {
                pieces.push((from, Extent { start: extent.start + (from - begin), len: to - from }));
            }
            begin += extent.len;
        }
        Ok(pieces)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        self.extents.drain(..).for_each(|extent| free.give(extent));
        self.pool.returned.notify_all();
    }
}

/// Leave to read a region's bytes, shared.
struct Reading<'a> {
    region: &'a Region,
    _guard: RwLockReadGuard<'a, ()>,
}

/// Leave to write a region's bytes, alone.
struct Writing<'a> {
    region: &'a Region,
    _guard: RwLockWriteGuard<'a, ()>,
}

impl Reading<'_> {
    /// `extent`, a part of this region, in `memory`, its store.
    #[allow(unsafe_code)]
    fn slice(&self, memory: &Memory, extent: Extent) -> &[u8] {
        // SAFETY: extents lie inside the memory. No other region has these bytes while this one lives, and nobody writes
        // them while the guard in `self`, which the slice borrows, is held. The region keeps the memory alive.
        unsafe { std::slice::from_raw_parts(memory.start().add(extent.start as usize), extent.len as usize) }
    }

    fn load(&self, offset: u64, out: &mut [u8]) -> Result<(), ArenaError> {
        let pool = &self.region.pool;
        pool.maybe_refuse(Way::Load, offset)?;
        for (at, extent) in self.region.pieces(offset, out.len() as u64)? {
            let part = &mut out[(at - offset) as usize..][..extent.len as usize];
            match &pool.store {
                Store::Memory(memory) => part.copy_from_slice(self.slice(memory, extent)),
                Store::File(file) => {
                    file.load(extent.start, part, pool.faults()).map_err(|broken| pool.broken(broken))?;
                }
                Store::Device(slab) => {
                    slab.load(extent.start, part).map_err(|source| pool.device(Way::Load, extent, source))?;
                }
            }
        }
        Ok(())
    }
}

impl Writing<'_> {
    /// `extent`, a part of this region, in `memory`, its store.
    #[allow(unsafe_code)]
    fn slice(&mut self, memory: &Memory, extent: Extent) -> &mut [u8] {
        // SAFETY: as in `Reading::slice`; the guard in `self`, which the slice borrows mutably, is the only one.
        unsafe {
            std::slice::from_raw_parts_mut(memory.start().add(extent.start as usize), extent.len as usize)
        }
    }

    fn store(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ArenaError> {
        self.region.pool.maybe_refuse(Way::Save, offset)?;
        self.put(offset, bytes)?;
        self.maybe_flip(offset, bytes.len() as u64)
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ArenaError> {
        let pool = &self.region.pool;
        for (at, extent) in self.region.pieces(offset, bytes.len() as u64)? {
            let part = &bytes[(at - offset) as usize..][..extent.len as usize];
            match &pool.store {
                Store::Memory(memory) => self.slice(memory, extent).copy_from_slice(part),
                Store::File(file) => {
                    file.save(extent.start, part, pool.faults()).map_err(|broken| pool.broken(broken))?;
                }
                Store::Device(slab) => {
                    slab.save(extent.start, part).map_err(|source| pool.device(Way::Save, extent, source))?;
                }
            }
        }
        Ok(())
    }

    /// Turns a bit of `offset .. offset + len` over, if the plan has that for this call.
    fn maybe_flip(&mut self, offset: u64, len: u64) -> Result<(), ArenaError> {
        let pool = &self.region.pool;
        let Some(draw) = pool.faults().filter(|_| len > 0).and_then(|faults| faults.strike(Fault::Flip))
        else {
            return Ok(());
        };
        let at = offset + draw % len;
        let mut byte = [0];
        for (_, extent) in self.region.pieces(at, 1)? {
            match &pool.store {
                Store::Memory(memory) => byte[0] = self.slice(memory, extent)[0],
                Store::File(file) => {
                    file.load(extent.start, &mut byte, None).map_err(|broken| pool.broken(broken))?;
                }
                Store::Device(slab) => {
                    slab.load(extent.start, &mut byte)
                        .map_err(|source| pool.device(Way::Load, extent, source))?;
                }
            }
        }
        self.put(at, &[byte[0] ^ 1 << (draw % 8)])
    }
}

#[cfg(test)]
mod tests;
