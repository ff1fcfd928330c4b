//! Pipeline parallelism: the layers of a model are cut into stages, and each is computed by an accelerator of its own, with a
//! controller of its own. Requests run in micro-batches, so that a stage computes one while the others compute theirs.
//!
//! The first stage's controller forms the micro-batches. Each stage hands on what it has computed, in the order in which it
//! came; the last one runs the head, and hands its tokens to the first.

use crate::event::Slice;
use crate::id::{BlockId, LayerId};
use crate::model::{Block, Layer, Model};
use crate::parallel::ParallelError;
use crate::units::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// Which of so many stages, each of which has some of the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Which one, from 0.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

impl Default for Stage {
    /// The only one.
    fn default() -> Stage {
        Stage { index: 0, of: 1 }
    }
}

impl Stage {
    /// Whether there are others.
    pub fn is_part(self) -> bool {
        self.of > 1
    }

    /// Whether it is the one that forms batches.
    pub fn is_first(self) -> bool {
        self.index == 0
    }

    /// Whether it is the one that runs the head.
    pub fn is_last(self) -> bool {
        self.index + 1 == self.of
    }
}

/// What one step computes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The tokens of each request.
    pub slices: Arc<[Slice]>,
    /// How many of the requests get a token by it.
    pub emitting: u32,
}

/// The model of each of so many stages, as even in bytes as whole layers allow: the largest stage is as small as it can be, and
/// of the cuts that leave it so the one whose sizes differ least. Layers and blocks are numbered from the stage's own first.
/// The first stage has the embedding, the last one the head; where both are one matrix, each has a copy.
///
/// # Errors
/// There are fewer layers than stages.
pub fn stages_of_model(model: &Model, stages: u32) -> Result<Vec<Model>, ParallelError> {
    let layers = model.layers.len();
    if layers < stages as usize {
        return Err(ParallelError::Stages { stages, layers });
    }
    let embedding = match model.resident.saturating_sub(model.head_read) {
        Bytes::ZERO => model.head_read,
        apart => apart,
    };
    let mut sizes: Vec<u64> = model.layers.iter().map(|layer| bytes_of(model, layer).0).collect();
    sizes[0] += embedding.0;
    sizes[layers - 1] += model.head_read.0;
    let cuts = cut(&sizes, stages as usize);
    let part = |(index, layers): (usize, &Range<usize>)| {
        let (first, last) = (index == 0, index + 1 == cuts.len());
        Model {
            resident: if first { embedding } else { Bytes::ZERO }
                + if last { model.head_read } else { Bytes::ZERO },
            head_read: if last { model.head_read } else { Bytes::ZERO },
            head_flops_per_token: if last { model.head_flops_per_token } else { 0 },
            ..part_of(model, layers.clone())
        }
    };
    Ok(match stages {
        1 => vec![model.clone()],
        _ => cuts.iter().enumerate().map(part).collect(),
    })
}

/// What a layer takes: its own weights and all of its blocks.
fn bytes_of(model: &Model, layer: &Layer) -> Bytes {
    let blocks = model.blocks.iter().skip(layer.first_block.index()).take(layer.blocks as usize);
    layer.resident + blocks.map(|block| block.bytes(block.native)).sum()
}

/// Some layers of a model, with the blocks of these.
fn part_of(model: &Model, layers: Range<usize>) -> Model {
    let mut part = Model { layers: Vec::new(), blocks: Vec::new(), ..model.clone() };
    for (index, layer) in (0..).map(LayerId).zip(&model.layers[layers]) {
        let first_block = BlockId(part.blocks.len() as u32);
        let blocks = model.blocks.iter().skip(layer.first_block.index()).take(layer.blocks as usize);
        part.blocks.extend(blocks.map(|block| Block { layer: index, ..block.clone() }));
        part.layers.push(Layer { first_block, ..layer.clone() });
    }
    part
}

/// Cuts a row of sizes into so many parts that none is empty: the largest sum least, then the sum of squares.
fn cut(sizes: &[u64], parts: usize) -> Vec<Range<usize>> {
    let mut before = vec![0_u128];
    for &size in sizes {
        before.push(before[before.len() - 1] + u128::from(size));
    }
    let sum = |part: Range<usize>| before[part.end] - before[part.start];
    let largest = best(sizes.len(), parts, |part| Some(sum(part)), u128::max);
    let most = largest.iter().map(|part| sum(part.clone())).max().unwrap_or(0);
    let square = |part: Range<usize>| Some(sum(part)).filter(|sum| *sum <= most).map(|sum| sum * sum);
    best(sizes.len(), parts, square, |one, other| one + other)
}

/// The parts of a row whose costs come together to the least, the earlier cut where several do.
fn best(
    length: usize,
    parts: usize,
    cost: impl Fn(Range<usize>) -> Option<u128>,
    join: impl Fn(u128, u128) -> u128,
) -> Vec<Range<usize>> {
    // For each number of parts and of items in them, the least cost and where the last part begins.
    let mut rows: Vec<Vec<Option<(u128, usize)>>> = vec![vec![None; length + 1]];
    rows[0][0] = Some((0, 0));
    for part in 1..=parts {
        let before = &rows[part - 1];
        let of = |end: usize| {
            let each = (0..end).filter_map(|begin| {
                let (cost, (others, _)) = (cost(begin..end)?, before[begin]?);
                Some((join(others, cost), begin))
            });
            each.min()
        };
        let row = (0..=length).map(of).collect();
        rows.push(row);
    }
    let mut end = length;
    let mut found: Vec<Range<usize>> = Vec::with_capacity(parts);
    for row in rows[1..].iter().rev() {
        let begin = row[end].map_or(0, |(_, begin)| begin);
        found.push(begin..end);
        end = begin;
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::FormatId;
    use crate::model::{BlockKind, Matrix};

    fn lengths(sizes: &[u64], parts: usize) -> Vec<usize> {
        cut(sizes, parts).into_iter().map(|part| part.len()).collect()
    }

    #[test]
    fn equal_layers_are_shared_out_evenly_and_large_ends_have_fewer() {
        assert_eq!(lengths(&[3; 32], 4), [8; 4]);
        assert_eq!(lengths(&[7; 36], 8), [4, 4, 4, 4, 5, 5, 5, 5]);
        assert_eq!(lengths(&[10, 10, 10, 10, 10, 30], 3), [3, 2, 1]);
        assert_eq!(lengths(&[1, 1, 1], 3), [1; 3]);
        assert_eq!(lengths(&[5, 0, 0], 1), [3]);
    }

    #[test]
    fn no_cut_leaves_a_smaller_largest_part() {
        let sizes = [9, 2, 7, 7, 1, 4, 8, 3];
        let sum = |part: &Range<usize>| sizes[part.clone()].iter().sum::<u64>();
        let largest = cut(&sizes, 3).iter().map(sum).max();
        let cuts = (1..sizes.len())
            .flat_map(|one| (one + 1..sizes.len()).map(move |two| [0..one, one..two, two..8]));
        assert_eq!(largest, cuts.map(|parts| parts.iter().map(sum).max()).min().unwrap());
    }

    #[test]
    fn stages_together_are_the_model() {
        let block = |layer: u16, index: u32| Block {
            kind: BlockKind::Expert,
            layer: LayerId(layer),
            index,
            matrices: [Matrix { rows: 8, columns: 8 }].into(),
            native: FormatId::BF16,
            mixed: None,
            recipe: None,
        };
        let layer = |index: u32| Layer {
            resident: Bytes(100),
            first_block: BlockId(2 * index),
            blocks: 2,
            selected: 1,
            ..Layer::default()
        };
        let model = Model {
            layers: (0..6).map(layer).collect(),
            blocks: (0..6).flat_map(|layer| [block(layer, 0), block(layer, 1)]).collect(),
            resident: Bytes(70),
            head_read: Bytes(30),
            head_flops_per_token: 9,
            ..Model::default()
        };
        let stages = stages_of_model(&model, 3).unwrap();
        assert_eq!(stages.iter().map(|stage| stage.layers.len()).collect::<Vec<_>>(), [2; 3]);
        assert_eq!(stages.iter().map(|stage| stage.resident_bytes()).sum::<Bytes>(), model.resident_bytes());
        assert_eq!(stages.iter().map(|stage| stage.head_read.0).collect::<Vec<_>>(), [0, 0, 30]);
        for stage in &stages {
            assert_eq!(stage.blocks, [block(0, 0), block(0, 1), block(1, 0), block(1, 1)]);
            assert_eq!(stage.layers, [layer(0), layer(1)]);
        }
        assert_eq!(stages_of_model(&model, 1).unwrap(), [model.clone()]);
        let tied = Model { resident: Bytes(30), ..model.clone() };
        let resident =
            stages_of_model(&tied, 2).unwrap().iter().map(|stage| stage.resident.0).collect::<Vec<_>>();
        assert_eq!(resident, [30, 30]);
        assert_eq!(stages_of_model(&model, 7), Err(ParallelError::Stages { stages: 7, layers: 6 }));
    }
}
