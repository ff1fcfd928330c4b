//! Checkpoints of recurrent states: what lets a model with recurrent layers begin a prompt in the middle.
//!
//! A checkpoint is the state of all recurrent layers after a prefix, valid only whole. It is made where the kernels that
//! compute prompts have the state at hand, lives in pools of several memories, each in the pool's format, and is coded once,
//! from what was computed. A prompt that begins like an earlier one goes on from the checkpoint from which it is ready first, or from
//! nothing: restoring takes a copy over its links and expands it, and what lies behind the checkpoint is computed again.
//!
//! Every checkpoint can be made again from an earlier one, so dropping it is only a matter of time: of the seven states a
//! checkpoint without copies is in S7. What the guard does not allow is not restored, however near it is. Moves of checkpoints are chunked,
//! ordered and paced as those of blocks are (`schedule.rs`). Copies in fast memory are S1 as they were computed and S3 in fewer bits, as they must
//! be expanded before use; others are S4 and S5 by the class of their tier.

mod benefit;
mod costs;
mod depths;
mod evict;
mod figures;
mod lru;
mod marconi;
mod moves;
mod place;
mod prefixes;
mod reuse;
mod room;
mod seen;
mod spec;

pub use figures::{CheckpointUse, PoolUse};
pub use spec::{CheckpointSpec, Eviction, Place, PoolSpec};

use crate::event::MoveClass;
use crate::guard::GuardSpec;
use crate::id::{CheckpointId, MoveId, TierId};
use crate::machine::{Class, Machine};
use crate::model::Model;
use crate::path::LinkSet;
use crate::state::State;
use crate::state_format::StateFormat;
use crate::state_time::StateTime;
use crate::units::{Bytes, Nanos, Time};
use crate::veto::Reason;
use costs::Costs;
use depths::Depths;
use evict::Evict;
use moves::Moving;
use reuse::Reuse;
use seen::Seen;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One copy of a checkpoint.
#[derive(Clone, Copy, Debug)]
struct Copy {
    format: StateFormat,
    bytes: u64,
    /// Complete: nothing is on its way to it.
    ready: bool,
    /// On its way to a lower pool, and gone from here when it is there.
    leaving: bool,
}

/// A checkpoint, at the number of its prefix's last block.
#[derive(Clone, Debug)]
struct Entry {
    /// Tokens of the prefix.
    position: u32,
    /// The nearest earlier checkpoint of the same prefix, and how many have this one as theirs.
    parent: Option<u64>,
    children: u32,
    /// Its number: a later checkpoint of the same prefix has another.
    id: CheckpointId,
    /// A copy for each pool.
    copies: Vec<Option<Copy>>,
    /// Moves of it under way, and those of them that read one of its copies.
    moves: u32,
    readers: u32,
    /// The cache no longer has its prefix: it goes when it no longer moves.
    lost: bool,
    last_used: Time,
    state: State,
}

/// Bytes that a pool holds.
#[derive(Clone, Copy, Debug, Default)]
struct Pool {
    used: u64,
    peak: u64,
}

/// Where a prompt goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    node: u64,
    pool: usize,
    /// Tokens that need not be computed.
    pub tokens: u32,
}

/// What was found for a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Where it goes on from, if not from nothing.
    pub hit: Option<Hit>,
    /// Why it may not go on from what would have been quicker, if there is such a copy.
    pub vetoed: Option<Reason>,
}

/// What a request has to do with checkpoints from its admission on.
#[derive(Clone, Debug, Default)]
pub struct Passage {
    /// Positions at which checkpoints are to be made, in order.
    marks: Vec<u32>,
    /// Those that are behind it.
    passed: usize,
    /// The last checkpoint behind it.
    parent: Option<u64>,
    /// The restore that it waits for.
    restoring: Option<u64>,
}

impl Passage {
    /// Whether its state is still on its way.
    pub fn is_restoring(&self) -> bool {
        self.restoring.is_some()
    }
}

/// The last number of each kind.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    moves: u64,
    checkpoints: u64,
    restores: u64,
}

/// See the module.
pub struct Checkpoints {
    spec: CheckpointSpec,
    costs: Costs,
    machine: Arc<Machine>,
    /// Tokens of a block of prompts, and tokens between two places where a checkpoint may be.
    block: u32,
    stride: u32,
    entries: BTreeMap<u64, Entry>,
    pools: Vec<Pool>,
    moves: BTreeMap<MoveId, Moving>,
    /// Moves that are to begin, copies that are to go, and what was vetoed, since they were last asked for.
    begun: Vec<(MoveId, LinkSet)>,
    dropped: Vec<(CheckpointId, TierId)>,
    vetoed: Vec<Reason>,
    /// Moves, checkpoints and restores so far.
    numbers: Numbers,
    /// Why no prompt may go on from states in each format.
    vetoes: Vec<Option<Reason>>,
    evict: Box<dyn Evict>,
    reuse: Reuse,
    depths: Depths,
    seen: Seen,
    now: Time,
    figures: CheckpointUse,
    states: StateTime,
}

impl std::fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoints").field("spec", &self.spec).field("entries", &self.entries.len()).finish()
    }
}

impl Checkpoints {
    /// None yet, of a model whose prompts are numbered in blocks of so many tokens and computed in steps of `chunk`.
    pub fn new(
        model: &Model,
        machine: Arc<Machine>,
        spec: CheckpointSpec,
        guard: &GuardSpec,
        (block, chunk): (u32, u32),
    ) -> Checkpoints {
        let chunks = model.layers.iter().filter_map(|layer| layer.recurrent).map(|state| state.chunk);
        let stride = chunks.fold(block.max(1), least_common_multiple);
        let costs = Costs::new(model, &machine, &spec, chunk);
        Checkpoints {
            evict: spec.evict.build(),
            pools: vec![Pool::default(); spec.pools.len()],
            figures: CheckpointUse::new(&machine, &spec),
            depths: Depths::new(stride),
            spec,
            costs,
            machine,
            block: block.max(1),
            stride,
            entries: BTreeMap::new(),
            moves: BTreeMap::new(),
            begun: Vec::new(),
            dropped: Vec::new(),
            vetoed: Vec::new(),
            numbers: Numbers::default(),
            vetoes: StateFormat::all().map(|format| guard.state_veto(format)).collect(),
            reuse: Reuse::default(),
            seen: Seen::default(),
            now: Time(0),
            states: StateTime::new(),
        }
    }

    /// Time goes on.
    pub fn advance(&mut self, now: Time) {
        self.now = now;
    }

    /// What has been counted.
    pub fn figures(&self) -> CheckpointUse {
        let mut figures = self.figures.clone();
        for (shown, pool) in figures.pools.iter_mut().zip(&self.pools) {
            shown.peak = Bytes(pool.peak);
        }
        figures
    }

    /// The time that checkpoints have spent in each state, in bytes as they are served, and the edges taken.
    pub fn states(&self) -> &StateTime {
        &self.states
    }

    /// Whether moves of states are under way.
    pub fn is_moving(&self) -> bool {
        !self.moves.is_empty()
    }

    /// The moves that are to begin, each with its links.
    pub fn take_begun(&mut self) -> Vec<(MoveId, LinkSet)> {
        std::mem::take(&mut self.begun)
    }

    /// The copies that are to go, each with its memory.
    pub fn take_dropped(&mut self) -> Vec<(CheckpointId, TierId)> {
        std::mem::take(&mut self.dropped)
    }

    /// Why prompts did not go on from what would have been quicker.
    pub fn take_vetoed(&mut self) -> Vec<Reason> {
        std::mem::take(&mut self.vetoed)
    }

    /// Where a prompt of `prompt` tokens goes on from, of whose blocks the first `kept` tokens are in the key-value cache: the
    /// checkpoint from which it is ready first, of those that the guard allows, or none if computing all of it is as quick.
    pub fn find(&self, blocks: &[u64], kept: u32, prompt: u32) -> Found {
        let most = kept.min(prompt.saturating_sub(1));
        let mut best: (Nanos, Option<Hit>) = (self.costs.prefill(0, prompt), None);
        let mut refused: (Nanos, Option<Reason>) = (Nanos(u64::MAX), None);
        for (node, entry) in self.on_path(blocks, most) {
            for (pool, copy) in entry.copies.iter().enumerate() {
                let Some(copy) = copy.filter(|copy| copy.ready && !copy.leaving) else { continue };
                let time = self.costs.restore(pool, copy.format) + self.costs.prefill(entry.position, prompt);
                match self.vetoes[copy.format.index()] {
                    None if time < best.0 => {
                        best = (time, Some(Hit { node, pool, tokens: entry.position }));
                    }
                    Some(reason) if time < refused.0 => refused = (time, Some(reason)),
                    _ => {}
                }
            }
        }
        Found { hit: best.1, vetoed: refused.1.filter(|_| refused.0 < best.0) }
    }

    /// A request is admitted for which this was found.
    pub fn begin(&mut self, blocks: &[u64], prompt: u32, found: Found) -> Passage {
        let Found { hit, vetoed } = found;
        self.vetoed.extend(vetoed);
        let from = hit.map_or(0, |hit| hit.tokens);
        let seen = self.seen.alike(blocks) as u32;
        let seen = seen.saturating_mul(self.block).min(prompt.saturating_sub(1));
        self.count(seen, prompt, hit);
        self.relate(blocks, prompt);
        self.reuse.pass(self.nodes(blocks, seen), &self.entries);
        self.depths.note(seen);
        let marks = self.marks(seen, from, prompt, blocks.len() as u32);
        let parent = hit.map(|hit| hit.node);
        Passage { marks, passed: 0, parent, restoring: hit.and_then(|hit| self.restore(hit)) }
    }

    /// Books what a request has found.
    fn count(&mut self, seen: u32, prompt: u32, hit: Option<Hit>) {
        let from = hit.map_or(0, |hit| hit.tokens);
        let figures = &mut self.figures;
        figures.requests += 1;
        figures.prompt_tokens += u64::from(prompt);
        figures.hit_tokens += u64::from(from);
        figures.seen_tokens += u64::from(seen);
        figures.recomputed_tokens += u64::from(seen.saturating_sub(from));
        figures.reusable += u64::from(seen > 0);
        match hit {
            Some(hit) => {
                figures.restores += 1;
                figures.pools[hit.pool].hits += 1;
            }
            None => figures.recomputes += u64::from(seen > 0),
        }
    }

    /// So many tokens of a request are computed: makes the checkpoints that it has passed.
    pub fn computed(&mut self, passage: &mut Passage, blocks: &[u64], computed: u32, prompt: u32) {
        let whole = (computed.min(prompt) / self.block) as usize;
        self.seen.note(&blocks[..whole.min(blocks.len())]);
        while let Some(&mark) = passage.marks.get(passage.passed).filter(|&&mark| mark <= computed) {
            passage.passed += 1;
            let Some(&node) = blocks.get((mark / self.block) as usize - 1) else { continue };
            let within = passage.passed < passage.marks.len();
            if self.make(node, mark, passage.parent, within) {
                passage.parent = Some(node);
            }
        }
    }

    /// Makes a checkpoint, within a prompt or at its end, or notes that it is there; false if no pool takes it.
    fn make(&mut self, node: u64, position: u32, parent: Option<u64>, within: bool) -> bool {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.last_used = self.now;
            entry.lost = false;
            return true;
        }
        self.numbers.checkpoints += 1;
        let entry = Entry {
            position,
            parent: parent.filter(|parent| self.entries.contains_key(parent)),
            children: 0,
            id: CheckpointId(self.numbers.checkpoints),
            copies: vec![None; self.pools.len()],
            moves: 0,
            readers: 0,
            lost: false,
            last_used: self.now,
            state: State::Recomputable,
        };
        if let Some(parent) = entry.parent.and_then(|parent| self.entries.get_mut(&parent)) {
            parent.children += 1;
        }
        self.entries.insert(node, entry);
        self.states.enter(State::Recomputable, self.costs.served.0, self.now);
        self.reuse.made(node, within);
        let formats: Vec<StateFormat> = self.spec.pools.iter().map(|pool| pool.format).collect();
        for (pool, format) in formats.into_iter().enumerate() {
            self.keep(node, pool, format, MoveClass::Spill);
        }
        let kept = self.entries.get(&node).is_some_and(|entry| entry.copies.iter().any(Option::is_some));
        match kept {
            true => self.figures.made += 1,
            false => {
                self.figures.not_kept += 1;
                self.forget(node);
            }
        }
        kept
    }

    /// The key-value cache no longer has a block: a checkpoint behind it is of no use.
    pub fn lost(&mut self, node: u64) {
        match self.entries.get_mut(&node) {
            Some(entry) if entry.moves > 0 => entry.lost = true,
            Some(_) => self.give_up(node),
            None => {}
        }
    }

    /// Frees all copies of a checkpoint that does not move, and takes it out of the book.
    fn give_up(&mut self, node: u64) {
        for pool in 0..self.pools.len() {
            self.release(node, pool);
        }
        self.forget(node);
    }

    /// Books the state that a checkpoint's copies put it in.
    fn book(&mut self, node: u64) {
        let Some(entry) = self.entries.get(&node) else { return };
        let of = |(copy, pool): (&Option<Copy>, &PoolSpec)| {
            let copy = copy.filter(|copy| copy.ready)?;
            Some(match self.machine.tier(pool.tier).class {
                Class::Fast if copy.format == StateFormat::SERVED => State::Full,
                Class::Fast => State::Compressed,
                Class::Staged => State::Staged,
                Class::Cold => State::Cold,
            })
        };
        let best = entry.copies.iter().zip(&self.spec.pools).filter_map(of).min();
        let comes = |(copy, pool): (&Option<Copy>, &PoolSpec)| {
            let fast = self.machine.tier(pool.tier).class == Class::Fast;
            copy.is_some_and(|copy| !copy.ready && (fast || best.is_none()))
        };
        let to = match best {
            Some(best) if best.is_fast() => best,
            _ if entry.copies.iter().zip(&self.spec.pools).any(comes) => State::InFlight,
            best => best.unwrap_or(State::Recomputable),
        };
        let served = self.costs.served.0;
        if let Some(entry) = self.entries.get_mut(&node).filter(|entry| entry.state != to) {
            let from = std::mem::replace(&mut entry.state, to);
            debug_assert!(crate::state::leads(from, to, true), "{from:?} to {to:?}");
            self.states.transit(from, to, served, self.now);
        }
    }
}

fn least_common_multiple(a: u32, b: u32) -> u32 {
    let (mut x, mut y) = (a, b.max(1));
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).saturating_mul(b.max(1))
}

#[cfg(test)]
mod tests;
