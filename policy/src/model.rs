//! A model as the controller sees it: layers in order, the blocks it manages, and what stays resident beside them.

use crate::format::FormatId;
use crate::id::{BlockId, LayerId};
use crate::phase::{Phase, Work};
use crate::recipe::Recipe;
use crate::state_format::StateFormat;
use crate::units::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a block is. Floors and sensitivities are set by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// A routed expert of a mixture-of-experts layer.
    Expert,
    /// An expert every token visits.
    SharedExpert,
    /// Attention or another sequence mixer.
    Attention,
    /// A dense feed-forward shard.
    Dense,
    /// A recurrent-state checkpoint.
    State,
    /// A stage of a diffusion pipeline.
    Stage,
}

/// A weight matrix, row by row: `rows` outputs of `columns` inputs each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Matrix {
    /// Outputs.
    pub rows: u64,
    /// Inputs.
    pub columns: u64,
}

impl Matrix {
    /// Numbers it holds.
    pub fn elements(self) -> u64 {
        self.rows * self.columns
    }
}

/// The managed unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What it is.
    pub kind: BlockKind,
    /// The layer that reads it.
    pub layer: LayerId,
    /// Its number within the layer.
    pub index: u32,
    /// Its matrices, one after another. An expert has three: gate, up, down.
    pub matrices: Arc<[Matrix]>,
    /// The format the model is published in: its full precision.
    pub native: FormatId,
    /// Exact bytes of a native copy whose matrices are in several formats, `native` being that of most elements.
    pub mixed: Option<Bytes>,
    /// How it can be made again, if it can: then it has no home copy.
    pub recipe: Option<Recipe>,
}

impl Block {
    /// Numbers it holds.
    pub fn elements(&self) -> u64 {
        self.matrices.iter().map(|matrix| matrix.elements()).sum()
    }

    /// Rows of its matrices: each has a scale of its own in row-scaled formats.
    pub fn rows(&self) -> u64 {
        self.matrices.iter().map(|matrix| matrix.rows).sum()
    }

    /// Exact bytes of a copy in `format`.
    pub fn bytes(&self, format: FormatId) -> Bytes {
        let mixed = self.mixed.filter(|_| format == self.native);
        mixed.unwrap_or_else(|| format.bytes(self.elements(), self.rows()))
    }

    /// The formats of its copies in the home tier: its own and those that are `encoded` ahead, or none beside a recipe.
    pub fn home_formats(&self, encoded: &[FormatId]) -> impl Iterator<Item = FormatId> {
        let others = encoded.iter().copied().filter(|&format| format != self.native);
        std::iter::once(self.native).chain(others).filter(|_| self.recipe.is_none())
    }
}

/// One layer: what it always computes, and the blocks it may demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// Weights read at every step that are never moved (attention, norms, router), in bytes.
    pub resident: Bytes,
    /// Multiply-add operations times two for one token through those weights.
    pub flops_per_token: u64,
    /// Multiply-add operations times two of attention for one token and one token that it looks at, whose key and value are
    /// there.
    pub flops_per_pair: u64,
    /// Where the cache has a latent vector in their place.
    pub latent: Option<Latent>,
    /// Key-value cache bytes one token leaves in this layer.
    pub kv_per_token: Bytes,
    /// Bytes of recurrent state that a request keeps in this layer, however long it is: read and written once a step.
    pub state: Bytes,
    /// What that state is made of.
    pub recurrent: Option<RecurrentState>,
    /// Key-value heads: into how many parts the cache can be cut. A latent vector is one.
    pub kv_heads: u32,
    /// Bytes of one token's activations between this layer and the next: the width of the residual stream.
    pub activations: Bytes,
    /// The attention window in tokens, if it is limited.
    pub window: Option<u32>,
    /// The first block of the layer.
    pub first_block: BlockId,
    /// How many blocks the layer has.
    pub blocks: u32,
    /// How many of them one token selects; equal to `blocks` in a dense layer.
    pub selected: u32,
    /// Tokens of a sequence that go through each block, where it is not all of them: a joint transformer has weights of its own
    /// for text and image, a modulation sees one vector, an embedding is looked up. Empty: all, through every block.
    pub rows: Arc<[u32]>,
    /// Whether each token of a step looks at all others of its sequence, not only at those before it; nothing is cached then.
    pub bidirectional: bool,
}

/// The state of a recurrent layer: what a request keeps of all its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecurrentState {
    /// Numbers of the state itself.
    pub numbers: u64,
    /// Its columns, one for each head and key channel: what shares a scale in formats with scaled columns.
    pub columns: u64,
    /// Inputs that the convolution has yet to see, which are kept in 16 bits in every format.
    pub convolution: u64,
    /// Tokens after which the kernels that compute prompts have the state at hand.
    pub chunk: u32,
}

impl RecurrentState {
    /// One of so many equal shares of its heads.
    pub fn shared(self, ranks: u32) -> RecurrentState {
        let part = |number: u64| number.div_ceil(ranks.into());
        RecurrentState {
            numbers: part(self.numbers),
            columns: part(self.columns),
            convolution: part(self.convolution),
            ..self
        }
    }

    /// Exact bytes in a format, scales included.
    pub fn bytes(self, format: StateFormat) -> Bytes {
        format.bytes(self.numbers, self.columns) + FormatId::BF16.bytes(self.convolution, 0)
    }
}

/// Attention over latent vectors, from which every head's key and value are made (DeepSeek-V2, arXiv 2405.04434).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latent {
    /// Operations for one token and one that it looks at, on the vectors as they are: the weights are absorbed.
    pub flops_per_pair: u64,
    /// Operations to make the keys and values of one token of the cache.
    pub flops_per_cached: u64,
}

impl Latent {
    /// One of so many equal shares of its heads.
    pub fn shared(self, ranks: u32) -> Latent {
        Latent {
            flops_per_pair: self.flops_per_pair.div_ceil(ranks.into()),
            flops_per_cached: self.flops_per_cached.div_ceil(ranks.into()),
        }
    }
}

impl Layer {
    /// Operations of attention over so many pairs of tokens, `cached` tokens of which come from the cache: over latent
    /// vectors in the way that takes fewer.
    pub fn attention_flops(&self, pairs: u64, cached: u64) -> u64 {
        let plain = self.flops_per_pair.saturating_mul(pairs);
        match self.latent {
            None => plain,
            Some(latent) => {
                let made = latent.flops_per_cached.saturating_mul(cached);
                plain.saturating_add(made).min(latent.flops_per_pair.saturating_mul(pairs))
            }
        }
    }
}

/// A model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// Its name in the catalogue.
    pub name: String,
    /// The layers, in the order they run.
    pub layers: Vec<Layer>,
    /// The phases that a request goes through, in order: together they have all layers. Empty: one, of tokens.
    pub phases: Vec<Phase>,
    /// The blocks; a [`BlockId`] is an index here.
    pub blocks: Vec<Block>,
    /// Weights outside the layers that stay resident (embeddings, output head).
    pub resident: Bytes,
    /// The part of `resident` read for every token (the output head).
    pub head_read: Bytes,
    /// Multiply-add operations times two of the output head for one token.
    pub head_flops_per_token: u64,
}

impl Model {
    /// A block of the model.
    #[inline]
    pub fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id.index()]
    }

    /// A layer of the model.
    #[inline]
    pub fn layer(&self, id: LayerId) -> &Layer {
        &self.layers[id.index()]
    }

    /// The phase of a layer, by number.
    pub fn phase_of(&self, layer: LayerId) -> usize {
        self.phases.iter().position(|phase| phase.layers.contains(&layer.0)).unwrap_or(0)
    }

    /// Whether there are requests that end with a token a step; others put out one thing, such as an image, at their last step.
    pub fn puts_out_tokens(&self) -> bool {
        self.phases.is_empty() || self.phases.iter().any(|phase| phase.work == Work::Tokens)
    }

    /// How many models it is made of, each with requests of its own.
    pub fn tenants(&self) -> usize {
        self.phases.last().map_or(1, |phase| usize::from(phase.tenant) + 1)
    }

    /// The output head behind a layer: bytes read, and operations a token.
    pub fn head(&self, layer: LayerId) -> (Bytes, u64) {
        let own = self.phases.get(self.phase_of(layer)).and_then(|phase| phase.head);
        own.unwrap_or((self.head_read, self.head_flops_per_token))
    }

    /// This model and another, which has requests of its own, on one machine. Their phases take turns.
    pub fn beside(mut self, name: &str, other: &Model) -> Model {
        let tenant = self.tenants() as u16;
        if self.phases.is_empty() {
            self.phases = vec![self.only_phase(&self.name)];
        }
        let (first, block) = (self.layers.len() as u16, self.blocks.len() as u32);
        let own = match other.phases.as_slice() {
            [] => vec![other.only_phase(name)],
            phases => phases.to_vec(),
        };
        self.phases.extend(own.into_iter().map(|phase| Phase {
            layers: phase.layers.start + first..phase.layers.end + first,
            tenant,
            head: (phase.work == Work::Tokens).then_some((other.head_read, other.head_flops_per_token)),
            ..phase
        }));
        self.layers.extend(
            other
                .layers
                .iter()
                .cloned()
                .map(|layer| Layer { first_block: BlockId(layer.first_block.0 + block), ..layer }),
        );
        self.blocks.extend(
            other
                .blocks
                .iter()
                .cloned()
                .map(|block| Block { layer: LayerId(block.layer.0 + first), ..block }),
        );
        self.resident += other.resident;
        self
    }

    /// All layers as one phase of tokens.
    fn only_phase(&self, name: &str) -> Phase {
        let layers = 0..self.layers.len() as u16;
        Phase { name: name.to_owned(), layers, work: Work::Tokens, tenant: 0, head: None, tolerance: vec![] }
    }

    /// Bytes of the recurrent states of all layers in a format: what a checkpoint takes.
    pub fn state_bytes(&self, format: StateFormat) -> Bytes {
        self.layers.iter().filter_map(|layer| layer.recurrent).map(|state| state.bytes(format)).sum()
    }

    /// Whether it has recurrent layers.
    pub fn is_recurrent(&self) -> bool {
        self.layers.iter().any(|layer| layer.recurrent.is_some())
    }

    /// The layer of every block, in the order of their ids.
    pub fn layer_of_each(&self) -> Box<[u32]> {
        self.blocks.iter().map(|block| u32::from(block.layer.0)).collect()
    }

    /// The layers that have a router, in order.
    pub fn routed_layers(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(|layer| self.is_routed(layer))
    }

    /// Whether tokens choose among a layer's blocks; else every token reads all it has.
    pub fn is_routed(&self, layer: &Layer) -> bool {
        let first = self.blocks.get(layer.first_block.index()).filter(|_| layer.blocks > 0);
        first.is_some_and(|block| block.kind == BlockKind::Expert)
    }

    /// Blocks of every layer that has a router, where there are such layers and all have equally many.
    pub fn uniform_blocks(&self) -> Option<u32> {
        let first = self.routed_layers().next()?.blocks;
        self.routed_layers().all(|layer| layer.blocks == first).then_some(first)
    }

    /// Everything that is never moved: the floor under any budget, key-value cache apart.
    pub fn resident_bytes(&self) -> Bytes {
        self.resident + self.layers.iter().map(|layer| layer.resident).sum()
    }

    /// The largest block in its native format.
    pub fn largest_block(&self) -> Bytes {
        self.blocks.iter().map(|block| block.bytes(block.native)).max().unwrap_or_default()
    }

    /// `L3/E17`: how a block is written in logs and on the command line.
    pub fn block_name(&self, id: BlockId) -> String {
        let block = self.block(id);
        format!("L{}/E{}", block.layer.0, block.index)
    }
}
