//! Transfers between a range of a file and a range of memory, cut into pieces of which many are under way at once.
//!
//! A direct transfer moves whole blocks of the drive. A piece that is not such blocks on both sides goes through a
//! bounce buffer; one to be saved that covers a block in part first loads the rest of it. What the system cuts short is
//! asked for again. So a transfer is complete, or there is an error.

use super::pages::{self, PAGE};
use super::queue::{Calls, PIECE, Queue, Request, Ring, Way};
use crate::faults::{Fault, Faults};
use memmap2::MmapRaw;
use std::fs::File;
use std::io;

/// Requests under way at once. On the virtual drive this was measured on, 13 MB are read at 1.8 GB/s with one, at 2.5 GB/s
/// with 16, and no faster with 32.
const DEPTH: usize = 16;

/// What a file's addresses and a buffer's are multiples of in a transfer without bounce buffer; 1 where anything goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alignment {
    pub(crate) file: u64,
    pub(crate) memory: usize,
}

/// Why a transfer is not complete.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The system refused.
    System {
        way: Way,
        /// Where in the file.
        at: u64,
        source: io::Error,
    },
    /// The file carried nothing from here on.
    Ended { at: u64 },
}

/// A file and what its transfers keep to.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) file: &'a File,
    pub(crate) alignment: Alignment,
    pub(crate) faults: Option<&'a Faults>,
}

/// A part of a transfer.
struct Piece {
    /// The bytes wanted of the file.
    from: u64,
    to: u64,
    /// Where the first of them goes, or comes from.
    memory: *mut u8,
    /// The blocks that hold them.
    first: u64,
    end: u64,
    bounced: bool,
    /// The way of the request under way.
    way: Way,
    /// Bytes of the blocks that it and its forerunners have carried.
    done: u64,
}

/// A queue and its bounce buffers. One transfer at a time.
pub(crate) struct Engine {
    queue: Box<dyn Queue>,
    /// `depth` parts of `piece` bytes.
    bounce: MmapRaw,
    depth: usize,
    piece: usize,
}

impl Engine {
    /// An engine whose queue is the kernel's, for files of `capacity` bytes; and why its buffers are not registered,
    /// where they are not.
    pub(crate) fn ring(capacity: u64) -> io::Result<(Engine, Option<io::Error>)> {
        let (bounce, piece) = bounce(DEPTH, capacity)?;
        let (ring, unregistered) = Ring::new(DEPTH, &bounce)?;
        Ok((Engine { queue: Box::new(ring), bounce, depth: DEPTH, piece }, unregistered))
    }

    /// An engine of plain calls.
    pub(crate) fn calls(capacity: u64) -> io::Result<Engine> {
        let (bounce, piece) = bounce(1, capacity)?;
        Ok(Engine { queue: Box::new(Calls::default()), bounce, depth: 1, piece })
    }

    /// Reads from byte `at` on.
    pub(crate) fn load(&mut self, target: Target<'_>, at: u64, out: &mut [u8]) -> Result<(), Broken> {
        self.run(target, Way::Load, at, out.as_mut_ptr(), out.len() as u64)
    }

    /// Writes from byte `at` on.
    pub(crate) fn save(&mut self, target: Target<'_>, at: u64, bytes: &[u8]) -> Result<(), Broken> {
        self.run(target, Way::Save, at, bytes.as_ptr().cast_mut(), bytes.len() as u64)
    }

    /// `memory .. memory + len` is valid, and this call's alone: to write where the way is [`Way::Load`], else to read.
    fn run(
        &mut self,
        target: Target<'_>,
        way: Way,
        at: u64,
        memory: *mut u8,
        len: u64,
    ) -> Result<(), Broken> {
        let mut rest = at..at + len;
        let mut pieces: Vec<Option<Piece>> = (0..self.depth).map(|_| None).collect();
        let mut broken = None;
        loop {
            while broken.is_none()
                && !rest.is_empty()
                && let Some(slot) = pieces.iter().position(Option::is_none)
            {
                let to = cut(rest.start, rest.end, self.piece as u64, target.alignment.file);
                let memory = memory.wrapping_add((rest.start - at) as usize);
                let mut piece = Piece::new(rest.start, to, memory, way, target.alignment);
                rest.start = to;
                if piece.bounced && piece.way == Way::Save {
                    self.exchange(slot, &piece, Way::Save);
                }
                self.start(target, slot, &mut piece);
                pieces[slot] = Some(piece);
            }
            if pieces.iter().all(Option::is_none) {
                return broken.map_or(Ok(()), Err);
            }
            let (slot, carried) = self.queue.finish();
            let Some(mut piece) = pieces.get_mut(slot).and_then(Option::take) else { continue };
            match piece.advance(carried, target.alignment.file) {
                Err(error) => broken = broken.or(Some(error)),
                Ok(true) if piece.way == way => {
                    if piece.bounced && way == Way::Load {
                        self.exchange(slot, &piece, Way::Load);
                    }
                    continue;
                }
                Ok(true) => {
                    self.exchange(slot, &piece, Way::Save);
                    (piece.way, piece.done) = (Way::Save, 0);
                }
                Ok(false) => {}
            }
            if broken.is_none() {
                self.start(target, slot, &mut piece);
                pieces[slot] = Some(piece);
            }
        }
    }

    /// Puts in the request for what is missing of a piece.
    #[allow(unsafe_code)]
    fn start(&mut self, target: Target<'_>, slot: usize, piece: &mut Piece) {
        let buffer = if piece.bounced { self.part(slot) } else { piece.memory };
        let missing = piece.end - piece.first - piece.done;
        let request = Request {
            slot,
            way: piece.way,
            at: piece.first + piece.done,
            buffer: buffer.wrapping_add(piece.done as usize),
            len: shortened(missing, target) as usize,
            bounced: piece.bounced,
        };
        // SAFETY: `run` returns only when every request has been taken out. Until then its caller's borrow keeps
        // `memory` valid and from others, and nobody touches the part of the bounce buffer that is the slot's.
        unsafe { self.queue.start(target.file, request) };
    }

    /// Copies the wanted bytes of a piece between its part of the bounce buffer and memory.
    #[allow(unsafe_code)]
    fn exchange(&self, slot: usize, piece: &Piece, way: Way) {
        let part = self.part(slot).wrapping_add((piece.from - piece.first) as usize);
        let len = (piece.to - piece.from) as usize;
        // SAFETY: blocks of a piece fit in a part of the bounce buffer. `memory` is valid for the piece, as `run` asks;
        // no request is under way in this slot.
        unsafe {
            match way {
                Way::Load => std::ptr::copy_nonoverlapping(part, piece.memory, len),
                Way::Save => std::ptr::copy_nonoverlapping(piece.memory, part, len),
            }
        }
    }

    fn part(&self, slot: usize) -> *mut u8 {
        self.bounce.as_mut_ptr().wrapping_add(slot * self.piece)
    }
}

impl Piece {
    fn new(from: u64, to: u64, memory: *mut u8, way: Way, alignment: Alignment) -> Piece {
        let first = from - from % alignment.file;
        let end = to.next_multiple_of(alignment.file);
        let whole = (first, end) == (from, to);
        let bounced = !whole || !memory.addr().is_multiple_of(alignment.memory);
        // The rest of blocks that are saved in part is loaded first.
        let way = if whole { way } else { Way::Load };
        Piece { from, to, memory, first, end, bounced, way, done: 0 }
    }

    /// Takes in how a request ended; true if it was the last one of its way.
    fn advance(&mut self, carried: io::Result<usize>, block: u64) -> Result<bool, Broken> {
        let at = self.first + self.done;
        match carried {
            Ok(bytes) => {
                // What is asked for again begins at a block.
                let whole = bytes as u64 / block * block;
                if whole == 0 {
                    return Err(Broken::Ended { at: at + bytes as u64 });
                }
                self.done += whole;
                Ok(self.first + self.done >= self.end)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                Ok(false)
            }
            Err(source) => Err(Broken::System { way: self.way, at, source }),
        }
    }
}

/// Where the piece that begins at `from` ends: at the next block if it begins within one, else after as many whole
/// blocks as fit in `piece`, else at the end.
fn cut(from: u64, end: u64, piece: u64, block: u64) -> u64 {
    let body = end - end % block;
    let to = if !from.is_multiple_of(block) {
        from.next_multiple_of(block)
    } else if from < body {
        body.min(from + piece)
    } else {
        end
    };
    to.min(end)
}

/// `len`, or less where a test wants the system to carry less than asked.
pub(super) fn shortened(len: u64, target: Target<'_>) -> u64 {
    let blocks = len / target.alignment.file;
    let strikes = || target.faults.filter(|_| blocks > 1)?.strike(Fault::Short);
    strikes().map_or(len, |draw| target.alignment.file * (1 + draw % (blocks - 1)))
}

/// Buffers for `depth` pieces, and the size of a piece: no larger than the file.
fn bounce(depth: usize, capacity: u64) -> io::Result<(MmapRaw, usize)> {
    let piece = capacity.clamp(1, PIECE as u64).next_multiple_of(PAGE as u64) as usize;
    Ok((pages::map(depth * piece)?.into(), piece))
}

#[cfg(test)]
mod tests;
