//! What each block weighs in each format, worked out once for a run: most blocks of a model are alike.

use crate::format::{FORMATS, FormatId};
use crate::id::BlockId;
use crate::model::Model;
use crate::units::Bytes;
use std::collections::BTreeMap;

/// See the module. As made from a model, equal to [`Block::bytes`](crate::model::Block::bytes) for every block and format.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// The shape of each block.
    shapes: Vec<u32>,
    /// Bytes of each shape in each format.
    bytes: Vec<[Bytes; FORMATS.len()]>,
    /// Elements of each shape.
    elements: Vec<u64>,
}

impl Sizes {
    /// The sizes of a model's blocks.
    pub fn new(model: &Model) -> Sizes {
        let mut known = BTreeMap::new();
        let (mut bytes, mut elements) = (Vec::new(), Vec::new());
        let shape = |block: &crate::model::Block| {
            *known.entry((block.elements(), block.rows(), block.native, block.mixed)).or_insert_with(|| {
                bytes.push(std::array::from_fn(|format| block.bytes(FormatId(format as u8))));
                elements.push(block.elements());
                bytes.len() as u32 - 1
            })
        };
        let shapes = model.blocks.iter().map(shape).collect();
        Sizes { shapes, bytes, elements }
    }

    /// The shape of a block: blocks of one shape have one native format, and are of one size in every format.
    #[inline]
    pub fn shape(&self, block: BlockId) -> usize {
        self.shapes[block.index()] as usize
    }

    /// Elements of a block: see [`Block::elements`](crate::model::Block::elements).
    #[inline]
    pub fn elements(&self, block: BlockId) -> u64 {
        self.elements[self.shape(block)]
    }

    /// The first block of each shape.
    pub fn examples(&self) -> impl Iterator<Item = BlockId> + '_ {
        let first = |shape| self.shapes.iter().position(|&other| other == shape).unwrap_or(0);
        (0..self.bytes.len() as u32).map(move |shape| BlockId(first(shape) as u32))
    }

    /// The same, each rounded up as a slot allocator does.
    pub fn rounded_up(&self, granularity: Bytes) -> Sizes {
        let round_up = |shape: &[Bytes; FORMATS.len()]| shape.map(|bytes| bytes.round_up(granularity));
        Sizes { bytes: self.bytes.iter().map(round_up).collect(), ..self.clone() }
    }

    /// Bytes of a block in a format.
    #[inline]
    pub fn bytes(&self, block: BlockId, format: FormatId) -> Bytes {
        self.bytes[self.shapes[block.index()] as usize][format.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LayerId;
    use crate::model::{Block, BlockKind, Matrix};

    #[test]
    fn blocks_of_one_shape_share_a_row_and_every_size_is_exact() {
        let block = |index, columns, mixed| Block {
            kind: BlockKind::Expert,
            layer: LayerId(0),
            index,
            matrices: [Matrix { rows: 3, columns }].into(),
            native: FormatId(0),
            mixed,
            recipe: None,
        };
        let blocks =
            vec![block(0, 32, None), block(1, 33, None), block(2, 32, None), block(3, 32, Some(Bytes(100)))];
        let model = Model { blocks, ..Model::default() };
        let sizes = Sizes::new(&model);
        assert_eq!(sizes.bytes.len(), 3);
        assert_eq!(sizes.bytes(BlockId(3), FormatId(0)), Bytes(100));
        assert_eq!(sizes.bytes(BlockId(3), FormatId(1)), sizes.bytes(BlockId(0), FormatId(1)));
        for (id, block) in model.blocks.iter().enumerate() {
            for format in (0..FORMATS.len() as u8).map(FormatId) {
                assert_eq!(sizes.bytes(BlockId(id as u32), format), block.bytes(format));
            }
        }
    }
}
