//! A model's shape becomes a [`policy::Model`]: its layers, the blocks that move, and what stays resident.
//!
//! Routed experts are blocks; a dense feed-forward layer is one block. Attention, norms, routers, shared experts and
//! expert biases stay resident, and so do the embeddings and the output head.

use crate::diagnostics::{Report, Wrong};
use crate::reader::Field;
use crate::shape::{Attention, Bias, QkNorm, Shape, shape};
use policy::model::{Block, BlockKind, Layer};
use policy::{BlockId, Bytes, FormatId, LayerId, Model};
use serde::Serialize;

/// Blocks a model may have.
const MOST_BLOCKS: u64 = 1 << 20;
/// Key-value caches are kept in 16 bits.
const KV_BYTES: u64 = 2;

/// What `models` tells of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelFacts {
    /// Its name in the catalogue, or its file's.
    pub name: String,
    /// Layers.
    pub layers: u32,
    /// Blocks in the layer that has most: the routed experts, or 1 in a dense model.
    pub blocks_per_layer: u32,
    /// Blocks a token selects in that layer.
    pub selected: u32,
    /// The format its blocks are published in.
    pub native: &'static str,
    /// Bytes of the largest block in that format.
    pub block_bytes: Bytes,
    /// Bytes of all blocks in that format: what moves.
    pub managed_bytes: Bytes,
    /// Bytes of everything that never moves.
    pub resident_bytes: Bytes,
    /// Key-value cache bytes a token leaves in all layers.
    pub kv_bytes_per_token: Bytes,
    /// Parameters, all of them.
    pub parameters: u64,
    /// Parameters one token uses; the embedding counts as a whole.
    pub active_parameters: u64,
}

/// A model with its facts.
pub(crate) struct Imported {
    pub(crate) model: Model,
    pub(crate) facts: ModelFacts,
}

/// Weights: matrices are multiplied with, vectors (norms, biases) are not.
#[derive(Clone, Copy, Default)]
struct Weights {
    matrices: u64,
    vectors: u64,
}

/// Reads a `config.json`, or reports what is missing.
pub(crate) fn import(report: &mut Report, field: &Field<'_>, name: &str) -> Option<Imported> {
    let shape = shape(report, field)?;
    let blocks = shape.layers * shape.experts.as_ref().map_or(1, |experts| experts.count);
    if blocks > MOST_BLOCKS {
        field.error(report, Wrong::new(format!("{blocks} blocks"), format!("at most {MOST_BLOCKS}")));
        return None;
    }
    Some(build(&shape, name))
}

fn build(shape: &Shape, name: &str) -> Imported {
    let embedding = shape.vocabulary * shape.hidden;
    let head_bias = if shape.head_bias { shape.vocabulary } else { 0 };
    let outside = embedding * if shape.tied { 1 } else { 2 } + shape.hidden + head_bias;
    let mut model = Model {
        name: name.to_owned(),
        layers: Vec::new(),
        blocks: Vec::new(),
        resident: shape.dtype.bytes(outside, 0),
        head_read: shape.dtype.bytes(embedding + head_bias, 0),
        head_flops_per_token: 2 * embedding,
    };
    let (mut parameters, mut active) = (outside, outside);
    for layer in 0..shape.layers as usize {
        let weights = shape.resident(layer);
        let (kind, block) = shape.block(layer);
        let first_block = BlockId(model.blocks.len() as u32);
        let ids = 0..block.count;
        model.blocks.extend(ids.map(|index| Block {
            kind,
            layer: LayerId(layer as u16),
            index: index as u32,
            elements: block.elements,
            rows: block.rows,
            native: block.native,
        }));
        model.layers.push(Layer {
            resident: shape.dtype.bytes(weights.matrices + weights.vectors, 0),
            flops_per_token: 2 * weights.matrices,
            kv_per_token: shape.kv_per_token(),
            window: shape.windows[layer],
            first_block,
            blocks: block.count as u32,
            selected: block.selected as u32,
        });
        parameters += weights.matrices + weights.vectors + block.count * block.elements;
        active += weights.matrices + weights.vectors + block.selected * block.elements;
    }
    let facts = facts(&model, shape, parameters, active);
    Imported { model, facts }
}

fn facts(model: &Model, shape: &Shape, parameters: u64, active_parameters: u64) -> ModelFacts {
    let widest = model.layers.iter().max_by_key(|layer| layer.blocks);
    ModelFacts {
        name: model.name.clone(),
        layers: model.layers.len() as u32,
        blocks_per_layer: widest.map_or(0, |layer| layer.blocks),
        selected: widest.map_or(0, |layer| layer.selected),
        native: shape.experts.as_ref().map_or(shape.dtype, |experts| experts.native).name(),
        block_bytes: model.largest_block(),
        managed_bytes: model.blocks.iter().map(|block| block.bytes(block.native)).sum(),
        resident_bytes: model.resident_bytes(),
        kv_bytes_per_token: model.layers.iter().map(|layer| layer.kv_per_token).sum(),
        parameters,
        active_parameters,
    }
}

/// The blocks of one layer.
struct LayerBlocks {
    count: u64,
    selected: u64,
    elements: u64,
    rows: u64,
    native: FormatId,
}

impl Shape {
    fn block(&self, layer: usize) -> (BlockKind, LayerBlocks) {
        // A gated feed-forward: gate and up have `width` rows, down has `hidden`.
        let blocks = |count, selected, width, native| LayerBlocks {
            count,
            selected,
            elements: 3 * self.hidden * width,
            rows: 2 * width + self.hidden,
            native,
        };
        match &self.experts {
            Some(experts) if experts.layers[layer] => {
                (BlockKind::Expert, blocks(experts.count, experts.selected, experts.width, experts.native))
            }
            _ => (BlockKind::Dense, blocks(1, 1, self.dense_width.unwrap_or(0), self.dtype)),
        }
    }

    /// What a layer reads at every step besides its blocks.
    fn resident(&self, layer: usize) -> Weights {
        let mut weights = self.attention_weights();
        weights.vectors += 2 * self.hidden;
        if let Some(experts) = self.experts.as_ref().filter(|experts| experts.layers[layer]) {
            weights.matrices += self.hidden * experts.count + 3 * self.hidden * experts.shared_width;
            if self.family.shared_gate {
                weights.matrices += self.hidden;
            }
            if self.family.gpt_oss {
                // The router's bias and the experts' own, which are not in mxfp4.
                weights.vectors += experts.count * (1 + 2 * experts.width + self.hidden);
            }
        }
        weights
    }

    fn attention_weights(&self) -> Weights {
        let (hidden, heads) = (self.hidden, self.heads);
        match self.attention {
            Attention::Grouped { kv_heads, head_dim } => {
                let (query, key) = (heads * head_dim, kv_heads * head_dim);
                let bias = match self.bias {
                    Bias::None => 0,
                    Bias::Qkv => query + 2 * key,
                    Bias::All => query + 2 * key + hidden,
                };
                let norm = match self.family.qk_norm {
                    QkNorm::None => 0,
                    QkNorm::Head => 2 * head_dim,
                    QkNorm::Whole => query + key,
                };
                let sinks = if self.family.gpt_oss { heads } else { 0 };
                Weights { matrices: 2 * hidden * (query + key), vectors: bias + norm + sinks }
            }
            Attention::Latent { query_rank, kv_rank, nope, rope, value } => {
                let query = heads * (nope + rope);
                let query_weights = query_rank.map_or(hidden * query, |rank| rank * (hidden + query));
                let kv_weights = hidden * (kv_rank + rope) + kv_rank * heads * (nope + value);
                let output = heads * value * hidden;
                Weights {
                    matrices: query_weights + kv_weights + output,
                    vectors: query_rank.unwrap_or(0) + kv_rank,
                }
            }
        }
    }

    fn kv_per_token(&self) -> Bytes {
        match self.attention {
            Attention::Grouped { kv_heads, head_dim } => Bytes(2 * kv_heads * head_dim * KV_BYTES),
            Attention::Latent { kv_rank, rope, .. } => Bytes((kv_rank + rope) * KV_BYTES),
        }
    }
}
