//! What an engine that never moves a block should keep in fast memory, read off a run that did.
//!
//! A block is worth the share of the run in which it had a copy in fast memory: the run's own verdict, weighted by time,
//! where the last instant would be chance. Blocks are taken by that until their native copies fill the capacity, and
//! whole layers by their mean for engines that cannot split one. What either is worth is counted in the run's demands.

#[cfg(test)]
mod tests;

use crate::simulate::{Case, Outcome};
use policy::machine::Class;
use policy::model::BlockKind;
use policy::{BlockId, Bytes, Model};
use serde::Serialize;

/// `placement.json`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Placement {
    pub(super) model: String,
    /// Bytes of fast memory for blocks.
    pub(super) capacity_bytes: u64,
    pub(super) blocks_total: usize,
    pub(super) blocks_resident: usize,
    pub(super) layers_total: usize,
    pub(super) blocks_per_layer: u32,
    pub(super) hit_rate: HitRates,
    pub(super) layers: Vec<LayerPlacement>,
}

/// Shares of the run's demands that found a block in fast memory, or would have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct HitRates {
    /// The run itself, which moved blocks.
    pub(super) run: f64,
    /// With the blocks chosen here.
    pub(super) by_block: f64,
    /// With the layers chosen here.
    pub(super) by_layer: f64,
    /// With the blocks most often demanded: what no fixed set can know before the run.
    pub(super) most_demanded: f64,
}

/// One layer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LayerPlacement {
    pub(super) layer: usize,
    pub(super) kind: BlockKind,
    /// The blocks to keep, where an engine places blocks.
    pub(super) resident: Vec<u32>,
    /// Whether to keep the layer, where an engine places layers.
    pub(super) whole: bool,
    /// Of each block: the share of the run in which it had a copy in fast memory.
    pub(super) residency: Vec<f64>,
    /// Of each block: layer steps that asked for it.
    pub(super) demands: Vec<u64>,
}

/// What a run says of one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Share of the run with a copy in fast memory.
    pub(super) residency: f64,
    pub(super) demands: u64,
    /// What a native copy takes there.
    pub(super) bytes: Bytes,
}

impl Placement {
    /// The placement that a run suggests.
    pub(super) fn new(case: &Case, outcome: &Outcome) -> Placement {
        let (memory, model) = (outcome.world.memory(), &case.model);
        let fast = case.machine.tiers_of(Class::Fast).next();
        let granularity = fast.map_or(Bytes(1), |tier| case.machine.tier(tier).granularity);
        let capacity = fast.map_or(Bytes::ZERO, |tier| case.budgets[tier.index()]);
        let length = outcome.world.now().0.max(1) as f64;
        let seen = model.blocks.iter().enumerate().map(|(index, block)| Seen {
            residency: memory.fast_time(BlockId(index as u32)).0 as f64 / length,
            demands: memory.reads(BlockId(index as u32)),
            bytes: block.bytes(block.native).round_up(granularity),
        });
        let tally = outcome.orchestrator.tally();
        let run = tally.hits() as f64 / tally.demanded.max(1) as f64;
        Placement::of(model, capacity, &seen.collect::<Vec<_>>(), run)
    }

    /// The placement of blocks seen as `seen`, by id, into `capacity` bytes.
    pub(super) fn of(model: &Model, capacity: Bytes, seen: &[Seen], run: f64) -> Placement {
        let layers: Vec<&[Seen]> = model
            .layers
            .iter()
            .map(|layer| &seen[layer.first_block.index()..][..layer.blocks as usize])
            .collect();
        let blocks = fill(seen, capacity, |block| (block.residency, block.demands as f64));
        let frequent = fill(seen, capacity, |block| (block.demands as f64, block.residency));
        let sums: Vec<Seen> = layers.iter().map(|layer| together(layer)).collect();
        let whole = fill(&sums, capacity, |layer| (layer.residency, layer.demands as f64));
        let placed =
            model.layers.iter().zip(&layers).enumerate().filter(|(_, (_, blocks))| !blocks.is_empty());
        let placed = placed.map(|(index, (layer, seen))| LayerPlacement {
            layer: index,
            kind: model.block(layer.first_block).kind,
            resident: (0..layer.blocks)
                .filter(|at| blocks[layer.first_block.index() + *at as usize])
                .collect(),
            whole: whole[index],
            residency: seen.iter().map(|block| block.residency).collect(),
            demands: seen.iter().map(|block| block.demands).collect(),
        });
        Placement {
            model: model.name.clone(),
            capacity_bytes: capacity.0,
            blocks_total: seen.len(),
            blocks_resident: blocks.iter().filter(|&&resident| resident).count(),
            layers_total: model.layers.len(),
            blocks_per_layer: model.layers.iter().map(|layer| layer.blocks).max().unwrap_or(0),
            hit_rate: HitRates {
                run,
                by_block: share(seen, &blocks),
                by_layer: share(&sums, &whole),
                most_demanded: share(seen, &frequent),
            },
            layers: placed.collect(),
        }
    }

    /// The layers of a kind, `whole` or not.
    pub(super) fn layers_of(&self, kind: BlockKind, whole: bool) -> Vec<usize> {
        let those = self.layers.iter().filter(|layer| layer.kind == kind && layer.whole == whole);
        those.map(|layer| layer.layer).collect()
    }

    /// Experts to keep, and all there are.
    pub(super) fn experts(&self) -> (usize, usize) {
        let layers = self.layers.iter().filter(|layer| layer.kind == BlockKind::Expert);
        layers.fold((0, 0), |(kept, all), layer| (kept + layer.resident.len(), all + layer.demands.len()))
    }

    /// What rounding to layers costs, in two lines.
    pub(super) fn rounding(&self) -> [String; 2] {
        let HitRates { run, by_block, by_layer, .. } = self.hit_rate;
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        [
            format!(
                "Of the run's demands, fast memory served {} as blocks moved. It would serve {} with the blocks",
                percent(run),
                percent(by_block)
            ),
            format!(
                "of placement.json kept for good, and {} with whole layers: rounding changes it by {:+.2} points.",
                percent(by_layer),
                (by_layer - by_block) * 100.0
            ),
        ]
    }
}

/// `0|3|17`: layers as the alternatives of a regular expression.
pub(super) fn alternatives(layers: &[usize]) -> String {
    layers.iter().map(usize::to_string).collect::<Vec<_>>().join("|")
}

/// Which items to keep within `capacity`: the best first, ties by place; one that does not fit is passed over.
fn fill(items: &[Seen], capacity: Bytes, worth: impl Fn(&Seen) -> (f64, f64)) -> Vec<bool> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by(|&one, &other| {
        let (one, other) = (worth(&items[one]), worth(&items[other]));
        other.0.total_cmp(&one.0).then(other.1.total_cmp(&one.1))
    });
    let mut left = capacity;
    let mut kept = vec![false; items.len()];
    for index in order {
        if items[index].bytes <= left {
            left = left.saturating_sub(items[index].bytes);
            kept[index] = true;
        }
    }
    kept
}

/// A layer as one item: its mean residency over bytes.
fn together(blocks: &[Seen]) -> Seen {
    let bytes: Bytes = blocks.iter().map(|block| block.bytes).sum();
    let held: f64 = blocks.iter().map(|block| block.residency * block.bytes.0 as f64).sum();
    Seen {
        residency: held / bytes.0.max(1) as f64,
        demands: blocks.iter().map(|block| block.demands).sum(),
        bytes,
    }
}

fn share(items: &[Seen], kept: &[bool]) -> f64 {
    let all: u64 = items.iter().map(|item| item.demands).sum();
    let served: u64 = items.iter().zip(kept).filter(|(_, kept)| **kept).map(|(item, _)| item.demands).sum();
    served as f64 / all.max(1) as f64
}
