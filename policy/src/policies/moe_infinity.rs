//! MoE-Infinity: a sequence is matched with past ones by what it has asked of the experts.
//!
//! Source: Xue et al., "MoE-Infinity: Efficient MoE Inference on Personal Machines with Sparsity-Aware Expert Cache",
//! arXiv 2401.14361. What its released code does is `moe_infinity_released`.
//!
//! - A sequence counts its activations of every expert of every layer: a matrix. A library keeps the matrices of past
//!   sequences, 1000 at most. The nearest one, by one less the mean cosine of the layers' rows, is what the running
//!   sequence is expected to do.
//! - An expert's priority is its share of its layer's activations there, times `1 - d/(L+1)`, `d` layers ahead of the
//!   running one of `L`. The greatest are prefetched, the least evicted.
//!
//! Unspecified and chosen: matching is done once a token. A full library gives up the matrix that is nearest to the new
//! one. As long as it is empty, the running sequence's own counts are what is expected. Prefetch ends with the running
//! token, as the formula does; for eviction, layers that were run come again in the next token. A share has a small
//! constant added, so that of experts never asked for those of far layers leave first. A prefetch is made only where its
//! priority is above that of the block that would leave for it; four may be under way.
//!
//! Differences: the paper builds its library beforehand, here it grows with the run. In a batch the counts are those of
//! the batch; they are kept as a matrix, and begin anew, whenever a request ends.

use super::activation_maps::{ActivationMaps, greatest};
use super::look_ahead::{PREFETCHES, prefetch, room_for};
use super::per_layer::Ranking;
use super::reactive::at_full_precision;
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::Routed;
use crate::id::{BlockId, LayerId, RequestId};
use crate::model::Model;
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::score::Terms;
use crate::units::Bytes;
use std::ops::Range;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "moe_infinity",
    about: "prefetches and keeps what the past sequence most like this one asked for (arXiv 2401.14361)",
    params: PARAMS,
    simulate: Some(simulate),
    ..Entry::ONLINE
};

const PARAMS: &[Param] = &[
    Param {
        name: "library",
        about: "past sequences that are kept",
        default: 1000.0,
        min: 1.0,
        max: 2000.0,
        scale: Scale::Linear,
    },
    PREFETCHES,
];

/// What is added to every share.
const FLOOR: f64 = 1e-3;

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let &[library, prefetches] = input.params else { return Err(SimulateError::Params) };
    let (blocks, layers) = (input.model.blocks.len(), input.model.layers.len());
    Ok(Box::new(MoeInfinity {
        layers: rows(input.model),
        counts: vec![0; blocks],
        expected: vec![0.0; blocks],
        library: ActivationMaps::new(blocks, library as usize),
        nearness: Vec::with_capacity(library as usize),
        ranking: Ranking::new(layers),
        prefetches: prefetches as usize,
        largest: input.model.largest_block(),
    }))
}

/// The blocks of each layer, as indices.
fn rows(model: &Model) -> Vec<Range<usize>> {
    let first = |layer: &crate::model::Layer| layer.first_block.index();
    model.layers.iter().map(|layer| first(layer)..first(layer) + layer.blocks as usize).collect()
}

#[derive(Debug)]
struct MoeInfinity {
    layers: Vec<Range<usize>>,
    /// Activations of each block in the running sequence.
    counts: Vec<u32>,
    /// Each block's share of its layer's activations in the matrix that is expected.
    expected: Vec<f64>,
    /// Past matrices, each row of unit length.
    library: ActivationMaps,
    /// The sum of the cosines of the rows, for each matrix of the library.
    nearness: Vec<f32>,
    ranking: Ranking,
    prefetches: usize,
    /// Bytes of the largest block: where so many are free, nothing has to leave.
    largest: Bytes,
}

/// The factor that gives a row unit length; nothing for a row of nothing.
fn unit(row: &[u32]) -> Option<f32> {
    let squares: f64 = row.iter().map(|&count| f64::from(count) * f64::from(count)).sum();
    (squares > 0.0).then(|| (1.0 / squares.sqrt()) as f32)
}

impl MoeInfinity {
    /// The past matrix nearest to the running sequence's.
    fn nearest(&mut self) -> Option<usize> {
        let MoeInfinity { layers, counts, library, nearness, .. } = self;
        nearness.clear();
        nearness.resize(library.column(0).len(), 0.0);
        for row in layers.iter() {
            let Some(unit) = unit(&counts[row.clone()]) else { continue };
            for block in row.clone().filter(|&block| counts[block] > 0) {
                library.add_scaled(block, unit * counts[block] as f32, nearness);
            }
        }
        greatest(nearness)
    }

    /// What to expect from now on: the matrix in that place of the library, else the sequence's own.
    fn expect(&mut self, nearest: Option<usize>) {
        let MoeInfinity { layers, counts, expected, library, .. } = self;
        for row in layers.iter() {
            for block in row.clone() {
                expected[block] = match nearest {
                    Some(place) => f64::from(library.column(block)[place]),
                    None => f64::from(counts[block]),
                };
            }
            let whole: f64 = expected[row.clone()].iter().sum();
            if whole > 0.0 {
                expected[row.clone()].iter_mut().for_each(|value| *value /= whole);
            }
        }
        self.ranking.forget_all();
    }

    /// The idle block of least priority, and that.
    fn least(&mut self, context: &Context) -> Option<(f64, BlockId)> {
        let (running, layers) = (u32::from(context.signals.layer.0), context.signals.layers);
        let expected = &self.expected;
        let within = |block: BlockId| Some(expected[block.index()]);
        let across = |layer: LayerId, share: f64| {
            priority(share, (u32::from(layer.0) + layers - running) % layers, layers)
        };
        self.ranking.least(context, within, across)
    }

    /// Of requests that end together only the first finds anything counted.
    fn keep_sequence(&mut self) {
        if self.counts.iter().all(|&count| count == 0) {
            return;
        }
        let nearest = self.nearest().unwrap_or(0);
        let MoeInfinity { layers, counts, library, .. } = self;
        let units = layers.iter().map(|row| (row, unit(&counts[row.clone()]).unwrap_or(0.0)));
        let map = units.flat_map(|(row, unit)| counts[row.clone()].iter().map(move |&c| unit * c as f32));
        library.keep(library.place(nearest), map);
    }
}

/// The priority of an expert with this share of its layer's activations, so many layers ahead.
fn priority(share: f64, ahead: u32, layers: u32) -> f64 {
    (share + FLOOR) * (1.0 - f64::from(ahead) / f64::from(layers + 1))
}

impl Policy for MoeInfinity {
    fn observe(&mut self, _context: &Context, _layer: LayerId, routed: &[Routed]) {
        for expert in routed {
            let count = &mut self.counts[expert.block.index()];
            *count = count.saturating_add(expert.tokens);
        }
    }

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        at_full_precision(context, proposal)
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        let (_, block) = self.least(context)?;
        let form = context.ledger.fast_copies(block).next()?;
        Some(Victim { block, form, terms: None })
    }

    fn speculate(&mut self, context: &Context, proposals: &mut Vec<Proposal>) {
        let most = room_for(context, self.prefetches);
        let free = context.ledger.free(context.costs.fast) >= self.largest;
        let least = if free { 0.0 } else { self.least(context).map_or(f64::INFINITY, |(least, _)| least) };
        let (running, layers) = (context.signals.layer.index(), context.signals.layers);
        for (ahead, row) in (1..).zip(self.layers.iter().skip(running + 1)) {
            for block in row.clone().filter(|&block| self.expected[block] > 0.0) {
                let share = self.expected[block];
                let priority = priority(share, ahead, layers);
                let place = proposals.partition_point(|known| known.terms.saved >= priority);
                if place < most && priority > least {
                    let block = BlockId(block as u32);
                    let native = context.model.block(block).native;
                    let Some(mut proposal) = prefetch(context, block, native, 0.0, share) else { continue };
                    proposal.terms = Terms { saved: priority, ..proposal.terms }.sum();
                    proposals.insert(place, proposal);
                    proposals.truncate(most);
                }
            }
        }
    }

    fn step_done(&mut self, _context: &Context, _drift: f64) {
        let nearest = self.nearest();
        self.expect(nearest);
    }

    fn request_done(&mut self, _context: &Context, _request: RequestId) {
        self.keep_sequence();
        self.counts.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two layers of four experts each.
    fn policy(library: usize) -> MoeInfinity {
        MoeInfinity {
            layers: vec![0..4, 4..8],
            counts: vec![0; 8],
            expected: vec![0.0; 8],
            library: ActivationMaps::new(8, library),
            nearness: Vec::new(),
            ranking: Ranking::new(2),
            prefetches: 4,
            largest: Bytes::ZERO,
        }
    }

    fn sequence(policy: &mut MoeInfinity, counts: [u32; 8]) {
        policy.counts.copy_from_slice(&counts);
        policy.keep_sequence();
        policy.counts.fill(0);
    }

    #[test]
    fn a_sequence_expects_what_the_nearest_of_the_past_has_done() {
        let mut policy = policy(3);
        policy.counts[0] = 3;
        policy.counts[1] = 1;
        assert_eq!(policy.nearest(), None);
        policy.expect(None);
        assert_eq!(policy.expected, [0.75, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        policy.counts.fill(0);
        sequence(&mut policy, [4, 0, 0, 0, 1, 3, 0, 0]);
        sequence(&mut policy, [0, 0, 5, 0, 0, 0, 0, 5]);
        // Far more activations than either of the past: only the direction of the rows counts.
        policy.counts[2] = 100;
        let nearest = policy.nearest();
        assert_eq!(nearest, Some(1));
        policy.expect(nearest);
        assert_eq!(policy.expected, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn a_full_library_gives_up_the_nearest_matrix() {
        let mut policy = policy(2);
        sequence(&mut policy, [1, 0, 0, 0, 1, 0, 0, 0]);
        sequence(&mut policy, [0, 0, 0, 1, 0, 0, 0, 1]);
        sequence(&mut policy, [0, 0, 1, 2, 0, 0, 0, 1]);
        assert_eq!(policy.library.column(0), [1.0, 0.0]);
        assert_eq!(policy.library.column(3), [0.0, (2.0 * (1.0 / 5f64.sqrt()) as f32)]);
    }

    #[test]
    fn the_nearest_layers_and_the_largest_shares_come_first() {
        assert!(priority(0.5, 1, 24) > priority(0.5, 2, 24));
        assert!(priority(0.5, 1, 24) > priority(0.4, 1, 24));
        assert!(priority(0.0, 23, 24) > 0.0);
        assert_eq!(priority(1.0 - FLOOR, 6, 23), 0.75);
    }
}
