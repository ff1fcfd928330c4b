//! AdapMoE: caches sized by how well each layer is foreseen, and second experts left out where that hurts little.
//!
//! Source: Zhong et al., "AdapMoE: Adaptive Sensitivity-based Expert Gating and Management for Efficient MoE Inference",
//! arXiv 2408.10284, and its code at PKU-SEC-Lab/AdapMoE.
//!
//! - *Gating*: the second expert is dropped where its weight is below `sqrt(0.005 / hessian)` of its layer.
//! - *Prefetch*: coming layers' gates on the running hidden state, of the first layer ahead that has an expert missing.
//! - *Cache sizes*: a dynamic program shares fast memory out over the layers so that the loads expected to be waited for are
//!   fewest, from each layer's accuracy of prediction: .566, .721, .789, then .85 to .94. Within a layer, least recently used.
//!
//! Unspecified and chosen: the hessians are not published, and one value stands for all layers: .0244, at which half of the
//! second experts are dropped where gates are drawn as for gpt-oss, so that a quarter fewer experts are active: the saving
//! that the paper reports. What a layer waits for with t of its E experts cached: a choice of k is taken to hit any of them
//! alike, so that k (1 - t / E) are missing; where the prediction is right, with probability b, one of the missing is hidden.
//! From .85 to .94 accuracies rise evenly. Four prefetches may be under way.
//!
//! Differences: what is dropped is only what is missing, and the guard has the last word: with a branch left out wholly
//! wrong, small budgets forbid it. Layers that choose more than two drop the weakest while their squared weights together
//! are below the bound, never the strongest; in a batch the squares are of the whole step, per token. A layer may hold more than
//! its share while others hold less.

use super::layer_caches::LayerCaches;
use super::look_ahead::{AHEAD, Expected, PREFETCHES, gate_squared, prefetch, room_for};
use super::reactive::at_full_precision;
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::Routed;
use crate::id::{BlockId, LayerId};
use crate::model::Model;
use crate::record::Action;
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "adap_moe",
    about: "sizes each layer's cache by how well it is foreseen; leaves out weak second experts (arXiv 2408.10284)",
    params: &[
        Param {
            name: "hessian",
            about: "how much a squared gate weight that is left out matters; below 0.005 of it, it is left out",
            default: 0.0244,
            min: 1e-6,
            max: 1e6,
            scale: Scale::Linear,
        },
        AHEAD,
        PREFETCHES,
    ],
    simulate: Some(simulate),
    ..Entry::ONLINE
};

/// What may be lost in a layer by leaving experts out.
const TOLERATED: f64 = 0.005;
/// Accuracies of prediction of the first layers, and of the first and the last of the others.
const FIRST: [f64; 3] = [0.566, 0.721, 0.789];
const OTHERS: (f64, f64) = (0.85, 0.94);

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let &[hessian, ahead, prefetches] = input.params else { return Err(SimulateError::Params) };
    Ok(Box::new(AdapMoe {
        caches: LayerCaches::new(input.model, shares(input.model, input.capacity)),
        expected: Expected::new(input.model.layers.len()),
        bound: TOLERATED / hessian,
        ahead: ahead as u32,
        prefetches: prefetches as usize,
        ranked: Vec::new(),
        dropped: Vec::new(),
    }))
}

/// How well a layer's choice is predicted.
fn accuracy(layer: usize, layers: usize) -> f64 {
    FIRST.get(layer).copied().unwrap_or_else(|| {
        let others = layers.saturating_sub(FIRST.len() + 1).max(1) as f64;
        OTHERS.0 + (OTHERS.1 - OTHERS.0) * (layer - FIRST.len()) as f64 / others
    })
}

/// Loads that a layer is expected to wait for with `cached` of its blocks cached.
fn waits(cached: u32, blocks: u32, selected: u32, accuracy: f64) -> f64 {
    let missing = f64::from(selected) * (1.0 - f64::from(cached) / f64::from(blocks));
    let factor = |place: u32| f64::from(cached.saturating_sub(place)) / f64::from(blocks - place);
    let none: f64 = (0..selected.min(blocks)).map(factor).product();
    missing - accuracy * (1.0 - none)
}

/// The blocks that each layer may keep, `capacity` of them: those with which the loads waited for are fewest, by dynamic
/// programming over the layers; of equals, what leaves more to the layers before.
fn shares(model: &Model, capacity: usize) -> Vec<u32> {
    let capacity = capacity.min(model.blocks.len());
    let mut fewest = vec![0.0; capacity + 1];
    let mut taken = Vec::new();
    for (index, layer) in model.layers.iter().enumerate() {
        let costs: Vec<f64> = (0..=layer.blocks)
            .map(|cached| {
                waits(cached, layer.blocks.max(1), layer.selected, accuracy(index, model.layers.len()))
            })
            .collect();
        let least = |room: usize| {
            let options =
                costs.iter().take(room + 1).enumerate().map(|(own, cost)| (fewest[room - own] + cost, own));
            options.reduce(|a, b| if b.0 < a.0 { b } else { a }).unwrap_or_default()
        };
        let (costs, own): (Vec<f64>, Vec<u32>) =
            (0..=capacity).map(least).map(|(cost, own)| (cost, own as u32)).unzip();
        fewest = costs;
        taken.push(own);
    }
    let mut room = capacity;
    let mut shares = vec![0; taken.len()];
    for (share, own) in shares.iter_mut().zip(&taken).rev() {
        *share = own[room];
        room -= own[room] as usize;
    }
    shares
}

struct AdapMoe {
    caches: LayerCaches,
    expected: Expected,
    /// The squared gate weight below which experts are left out.
    bound: f64,
    ahead: u32,
    prefetches: usize,
    /// Empty between uses; kept for its memory.
    ranked: Vec<Routed>,
    /// The blocks of the running layer step that may be left out.
    dropped: Vec<BlockId>,
}

impl AdapMoe {
    /// The weakest of a choice, while their squared weights per token together are below the bound.
    fn drop_weakest(&mut self, context: &Context, routed: &[Routed]) {
        self.dropped.clear();
        self.ranked.clear();
        self.ranked.extend_from_slice(routed);
        self.ranked.sort_by(|a, b| a.gate_squared.total_cmp(&b.gate_squared).then(a.block.cmp(&b.block)));
        let mut sum = 0.0;
        for expert in &self.ranked[..self.ranked.len().saturating_sub(1)] {
            sum += gate_squared(context, expert);
            if sum >= self.bound {
                break;
            }
            self.dropped.push(expert.block);
        }
    }
}

impl Policy for AdapMoe {
    fn foresee(&mut self, _context: &Context, layer: LayerId, routed: &[Routed]) {
        self.expected.foresee(layer, routed);
    }

    fn observe(&mut self, context: &Context, layer: LayerId, routed: &[Routed]) {
        self.expected.passed(layer);
        self.caches.observe(context, routed);
        self.drop_weakest(context, routed);
    }

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        if proposal.action == Action::Skip {
            return self.dropped.contains(&proposal.block).then(Terms::default);
        }
        at_full_precision(context, proposal)
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        self.caches.victim(context)
    }

    fn admitted(&mut self, context: &Context, block: BlockId) {
        self.caches.admitted(context, block);
    }

    fn lost(&mut self, context: &Context, block: BlockId) {
        self.caches.lost(context, block);
    }

    fn speculate(&mut self, context: &Context, proposals: &mut Vec<Proposal>) {
        let room = room_for(context, self.prefetches);
        let missing = |expert: &&Routed| !context.ledger.is_fast(expert.block);
        let mut coming = self.expected.coming(context.signals.layer, self.ahead);
        let Some((_, first)) = coming.find(|(_, routed)| routed.iter().any(|expert| missing(&expert))) else {
            return;
        };
        let moves = first.iter().filter(missing).filter_map(|expert| {
            let native = context.model.block(expert.block).native;
            prefetch(context, expert.block, native, gate_squared(context, expert), 1.0)
        });
        proposals.extend(moves.take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Layer;

    fn model(layers: u16, blocks: u32, selected: u32) -> Model {
        let layer = |index: u16| Layer {
            first_block: BlockId(u32::from(index) * blocks),
            blocks,
            selected,
            ..Layer::default()
        };
        let block = |id: u32| crate::model::Block {
            kind: crate::model::BlockKind::Expert,
            layer: LayerId((id / blocks) as u16),
            index: id % blocks,
            matrices: [crate::model::Matrix { rows: 32, columns: 32 }].into(),
            native: crate::FormatId(1),
            mixed: None,
            recipe: None,
        };
        Model {
            layers: (0..layers).map(layer).collect(),
            blocks: (0..u32::from(layers) * blocks).map(block).collect(),
            ..Model::default()
        }
    }

    #[test]
    fn what_a_layer_waits_for() {
        // None cached: both missing, one hidden where foreseen. All cached: nothing.
        assert_eq!(waits(0, 8, 2, 0.0), 2.0);
        assert_eq!(waits(0, 8, 2, 1.0), 1.0);
        assert_eq!(waits(8, 8, 2, 0.5), 0.0);
        // Four of eight: one missing on average, and with probability 4/8 * 3/7 none.
        assert!((waits(4, 8, 2, 0.5) - (1.0 - 0.5 * (1.0 - 4.0 / 8.0 * 3.0 / 7.0))).abs() < 1e-12);
    }

    #[test]
    fn the_dynamic_program_finds_the_fewest_loads_waited_for() {
        let (layers, blocks, selected) = (4, 4, 2);
        let model = model(layers, blocks, selected);
        let total = |shares: &[u32]| -> f64 {
            let of = |(layer, &cached): (usize, &u32)| {
                waits(cached, blocks, selected, accuracy(layer, layers.into()))
            };
            shares.iter().enumerate().map(of).sum()
        };
        for capacity in 0..=18 {
            let found = shares(&model, capacity);
            assert_eq!(found.iter().sum::<u32>() as usize, capacity.min(16));
            let every = (0..625u32).map(|code| [code % 5, code / 5 % 5, code / 25 % 5, code / 125]);
            let fits = every.filter(|shares| shares.iter().sum::<u32>() as usize <= capacity);
            let least = fits.map(|shares| total(&shares)).fold(f64::INFINITY, f64::min);
            assert!(total(&found) <= least + 1e-9, "{capacity}: {found:?}");
        }
    }

    #[test]
    fn layers_that_are_hard_to_foresee_get_more() {
        let shares = shares(&model(32, 8, 2), 100);
        assert!(shares[0] > shares[31], "{shares:?}");
        assert_eq!([0, 1, 2, 3, 31].map(|layer| accuracy(layer, 32)), [0.566, 0.721, 0.789, 0.85, 0.94]);
    }
}
