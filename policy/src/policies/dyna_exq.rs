//! DynaExq: every expert at hand in low precision, and each layer's hottest in high precision.
//!
//! Source: Chu et al., "Dynamic Expert Quantization for Scalable Mixture-of-Experts Inference", arXiv 2511.15015 (a draft).
//!
//! - *Hotness*: `S <- a S + (1 - a) c` once an interval, c the mean router mass that an expert was given in it.
//! - *Selection*: in every layer the `n` hottest are to be in high precision, with `n` the most for which high copies, low
//!   copies of all others and K copies under way fit memory. An expert takes another's place only if it is hotter by more than
//!   a margin.
//! - *Change* in the background: a copy is published when complete, the old one given up afterwards.
//!
//! Unspecified and chosen: a = 0.9, intervals of 16 token steps, a margin of 0.01 of the router's mass, K = 4. High is the native
//! format; how low is chosen stands at [`low_format`]. The slots of K are at least as many as the largest demand takes, for what
//! the guard has loaded in high precision. Where not all low copies fit, memory goes to the hottest and others are loaded as they
//! are asked for; where no low format is allowed, only the hottest of each layer stay.
//!
//! Differences: the mass of a block that several tokens of a batch chose is taken as if they had weighted it alike, the most
//! it can be for the sum of squares. Fast memory is empty when a run begins. The controller makes a step wait for a copy that
//! is under way to a block it needs, even where a low copy is there, and gives up a background move whose layer comes round
//! without asking for it; the paper's steps never wait, and its changes always end.

use super::look_ahead::room_for;
use super::placement::Placement;
use super::two_precisions::{by_wait, low_format};
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::{Form, Routed};
use crate::format::FormatId;
use crate::id::{BlockId, LayerId};
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "dyna_exq",
    about: "all blocks in low precision as far as they fit, each layer's hottest in high (arXiv 2511.15015)",
    params: &[
        Param {
            name: "alpha",
            about: "weight of the past in a block's hotness",
            default: 0.9,
            min: 0.0,
            max: 0.9999,
            scale: Scale::Linear,
        },
        Param {
            name: "interval",
            about: "token steps between updates",
            default: 16.0,
            min: 1.0,
            max: 100_000.0,
            scale: Scale::Linear,
        },
        Param {
            name: "margin",
            about: "router mass by which a block must be hotter than the one whose place it takes",
            default: 0.01,
            min: 0.0,
            max: 1.0,
            scale: Scale::Linear,
        },
        Param {
            name: "moves",
            about: "changes under way at most",
            default: 4.0,
            min: 1.0,
            max: 64.0,
            scale: Scale::Linear,
        },
    ],
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let &[alpha, interval, margin, moves] = input.params else { return Err(SimulateError::Params) };
    let blocks = input.model.blocks.len();
    Ok(Box::new(DynaExq {
        hotness: Hotness { alpha, mass: vec![0.0; blocks], tokens: 0, scores: vec![0.0; blocks], updates: 0 },
        interval: interval as u32,
        margin,
        moves: moves as usize,
        free_slots: input.largest_demand.max(moves as usize) as u64,
        steps: 0,
        high: vec![Vec::new(); input.model.layers.len()],
        placement: Placement::new(input.model),
        low: None,
    }))
}

/// How hot each block is.
struct Hotness {
    alpha: f64,
    /// Router mass in the running interval, and its tokens.
    mass: Vec<f64>,
    tokens: u64,
    scores: Vec<f64>,
    updates: u64,
}

impl Hotness {
    fn observe(&mut self, routed: &[Routed]) {
        for expert in routed {
            // Of all weights with this sum of squares, equal ones have the largest sum.
            let mass = libm::sqrt(f64::from(expert.tokens) * f64::from(expert.gate_squared));
            self.mass[expert.block.index()] += mass;
        }
    }

    /// Ends an interval. The first stands for the past.
    fn update(&mut self) {
        let past = if self.updates == 0 { 0.0 } else { self.alpha };
        let tokens = self.tokens.max(1) as f64;
        for (score, mass) in self.scores.iter_mut().zip(&mut self.mass) {
            *score = past * *score + (1.0 - past) * *mass / tokens;
            *mass = 0.0;
        }
        self.tokens = 0;
        self.updates += 1;
    }
}

/// The `most` hottest of a layer's blocks, but that one takes another's place only if it is hotter by more than `margin`.
fn reselect(high: &mut Vec<BlockId>, layer: &[BlockId], scores: &[f64], most: usize, margin: f64) {
    let score = |block: &BlockId| scores[block.index()];
    high.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
    high.truncate(most);
    let mut outside: Vec<BlockId> = layer.iter().copied().filter(|block| !high.contains(block)).collect();
    outside.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
    let mut hottest = outside.into_iter();
    high.extend(hottest.by_ref().take(most - high.len()));
    for block in hottest {
        let coolest = high.iter_mut().min_by(|a, b| score(a).total_cmp(&score(b)).then(b.cmp(a)));
        match coolest {
            Some(coolest) if score(&block) - score(coolest) > margin => *coolest = block,
            _ => break,
        }
    }
}

struct DynaExq {
    hotness: Hotness,
    interval: u32,
    margin: f64,
    moves: usize,
    free_slots: u64,
    /// Token steps of the running interval.
    steps: u32,
    /// The blocks of each layer that are to be in high precision.
    high: Vec<Vec<BlockId>>,
    placement: Placement,
    /// The lower precision, once it is chosen; it may be that there is none.
    low: Option<Option<FormatId>>,
}

impl DynaExq {
    fn low(&mut self, context: &Context) -> Option<FormatId> {
        *self.low.get_or_insert_with(|| low_format(context, BlockId(0)))
    }

    /// The bytes for members, and how many blocks of each layer may be in high precision beside low copies of all others.
    fn room(&self, context: &Context, low: Option<FormatId>) -> (u64, usize) {
        let (model, fast) = (&context.model, context.costs.fast);
        let sizes = (0..model.blocks.len() as u32).map(BlockId).map(|block| {
            let bytes = |format| context.ledger.footprint(block, Form { tier: fast, format }).0;
            (bytes(model.block(block).native), low.map_or(0, bytes))
        });
        let slot = sizes.clone().map(|(high, _)| high).max().unwrap_or(0);
        let upgrade = sizes.clone().map(|(high, low)| high.saturating_sub(low)).max().unwrap_or(0);
        let all_low: u64 = sizes.map(|(_, low)| low).sum();
        let capacity = context.ledger.usage(fast).capacity.0;
        let room = capacity.saturating_sub(self.free_slots.saturating_mul(slot));
        let of_all_layers = upgrade.saturating_mul(model.layers.len() as u64).max(1);
        (room, (room.saturating_sub(all_low) / of_all_layers) as usize)
    }

    /// Chooses what is to be where.
    fn select(&mut self, context: &Context) {
        let low = self.low(context);
        let (mut room, most) = self.room(context, low);
        let (model, fast) = (&context.model, context.costs.fast);
        let bytes = |block, format| context.ledger.footprint(block, Form { tier: fast, format }).0;
        let mut kept = vec![None; model.blocks.len()];
        let mut worth = self.hotness.scores.clone();
        for (layer, high) in model.layers.iter().zip(&mut self.high) {
            let first = layer.first_block.0;
            let blocks: Vec<BlockId> = (first..first + layer.blocks).map(BlockId).collect();
            reselect(high, &blocks, &self.hotness.scores, most.min(blocks.len()), self.margin);
            for &block in high.iter() {
                let native = model.block(block).native;
                room = room.saturating_sub(bytes(block, native));
                // A place in high precision is worth more than any in low.
                worth[block.index()] += 1.0;
                kept[block.index()] = Some(native);
            }
        }
        if let Some(low) = low {
            let blocks = (0..kept.len() as u32).map(BlockId);
            let mut others: Vec<BlockId> = blocks.filter(|block| kept[block.index()].is_none()).collect();
            others.sort_by(|a, b| worth[b.index()].total_cmp(&worth[a.index()]));
            for block in others {
                let Some(rest) = room.checked_sub(bytes(block, low)) else { break };
                room = rest;
                kept[block.index()] = Some(low);
            }
        }
        self.placement.choose(kept, worth);
    }
}

impl Policy for DynaExq {
    fn observe(&mut self, _context: &Context, _layer: LayerId, routed: &[Routed]) {
        self.hotness.observe(routed);
    }

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        let low = self.low(context);
        by_wait(context, proposal, low)
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        self.placement.victim(context)
    }

    fn speculate(&mut self, context: &Context, proposals: &mut Vec<Proposal>) {
        self.placement.moves(context, room_for(context, self.moves), proposals);
    }

    fn step_done(&mut self, context: &Context, _drift: f64) {
        self.hotness.tokens += u64::from(context.signals.step_tokens);
        self.steps += 1;
        if self.steps >= self.interval {
            self.steps = 0;
            self.hotness.update();
            self.select(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> Vec<BlockId> {
        (0..4).map(BlockId).collect()
    }

    #[test]
    fn places_change_hands_only_beyond_the_margin() {
        let mut high = Vec::new();
        reselect(&mut high, &layer(), &[0.4, 0.3, 0.2, 0.1], 2, 0.05);
        assert_eq!(high, [BlockId(0), BlockId(1)]);
        // Block 2 swings about block 1, never by more than the margin: nothing moves.
        for step in 0..100 {
            let swing = if step % 2 == 0 { 0.05 } else { -0.05 };
            reselect(&mut high, &layer(), &[0.4, 0.3, 0.3 + swing, 0.0], 2, 0.0501);
            assert_eq!(high, [BlockId(0), BlockId(1)]);
        }
        reselect(&mut high, &layer(), &[0.4, 0.3, 0.36, 0.0], 2, 0.05);
        assert_eq!(high, [BlockId(0), BlockId(2)]);
        // Less room: the hottest stay.
        reselect(&mut high, &layer(), &[0.4, 0.3, 0.36, 0.0], 1, 0.05);
        assert_eq!(high, [BlockId(0)]);
    }

    #[test]
    fn hotness_is_the_running_mean_of_router_mass() {
        let routed = |gate: f32| [Routed { block: BlockId(1), tokens: 1, gate_squared: gate * gate }];
        let mut hotness =
            Hotness { alpha: 0.9, mass: vec![0.0; 2], tokens: 0, scores: vec![0.0; 2], updates: 0 };
        let interval = |gate: f32, hotness: &mut Hotness| {
            hotness.observe(&routed(gate));
            hotness.tokens = 2;
            hotness.update();
            hotness.scores[1]
        };
        assert!((interval(0.5, &mut hotness) - 0.25).abs() < 1e-9);
        assert!((interval(1.0, &mut hotness) - (0.9 * 0.25 + 0.1 * 0.5)).abs() < 1e-9);
    }
}
