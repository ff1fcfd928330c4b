//! A hierarchical timing wheel of 64 slots a level over the whole of 64-bit nanoseconds.
//!
//! A slot of level 0 is one rank of one of 16 nanoseconds; each further level stands for six more bits of the time. An
//! entry goes to the level of the highest bit in which its time differs from the base, so every slot that holds
//! something lies at or after the base, and the first one of the lowest level that is not empty comes next.

use super::{Entry, FRONT};

const LEVELS: usize = 11;
const SLOTS: usize = 64;
/// Buffers of more entries go back to the allocator when they are empty, so that memory follows what is pending.
const KEEP: usize = 1024;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Wheel {
    base: u64,
    len: usize,
    /// A bit a level that holds something.
    levels: u16,
    /// A bit a slot that holds something.
    slots: [u64; LEVELS],
    /// The slots of all levels; none before the first push.
    buckets: Vec<Vec<Entry>>,
    spare: Vec<Vec<Entry>>,
}

impl Wheel {
    /// Whether it holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry, at `now` or later. No entry before `now` is held or will come.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry, now: u64) {
        if self.len == 0 {
            self.base = now;
        }
        self.len += 1;
        self.put(entry);
    }

    /// Moves the entries that come next, in no order, into `front`: a slot's worth, at most `FRONT` unless they are all
    /// of one instant and rank.
    pub(super) fn take(&mut self, front: &mut Vec<Entry>) {
        while self.levels != 0 {
            let (level, slot) = self.next();
            let mut bucket = std::mem::take(&mut self.buckets[level * SLOTS + slot]);
            self.clear(level, slot);
            self.base = start(self.base, level, slot);
            let sortable = level == 0 || bucket.len() <= FRONT;
            if sortable {
                self.len -= bucket.len();
                front.extend_from_slice(&bucket);
            } else {
                bucket.iter().for_each(|&entry| self.put(entry));
            }
            if bucket.capacity() <= KEEP {
                bucket.clear();
                self.spare.push(bucket);
            }
            if sortable {
                return;
            }
        }
    }

    /// The first of the entries that are `live`.
    pub(super) fn first(&self, live: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        self.filled().find_map(|at| {
            self.buckets[at].iter().filter(|entry| live(entry)).min_by_key(|entry| entry.key())
        })
    }

    /// The slots that hold something, in order of time.
    fn filled(&self) -> impl Iterator<Item = usize> {
        let lowest = self.levels.trailing_zeros() as usize;
        let levels = self.slots.iter().enumerate().skip(lowest);
        levels.flat_map(|(level, &slots)| {
            let left = std::iter::successors(Some(slots), |&left| Some(left & left.wrapping_sub(1)));
            left.take_while(|&left| left != 0).map(move |left| level * SLOTS + left.trailing_zeros() as usize)
        })
    }

    /// Keeps only the entries that are `live`.
    pub(super) fn retain(&mut self, live: impl Fn(&Entry) -> bool) {
        self.len = 0;
        for at in 0..self.buckets.len() {
            self.buckets[at].retain(&live);
            self.len += self.buckets[at].len();
            if self.buckets[at].is_empty() {
                self.clear(at / SLOTS, at % SLOTS);
            }
        }
    }

    #[inline]
    fn next(&self) -> (usize, usize) {
        let level = self.levels.trailing_zeros() as usize;
        (level, self.slots[level].trailing_zeros() as usize)
    }

    #[inline]
    fn clear(&mut self, level: usize, slot: usize) {
        self.slots[level] &= !(1 << slot);
        if self.slots[level] == 0 {
            self.levels &= !(1 << level);
        }
    }

    #[inline]
    fn put(&mut self, entry: Entry) {
        let highest = 63 - (entry.time ^ self.base | 1).leading_zeros();
        let level = ((highest + 2) / 6) as usize;
        let digit = if level == 0 { entry.time << 2 | entry.rank() } else { entry.time >> (6 * level - 2) };
        let slot = digit as usize % SLOTS;
        if self.buckets.is_empty() {
            self.buckets.resize_with(LEVELS * SLOTS, Vec::new);
        }
        let bucket = &mut self.buckets[level * SLOTS + slot];
        if bucket.capacity() == 0
            && let Some(spare) = self.spare.pop()
        {
            *bucket = spare;
        }
        bucket.push(entry);
        self.slots[level] |= 1 << slot;
        self.levels |= 1 << level;
    }
}

/// The first instant of a slot.
fn start(base: u64, level: usize, slot: usize) -> u64 {
    if level == 0 {
        return base & !15 | slot as u64 >> 2;
    }
    let shift = 6 * level as u32 - 2;
    let above = u64::MAX.checked_shl(shift + 6).unwrap_or(0);
    base & above | (slot as u64) << shift
}
