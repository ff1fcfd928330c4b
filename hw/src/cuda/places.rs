//! Where the bytes of copies lie, as copies between them see it: pieces of an address and a length each.

use super::gpu::Gpu;
use crate::arena::ArenaError;
use crate::region::{Addresses, Region};
use std::sync::Arc;

/// One end of a copy whose other end is an accelerator's memory.
pub(super) enum End<'a> {
    /// This host's memory.
    Host(Vec<(u64, u64)>),
    /// An accelerator's.
    Device(Arc<Gpu>, Vec<(u64, u64)>),
    /// A slot of a file, from a byte on.
    File(&'a Region, u64),
    /// Bytes that the host's codec has made, or is to read.
    Coded(&'a mut [u8]),
}

impl End<'_> {
    /// Bytes of a region.
    pub(super) fn of(region: &Region, offset: u64, len: u64) -> Result<End<'_>, ArenaError> {
        Ok(match region.addresses(offset, len)? {
            Addresses::Host(pieces) => End::Host(pieces),
            Addresses::Device(gpu, pieces) => End::Device(gpu, pieces),
            Addresses::File => End::File(region, offset),
        })
    }
}

/// The accelerator that holds a region, if one does.
pub(super) fn holder(region: &Region) -> Result<Option<Arc<Gpu>>, ArenaError> {
    Ok(match region.addresses(0, 0)? {
        Addresses::Device(gpu, _) => Some(gpu),
        Addresses::Host(_) | Addresses::File => None,
    })
}

/// Where bytes of a region lie in an accelerator's memory: nowhere, if they do not.
pub(super) fn pieces(region: &Region, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, ArenaError> {
    Ok(match region.addresses(offset, len)? {
        Addresses::Device(_, pieces) => pieces,
        Addresses::Host(_) | Addresses::File => Vec::new(),
    })
}

/// Pieces cut so that those of a window follow each other and fit it.
pub(super) fn windows(pieces: &[(u64, u64)], window: u64) -> Vec<Vec<(u64, u64)>> {
    let mut windows: Vec<Vec<(u64, u64)>> = Vec::new();
    let mut room = 0;
    for &(mut at, mut left) in pieces {
        while left > 0 {
            if room == 0 {
                windows.push(Vec::new());
                room = window;
            }
            let len = left.min(room);
            if let Some(window) = windows.last_mut() {
                window.push((at, len));
            }
            (at, left, room) = (at + len, left - len, room - len);
        }
    }
    windows
}

/// Two lists of pieces of the same bytes as copies: from, to, length.
pub(crate) fn pairs(from: &[(u64, u64)], to: &[(u64, u64)]) -> Vec<(u64, u64, u64)> {
    let (mut from, mut to) = (from.iter().copied(), to.iter().copied());
    let (mut source, mut target) = (from.next(), to.next());
    let mut pairs = Vec::with_capacity(1);
    while let (Some((read, left)), Some((written, room))) = (source, target) {
        let len = left.min(room);
        pairs.push((read, written, len));
        source = if left > len { Some((read + len, left - len)) } else { from.next() };
        target = if room > len { Some((written + len, room - len)) } else { to.next() };
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::{pairs, windows};

    #[test]
    fn windows_hold_all_bytes_in_order_and_no_more_than_fit() {
        assert_eq!(
            windows(&[(0, 99), (1000, 103)], 100),
            [vec![(0, 99), (1000, 1)], vec![(1001, 100)], vec![(1101, 2)]]
        );
    }

    #[test]
    fn pieces_are_paired_up_to_the_shorter_one() {
        assert_eq!(
            pairs(&[(0, 10), (100, 5)], &[(1000, 3), (2000, 12)]),
            [(0, 1000, 3), (3, 2000, 7), (100, 2007, 5)]
        );
    }
}
