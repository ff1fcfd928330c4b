//! The weights of a decoder, from its shape: which matrices a layer has, which of them are blocks, what stays resident.
//!
//! In a mixture of experts the routed experts are blocks; attention, norms, routers, shared experts, expert biases and
//! the layers without experts stay resident. A dense model has no such choice: all matrices of its layers are blocks, cut
//! into shards small enough to stream, and only norms and biases stay. Embeddings and the output head always do.

use crate::model::{Assembly, Part, Resident, Weights};
use crate::phases::Pipeline;
use crate::recurrent::{Parts, Recurrent};
use crate::shape::{Attention, Bias, Experts, QkNorm, Shape};
use policy::model::{BlockKind, Latent, Matrix};
use policy::phase::Work;
use policy::{Bytes, FormatId};

/// What the last phase of a model is called that others go before.
const DECODER: &str = "decoder";
/// Key-value caches, recurrent states and activations are kept in 16 bits.
pub(crate) const KV_BYTES: u64 = 2;
/// No shard of a dense layer is larger than this part of the layer, so that while one is computed the next ones arrive.
const SHARDS: u64 = 8;

/// Cuts a matrix by rows, as evenly as rows allow, into pieces of at most `most` elements, or of one row.
pub(crate) fn shards(matrix: Matrix, most: u64) -> impl Iterator<Item = Matrix> {
    let pieces = matrix.rows.div_ceil((most / matrix.columns.max(1)).max(1));
    let start = move |piece: u64| piece * matrix.rows / pieces;
    (0..pieces).map(move |piece| Matrix { rows: start(piece + 1) - start(piece), ..matrix })
}

/// The largest shard of a dense layer of these matrices, in elements.
pub(crate) fn largest_shard(matrices: impl Iterator<Item = Matrix>) -> u64 {
    (matrices.map(Matrix::elements).sum::<u64>() / SHARDS).max(1)
}

/// Weights that stay, by what is stored how.
#[derive(Default)]
struct Kept {
    /// Linear layers.
    matrices: Vec<Matrix>,
    /// Routers and gates, which are multiplied with but never quantised.
    routers: u64,
    /// Norms and biases.
    vectors: u64,
}

impl Kept {
    fn resident(&self, linear: FormatId, dtype: FormatId) -> Resident {
        let matrices: u64 = self.matrices.iter().map(|matrix| matrix.elements()).sum();
        let linear: Bytes =
            self.matrices.iter().map(|matrix| linear.bytes(matrix.elements(), matrix.rows)).sum();
        Resident {
            bytes: linear + dtype.bytes(self.routers + self.vectors, 0),
            parameters: matrices + self.routers + self.vectors,
            multiplied: matrices + self.routers,
        }
    }
}

/// Attention over latent vectors: `made` numbers of keys and values come of each for every head.
pub(crate) fn latent(heads: u64, rank: u64, rope: u64, made: u64) -> Latent {
    Latent { flops_per_pair: 2 * heads * (2 * rank + rope), flops_per_cached: 2 * heads * rank * made }
}

impl Shape {
    /// Puts the model together.
    /// The phases that go before the decoder come first.
    pub(crate) fn assemble(&self, name: &str, before: Option<&Pipeline>) -> Assembly {
        let embedding = self.vocabulary * self.hidden;
        let head_bias = if self.head_bias { self.vocabulary } else { 0 };
        let parameters = embedding * if self.tied { 1 } else { 2 } + self.norm() + head_bias;
        let bytes = self.dtype.bytes(parameters, 0);
        let outside = Resident { bytes, parameters, multiplied: embedding };
        let mut assembly = Assembly::new(name, outside, self.dtype.bytes(embedding + head_bias, 0));
        before.iter().for_each(|phases| phases.add_to(&mut assembly));
        for layer in 0..self.layers as usize {
            assembly.layer(self.layer(layer));
        }
        if before.is_some() {
            assembly.end_phase(DECODER, Work::Tokens, vec![]);
        }
        assembly
    }

    fn layer(&self, layer: usize) -> Part {
        let Parts { mixer, feed_forward } = self.parts[layer];
        let recurrent = self.recurrent.as_ref().filter(|recurrent| recurrent.layers[layer]);
        let attends = mixer && recurrent.is_none();
        let (mixing, vectors) = match recurrent {
            Some(recurrent) => (recurrent.matrices(), recurrent.vectors()),
            None if mixer => (self.attention_matrices(), self.attention_vectors()),
            None => (vec![], 0),
        };
        let norms = u64::from(mixer) + u64::from(feed_forward);
        let mut kept = Kept { vectors: vectors + norms * self.norm(), ..Kept::default() };
        let dense =
            self.dense_width.filter(|_| feed_forward).map_or(vec![], |width| self.feed_forward(width));
        let mut selected = 0;
        let blocks = match &self.experts {
            None => {
                let blocks = self.shards(&mixing, &dense);
                selected = blocks.len() as u32;
                blocks
            }
            Some(experts) if experts.layers[layer] => {
                kept.matrices = mixing;
                self.keep_beside_experts(experts, &mut kept);
                selected = experts.selected as u32;
                vec![(BlockKind::Expert, self.expert(experts)); experts.count as usize]
            }
            Some(_) => {
                kept.matrices = [mixing, dense].concat();
                vec![]
            }
        };
        let state = recurrent.map(Recurrent::kept);
        Part {
            resident: kept.resident(self.linear, self.dtype),
            flops_per_pair: if attends { self.flops_per_pair() } else { 0 },
            latent: self.latent().filter(|_| attends),
            kv_heads: self.kv_heads() as u32,
            kv_per_token: if attends { self.kv_per_token() } else { Bytes::ZERO },
            state,
            scan: recurrent.map_or(0, |recurrent| recurrent.scan()),
            activations: Bytes(self.hidden * KV_BYTES),
            window: self.windows[layer],
            blocks,
            selected,
            rows: vec![],
            bidirectional: false,
        }
    }

    fn norm(&self) -> u64 {
        self.hidden * if self.family.norm_bias { 2 } else { 1 }
    }

    /// The matrices of a layer without routed experts, cut into blocks.
    fn shards(&self, attention: &[Matrix], dense: &[Matrix]) -> Vec<(BlockKind, Weights)> {
        let most = largest_shard(attention.iter().chain(dense).copied());
        let attention = attention.iter().map(|matrix| (BlockKind::Attention, matrix));
        let dense = dense.iter().map(|matrix| (BlockKind::Dense, matrix));
        let cut = |(kind, matrix): (BlockKind, &Matrix)| {
            shards(*matrix, most).map(move |shard| (kind, self.block(&[shard], self.linear)))
        };
        attention.chain(dense).flat_map(cut).collect()
    }

    fn expert(&self, experts: &Experts) -> Weights {
        self.block(&self.feed_forward(experts.width), experts.native)
    }

    fn block(&self, matrices: &[Matrix], native: FormatId) -> Weights {
        Weights { matrices: matrices.into(), native, mixed: None }
    }

    /// Routers, shared experts and what else stands beside the routed experts.
    fn keep_beside_experts(&self, experts: &Experts, kept: &mut Kept) {
        if experts.shared_width > 0 {
            kept.matrices.extend(self.feed_forward(experts.shared_width));
        }
        kept.routers += self.hidden * experts.count;
        if self.family.shared_gate {
            kept.routers += self.hidden;
        }
        if self.family.router_bias {
            kept.vectors += experts.count;
        }
        if self.family.gpt_oss {
            // The router's bias and the experts' own, which are not in mxfp4.
            kept.vectors += experts.count * (1 + 2 * experts.width + self.hidden);
        }
    }

    /// A feed-forward: gate, up and down, or without the gate.
    fn feed_forward(&self, width: u64) -> Vec<Matrix> {
        let wide = Matrix { rows: width, columns: self.hidden };
        let down = Matrix { rows: self.hidden, columns: width };
        if self.family.ungated { vec![wide, down] } else { vec![wide, wide, down] }
    }

    fn attention_matrices(&self) -> Vec<Matrix> {
        let (hidden, heads) = (self.hidden, self.heads);
        let matrix = |rows, columns| Matrix { rows, columns };
        match self.attention {
            Attention::Grouped { kv_heads, head_dim } => {
                let (query, key) = (heads * head_dim, kv_heads * head_dim);
                let asked = if self.family.query_gate { 2 * query } else { query };
                vec![matrix(asked, hidden), matrix(key, hidden), matrix(key, hidden), matrix(hidden, query)]
            }
            Attention::Latent { query_rank, kv_rank, nope, rope, value } => {
                let query = heads * (nope + rope);
                let mut matrices = match query_rank {
                    Some(rank) => vec![matrix(rank, hidden), matrix(query, rank)],
                    None => vec![matrix(query, hidden)],
                };
                matrices.push(matrix(kv_rank + rope, hidden));
                matrices.push(matrix(heads * (nope + value), kv_rank));
                matrices.push(matrix(hidden, heads * value));
                matrices
            }
        }
    }

    /// Biases, norms and sinks of the attention.
    fn attention_vectors(&self) -> u64 {
        match self.attention {
            Attention::Grouped { kv_heads, head_dim } => {
                let (query, key) = (self.heads * head_dim, kv_heads * head_dim);
                let bias = match self.bias {
                    Bias::None => 0,
                    Bias::Qkv => query + 2 * key,
                    Bias::All => query + 2 * key + self.hidden,
                };
                let norm = match self.family.qk_norm {
                    QkNorm::None => 0,
                    QkNorm::Head => 2 * head_dim,
                    QkNorm::Whole => query + key,
                };
                bias + norm + if self.family.gpt_oss { self.heads } else { 0 }
            }
            Attention::Latent { query_rank, kv_rank, .. } => query_rank.unwrap_or(0) + kv_rank,
        }
    }

    /// Queries times keys, and their weights times values.
    fn flops_per_pair(&self) -> u64 {
        match self.attention {
            Attention::Grouped { head_dim, .. } => 4 * self.heads * head_dim,
            Attention::Latent { nope, rope, value, .. } => 2 * self.heads * (nope + rope + value),
        }
    }

    fn latent(&self) -> Option<Latent> {
        let Attention::Latent { kv_rank, nope, rope, value, .. } = self.attention else { return None };
        Some(latent(self.heads, kv_rank, rope, nope + value))
    }

    fn kv_heads(&self) -> u64 {
        match self.attention {
            Attention::Grouped { kv_heads, .. } => kv_heads,
            Attention::Latent { .. } => 1,
        }
    }

    fn kv_per_token(&self) -> Bytes {
        match self.attention {
            Attention::Grouped { kv_heads, head_dim } => Bytes(2 * kv_heads * head_dim * KV_BYTES),
            Attention::Latent { kv_rank, rope, .. } => Bytes((kv_rank + rope) * KV_BYTES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shards_are_the_matrix_and_none_is_too_large(
            rows in 1u64..40_000,
            columns in 1u64..40_000,
            most in 1u64..(1 << 31),
        ) {
            let whole = Matrix { rows, columns };
            let shards: Vec<Matrix> = shards(whole, most).collect();
            prop_assert_eq!(shards.iter().map(|shard| shard.rows).sum::<u64>(), rows);
            prop_assert!(shards.iter().all(|shard| shard.elements() <= most.max(columns)));
            let (least, largest) = (shards.iter().map(|s| s.rows).min(), shards.iter().map(|s| s.rows).max());
            prop_assert!(largest.unwrap() - least.unwrap() <= 1);
        }
    }
}
