//! What the bytes of a tier are kept in: pages of this host's memory, or a file. And what the host could not give of
//! what a tier asks for: the tier works all the same, and whoever reads timings wants to know.

mod file;
mod memory;
mod pages;
mod queue;
mod transfer;

use crate::cuda::memory::Slab;
use crate::cuda::storage::StorageError;
use policy::units::Bytes;
use std::io;
use thiserror::Error;

pub(crate) use file::{FileStore, Way};
pub(crate) use memory::Memory;
pub(crate) use pages::{PAGE, Pages};
pub(crate) use transfer::Broken;

/// The bytes of a tier.
pub(crate) enum Store {
    Memory(Memory),
    File(FileStore),
    Device(Slab),
}

/// Something a tier asks for that this host does not give. Not an error.
#[derive(Debug, Error)]
pub enum Note {
    /// Pages may be swapped or moved under a copy.
    #[error("{capacity} are not page-locked: {source}; the limit is {limit} (ulimit -l)")]
    NotLocked {
        /// Bytes of the tier.
        capacity: Bytes,
        /// `RLIMIT_MEMLOCK` in words.
        limit: String,
        /// Why.
        source: io::Error,
    },
    /// Ordinary pages: more entries of the page table, more misses.
    #[error("no huge pages: {0}")]
    NoHugePages(#[source] io::Error),
    /// The first access to a page costs a fault.
    #[error("pages are not faulted in ahead of time: {0}; the first use of each is slower")]
    NotPopulated(#[source] io::Error),
    /// A tier of a NUMA node does not say which: its memory lies wherever the kernel puts it.
    #[error("no NUMA node is named; the memory is not bound to any")]
    NoNode,
    /// The memory lies wherever the kernel puts it.
    #[error("the memory is not bound to NUMA node {node}: {source}")]
    NotBound {
        /// The node asked for.
        node: u32,
        /// Why.
        source: io::Error,
    },
    /// Reads and writes go through the page cache, so timings may be those of memory.
    #[error("the file is read and written through the page cache: {0}")]
    Buffered(#[source] io::Error),
    /// One read or write at a time.
    #[error("no io_uring: {0}; reads and writes of a file go one at a time")]
    NoRing(#[source] io::Error),
    /// The kernel looks up the pages of the bounce buffers at every transfer.
    #[error("bounce buffers are not registered with io_uring: {0}")]
    NotRegistered(#[source] io::Error),
    /// Bytes of the file that an accelerator wants are read into the host's memory first, and those it gives written from
    /// there.
    #[error("no GPUDirect Storage: {0}; the file's bytes go to accelerators through pinned memory")]
    NotDirect(#[source] StorageError),
    /// The two accelerators have no way to each other's memory.
    #[error("cuda:{device} and cuda:{peer} do not reach each other's memory; copies go through the host's")]
    NoPeerAccess {
        /// The one that computes.
        device: u32,
        /// The one that holds the tier.
        peer: u32,
    },
    /// A disk that fills up makes a later write fail.
    #[error("{capacity} of disk are not reserved: {source}; a write fails when the disk is full")]
    NotReserved {
        /// Bytes of the tier.
        capacity: Bytes,
        /// Why.
        source: io::Error,
    },
}
