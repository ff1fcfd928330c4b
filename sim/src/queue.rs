//! The event queue: integer time, then rank, then order of insertion.

use policy::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What comes first among events of one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Compute that has ended.
    Completion,
    /// Bytes that have arrived.
    Transfer,
    /// Requests that come in.
    Admission,
}

/// An entry: key and payload. Only the key orders.
#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    key: u128,
    payload: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    inserted: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { heap: BinaryHeap::new(), inserted: 0 }
    }
}

impl<T: Copy> Queue<T> {
    /// Adds an event.
    pub fn push(&mut self, at: Time, rank: Rank, payload: T) {
        let key = (at.0 as u128) << 64 | (rank as u128) << 56 | self.inserted as u128;
        self.inserted += 1;
        self.heap.push(Reverse(Entry { key, payload }));
    }

    /// Takes the next event out.
    pub fn pop(&mut self) -> Option<(Time, T)> {
        self.heap.pop().map(|Reverse(entry)| (Time((entry.key >> 64) as u64), entry.payload))
    }

    /// When the next event comes.
    pub fn peek(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(entry)| Time((entry.key >> 64) as u64))
    }

    /// Events that have not come up.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_keep_rank_then_insertion() {
        let mut queue = Queue::default();
        queue.push(Time(5), Rank::Admission, 'd');
        queue.push(Time(5), Rank::Transfer, 'b');
        queue.push(Time(5), Rank::Transfer, 'c');
        queue.push(Time(5), Rank::Completion, 'a');
        queue.push(Time(4), Rank::Admission, '0');
        let order: String = std::iter::from_fn(|| queue.pop().map(|(_, name)| name)).collect();
        assert_eq!(order, "0abcd");
    }
}
