//! Working memory that begins at a page, as direct transfers want it, and lies in huge pages where the kernel has them:
//! the drive is told of each page, and of small ones there are hundreds to a request.

use memmap2::{Advice, MmapMut, MmapOptions};
use std::io;

/// Bytes of a page: what direct transfers are aligned to. Every drive's block size divides it.
pub(crate) const PAGE: usize = 4096;

/// New working memory of at least `len` bytes, all zero.
pub(super) fn map(len: usize) -> io::Result<MmapMut> {
    let map = MmapOptions::new().len(len.max(1)).map_anon()?;
    // Advice: a kernel without huge pages says no, and nothing is lost but speed. Miri knows none.
    if !cfg!(miri) {
        let _ = map.advise(Advice::HugePage);
    }
    Ok(map)
}

/// A buffer that grows.
#[derive(Default)]
pub(crate) struct Pages(Option<MmapMut>);

impl Pages {
    /// The first `len` bytes; what is in them is arbitrary.
    pub(crate) fn bytes(&mut self, len: usize) -> io::Result<&mut [u8]> {
        let fits = self.0.take().filter(|map| map.len() >= len);
        let map = match fits {
            Some(map) => map,
            None => map(len)?,
        };
        Ok(&mut self.0.insert(map)[..len])
    }
}
