//! Micro-batches: what runs is dealt out over several batches, so that each stage of a pipeline can compute another one. A request
//! stays in its micro-batch from its admission until it leaves or is pre-empted. Where there is no pipeline there is one.

use std::collections::VecDeque;

/// Which micro-batches can be formed, and which are under way.
#[derive(Debug)]
pub(super) struct MicroBatches {
    number: u32,
    /// Those that nobody computes, the one that has been waiting longest first.
    free: VecDeque<u32>,
    /// Those that are under way, in the order in which they were formed: none passes another.
    under_way: VecDeque<u32>,
}

impl Default for MicroBatches {
    /// One.
    fn default() -> MicroBatches {
        MicroBatches::new(1)
    }
}

impl MicroBatches {
    /// So many, all free.
    pub(super) fn new(number: u32) -> MicroBatches {
        let number = number.max(1);
        MicroBatches { number, free: (0..number).collect(), under_way: VecDeque::new() }
    }

    /// An equal share of so many requests, rounded up.
    pub(super) fn share(&self, requests: usize) -> usize {
        requests.div_ceil(self.number as usize)
    }

    /// One of the free ones, by its place in the order in which they are to be tried.
    pub(super) fn free(&self, place: usize) -> Option<u32> {
        self.free.get(place).copied()
    }

    /// One of the free ones goes under way.
    pub(super) fn begin(&mut self, which: u32) {
        self.free.retain(|&free| free != which);
        self.under_way.push_back(which);
    }

    /// The one that went under way first is free again.
    pub(super) fn end(&mut self) -> Option<u32> {
        let first = self.under_way.pop_front()?;
        self.free.push_back(first);
        Some(first)
    }

    /// Whether one is under way.
    pub(super) fn is_under_way(&self, which: u32) -> bool {
        self.under_way.contains(&which)
    }

    /// Whether any is.
    pub(super) fn any_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }
}
