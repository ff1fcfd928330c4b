//! The key-value cache in pages: what requests hold of it, and prefixes that prompts share.
//!
//! A request's tokens take whole pages in every layer; a layer with a window keeps only the pages that the window reaches, and
//! a recurrent one a state of one size.
//! A prompt's blocks have numbers where it is known what they say: equal numbers from the start on are equal tokens. Once
//! computed they belong to the cache, are counted once however many requests read them, and stay after the last one, least
//! recently used first to go: when a request needs the room, or when nobody has read them for as long as they are kept. Layers with a window have no part in that: what they keep is each request's own.

use crate::model::Model;
use crate::units::{Bytes, Nanos, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How the cache is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSpec {
    /// Tokens of a page.
    pub page: u32,
    /// The most bytes it may take of fast memory.
    pub most: Bytes,
    /// Tokens of a numbered block of a prompt, where prefixes are kept.
    pub prefix_block: Option<u32>,
    /// How long a prefix stays that nobody reads; without it, until the room is needed.
    pub keep: Option<Nanos>,
}

/// The cache of a run.
#[derive(Clone, Debug)]
pub struct Cache {
    spec: CacheSpec,
    /// Bytes a token leaves in all layers without a window.
    whole: u64,
    /// Windows, and the bytes a token leaves in all layers that have one.
    windowed: Vec<(u32, u64)>,
    /// Bytes of recurrent state that a request keeps.
    states: u64,
    /// Bytes that requests hold by themselves.
    held: u64,
    prefixes: Prefixes,
    /// The most bytes that were ever taken.
    peak: u64,
}

/// What a request holds.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// Bytes of its own, and the tokens that they are enough for.
    bytes: u64,
    covers: u32,
    /// Blocks of its prompt.
    blocks: Arc<[u64]>,
    /// How many of them, from the first on, are the cache's and read by it.
    shared: usize,
}

#[derive(Clone, Debug, Default)]
struct Prefixes {
    /// Blocks by number, and who reads them.
    known: BTreeMap<u64, Block>,
    /// Blocks that nobody reads, least recently used first.
    idle: BTreeSet<(u64, u64)>,
    /// What a block takes.
    block_bytes: u64,
    /// Blocks left so far: the order in which they were.
    left: u64,
    /// Blocks given up since they were last asked for.
    gone: Vec<u64>,
    now: Time,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    readers: u32,
    /// When it was left last, in order and in time.
    left: (u64, Time),
}

impl Cache {
    /// An empty cache of a model.
    pub fn new(model: &Model, spec: CacheSpec) -> Cache {
        let mut windows: BTreeMap<u32, u64> = BTreeMap::new();
        let mut whole = 0;
        for layer in &model.layers {
            match layer.window {
                Some(window) => *windows.entry(window).or_default() += layer.kv_per_token.0,
                None => whole += layer.kv_per_token.0,
            }
        }
        let block_bytes = whole.saturating_mul(spec.prefix_block.unwrap_or(0).into());
        let prefixes = Prefixes { block_bytes, ..Prefixes::default() };
        let states = model.layers.iter().map(|layer| layer.state.0).sum();
        Cache { spec, whole, windowed: windows.into_iter().collect(), states, held: 0, prefixes, peak: 0 }
    }

    /// Bytes that are taken: those of requests, and of prefixes that somebody reads or that have stayed.
    pub fn taken(&self) -> Bytes {
        Bytes(self.held + self.prefixes.bytes())
    }

    /// The most that was ever taken.
    pub fn peak(&self) -> Bytes {
        Bytes(self.peak)
    }

    /// It is `now`: prefixes that nobody has read for as long as they are kept go.
    pub fn advance(&mut self, now: Time) {
        self.prefixes.now = now;
        let Some(keep) = self.spec.keep else { return };
        while self.prefixes.idle_since().is_some_and(|since| now.since(since) >= keep) {
            self.prefixes.evict();
        }
    }

    /// Whether a request of so many tokens could ever be served.
    pub fn can_hold(&self, tokens: u32) -> bool {
        self.bytes(tokens, 0) <= self.spec.most.0
    }

    /// Begins a request: blocks of its prompt that are in the cache are read there. Returns how many of its tokens they are;
    /// at least one is always left to compute.
    pub fn begin(&mut self, lease: &mut Lease, prompt: u32) -> u32 {
        let Some(block) = self.spec.prefix_block else { return 0 };
        let most = (prompt.saturating_sub(1) / block) as usize;
        let blocks = lease.blocks.clone();
        while lease.shared < most && blocks.get(lease.shared).is_some_and(|&id| self.prefixes.read(id)) {
            lease.shared += 1;
        }
        lease.shared as u32 * block
    }

    /// Leaves the blocks that a request has begun with but for its first so many tokens: no state goes on from the others.
    pub fn clamp(&mut self, lease: &mut Lease, tokens: u32) {
        let keep = (tokens / self.spec.prefix_block.unwrap_or(1).max(1)) as usize;
        let kept = keep.min(lease.shared);
        for &id in lease.blocks[kept..lease.shared].iter().rev() {
            self.prefixes.leave(id);
        }
        lease.shared = kept;
    }

    /// The blocks that were given up since the last call.
    pub fn take_gone(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.prefixes.gone)
    }

    /// Makes room for a request of `tokens`, which may go on if `grow` lets the cache take so many bytes. Idle prefixes go
    /// first.
    pub fn grow<E>(
        &mut self,
        lease: &mut Lease,
        tokens: u32,
        grow: &mut impl FnMut(Bytes) -> Result<bool, E>,
    ) -> Result<bool, E> {
        if tokens <= lease.covers {
            return Ok(true);
        }
        let bytes = self.bytes(tokens, lease.shared).max(lease.bytes);
        let before = self.taken().0;
        let held = self.held + bytes - lease.bytes;
        while held + self.prefixes.bytes() > self.spec.most.0 && self.prefixes.evict() {}
        while held + self.prefixes.bytes() > before {
            let wanted = Bytes(held + self.prefixes.bytes());
            if wanted > self.spec.most {
                return Ok(false);
            }
            if grow(wanted)? {
                break;
            }
            if !self.prefixes.evict() {
                return Ok(false);
            }
        }
        self.held = held;
        lease.bytes = bytes;
        lease.covers = tokens.div_ceil(self.spec.page).saturating_mul(self.spec.page);
        self.peak = self.peak.max(self.taken().0);
        Ok(true)
    }

    /// Notes that so many tokens of a request are computed: whole blocks of its prompt become the cache's.
    pub fn computed(&mut self, lease: &mut Lease, cached: u32, prompt: u32) {
        let Some(block) = self.spec.prefix_block else { return };
        let whole = ((cached.min(prompt) / block) as usize).min(lease.blocks.len());
        if whole <= lease.shared {
            return;
        }
        let blocks = lease.blocks.clone();
        while lease.shared < whole {
            let id = blocks[lease.shared];
            // Another request may have computed the same tokens meanwhile: then the cache has them already.
            if !self.prefixes.read(id) {
                self.prefixes.keep(id);
            }
            lease.shared += 1;
        }
        let bytes = self.bytes(lease.covers, lease.shared).min(lease.bytes);
        self.held = self.held - lease.bytes + bytes;
        lease.bytes = bytes;
        self.peak = self.peak.max(self.taken().0);
    }

    /// Takes back all that a request holds; what it shared stays until the room is needed.
    pub fn end(&mut self, lease: &mut Lease) {
        self.held -= lease.bytes;
        (lease.bytes, lease.covers) = (0, 0);
        // The last block is left first: without the blocks before it nobody finds it.
        for &id in lease.blocks[..lease.shared].iter().rev() {
            self.prefixes.leave(id);
        }
        lease.shared = 0;
    }

    /// Bytes of a request's own for so many tokens, of which the first blocks are shared.
    fn bytes(&self, tokens: u32, shared: usize) -> u64 {
        let paged = |tokens: u32| u64::from(tokens.div_ceil(self.spec.page)) * u64::from(self.spec.page);
        let before = shared as u64 * u64::from(self.spec.prefix_block.unwrap_or(0));
        let whole = self.whole.saturating_mul(paged(tokens).saturating_sub(before));
        let windowed = self.windowed.iter().map(|&(window, bytes)| {
            // A window that does not begin with a page reaches into one more.
            let reach = paged(window) + u64::from(self.spec.page);
            bytes.saturating_mul(paged(tokens).min(reach))
        });
        windowed.fold(whole.saturating_add(self.states), u64::saturating_add)
    }
}

impl Lease {
    /// Nothing yet, for a request whose prompt has these blocks.
    pub fn new(blocks: Arc<[u64]>) -> Lease {
        Lease { blocks, ..Lease::default() }
    }

    /// The numbers of the prompt's blocks.
    pub fn blocks(&self) -> Arc<[u64]> {
        self.blocks.clone()
    }
}

impl Prefixes {
    fn bytes(&self) -> u64 {
        self.known.len() as u64 * self.block_bytes
    }

    /// One more reads a block; false if it is not there.
    fn read(&mut self, id: u64) -> bool {
        let Some(block) = self.known.get_mut(&id) else { return false };
        if block.readers == 0 {
            self.idle.remove(&(block.left.0, id));
        }
        block.readers += 1;
        true
    }

    fn keep(&mut self, id: u64) {
        self.known.insert(id, Block { readers: 1, left: (0, self.now) });
    }

    fn leave(&mut self, id: u64) {
        let Some(block) = self.known.get_mut(&id) else { return };
        block.readers -= 1;
        if block.readers == 0 {
            self.left += 1;
            block.left = (self.left, self.now);
            self.idle.insert((self.left, id));
        }
    }

    /// Since when the block that was read longest ago has been idle.
    fn idle_since(&self) -> Option<Time> {
        let (_, id) = self.idle.first()?;
        self.known.get(id).map(|block| block.left.1)
    }

    /// Gives up the block that was read longest ago; false if all are being read.
    fn evict(&mut self) -> bool {
        let Some((_, id)) = self.idle.pop_first() else { return false };
        self.known.remove(&id);
        self.gone.push(id);
        true
    }
}
