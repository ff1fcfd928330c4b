//! The bytes of a slot: copied, read and written by several threads, in memory or in a file.
//!
//! This is the one place where memory is borrowed as slices. What makes that sound: the free list hands no range out
//! twice, a region gives its ranges back only when it is dropped, and a slice lives as long as a guard of the region's
//! lock: `Reading` shares the bytes, `Writing` has them alone.

use crate::arena::ArenaError;
use crate::extents::{Extent, FreeList};
use memmap2::MmapRaw;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What the bytes of a tier are kept in.
pub(crate) enum Store {
    Memory(MmapRaw),
    File(File),
}

/// What slots are cut from; shared with the regions, which give their ranges back.
pub(crate) struct Pool {
    store: Store,
    free: Mutex<FreeList>,
    returned: Condvar,
}

/// The bytes of a slot, for as long as somebody uses them.
pub struct Region {
    pool: Arc<Pool>,
    extents: Vec<Extent>,
    len: u64,
    lock: RwLock<()>,
}

impl Pool {
    /// `store` has at least `capacity` bytes.
    pub(crate) fn new(store: Store, capacity: u64) -> Pool {
        Pool { store, free: Mutex::new(FreeList::new(capacity)), returned: Condvar::new() }
    }
}

impl Region {
    /// A region of `len` bytes on ranges of `rounded` bytes in all. Waits for freed ranges that are still in use; the
    /// arena has checked that the slots it holds leave enough.
    pub(crate) fn take(pool: &Arc<Pool>, len: u64, rounded: u64) -> Region {
        let mut free = pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        let extents = loop {
            match free.take(rounded) {
                Some(extents) => break extents,
                None => free = pool.returned.wait(free).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(free);
        Region { pool: pool.clone(), extents, len, lock: RwLock::new(()) }
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
            (Store::Memory(map), _) => {
                for (at, extent) in source.pieces(offset, len)? {
                    writing.store(at, reading.slice(map, extent))?;
                }
            }
            (Store::File(_), Store::Memory(map)) => {
                for (at, extent) in self.pieces(offset, len)? {
                    reading.load(at, writing.slice(map, extent))?;
                }
            }
            (Store::File(_), Store::File(_)) => {
                let mut buffer = vec![0; len as usize];
                reading.load(offset, &mut buffer)?;
                writing.store(offset, &buffer)?;
            }
        }
        Ok(())
    }

    /// Calls `read` with all bytes: in place where they lie in one piece of memory, else in a copy.
    pub fn with_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, ArenaError> {
        let reading = self.reading();
        if let (Store::Memory(map), [extent]) = (&self.pool.store, self.extents.as_slice()) {
            return Ok(read(reading.slice(map, Extent { len: self.len, ..*extent })));
        }
        let mut buffer = vec![0; self.len as usize];
        reading.load(0, &mut buffer)?;
        Ok(read(&buffer))
    }

    /// Calls `write` with all bytes, which it is to fill: in place where they lie in one piece of memory, else in a
    /// buffer that is stored afterwards.
    pub fn fill<R>(&self, write: impl FnOnce(&mut [u8]) -> R) -> Result<R, ArenaError> {
        let mut writing = self.writing();
        if let (Store::Memory(map), [extent]) = (&self.pool.store, self.extents.as_slice()) {
            return Ok(write(writing.slice(map, Extent { len: self.len, ..*extent })));
        }
        let mut buffer = vec![0; self.len as usize];
        let result = write(&mut buffer);
        writing.store(0, &buffer)?;
        Ok(result)
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
    /// `extent`, a part of this region, in `map`, its store.
    #[allow(unsafe_code)]
    fn slice(&self, map: &MmapRaw, extent: Extent) -> &[u8] {
        // SAFETY: extents lie inside the map. No other region has these bytes while this one lives, and nobody writes
        // them while the guard in `self`, which the slice borrows, is held. The region keeps the map alive.
        unsafe { std::slice::from_raw_parts(map.as_ptr().add(extent.start as usize), extent.len as usize) }
    }

    fn load(&self, offset: u64, out: &mut [u8]) -> Result<(), ArenaError> {
        for (at, extent) in self.region.pieces(offset, out.len() as u64)? {
            let part = &mut out[(at - offset) as usize..][..extent.len as usize];
            match &self.region.pool.store {
                Store::Memory(map) => part.copy_from_slice(self.slice(map, extent)),
                Store::File(file) => file.read_exact_at(part, extent.start)?,
            }
        }
        Ok(())
    }
}

impl Writing<'_> {
    /// `extent`, a part of this region, in `map`, its store.
    #[allow(unsafe_code)]
    fn slice(&mut self, map: &MmapRaw, extent: Extent) -> &mut [u8] {
        // SAFETY: as in `Reading::slice`; the guard in `self`, which the slice borrows mutably, is the only one.
        unsafe {
            std::slice::from_raw_parts_mut(map.as_mut_ptr().add(extent.start as usize), extent.len as usize)
        }
    }

    fn store(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ArenaError> {
        for (at, extent) in self.region.pieces(offset, bytes.len() as u64)? {
            let part = &bytes[(at - offset) as usize..][..extent.len as usize];
            match &self.region.pool.store {
                Store::Memory(map) => self.slice(map, extent).copy_from_slice(part),
                Store::File(file) => file.write_all_at(part, extent.start)?,
            }
        }
        Ok(())
    }
}
