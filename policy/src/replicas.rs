//! Replicas of hot experts: where accelerators have experts of their own, those that most tokens choose may be at several of them,
//! and their tokens are dealt out over all.
//!
//! Which experts, and where, is decided from what routers chose so far, every so many steps. All accelerators see what all
//! routers chose, so all decide alike and no message passes. Every expert's home copy lies in memory that they have in
//! common: a replica is staged there, and takes fast memory and time of the link where it is fetched, as any block does.

use crate::event::Routed;

/// Steps of a layer after which its replicas are chosen anew.
const EVERY: u64 = 64;

/// The replicas of all layers.
#[derive(Clone, Debug, Default)]
pub struct Replicas {
    ranks: u32,
    /// Experts of a layer at each accelerator, replicas apart.
    each: u32,
    /// Replicas of a layer.
    number: u32,
    layers: Vec<LayerReplicas>,
}

/// The replicas of one layer, and what they are chosen from.
#[derive(Clone, Debug, Default)]
pub struct LayerReplicas {
    steps: u64,
    /// Tokens that chose each expert; older ones count half at every choice.
    tokens: Vec<u64>,
    /// Where each expert has replicas, beside the accelerator whose own it is. Empty until the first choice.
    at: Vec<Vec<u32>>,
}

impl Replicas {
    /// None yet: `number` a layer for so many layers of `experts`, which `ranks` accelerators share out evenly.
    pub fn new(layers: usize, experts: u32, ranks: u32, number: u32) -> Replicas {
        let layer = LayerReplicas { steps: 0, tokens: vec![0; experts as usize], at: Vec::new() };
        Replicas { ranks, each: (experts / ranks.max(1)).max(1), number, layers: vec![layer; layers] }
    }

    /// Where the tokens of an expert go in the coming step of a layer: to its own accelerator and to its replicas, as evenly as
    /// whole tokens allow. Whoever gets one more changes from step to step.
    pub fn parts(&self, layer: usize, expert: u32, tokens: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let steps = self.layers.get(layer).map_or(0, |layer| layer.steps);
        let at = self.layers.get(layer).and_then(|layer| layer.at.get(expert as usize));
        let further = at.map_or(&[][..], Vec::as_slice);
        let copies = 1 + further.len() as u32;
        let first = (steps % u64::from(copies)) as u32;
        std::iter::once(expert / self.each).chain(further.iter().copied()).zip(0..).map(
            move |(rank, place)| {
                let more = (place + copies - first) % copies < tokens % copies;
                (rank, tokens / copies + u32::from(more))
            },
        )
    }

    /// What is known of a layer's replicas, where there may be any.
    pub fn layer(&self, layer: usize) -> Option<&LayerReplicas> {
        self.layers.get(layer).filter(|_| self.number > 0)
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
        if self.number == 0 {
            return;
        }
        let (ranks, each, number) = (self.ranks, self.each, self.number);
        let Some(layer) = self.layers.get_mut(layer) else { return };
        for expert in routed {
            layer.tokens[(expert.block.0 - first) as usize] += u64::from(expert.tokens);
        }
        layer.steps += 1;
        if layer.steps.is_multiple_of(EVERY) {
            layer.at = chosen(&layer.tokens, each, ranks, number);
            layer.tokens.iter_mut().for_each(|tokens| *tokens /= 2);
        }
    }
}

/// For each expert the accelerators that have a replica of it: one after the other goes to the expert with the most tokens at a
/// copy, and to the accelerator with the fewest that has none of it. Of equals the first.
pub fn chosen(tokens: &[u64], each: u32, ranks: u32, number: u32) -> Vec<Vec<u32>> {
    let mut at: Vec<Vec<u32>> = vec![Vec::new(); tokens.len()];
    for _ in 0..number {
        let heavy = |&expert: &usize| (at[expert].len() as u32) + 1 < ranks;
        let part = |expert: usize| tokens[expert] as f64 / (at[expert].len() + 1) as f64;
        let most =
            (0..tokens.len()).filter(heavy).max_by(|&a, &b| part(a).total_cmp(&part(b)).then(b.cmp(&a)));
        let Some(expert) = most.filter(|&expert| tokens[expert] > 0) else { break };
        at[expert].push(u32::MAX);
        let loads = loads(tokens, &at, each, ranks);
        let own = expert as u32 / each.max(1);
        let free = (0..ranks).filter(|rank| *rank != own && !at[expert].contains(rank));
        let least = free.min_by(|&a, &b| loads[a as usize].total_cmp(&loads[b as usize]));
        if let (Some(rank), Some(place)) = (least, at[expert].last_mut()) {
            *place = rank;
        }
    }
    at
}

/// Tokens at each accelerator, where every expert's are dealt out over its copies; a replica without a place yet is nowhere.
fn loads(tokens: &[u64], at: &[Vec<u32>], each: u32, ranks: u32) -> Vec<f64> {
    let mut loads = vec![0.0; ranks as usize];
    for (expert, (&tokens, further)) in (0u32..).zip(tokens.iter().zip(at)) {
        let part = tokens as f64 / (further.len() + 1) as f64;
        for rank in std::iter::once(expert / each.max(1)).chain(further.iter().copied()) {
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
mod tests {
    use super::*;
    use crate::id::BlockId;

    #[test]
    fn the_heaviest_is_halved_and_goes_where_least_is() {
        // Two experts at each of four: 100, 20, 30 and 10 tokens.
        let tokens = [90, 10, 10, 10, 20, 10, 5, 5];
        assert_eq!(chosen(&tokens, 2, 4, 1)[0], [3]);
        // A third of 90 is still more than all others: 30 at the first, the last and the second.
        let three = chosen(&tokens, 2, 4, 2);
        assert_eq!(three[0], [3, 1]);
        assert_eq!(loads(&tokens, &three, 2, 4), [40.0, 50.0, 30.0, 40.0]);
        // Nobody has two of the same, and what nobody asks for has none.
        let most = chosen(&tokens, 2, 4, 1000);
        assert!(most.iter().all(|at| at.len() == 3));
        assert!(chosen(&[0; 8], 2, 4, 5).iter().all(Vec::is_empty));
    }

    #[test]
    fn tokens_are_dealt_out_whole_and_evenly() {
        let mut replicas = Replicas::new(1, 4, 2, 1);
        let routed = |block, tokens| Routed { block: BlockId(block), tokens, gate_squared: 0.0 };
        let parts = |replicas: &Replicas, tokens| replicas.parts(0, 1, tokens).collect::<Vec<_>>();
        assert_eq!(parts(&replicas, 5), [(0, 5)]);
        for _ in 0..EVERY {
            replicas.observe(0, 10, &[routed(11, 9), routed(12, 2)]);
        }
        assert_eq!(parts(&replicas, 6), [(0, 3), (1, 3)]);
        // A single token goes to one after the other.
        assert_eq!(parts(&replicas, 1), [(0, 1), (1, 0)]);
        replicas.observe(0, 10, &[routed(11, 1)]);
        assert_eq!(parts(&replicas, 1), [(0, 0), (1, 1)]);
        assert_eq!(parts(&replicas, 7), [(0, 3), (1, 4)]);
    }
}
