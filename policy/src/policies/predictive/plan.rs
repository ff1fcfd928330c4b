//! Formats for a model whose every step reads all of its blocks. What a step drifts by is then known before it begins, so it is said
//! beforehand which blocks may be lossy: as many as the budget of a step lets it read. More would cross the link in vain: a copy that may
//! not be read is fetched again, in full, while the step waits.
//!
//! The blocks of a phase stand in an order of halving gaps (van der Corput), and the first of them are lossy: so they are spread evenly
//! over the layers whatever the budget, and with less of it some of them are full, and no other is lossy instead.

use super::Predictive;
use crate::control::Context;
use crate::event::Form;
use crate::id::{BlockId, LayerId};
use crate::model::{Block, Model};

/// The first block of a layer that will not be readable as it is, worked out for a version of the ledger and a budget.
type Known = Option<(u64, f64, Option<BlockId>)>;

/// See the module.
#[derive(Debug)]
pub(super) struct Plan {
    /// For each block, the weights of those up to it in its phase's order, as a share of all. Empty where routers choose.
    up_to: Vec<f64>,
    /// For each layer.
    known: Vec<Known>,
}

impl Plan {
    pub(super) fn new(model: &Model, certain: bool) -> Plan {
        if !certain {
            return Plan { up_to: vec![], known: vec![] };
        }
        let mut elements = vec![0u64; model.layers.len()];
        model.blocks.iter().for_each(|block| elements[block.layer.index()] += block.elements());
        let share = |block: &Block| block.elements() as f64 / elements[block.layer.index()].max(1) as f64;
        let mut up_to = vec![0.0; model.blocks.len()];
        for phase in 0..model.phases.len().max(1) {
            let mut of_phase: Vec<usize> = (0..model.blocks.len())
                .filter(|&block| model.phase_of(model.blocks[block].layer) == phase)
                .collect();
            let first = of_phase.first().copied().unwrap_or(0);
            let whole: f64 = of_phase.iter().map(|&block| share(&model.blocks[block])).sum();
            of_phase.sort_by_key(|block| (block - first).reverse_bits());
            let mut sum = 0.0;
            for block in of_phase {
                sum += share(&model.blocks[block]);
                up_to[block] = sum / whole;
            }
        }
        Plan { up_to, known: vec![None; model.layers.len()] }
    }

    /// Whether there is one: every step reads all blocks.
    pub(super) fn is_made(&self) -> bool {
        !self.up_to.is_empty()
    }

    /// The largest error that copies of a block may have: of the format that saves the most bytes in as many blocks as the budget
    /// goes for, if this is one of them.
    pub(super) fn largest_error(&self, context: &Context, block: BlockId) -> f64 {
        let budget = context.guard.budget();
        let bytes = |format| context.costs.bytes(block, format).0 as f64;
        let full = bytes(context.model.block(block).native);
        let lossy = context.costs.formats.iter().filter_map(|&format| {
            let error = context.guard.error(block, format)?.upper;
            let share = f64::min(1.0, budget * budget / (error * error));
            (error > 0.0).then(|| (share * (full - bytes(format)), share, error))
        });
        let best = lossy.max_by(|a, b| a.0.total_cmp(&b.0));
        best.filter(|(_, share, _)| self.up_to[block.index()] <= share + 1e-9)
            .map_or(0.0, |(.., error)| error)
    }

    /// The first block of a layer that has copies, none of which may be read, and no move under way.
    fn first_not_readable(&mut self, context: &Context, layer: LayerId) -> Option<BlockId> {
        let now = (context.ledger.version(layer), context.guard.budget());
        if let Some((.., found)) = self.known[layer.index()].filter(|known| (known.0, known.1) == now) {
            return found;
        }
        let data = context.model.layer(layer);
        let mut blocks = (data.first_block.0..data.first_block.0 + data.blocks).map(BlockId);
        let readable = |block, largest: f64| {
            let error = |form: Form| context.guard.error(block, form.format);
            context.ledger.fast_copies(block).filter_map(error).any(|error| error.upper <= largest)
        };
        let found = blocks.find(|&block| {
            context.ledger.is_idle(block) && !readable(block, self.largest_error(context, block))
        });
        self.known[layer.index()] = Some((now.0, now.1, found));
        found
    }
}

impl Predictive {
    /// The first block of the running step's coming layers that has copies, none of which the step will read.
    pub(super) fn first_not_readable(&mut self, context: &Context) -> Option<BlockId> {
        if !self.plan.is_made() || context.guard.stated_budget() == 0.0 {
            return None;
        }
        let phase = context.model.phase_of(context.signals.layer);
        let coming = (context.signals.layer.0 + 1..context.model.layers.len() as u16).map(LayerId);
        let mut of_step = coming.take_while(|&layer| context.model.phase_of(layer) == phase);
        of_step.find_map(|layer| self.plan.first_not_readable(context, layer))
    }
}
