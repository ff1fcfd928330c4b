//! A model from the names, shapes and types of a GGUF file's tensors.
//!
//! What moves and what stays is as for a config (see `weights.rs`): routed experts, one block each; without experts, every
//! matrix of a layer, cut into shards. An expert whose matrices are in several types, as Q4_K_M mixes them, has the
//! format of most of its elements and its exact bytes.

use super::header::{Header, Kept, Tensor};
use crate::model::{Assembly, Imported, MOST_BLOCKS, Part, Resident, Weights};
use crate::weights::{KV_BYTES, largest_shard, latent, shards};
use policy::model::{BlockKind, Latent, Matrix};
use policy::{Bytes, FormatId};
use std::collections::BTreeMap;
use thiserror::Error;

/// Layers, and heads and their lengths, a model may have.
const MOST_LAYERS: u64 = 4096;
const WIDEST: u64 = 1 << 20;

/// Architectures that llama.cpp gives a window to in all but every n-th layer (`set_swa_pattern` in llama-model.cpp), where
/// the file has no `attention.sliding_window_pattern`. In others a window is not applied: their layers cache everything.
const WINDOWS: &[(&str, u64)] = &[("gpt-oss", 2), ("gemma2", 2), ("gemma3", 6), ("cohere2", 4)];

/// Keys of kinds of models that have no blocks here yet.
const REFUSED: &[(&str, &str)] = &[
    ("ssm.state_size", "a model with recurrent layers, whose state has no block here"),
    ("wkv.head_size", "a model with recurrent layers, whose state has no block here"),
    ("decoder_block_count", "an encoder-decoder model, and a model here is one stack of layers"),
];

/// Why a header is no model.
#[derive(Debug, Error)]
pub(crate) enum ModelError {
    #[error("the metadata have no `{0}`")]
    Missing(String),
    #[error("`{key}` is {value}; it is from {least} to {most}")]
    Range { key: String, value: u64, least: u64, most: u64 },
    #[error("it is of type `{0}`, not a model")]
    Type(String),
    #[error("`{key}` means {kind}")]
    Refused { key: String, kind: &'static str },
    #[error("tensor `{0}` is of a layer that the model does not have")]
    Beyond(String),
    #[error("no tensor `{0}`")]
    NoTensor(String),
    #[error("tensor `{name}` has {found} experts, the metadata say {said}")]
    Experts { name: String, found: u64, said: u64 },
    #[error("tensor `{name}` is of type {kind}, in which no block can be")]
    Format { name: String, kind: &'static str },
    #[error("{0} blocks, more than {MOST_BLOCKS}")]
    Blocks(u64),
}

/// The tensors of one layer, by what becomes of them.
#[derive(Default)]
struct LayerTensors<'h> {
    /// The matrices of each routed expert.
    experts: Vec<Vec<Piece>>,
    /// Matrices that every token reads.
    matrices: Vec<(&'h str, &'h Tensor)>,
    /// Everything else.
    vectors: Vec<&'h Tensor>,
}

/// A matrix of a block.
#[derive(Clone, Copy)]
struct Piece {
    matrix: Matrix,
    format: FormatId,
    bytes: u64,
}

/// The metadata of an architecture.
struct Metadata<'h> {
    header: &'h Header,
    architecture: &'h str,
}

/// Builds the model that a header describes.
pub(crate) fn build(header: &Header, name: &str) -> Result<Imported, ModelError> {
    if let Some(kind) = header.text("general.type").filter(|&kind| kind != "model") {
        return Err(ModelError::Type(kind.to_owned()));
    }
    let missing = || ModelError::Missing("general.architecture".to_owned());
    let architecture = header.text("general.architecture").ok_or_else(missing)?;
    let metadata = Metadata { header, architecture };
    metadata.refuse()?;
    let all = metadata.required("block_count", 1, MOST_LAYERS)?;
    // The prediction modules behind the layers do not run in plain decoding.
    let layers = all - metadata.optional("nextn_predict_layers", 0, all - 1)?.unwrap_or(0);
    let experts = metadata.optional("expert_count", 0, MOST_BLOCKS)?.unwrap_or(0);
    if experts * layers > MOST_BLOCKS {
        return Err(ModelError::Blocks(experts * layers));
    }
    let selected = match experts {
        0 => 0,
        _ => metadata.required("expert_used_count", 1, experts)?,
    };
    let (tensors, outside) = sort(header, all, experts)?;
    let mut assembly = outside_layers(header, &outside, name)?;
    for (layer, tensors) in tensors.into_iter().take(layers as usize).enumerate() {
        assembly.layer(metadata.layer(layer, tensors, experts, selected)?);
    }
    Ok(assembly.finish())
}

/// What lies outside the layers. The head is the embedding where it has no tensor of its own.
fn outside_layers(header: &Header, outside: &[&Tensor], name: &str) -> Result<Assembly, ModelError> {
    let head = header.tensors.get("output.weight").or_else(|| header.tensors.get("token_embd.weight"));
    let head = head.ok_or_else(|| ModelError::NoTensor("token_embd.weight".to_owned()))?;
    let resident = Resident {
        bytes: Bytes(outside.iter().map(|tensor| tensor.bytes).sum()),
        parameters: outside.iter().map(|tensor| tensor.elements).sum(),
        multiplied: head.elements,
    };
    Ok(Assembly::new(name, resident, Bytes(head.bytes)))
}

/// Sorts the tensors by layer and by what becomes of them; the second part is what is in no layer.
fn sort(
    header: &Header,
    layers: u64,
    experts: u64,
) -> Result<(Vec<LayerTensors<'_>>, Vec<&Tensor>), ModelError> {
    let mut sorted: Vec<LayerTensors<'_>> = (0..layers).map(|_| LayerTensors::default()).collect();
    let mut outside = Vec::new();
    for (name, tensor) in &header.tensors {
        let Some((layer, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
            outside.push(tensor);
            continue;
        };
        let place = layer.parse().ok().and_then(|layer: usize| sorted.get_mut(layer));
        let place = place.ok_or_else(|| ModelError::Beyond(name.clone()))?;
        place.add(name, part, tensor, experts)?;
    }
    Ok((sorted, outside))
}

impl<'h> LayerTensors<'h> {
    fn add(
        &mut self,
        name: &'h str,
        part: &'h str,
        tensor: &'h Tensor,
        experts: u64,
    ) -> Result<(), ModelError> {
        let found = match (experts, part.strip_suffix(".weight"), tensor.sides.get(2)) {
            (0, ..) | (_, None, _) => None,
            // All experts in one tensor, or, in old files, one by one: `ffn_gate.7.weight`.
            (_, Some(part), Some(&count)) if part.ends_with("_exps") => Some((0, count)),
            (_, Some(part), None) if part.starts_with("ffn_") => part
                .rsplit_once('.')
                .and_then(|(_, number)| number.parse().ok())
                .map(|number: u64| (number, 1)),
            _ => None,
        };
        let Some((first, count)) = found else {
            match tensor.sides.len() >= 2 && part.ends_with(".weight") {
                true => self.matrices.push((part, tensor)),
                false => self.vectors.push(tensor),
            }
            return Ok(());
        };
        let found = first.saturating_add(count);
        if found > experts || (count > 1 && count != experts) {
            return Err(ModelError::Experts { name: name.to_owned(), found, said: experts });
        }
        let piece = Piece::of(name, tensor, count)?;
        self.experts.resize(experts as usize, vec![]);
        let range = first as usize..(first + count) as usize;
        self.experts.get_mut(range).into_iter().flatten().for_each(|pieces| pieces.push(piece));
        Ok(())
    }

    fn resident(&self, matrices: bool) -> Resident {
        let kept = self.matrices.iter().map(|(_, tensor)| *tensor).filter(|_| matrices);
        let multiplied = kept.clone().map(|tensor| tensor.elements).sum();
        let all = || kept.clone().chain(self.vectors.iter().copied());
        Resident {
            bytes: Bytes(all().map(|tensor| tensor.bytes).sum()),
            parameters: all().map(|tensor| tensor.elements).sum(),
            multiplied,
        }
    }

    /// The matrices of a layer without routed experts, cut into blocks.
    fn shards(&self) -> Result<Vec<(BlockKind, Weights)>, ModelError> {
        let most = largest_shard(self.matrices.iter().map(|(_, tensor)| tensor.matrix(1)));
        let mut blocks = Vec::new();
        for (name, tensor) in &self.matrices {
            let kind = if name.starts_with("attn") { BlockKind::Attention } else { BlockKind::Dense };
            let Piece { matrix, format, .. } = Piece::of(name, tensor, 1)?;
            blocks.extend(shards(matrix, most).map(|shard| {
                let matrices = [shard].into();
                (kind, Weights { matrices, native: format, mixed: None })
            }));
        }
        Ok(blocks)
    }
}

impl Tensor {
    /// One of the `count` matrices it stacks; further dimensions are more rows.
    fn matrix(&self, count: u64) -> Matrix {
        let columns = self.sides.first().copied().unwrap_or(1);
        Matrix { rows: self.elements / columns / count, columns }
    }
}

impl Piece {
    fn of(name: &str, tensor: &Tensor, count: u64) -> Result<Piece, ModelError> {
        let kind = tensor.kind.name;
        let format =
            tensor.kind.format().ok_or_else(|| ModelError::Format { name: name.to_owned(), kind })?;
        Ok(Piece { matrix: tensor.matrix(count), format, bytes: tensor.bytes / count })
    }
}

/// One block of several matrices.
fn block(pieces: &[Piece]) -> Option<Weights> {
    let mut by_format: BTreeMap<FormatId, u64> = BTreeMap::new();
    for piece in pieces {
        *by_format.entry(piece.format).or_default() += piece.matrix.elements();
    }
    let (&native, _) = by_format.iter().max_by_key(|(_, elements)| **elements)?;
    Some(Weights {
        matrices: pieces.iter().map(|piece| piece.matrix).collect(),
        native,
        mixed: (by_format.len() > 1).then(|| Bytes(pieces.iter().map(|piece| piece.bytes).sum())),
    })
}

impl Metadata<'_> {
    fn refuse(&self) -> Result<(), ModelError> {
        for &(suffix, kind) in REFUSED {
            let key = self.key(suffix);
            if self.header.keys.contains_key(&key) {
                return Err(ModelError::Refused { key, kind });
            }
        }
        Ok(())
    }

    fn layer(
        &self,
        layer: usize,
        tensors: LayerTensors<'_>,
        experts: u64,
        selected: u64,
    ) -> Result<Part, ModelError> {
        let routed = !tensors.experts.is_empty();
        let blocks = match (experts, routed) {
            (0, _) => tensors.shards()?,
            (_, true) => {
                let missing = || ModelError::NoTensor(format!("blk.{layer}.ffn_up_exps.weight"));
                let blocks = tensors.experts.iter().map(|pieces| block(pieces).ok_or_else(missing));
                blocks
                    .map(|block| block.map(|weights| (BlockKind::Expert, weights)))
                    .collect::<Result<_, _>>()?
            }
            (_, false) => vec![],
        };
        let selected = match routed {
            true => selected as u32,
            false => blocks.len() as u32,
        };
        Ok(Part {
            resident: tensors.resident(experts > 0),
            flops_per_pair: self.flops_per_pair(layer)?,
            latent: self.latent(layer)?,
            state: None,
            scan: 0,
            kv_heads: self.kv_heads(layer)? as u32,
            kv_per_token: self.kv_per_token(layer)?,
            activations: Bytes(self.required("embedding_length", 1, WIDEST)? * KV_BYTES),
            window: self.window(layer)?,
            blocks,
            selected,
            rows: vec![],
            bidirectional: false,
        })
    }

    fn heads(&self, layer: usize) -> Result<u64, ModelError> {
        let heads = self.of_layer("attention.head_count", layer)?;
        heads.ok_or_else(|| ModelError::Missing(self.key("attention.head_count")))
    }

    /// Key-value heads; of a latent vector there is one.
    fn kv_heads(&self, layer: usize) -> Result<u64, ModelError> {
        if self.optional("attention.kv_lora_rank", 1, WIDEST)?.is_some() {
            return Ok(1);
        }
        let heads = self.heads(layer)?;
        Ok(self.of_layer("attention.head_count_kv", layer)?.unwrap_or(heads))
    }

    /// Queries times keys, and their weights times values.
    fn flops_per_pair(&self, layer: usize) -> Result<u64, ModelError> {
        let (key, value) = self.looking(layer)?;
        Ok(2 * self.heads(layer)? * (key + value))
    }

    fn latent(&self, layer: usize) -> Result<Option<Latent>, ModelError> {
        let Some(rank) = self.optional("attention.kv_lora_rank", 1, WIDEST)? else { return Ok(None) };
        let rope = self.required("rope.dimension_count", 0, WIDEST)?;
        let (key, value) = self.looking(layer)?;
        Ok(Some(latent(self.heads(layer)?, rank, rope, key.saturating_sub(rope) + value)))
    }

    /// The lengths of a head's key and value, as attention multiplies them. Latent attention has lengths of its own for that.
    fn looking(&self, layer: usize) -> Result<(u64, u64), ModelError> {
        let heads = self.heads(layer)?;
        let length = |latent, plain| match self.optional(latent, 1, WIDEST)? {
            Some(length) => Ok(length),
            None => match self.optional(plain, 1, WIDEST)? {
                Some(length) => Ok(length),
                None => Ok(self.required("embedding_length", 1, WIDEST)? / heads.max(1)),
            },
        };
        let key = length("attention.key_length_mla", "attention.key_length")?;
        Ok((key, length("attention.value_length_mla", "attention.value_length")?))
    }

    fn kv_per_token(&self, layer: usize) -> Result<Bytes, ModelError> {
        if let Some(rank) = self.optional("attention.kv_lora_rank", 1, WIDEST)? {
            let rope = self.required("rope.dimension_count", 0, WIDEST)?;
            return Ok(Bytes((rank + rope) * KV_BYTES));
        }
        let heads = self.heads(layer)?;
        let kv_heads = self.kv_heads(layer)?;
        let length = |suffix| match self.optional(suffix, 1, WIDEST)? {
            Some(length) => Ok(length),
            None => Ok(self.required("embedding_length", 1, WIDEST)? / heads.max(1)),
        };
        let lengths = length("attention.key_length")? + length("attention.value_length")?;
        Ok(Bytes(kv_heads * lengths * KV_BYTES))
    }

    fn window(&self, layer: usize) -> Result<Option<u32>, ModelError> {
        let window = self.optional("attention.sliding_window", 0, u64::from(u32::MAX))?.unwrap_or(0) as u32;
        let known = WINDOWS.iter().find(|(name, _)| *name == self.architecture).map(|&(_, period)| period);
        let period = |period: u64| period > 0 && !(layer as u64 + 1).is_multiple_of(period);
        let slides = match self.header.keys.get(&self.key("attention.sliding_window_pattern")) {
            Some(Kept::List(layers)) => layers.get(layer).is_some_and(|&slides| slides != 0),
            Some(&Kept::Whole(every)) => period(every),
            _ => known.is_some_and(period),
        };
        Ok((slides && window > 0).then_some(window))
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.architecture)
    }

    fn of_layer(&self, suffix: &str, layer: usize) -> Result<Option<u64>, ModelError> {
        let key = self.key(suffix);
        let value = self.header.of_layer(&key, layer);
        value.map(|value| in_range(key, value, 0, WIDEST)).transpose()
    }

    fn optional(&self, suffix: &str, least: u64, most: u64) -> Result<Option<u64>, ModelError> {
        let key = self.key(suffix);
        let value = self.header.whole(&key);
        value.map(|value| in_range(key, value, least, most)).transpose()
    }

    fn required(&self, suffix: &str, least: u64, most: u64) -> Result<u64, ModelError> {
        self.optional(suffix, least, most)?.ok_or_else(|| ModelError::Missing(self.key(suffix)))
    }
}

fn in_range(key: String, value: u64, least: u64, most: u64) -> Result<u64, ModelError> {
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => Err(ModelError::Range { key, value, least, most }),
    }
}
