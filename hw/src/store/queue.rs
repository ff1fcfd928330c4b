//! Where requests to read and write a file are put and their ends taken out: a queue of the kernel's (io_uring) that
//! works on many at once, or plain calls, done one by one as they are put in.

use io_uring::{IoUring, opcode, types};
use memmap2::MmapRaw;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The most bytes of one request.
pub(super) const PIECE: usize = 1 << 20;

/// Which way a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the file into memory.
    Load,
    /// From memory into the file.
    Save,
}

/// Bytes to read or to write.
#[derive(Clone, Copy)]
pub(super) struct Request {
    /// Below the queue's depth; no two requests under way have the same.
    pub(super) slot: usize,
    pub(super) way: Way,
    /// Where in the file.
    pub(super) at: u64,
    pub(super) buffer: *mut u8,
    pub(super) len: usize,
    /// Whether `buffer` lies in the bounce buffer of its slot.
    pub(super) bounced: bool,
}

/// A queue of requests.
#[allow(unsafe_code)]
pub(super) trait Queue: Send {
    /// Puts a request in.
    ///
    /// # Safety
    /// `buffer .. buffer + len` must stay valid memory until the request has been taken out; nobody else may write it
    /// meanwhile, nor read it where the way is [`Way::Load`].
    unsafe fn start(&mut self, file: &File, request: Request);

    /// Waits for the end of a request: its slot, and how many bytes it carried. At least one must be under way.
    fn finish(&mut self) -> (usize, io::Result<usize>);
}

/// Calls of pread and pwrite.
#[derive(Default)]
pub(super) struct Calls {
    done: VecDeque<(usize, io::Result<usize>)>,
}

impl Queue for Calls {
    #[allow(unsafe_code)]
    unsafe fn start(&mut self, file: &File, request: Request) {
        let Request { slot, way, at, buffer, len, .. } = request;
        let (fd, at) = (file.as_raw_fd(), at.cast_signed());
        // SAFETY: the caller keeps the buffer valid, and the call ends before this function does.
        let carried = unsafe {
            match way {
                Way::Load => libc::pread(fd, buffer.cast(), len, at),
                Way::Save => libc::pwrite(fd, buffer.cast_const().cast(), len, at),
            }
        };
        self.done.push_back((slot, usize::try_from(carried).map_err(|_| io::Error::last_os_error())));
    }

    fn finish(&mut self) -> (usize, io::Result<usize>) {
        self.done.pop_front().unwrap_or((0, Err(io::ErrorKind::NotFound.into())))
    }
}

/// A ring of the kernel's.
pub(super) struct Ring {
    ring: IoUring,
    registered: bool,
}

impl Ring {
    /// A ring of `depth` slots. `bounce` has as many equal parts, one for each, of which the kernel is told, so that it
    /// need not look their pages up at every request; why not, where it refuses that.
    #[allow(unsafe_code)]
    pub(super) fn new(depth: usize, bounce: &MmapRaw) -> io::Result<(Ring, Option<io::Error>)> {
        let ring = IoUring::new(depth as u32)?;
        let piece = bounce.len() / depth;
        let first: *mut u8 = bounce.as_mut_ptr();
        let buffer =
            |slot: usize| libc::iovec { iov_base: first.wrapping_add(slot * piece).cast(), iov_len: piece };
        let buffers: Vec<libc::iovec> = (0..depth).map(buffer).collect();
        // SAFETY: the buffers are parts of the map. The engine owns the ring and the map; the kernel keeps the pages
        // for as long as it uses them.
        let refused = unsafe { ring.submitter().register_buffers(&buffers) }.err();
        Ok((Ring { ring, registered: refused.is_none() }, refused))
    }
}

impl Queue for Ring {
    #[allow(unsafe_code)]
    unsafe fn start(&mut self, file: &File, request: Request) {
        let Request { slot, way, at, buffer, len, bounced } = request;
        let (fd, len, index) = (types::Fd(file.as_raw_fd()), len as u32, slot as u16);
        let entry = match (way, bounced && self.registered) {
            (Way::Load, true) => opcode::ReadFixed::new(fd, buffer, len, index).offset(at).build(),
            (Way::Save, true) => opcode::WriteFixed::new(fd, buffer, len, index).offset(at).build(),
            (Way::Load, false) => opcode::Read::new(fd, buffer, len).offset(at).build(),
            (Way::Save, false) => opcode::Write::new(fd, buffer, len).offset(at).build(),
        };
        let entry = entry.user_data(slot as u64);
        // SAFETY: the caller keeps the buffer valid until the request has been taken out.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // Full only while the kernel has not looked at what is in it.
            let _ = self.ring.submit();
        }
    }

    fn finish(&mut self) -> (usize, io::Result<usize>) {
        loop {
            if let Some(end) = self.ring.completion().next() {
                let carried = usize::try_from(end.result());
                let carried = carried.map_err(|_| io::Error::from_raw_os_error(-end.result()));
                return (end.user_data() as usize, carried);
            }
            // Fails only for the moment, interrupted or short of memory. The memory of a request that has not ended is
            // the kernel's, so there is no leaving before.
            if self.ring.submit_and_wait(1).is_err() {
                std::thread::yield_now();
            }
        }
    }
}
