//! Pages of this host's memory: address space for the whole tier at once, pages when a slot first takes them and before
//! anybody copies, so that no transfer meets a page fault. In huge pages where the kernel has them, locked where the
//! tier is one of locked memory and the limit allows it, on a NUMA node where one is named.

use super::Note;
use crate::cuda::error::CudaError;
use crate::cuda::gpu::Gpu;
use crate::cuda::memory::Registered;
use crate::extents::Extent;
use memmap2::{Advice, MmapOptions, MmapRaw};
use policy::machine::Backing;
use policy::units::Bytes;
use rustix::mm::{MlockFlags, mlock_with};
use rustix::process::{Resource, getrlimit};
use std::io;
use std::sync::Arc;

/// Anonymous memory.
pub(crate) struct Memory {
    /// Goes before the pages it knows of.
    registered: Option<Registered>,
    map: MmapRaw,
    populates: bool,
}

impl Memory {
    /// Sets aside `capacity` bytes.
    pub(crate) fn new(
        capacity: u64,
        backing: Backing,
        node: Option<u32>,
        notes: &mut Vec<Note>,
    ) -> io::Result<Memory> {
        let len = usize::try_from(capacity.max(1)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let map = MmapRaw::from(MmapOptions::new().len(len).no_reserve_swap().map_anon()?);
        if let Err(refused) = map.advise(Advice::HugePage) {
            notes.push(Note::NoHugePages(refused));
        }
        match node {
            Some(node) => notes.extend(bind(&map, node).err().map(|source| Note::NotBound { node, source })),
            None if backing == Backing::Numa => notes.push(Note::NoNode),
            None => {}
        }
        if matches!(backing, Backing::Device | Backing::Pinned)
            && let Err(source) = lock_on_fault(&map)
        {
            notes.push(Note::NotLocked { capacity: Bytes(capacity), limit: lock_limit(), source });
        }
        // Asked of one page, to learn whether the kernel does it at all (Linux 5.14).
        let populated = map.advise_range(Advice::PopulateWrite, 0, 1);
        let populates = populated.is_ok();
        notes.extend(populated.err().map(Note::NotPopulated));
        Ok(Memory { registered: None, map, populates })
    }

    /// Makes the pages known to an accelerator's copy engines, which need them locked and in place.
    #[allow(unsafe_code)]
    pub(crate) fn register(&mut self, gpu: &Arc<Gpu>) -> Result<(), CudaError> {
        // SAFETY: the map is ours, and goes after what is registered of it.
        self.registered = Some(unsafe { Registered::new(gpu, self.map.as_mut_ptr(), self.map.len()) }?);
        Ok(())
    }

    /// The first byte.
    pub(crate) fn start(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Faults the pages of these ranges in. Cheap where they are there already.
    pub(crate) fn populate(&self, extents: &[Extent]) -> io::Result<()> {
        if !self.populates {
            return Ok(());
        }
        extents.iter().try_for_each(|extent| {
            self.map.advise_range(Advice::PopulateWrite, extent.start as usize, extent.len as usize)
        })
    }
}

/// Locks pages as they are faulted in: a tier may be declared larger than it is ever filled.
#[allow(unsafe_code)]
fn lock_on_fault(map: &MmapRaw) -> io::Result<()> {
    // SAFETY: the range is the map's own. It is unlocked when it is unmapped.
    unsafe { mlock_with(map.as_mut_ptr().cast(), map.len(), MlockFlags::ONFAULT) }.map_err(io::Error::from)
}

/// `RLIMIT_MEMLOCK` in words.
fn lock_limit() -> String {
    getrlimit(Resource::Memlock).current.map_or("none".into(), |limit| Bytes(limit).to_string())
}

/// Nodes that one mask names; Linux is built with at most 1024.
const NODES: u32 = 1024;

/// Has pages taken from one NUMA node and no other.
#[allow(unsafe_code)]
fn bind(map: &MmapRaw, node: u32) -> io::Result<()> {
    if node >= NODES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut mask = [0u64; NODES as usize / 64];
    mask[node as usize / 64] = 1 << (node % 64);
    // The kernel reads one bit fewer than it is told.
    let bits = u64::from(NODES) + 1;
    let flags: libc::c_uint = 0;
    // SAFETY: the call changes where pages of this map come from, not what is in them, and reads the mask, which
    // outlives it.
    let refused = unsafe {
        let (start, len) = (map.as_mut_ptr(), map.len());
        libc::syscall(libc::SYS_mbind, start, len, libc::MPOL_BIND, mask.as_ptr(), bits, flags)
    };
    if refused == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
