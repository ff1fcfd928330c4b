//! Where the tokens of experts go, where accelerators have experts of their own: to the one whose expert it is, and of hot experts
//! to replicas at others too.
//!
//! Which experts have replicas, and where, is decided from what routers chose so far, every so many steps. All accelerators see
//! what all routers chose, so all decide alike and no message passes. Every expert's home copy lies in memory that they have in
//! common: a replica is staged there, and takes fast memory and time of the link where it is fetched, as any block does. A new replica
//! is asked for once, by its share of the tokens; after that the tokens go to those who have the expert in fast memory, as the
//! directory knows, and only where nobody has it to the one whose it is. So a replica that was given up is not fetched again as long
//! as it stays chosen.
//!
//! The experts of an accelerator that is lost go to others: to one that has a copy, else to the one with the fewest tokens. When it is
//! back it has its own again.

use crate::directory::{Claim, Directory, Note};
use crate::event::Routed;
use crate::id::{BlockId, TierId};
use crate::parallel::ExpertShare;

/// Steps of a layer after which its replicas are chosen anew.
const EVERY: u64 = 64;

/// Whose the experts of all layers are, and their replicas.
#[derive(Clone, Debug, Default)]
pub struct Replicas {
    share: ExpertShare,
    /// Experts of a layer at each accelerator, replicas apart.
    each: u32,
    layers: Vec<LayerReplicas>,
    /// Who has which in this memory.
    directory: Directory,
    fast: TierId,
}

/// Those of one layer, and what they are chosen from.
#[derive(Clone, Debug, Default)]
pub struct LayerReplicas {
    /// Its first expert.
    first: BlockId,
    steps: u64,
    /// Tokens that chose each expert; older ones count half at every choice.
    tokens: Vec<u64>,
    /// Whose each expert is.
    owners: Vec<u32>,
    /// Where each expert has replicas beside. Empty until the first choice.
    at: Vec<Vec<u32>>,
    /// Tokens of each expert that are still to be dealt out over all of its replicas, so that new ones are fetched.
    asked: Vec<u32>,
}

impl Replicas {
    /// None yet, for layers of `experts` whose first ones are these, out of so many blocks; accelerators read experts in the memory `fast`.
    pub fn new(
        layers: impl Iterator<Item = BlockId>,
        experts: u32,
        share: ExpertShare,
        (blocks, fast): (usize, TierId),
    ) -> Replicas {
        let each = (experts / share.of.max(1)).max(1);
        let layer = |first| LayerReplicas {
            first,
            tokens: vec![0; experts as usize],
            owners: (0..experts).map(|expert| expert / each).collect(),
            asked: vec![0; experts as usize],
            ..LayerReplicas::default()
        };
        let known = if share.is_common() { blocks } else { 0 };
        let directory = Directory::new(share.of, known);
        Replicas { share, each, layers: layers.map(layer).collect(), directory, fast }
    }

    /// Where the tokens of an expert go in the coming step of a layer: to those who have it of its own accelerator and its replicas,
    /// as evenly as whole tokens allow. Whoever gets one more changes from step to step.
    pub fn parts(&self, layer: usize, expert: u32, tokens: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let of = self.layers.get(layer);
        let steps = of.map_or(0, |layer| layer.steps);
        let owner = of.and_then(|layer| layer.owners.get(expert as usize)).copied().unwrap_or_default();
        let further = of.and_then(|layer| layer.at.get(expert as usize)).map_or(&[][..], Vec::as_slice);
        let asked = of.is_some_and(|layer| layer.asked[expert as usize] > 0);
        let has = move |rank: &u32| asked || self.claim(layer, expert, *rank).is_some();
        let all = || std::iter::once(owner).chain(further.iter().copied());
        let having = if further.is_empty() { 0 } else { all().filter(has).count() as u32 };
        let copies = having.max(1);
        let first = (steps % u64::from(copies)) as u32;
        all().filter(move |rank| if having == 0 { *rank == owner } else { has(rank) }).zip(0..).map(
            move |(rank, place)| {
                let more = (place + copies - first) % copies < tokens % copies;
                (rank, tokens / copies + u32::from(more))
            },
        )
    }

    fn claim(&self, layer: usize, expert: u32, rank: u32) -> Option<Claim> {
        let BlockId(first) = self.layers.get(layer)?.first;
        self.directory.claim(rank, BlockId(first + expert), self.fast)
    }

    /// The entry of the directory that sends tokens of an expert to an accelerator, if it is one that does.
    pub fn relied_on(&self, layer: usize, expert: u32, rank: u32) -> Option<Claim> {
        let of = self.layers.get(layer)?;
        let chooses = of.at.get(expert as usize).is_some_and(|at| !at.is_empty());
        self.claim(layer, expert, rank).filter(|_| chooses && of.asked[expert as usize] == 0)
    }

    /// The accelerators that are not lost.
    pub fn alive(&self) -> u32 {
        self.directory.alive().count() as u32
    }

    /// What is known of a layer's replicas, where there may be any, and of whose its experts are.
    pub fn layer(&self, layer: usize) -> Option<&LayerReplicas> {
        self.layers.get(layer).filter(|_| self.share.is_common())
    }

    /// Takes over what is known of a layer's replicas.
    pub fn learn(&mut self, layer: usize, known: &LayerReplicas) {
        if let Some(layer) = self.layers.get_mut(layer) {
            layer.clone_from(known);
        }
    }

    /// A layer whose experts are the blocks from `first` on has been routed: what was chosen counts, and now and then its
    /// replicas are chosen anew.
    pub fn observe(&mut self, layer: usize, first: u32, routed: &[Routed]) {
        if !self.share.is_common() {
            return;
        }
        let (directory, number) = (&self.directory, self.share.replicas);
        let Some(layer) = self.layers.get_mut(layer) else { return };
        for expert in routed {
            let place = (expert.block.0 - first) as usize;
            layer.tokens[place] += u64::from(expert.tokens);
            layer.asked[place] = layer.asked[place].saturating_sub(expert.tokens);
        }
        layer.steps += 1;
        if layer.steps.is_multiple_of(EVERY) {
            let there: Vec<u32> = directory.alive().collect();
            let at = chosen(&layer.tokens, &layer.owners, &there, number);
            for (expert, at) in at.iter().enumerate() {
                let had = |rank| layer.at.get(expert).is_some_and(|before| before.contains(rank));
                layer.asked[expert] = if at.iter().all(had) { 0 } else { 1 + at.len() as u32 };
            }
            layer.at = at;
            layer.tokens.iter_mut().for_each(|tokens| *tokens /= 2);
        }
    }

    /// The directory is told something. The experts of an accelerator that is lost by it go to others, and those of one that is
    /// back to their own.
    pub fn told(&mut self, note: Note) {
        let rank = note.device;
        let was_lost = self.directory.is_lost(rank);
        self.directory.take(note);
        match (was_lost, self.directory.is_lost(rank)) {
            (false, true) => self.take_over(rank),
            (true, false) => self.give_back(rank),
            _ => {}
        }
    }

    /// The experts of an accelerator go to others, those with the most tokens first.
    fn take_over(&mut self, lost: u32) {
        let (directory, fast) = (&self.directory, self.fast);
        let there: Vec<u32> = directory.alive().collect();
        for layer in &mut self.layers {
            layer.at.iter_mut().for_each(|at| at.retain(|&rank| rank != lost));
            let mut homeless: Vec<usize> =
                (0..layer.owners.len()).filter(|&expert| layer.owners[expert] == lost).collect();
            homeless.sort_by_key(|&expert| std::cmp::Reverse(layer.tokens[expert]));
            for expert in homeless {
                let block = BlockId(layer.first.0 + expert as u32);
                let loads = loads(&layer.tokens, &layer.owners, &layer.at, self.share.of);
                // Where nobody has asked for anything yet, experts count.
                let own = |rank: u32| layer.owners.iter().filter(|&&owner| owner == rank).count();
                let load = |rank: u32| (loads[rank as usize], own(rank));
                let has = |rank: u32| directory.claim(rank, block, fast).is_some();
                let order = |a: u32, b: u32| {
                    has(b).cmp(&has(a)).then(load(a).0.total_cmp(&load(b).0)).then(load(a).1.cmp(&load(b).1))
                };
                let Some(to) = there.iter().copied().min_by(|&a, &b| order(a, b)) else { return };
                layer.owners[expert] = to;
                layer.at.get_mut(expert).into_iter().for_each(|at| at.retain(|&rank| rank != to));
            }
        }
    }

    /// An accelerator has its own experts again.
    fn give_back(&mut self, rank: u32) {
        let own = self.share.with_rank(rank).experts(self.each);
        for layer in &mut self.layers {
            for expert in own.clone() {
                layer.owners[expert as usize] = rank;
                layer
                    .at
                    .get_mut(expert as usize)
                    .into_iter()
                    .for_each(|at| at.retain(|&other| other != rank));
            }
        }
    }
}

/// For each expert, which has an accelerator of its own, those of `there` that have a replica of it: one after the other goes to
/// the expert with the most tokens at a copy, and to the accelerator with the fewest that has none of it. Of equals the first.
pub fn chosen(tokens: &[u64], owners: &[u32], there: &[u32], number: u32) -> Vec<Vec<u32>> {
    let mut at: Vec<Vec<u32>> = vec![Vec::new(); tokens.len()];
    let ranks = owners.iter().chain(there).max().map_or(0, |last| last + 1);
    for _ in 0..number {
        let heavy = |&expert: &usize| at[expert].len() + 1 < there.len();
        let part = |expert: usize| tokens[expert] as f64 / (at[expert].len() + 1) as f64;
        let most =
            (0..tokens.len()).filter(heavy).max_by(|&a, &b| part(a).total_cmp(&part(b)).then(b.cmp(&a)));
        let Some(expert) = most.filter(|&expert| tokens[expert] > 0) else { break };
        at[expert].push(u32::MAX);
        let loads = loads(tokens, owners, &at, ranks);
        let free = there.iter().copied().filter(|rank| *rank != owners[expert] && !at[expert].contains(rank));
        let least = free.min_by(|&a, &b| loads[a as usize].total_cmp(&loads[b as usize]));
        if let (Some(rank), Some(place)) = (least, at[expert].last_mut()) {
            *place = rank;
        }
    }
    at
}

/// Tokens at each accelerator, where every expert's are dealt out over its copies; a replica without a place yet is nowhere.
fn loads(tokens: &[u64], owners: &[u32], at: &[Vec<u32>], ranks: u32) -> Vec<f64> {
    let mut loads = vec![0.0; ranks as usize];
    for (expert, (&tokens, &owner)) in tokens.iter().zip(owners).enumerate() {
        let further = at.get(expert).map_or(&[][..], Vec::as_slice);
        let part = tokens as f64 / (further.len() + 1) as f64;
        for rank in std::iter::once(owner).chain(further.iter().copied()) {
            if let Some(load) = loads.get_mut(rank as usize) {
                *load += part;
            }
        }
    }
    loads
}

/// How evenly the tokens of all layer steps went to the accelerators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Tokens, once for each expert that they chose.
    pub tokens: u64,
    /// Those at the accelerator with the most, step by step.
    pub most: u64,
    /// The same if there were no replicas.
    pub most_without: u64,
}

impl Balance {
    /// The most over the mean, as it was and without replicas; 1 where all have the same, or nothing.
    pub fn max_over_mean(self, ranks: u32) -> [f64; 2] {
        let over = |most: u64| match self.tokens {
            0 => 1.0,
            tokens => most as f64 * f64::from(ranks) / tokens as f64,
        };
        [over(self.most), over(self.most_without)]
    }
}

#[cfg(test)]
mod tests;
