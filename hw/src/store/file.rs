//! A file behind a tier: temporary, its room reserved, read and written past the page cache where the file system and the
//! tier's granularity allow it.

use super::Note;
use super::pages::PAGE;
use super::transfer::{Alignment, Broken, Engine, Target, shortened};
use crate::cuda::storage::{DirectFile, StorageError};
use crate::faults::Faults;
use policy::units::Bytes;
use rustix::fs::{AtFlags, FallocateFlags, OFlags, StatxFlags, fallocate, fcntl_getfl, fcntl_setfl, statx};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

pub(crate) use super::queue::Way;

/// A file, and engines that carry its bytes: as many as were ever needed at once.
pub(crate) struct FileStore {
    file: File,
    capacity: u64,
    alignment: Alignment,
    idle: Mutex<Vec<Engine>>,
    rings: bool,
    /// How accelerators reach it, if they do.
    direct: Option<DirectFile>,
}

/// Transfers through the page cache begin and end anywhere.
const ANYWHERE: Alignment = Alignment { file: 1, memory: 1 };

impl FileStore {
    /// Makes a file of `capacity` bytes in `folder` that goes when the store goes.
    pub(crate) fn new(
        folder: &Path,
        capacity: u64,
        granularity: u64,
        notes: &mut Vec<Note>,
    ) -> io::Result<FileStore> {
        let file = tempfile::tempfile_in(folder)?;
        if let Err(source) = reserve(&file, capacity) {
            notes.push(Note::NotReserved { capacity: Bytes(capacity), source });
            file.set_len(capacity)?;
        }
        let (idle, rings, direct) = (Mutex::default(), false, None);
        let store = FileStore { file, capacity, alignment: ANYWHERE, idle, rings, direct };
        store.past_the_cache(granularity, notes)
    }

    /// The store with direct transfers, where they can be had.
    fn past_the_cache(mut self, granularity: u64, notes: &mut Vec<Note>) -> io::Result<FileStore> {
        if !granularity.is_multiple_of(PAGE as u64) {
            let why = format!("slots are multiples of {granularity} bytes, not of {PAGE}");
            notes.push(Note::Buffered(io::Error::other(why)));
            return Ok(self);
        }
        let flags = fcntl_getfl(&self.file)?;
        match self.direct(flags) {
            Ok(alignment) => self.alignment = alignment,
            Err(refused) => {
                fcntl_setfl(&self.file, flags)?;
                notes.push(Note::Buffered(refused));
                return Ok(self);
            }
        }
        match Engine::ring(self.capacity) {
            Ok((engine, unregistered)) => {
                notes.extend(unregistered.map(Note::NotRegistered));
                self.rings = true;
                self.give_back(engine);
            }
            Err(refused) => notes.push(Note::NoRing(refused)),
        }
        Ok(self)
    }

    /// Asks for direct transfers, and tries one: some file systems take the flag and refuse the transfer.
    fn direct(&self, flags: OFlags) -> io::Result<Alignment> {
        fcntl_setfl(&self.file, flags | OFlags::DIRECT)?;
        let facts = statx(&self.file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
        let told = facts.stx_mask & StatxFlags::DIOALIGN.bits() != 0 && facts.stx_dio_mem_align > 0;
        let memory = if told { facts.stx_dio_mem_align as usize } else { PAGE };
        let alignment = Alignment { file: PAGE as u64, memory };
        if self.capacity > 0 {
            let target = Target { file: &self.file, alignment, faults: None };
            let mut engine = Engine::calls(self.capacity)?;
            let mut byte = [0];
            let tried = engine.load(target, 0, &mut byte).and_then(|()| engine.save(target, 0, &byte));
            tried.map_err(|broken| match broken {
                Broken::System { source, .. } => source,
                Broken::Ended { .. } => io::ErrorKind::UnexpectedEof.into(),
            })?;
        }
        Ok(alignment)
    }

    /// Reads from byte `at` on.
    pub(crate) fn load(&self, at: u64, out: &mut [u8], faults: Option<&Faults>) -> Result<(), Broken> {
        self.with_engine(Way::Load, at, |engine| engine.load(self.target(faults), at, out))
    }

    /// Writes from byte `at` on. Blocks that it covers in part must be the caller's.
    pub(crate) fn save(&self, at: u64, bytes: &[u8], faults: Option<&Faults>) -> Result<(), Broken> {
        self.with_engine(Way::Save, at, |engine| engine.save(self.target(faults), at, bytes))
    }

    /// From now on bytes go to accelerators and come from them past the host's memory.
    pub(crate) fn reach_accelerators(&mut self) -> Result<(), StorageError> {
        if self.alignment.file == ANYWHERE.file {
            return Err(StorageError::Buffered);
        }
        self.direct = Some(DirectFile::new(&self.file)?);
        Ok(())
    }

    /// Whether they do.
    pub(crate) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Carries `len` bytes between byte `at` on and an address of the current accelerator's memory.
    ///
    /// # Safety
    /// As [`DirectFile::carry`].
    #[allow(unsafe_code)]
    pub(crate) unsafe fn carry_directly(
        &self,
        way: Way,
        at: u64,
        memory: u64,
        len: u64,
        faults: Option<&Faults>,
    ) -> Result<(), Broken> {
        let Some(direct) = &self.direct else { return Ok(()) };
        let mut done = 0;
        while done < len {
            let asked = shortened(len - done, self.target(faults));
            // SAFETY: the caller's promise.
            let carried = match unsafe { direct.carry(way, at + done, memory + done, asked) } {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Broken::System { way, at: at + done, source }),
                Ok(carried) => carried as u64,
            };
            // What is asked for again begins at a block.
            let whole = if done + carried >= len { carried } else { carried / PAGE as u64 * PAGE as u64 };
            if whole == 0 {
                return Err(Broken::Ended { at: at + done + carried });
            }
            done += whole;
        }
        Ok(())
    }

    fn target<'a>(&'a self, faults: Option<&'a Faults>) -> Target<'a> {
        Target { file: &self.file, alignment: self.alignment, faults }
    }

    fn with_engine(
        &self,
        way: Way,
        at: u64,
        work: impl FnOnce(&mut Engine) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let engine = idle.map_or_else(|| self.engine(), Ok);
        let mut engine = engine.map_err(|source| Broken::System { way, at, source })?;
        let result = work(&mut engine);
        self.give_back(engine);
        result
    }

    /// A further engine. Where the system has no more rings to give, plain calls do.
    fn engine(&self) -> io::Result<Engine> {
        if self.rings
            && let Ok((engine, _)) = Engine::ring(self.capacity)
        {
            return Ok(engine);
        }
        Engine::calls(self.capacity)
    }

    fn give_back(&self, engine: Engine) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(engine);
    }

    /// The file itself, for tests that ill-treat it.
    #[cfg(test)]
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// Takes the file's room from the disk now, so that no later write finds it full. What is not there is not tried: the
/// attempt would fill the disk for a moment.
fn reserve(file: &File, capacity: u64) -> io::Result<()> {
    let disk = rustix::fs::fstatvfs(file)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < capacity {
        return Err(io::ErrorKind::StorageFull.into());
    }
    if capacity > 0 {
        fallocate(file, FallocateFlags::empty(), 0, capacity)?;
    }
    Ok(())
}
