//! Buffers that begin at a page, as direct transfers and registered buffers want them.

use bytemuck::{Pod, Zeroable};

/// Bytes of a page: what direct transfers are aligned to. Every drive's block size divides it.
pub(crate) const PAGE: usize = 4096;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// A buffer of whole pages.
#[derive(Default)]
pub(crate) struct Pages(Vec<Page>);

impl Pages {
    /// The first `len` bytes; what was there, or zeros.
    pub(crate) fn bytes(&mut self, len: usize) -> &mut [u8] {
        if len > self.0.len() * PAGE {
            self.0.resize(len.div_ceil(PAGE), Page::zeroed());
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }
}
