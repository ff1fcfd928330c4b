//! The prefixes that prompts and checkpoints have in common: which checkpoints lie on a prompt, and which goes on from which.

use super::{Checkpoints, Entry};

impl Checkpoints {
    /// The checkpoints of a prompt up to a position, nearest to the beginning first.
    pub(super) fn on_path<'a>(
        &'a self,
        blocks: &'a [u64],
        most: u32,
    ) -> impl Iterator<Item = (u64, &'a Entry)> {
        self.nodes(blocks, most).filter_map(|node| Some((node, self.entries.get(&node)?)))
    }

    /// The numbers of a prompt's blocks at whose ends a checkpoint may be.
    pub(super) fn nodes<'a>(&self, blocks: &'a [u64], most: u32) -> impl Iterator<Item = u64> + use<'a> {
        let (block, step) = (self.block, (self.stride / self.block) as usize);
        let whole = (most / block) as usize;
        blocks.iter().take(whole).skip(step - 1).step_by(step).copied()
    }

    /// Each checkpoint of a prompt has the one before as its parent.
    pub(super) fn relate(&mut self, blocks: &[u64], prompt: u32) {
        let path: Vec<u64> = self.on_path(blocks, prompt).map(|(node, _)| node).collect();
        let mut before = None;
        for node in path {
            self.set_parent(node, before);
            before = Some(node);
        }
    }

    fn set_parent(&mut self, node: u64, parent: Option<u64>) {
        let Some(entry) = self.entries.get_mut(&node) else { return };
        let old = std::mem::replace(&mut entry.parent, parent);
        if old == parent {
            return;
        }
        if let Some(old) = old.and_then(|old| self.entries.get_mut(&old)) {
            old.children = old.children.saturating_sub(1);
        }
        if let Some(new) = parent.and_then(|new| self.entries.get_mut(&new)) {
            new.children += 1;
        }
    }
}
