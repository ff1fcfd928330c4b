//! KTransformers: a fixed set of experts on the accelerator, everything else computed by the host.
//!
//! Source: kvcache-ai/ktransformers, its CPU-GPU expert scheduling tutorial (kt-kernel with SGLang).
//!
//! - *Placement* of a number of experts, the same for every strategy: `uniform` over the layers, by `frequency` in recorded
//!   statistics, `front-loading` from the first layer on, or at `random`.
//! - *A miss* is computed by the host. A step with as many prompt tokens as the threshold (512) runs on the accelerator
//!   instead, and copies what it misses.
//! - *Dynamic update*: after such a step each layer's experts on the accelerator are those that most of its tokens chose.
//!
//! Unspecified and chosen: within a layer, `uniform` takes the experts by number. Frequencies are compared over all layers. A
//! dynamic update leaves each layer as many experts as it has, and of equals those that are there. Slots for the largest
//! demand are left free for copies. The default is `frequency`, which the source recommends; its own default is `uniform`.
//!
//! Differences: fast memory is empty when a run begins, so members are copied at their first demand. The random order is drawn
//! by another generator than the source's, of the same seed. A processor of the memory where a block lies
//! stands in for the host. Where none may compute, every miss is copied; where it simulates no prompts, nothing is updated.

use super::full_precision::by_own_time;
use super::placement::{Placement, by_popularity, popularity, training};
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::Routed;
use crate::id::{BlockId, LayerId};
use crate::model::Model;
use crate::record::Action;
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::score::Terms;
use std::cmp::Reverse;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "ktransformers",
    about: "keeps a chosen set of blocks; the host computes the others (kvcache-ai/ktransformers)",
    params: &[
        Param {
            name: "placement",
            about: "what is kept: 0 uniform, 1 frequency in the fitted trace, 2 front-loading, 3 random",
            default: 1.0,
            min: 0.0,
            max: 3.0,
            scale: Scale::Linear,
        },
        Param {
            name: "dynamic_update",
            about: "1 to choose what is kept anew after each large prompt step, 0 not to",
            default: 0.0,
            min: 0.0,
            max: 1.0,
            scale: Scale::Linear,
        },
        Param {
            name: "prefill_threshold",
            about: "tokens from which a step with a prompt copies what it misses",
            default: 512.0,
            min: 1.0,
            max: 1e9,
            scale: Scale::Linear,
        },
    ],
    simulate: Some(simulate),
    fitted: true,
    ..Entry::ONLINE
};

/// The source's seed of the random placement.
const SEED: u64 = 42;

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let &[strategy, dynamic, threshold] = input.params else { return Err(SimulateError::Params) };
    let model = input.model;
    let fit = training(input)?;
    let mut order: Vec<BlockId> = (0..model.blocks.len() as u32).map(BlockId).collect();
    match strategy as u32 {
        0 => order.sort_by_key(|&block| model.block(block).index),
        1 => order = by_popularity(&popularity(model, fit)),
        2 => {}
        _ => order.sort_by_key(|&block| scattered(SEED, block)),
    }
    let members = input.capacity.saturating_sub(input.largest_demand).min(order.len());
    let mut placement = Placement::new(model);
    placement.choose_first(model, &order, members);
    let mut kept = vec![0; model.layers.len()];
    order[..members].iter().for_each(|&block| kept[model.block(block).layer.index()] += 1);
    Ok(Box::new(KTransformers {
        placement,
        kept,
        dynamic: dynamic >= 0.5,
        threshold: threshold as u32,
        prompt_tokens: vec![0; model.blocks.len()],
        on_accelerator: false,
    }))
}

/// A number for each block that looks random: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014).
fn scattered(seed: u64, block: BlockId) -> u64 {
    let state = (seed << 32 | u64::from(block.0)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

struct KTransformers {
    placement: Placement,
    /// Members of each layer.
    kept: Vec<usize>,
    dynamic: bool,
    threshold: u32,
    /// Tokens of the running large prompt step that chose each block.
    prompt_tokens: Vec<u32>,
    /// Whether the running step copies what it misses.
    on_accelerator: bool,
}

impl KTransformers {
    /// The members after a large prompt step.
    fn update(&mut self, model: &Model) {
        let placement = &self.placement;
        let tokens =
            |block: &BlockId| Reverse((self.prompt_tokens[block.index()], placement.is_member(*block)));
        let (mut order, mut others) = (Vec::new(), Vec::new());
        for (layer, &kept) in model.layers.iter().zip(&self.kept) {
            let first = layer.first_block.0;
            let mut blocks: Vec<BlockId> = (first..first + layer.blocks).map(BlockId).collect();
            blocks.sort_by_key(tokens);
            others.extend(blocks.drain(kept..));
            order.append(&mut blocks);
        }
        let members = order.len();
        order.sort_by_key(tokens);
        others.sort_by_key(tokens);
        order.append(&mut others);
        self.placement.choose_first(model, &order, members);
        self.prompt_tokens.fill(0);
    }
}

impl Policy for KTransformers {
    fn observe(&mut self, context: &Context, _layer: LayerId, routed: &[Routed]) {
        let signals = &context.signals;
        self.on_accelerator =
            signals.step_tokens >= self.threshold && signals.step_tokens > signals.concurrency;
        if self.on_accelerator {
            routed.iter().for_each(|expert| self.prompt_tokens[expert.block.index()] += expert.tokens);
        }
    }

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        let by_host = proposal.action == Action::InPlace;
        let copies = self.on_accelerator || self.placement.is_member(proposal.block);
        by_own_time(context, proposal, by_host != copies)
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        self.placement.victim(context)
    }

    fn step_done(&mut self, context: &Context, _drift: f64) {
        if self.dynamic && self.on_accelerator {
            self.update(&context.model);
        }
    }
}
