//! Least recently used: the checkpoint that was made or restored longest ago goes first.

use super::evict::{Action, Evict, View};

pub(super) struct Lru;

impl Evict for Lru {
    fn choose(&self, view: &View<'_>) -> Option<(u64, Action)> {
        let oldest = view.candidates().min_by_key(|(node, entry, _)| (entry.last_used, *node));
        oldest.map(|(node, entry, _)| (node, view.down(entry)))
    }
}
