//! Pinned memory on the way between an accelerator and what its copy engines do not reach: a file, or bytes that the
//! host's codec has made or is to read. A window is filled or emptied while the one before it is copied.

use super::error::CudaError;
use super::gpu::{Mark, Stream};
use super::memory::Pinned;
use super::places::windows;
use crate::engine::JobError;
use std::collections::VecDeque;

/// Bytes of a window.
const WINDOW: usize = 4 << 20;

/// Two windows each way, made when first needed.
#[derive(Default)]
pub(super) struct Bounce {
    /// To an accelerator. Write-combined: the host fills them and never reads them.
    up: Option<Pinned>,
    /// From one. The host reads them, so they are cached.
    down: Option<Pinned>,
}

impl Bounce {
    /// Copies to pieces of the memory of the stream's device what `fetch` puts into a window, given how many bytes came
    /// before, and waits for it.
    #[allow(unsafe_code)]
    pub(super) fn load(
        &mut self,
        stream: &Stream,
        to: &[(u64, u64)],
        fetch: &mut dyn FnMut(u64, &mut [u8]) -> Result<(), JobError>,
    ) -> Result<(), JobError> {
        let pinned = made(&mut self.up, || Pinned::write_combined(stream.gpu(), 2 * WINDOW))?;
        let mut copied: [Option<Mark>; 2] = [None, None];
        let mut done = 0;
        for (turn, window) in windows(to, WINDOW as u64).into_iter().enumerate() {
            let (half, begin) = (turn % 2, turn % 2 * WINDOW);
            let len = bytes(&window);
            if let Some(mark) = copied[half].take() {
                mark.wait()?;
            }
            fetch(done, pinned.bytes(begin..begin + len as usize))?;
            let mut from = pinned.address(begin);
            for (at, len) in window {
                // SAFETY: the window is ours and is filled again only after its mark; the caller holds the target.
                unsafe { stream.upload(at, std::ptr::with_exposed_provenance(from as usize), len) }?;
                from += len;
            }
            copied[half] = Some(stream.mark()?);
            done += len;
        }
        Ok(stream.finish()?)
    }

    /// Hands windows copied from pieces of the memory of the stream's device to `put`, with how many bytes came before.
    #[allow(unsafe_code)]
    pub(super) fn save(
        &mut self,
        stream: &Stream,
        from: &[(u64, u64)],
        put: &mut dyn FnMut(u64, &[u8]) -> Result<(), JobError>,
    ) -> Result<(), JobError> {
        let pinned = made(&mut self.down, || Pinned::new(stream.gpu(), 2 * WINDOW))?;
        let windows = windows(from, WINDOW as u64);
        let mut copied: VecDeque<(usize, u64, Mark)> = VecDeque::new();
        let mut done = 0;
        for turn in 0..=windows.len() {
            if let Some(window) = windows.get(turn) {
                let begin = turn % 2 * WINDOW;
                let mut to = pinned.address(begin);
                for &(at, len) in window {
                    // SAFETY: the window is ours and was emptied two turns ago; the caller holds the source.
                    unsafe { stream.download(std::ptr::with_exposed_provenance_mut(to as usize), at, len) }?;
                    to += len;
                }
                copied.push_back((begin, bytes(window), stream.mark()?));
            }
            if turn > 0
                && let Some((begin, len, mark)) = copied.pop_front()
            {
                mark.wait()?;
                put(done, pinned.bytes(begin..begin + len as usize))?;
                done += len;
            }
        }
        Ok(())
    }
}

/// The pinned memory of a way, made now if it is not there.
fn made(
    slot: &mut Option<Pinned>,
    make: impl FnOnce() -> Result<Pinned, CudaError>,
) -> Result<&mut Pinned, CudaError> {
    let pinned = match slot.take() {
        Some(pinned) => pinned,
        None => make()?,
    };
    Ok(slot.insert(pinned))
}

fn bytes(window: &[(u64, u64)]) -> u64 {
    window.iter().map(|(_, len)| len).sum()
}
