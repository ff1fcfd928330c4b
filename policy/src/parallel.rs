//! Several accelerators that serve the same requests.
//!
//! Tensor parallelism: they compute each layer together, every one with its share of each matrix, and add up what they have.
//! They do the same at the same time, so one of them stands for all: its shares of the model, its own memory and link, and
//! its share of what they have in common.
//!
//! Expert parallelism: each has experts of its own, whole, and attends to requests of its own; tokens go to where their
//! experts are and come back. What each has to fetch and to compute depends on what routers choose, so none stands for
//! another: each is an [`ExpertShare`].
//!
//! Pipeline parallelism, each with layers of its own, is in [`crate::pipeline`].

use crate::id::{BlockId, LayerId, RequestId, TierId};
use crate::machine::{Class, Codec, Link, Machine, NearProcessor, Peers, Processor};
use crate::model::{Block, BlockKind, Layer, Matrix, Model};
use crate::units::{Bandwidth, Bytes, FlopRate};
use std::ops::Range;
use thiserror::Error;

/// Why accelerators cannot share a layer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParallelError {
    /// A machine whose file does not say how its accelerators reach each other.
    #[error("{0} does not say how fast its accelerators send to each other")]
    NoPeers(String),
    /// A memory of another accelerator, which computes as well.
    #[error("`{0}` is the memory of another accelerator, and all of them compute")]
    PeerMemory(String),
    /// A width that does not divide.
    #[error("{ranks} accelerators cannot have equal shares of {width} columns")]
    Width {
        /// The width of an expert.
        width: u64,
        /// Accelerators.
        ranks: u32,
    },
    /// Experts that do not divide.
    #[error("{ranks} accelerators cannot have equal shares of {experts} experts")]
    Experts {
        /// Experts of a layer.
        experts: u32,
        /// Accelerators.
        ranks: u32,
    },
    /// Experts of one layer that are not alike.
    #[error("the experts of layer {} are of several sizes", .0.0)]
    Unlike(LayerId),
    /// More stages than layers.
    #[error("{stages} accelerators cannot have a layer each of {layers}")]
    Stages {
        /// Stages.
        stages: u32,
        /// Layers of the model.
        layers: usize,
    },
    /// A model without experts.
    #[error("{0} has no experts")]
    NoExperts(String),
    /// Heads that do not divide.
    #[error(
        "{ranks} accelerators cannot have equal shares of {heads} key-value heads, nor one each of copies of them"
    )]
    Heads {
        /// Key-value heads.
        heads: u32,
        /// Accelerators.
        ranks: u32,
    },
}

/// What one accelerator has of a machine with `stages` times `groups` times `tensor` of them: its own memory and the links to it,
/// and an equal share of the other memories and links, and of the host; of the other memories all room, where what is in them is
/// `common` to all. Tables of whole operators hold for one accelerator
/// alone, so they are left out where `tensor` of them compute each layer.
///
/// # Errors
/// See [`ParallelError`].
pub fn share_of_machine(
    machine: &Machine,
    tensor: u32,
    groups: u32,
    stages: u32,
    common: bool,
) -> Result<Machine, ParallelError> {
    let ranks = tensor * groups * stages;
    let peers = machine.peers.ok_or_else(|| ParallelError::NoPeers(machine.name.clone()))?;
    if let Some(tier) = machine.tiers.iter().find(|tier| tier.device.is_some()) {
        return Err(ParallelError::PeerMemory(tier.name.clone()));
    }
    let mut share = machine.clone();
    let part = |rate: Bandwidth| Bandwidth((rate.0 / u64::from(ranks)).max(1));
    for tier in share.tiers.iter_mut().filter(|tier| tier.class != Class::Fast) {
        tier.capacity = if common { tier.capacity } else { Bytes(tier.capacity.0 / u64::from(ranks)) };
        (tier.read, tier.write) = (part(tier.read), part(tier.write));
    }
    let own = |tier: TierId| machine.tier(tier).class == Class::Fast;
    for link in share.links.iter_mut().filter(|link: &&mut Link| !own(link.from) && !own(link.to)) {
        link.rate = link.rate.shared(ranks);
        link.duplex = part(link.duplex);
        link.engines = (link.engines / ranks).max(1);
    }
    for NearProcessor { processor: Processor { flops, read, .. }, kernels, .. } in &mut share.near {
        *flops = FlopRate((flops.0 / u64::from(ranks)).max(1));
        *read = part(*read);
        kernels.iter_mut().for_each(|kernel| *kernel = kernel.shared(ranks));
    }
    for Codec { encode, decode, .. } in &mut share.host_codecs {
        (*encode, *decode) = (part(*encode), part(*decode));
    }
    if tensor > 1 {
        share.times.clear();
    }
    share.peers = Some(Peers { ranks: tensor, groups, ..peers });
    Ok(share)
}

/// What one of `ranks` accelerators has of a model: experts are cut by their width, attention by heads, everything else by
/// rows. Norms and routers, which all have whole, are counted as if they were cut too. Caches are cut by their heads:
/// of one head, or one latent vector, each has a copy.
///
/// # Errors
/// See [`ParallelError`].
pub fn share_of_model(model: &Model, ranks: u32) -> Result<Model, ParallelError> {
    let part = |bytes: Bytes| Bytes(bytes.0.div_ceil(ranks.into()));
    let whole = |number: u64| number.div_ceil(ranks.into());
    let mut share = model.clone();
    for layer in &mut share.layers {
        let heads = layer.kv_heads.max(1);
        if !heads.is_multiple_of(ranks) && !ranks.is_multiple_of(heads) {
            return Err(ParallelError::Heads { heads, ranks });
        }
        *layer = Layer {
            resident: part(layer.resident),
            flops_per_token: whole(layer.flops_per_token),
            flops_per_pair: whole(layer.flops_per_pair),
            latent: layer.latent.map(|latent| latent.shared(ranks)),
            kv_per_token: Bytes(layer.kv_per_token.0.div_ceil(ranks.min(heads).into())),
            kv_heads: (heads / ranks).max(1),
            state: part(layer.state),
            recurrent: layer.recurrent.map(|state| state.shared(ranks)),
            ..layer.clone()
        };
    }
    for block in &mut share.blocks {
        block.matrices = shares_of(block, ranks)?.into();
        block.mixed = block.mixed.map(part);
    }
    share.resident = part(model.resident);
    share.head_read = part(model.head_read);
    share.head_flops_per_token = whole(model.head_flops_per_token);
    Ok(share)
}

/// What the first of `ranks` accelerators has of a model whose experts are shared out: the first experts of every layer, and
/// everything else whole.
///
/// # Errors
/// See [`ParallelError`].
pub fn share_of_experts(model: &Model, ranks: u32) -> Result<Model, ParallelError> {
    if model.routed_layers().next().is_none() {
        return Err(ParallelError::NoExperts(model.name.clone()));
    }
    let mut share = Model { blocks: Vec::new(), ..model.clone() };
    for (layer, whole) in share.layers.iter_mut().zip(&model.layers) {
        let first = whole.first_block.index();
        let blocks = model.blocks.get(first..first + whole.blocks as usize).unwrap_or_default();
        if model.is_routed(whole) {
            let (experts, alike) = (whole.blocks, |block: &Block| block.bytes(block.native));
            if !experts.is_multiple_of(ranks) {
                return Err(ParallelError::Experts { experts, ranks });
            }
            if blocks.windows(2).any(|pair| alike(&pair[0]) != alike(&pair[1])) {
                return Err(ParallelError::Unlike(blocks[0].layer));
            }
            layer.blocks = experts / ranks;
        }
        layer.first_block = BlockId(share.blocks.len() as u32);
        share.blocks.extend(blocks.iter().take(layer.blocks as usize).cloned());
    }
    Ok(share)
}

/// Which of so many accelerators that have experts of their own: of each layer the `rank`th part of its experts, in their
/// order, and of the requests every `of`th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertShare {
    /// Which one, from 0.
    pub rank: u32,
    /// How many there are.
    pub of: u32,
    /// Experts of a layer that further accelerators may have too; where there are any, the model is of all experts.
    pub replicas: u32,
    /// Whether accelerators may be lost, and others take their experts over; the model is of all experts then too.
    pub losable: bool,
}

impl Default for ExpertShare {
    /// The only one.
    fn default() -> ExpertShare {
        ExpertShare { rank: 0, of: 1, replicas: 0, losable: false }
    }
}

impl ExpertShare {
    /// Whether others have experts too.
    pub fn is_part(self) -> bool {
        self.of > 1
    }

    /// Whether any expert may be at any accelerator: each has a model of all, whose home copies they have in common.
    pub fn is_common(self) -> bool {
        self.is_part() && (self.replicas > 0 || self.losable)
    }

    /// Into how many parts the experts of a layer are cut in its model.
    pub fn cut(self) -> u32 {
        if self.is_common() { 1 } else { self.of }
    }

    /// The numbers within the layer of its experts, where each has so many.
    pub fn experts(self, each: u32) -> Range<u32> {
        self.rank * each..(self.rank + 1) * each
    }

    /// The same of another one.
    pub fn with_rank(self, rank: u32) -> ExpertShare {
        ExpertShare { rank, ..self }
    }

    /// The accelerator that attends to a request, unless it is lost.
    pub fn attends_to(self, request: RequestId) -> u32 {
        request.0 % self.of
    }

    /// The first one's part of a model, as this one has it: other experts of the same sizes, unless all have all.
    pub fn of_model(self, first: &Model) -> Model {
        let mut own = first.clone();
        if self.cut() == 1 {
            return own;
        }
        for layer in first.layers.iter().filter(|layer| first.is_routed(layer)) {
            let blocks = layer.first_block.index()..layer.first_block.index() + layer.blocks as usize;
            own.blocks[blocks].iter_mut().for_each(|block| block.index += self.rank * layer.blocks);
        }
        own
    }
}

/// Experts of gate, up and down are cut by their width: the first two by rows, the last by columns.
fn shares_of(block: &Block, ranks: u32) -> Result<Vec<Matrix>, ParallelError> {
    let rows = |matrix: Matrix| Matrix { rows: matrix.rows.div_ceil(ranks.into()), ..matrix };
    match (block.kind, &block.matrices[..]) {
        (BlockKind::Expert, &[gate, up, down]) => match gate.rows % u64::from(ranks) {
            0 => Ok(vec![rows(gate), rows(up), Matrix { columns: down.columns / u64::from(ranks), ..down }]),
            _ => Err(ParallelError::Width { width: gate.rows, ranks }),
        },
        (_, matrices) => Ok(matrices.iter().copied().map(rows).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::FormatId;

    fn model(width: u64, kv_heads: u32) -> Model {
        let wide = Matrix { rows: width, columns: 64 };
        let block = |index| Block {
            kind: BlockKind::Expert,
            layer: LayerId(0),
            index,
            matrices: [wide, wide, Matrix { rows: 64, columns: width }].into(),
            native: FormatId::BF16,
            mixed: None,
            recipe: None,
        };
        let layer = Layer {
            resident: Bytes(8000),
            flops_per_token: 4000,
            flops_per_pair: 512,
            kv_per_token: Bytes(1024),
            kv_heads,
            first_block: BlockId(0),
            blocks: 4,
            selected: 2,
            ..Layer::default()
        };
        Model { layers: vec![layer], blocks: (0..4).map(block).collect(), ..Model::default() }
    }

    #[test]
    fn shares_add_up_to_the_model() {
        for ranks in [1, 2, 4, 8] {
            let (whole, share) = (model(96 * 8, 8), share_of_model(&model(96 * 8, 8), ranks).unwrap());
            let times = |bytes: Bytes| Bytes(bytes.0 * u64::from(ranks));
            assert_eq!(times(share.blocks[3].bytes(FormatId::BF16)), whole.blocks[3].bytes(FormatId::BF16));
            assert_eq!(times(share.layers[0].resident), whole.layers[0].resident);
            assert_eq!(times(share.layers[0].kv_per_token), whole.layers[0].kv_per_token);
            assert_eq!(share.layers[0].flops_per_pair * u64::from(ranks), 512);
        }
    }

    #[test]
    fn experts_are_shared_out_whole_and_each_once() {
        let whole = model(96, 8);
        let first = share_of_experts(&whole, 2).unwrap();
        let two = ExpertShare { of: 2, ..ExpertShare::default() };
        let shares: Vec<Model> = (0..2).map(|rank| ExpertShare { rank, ..two }.of_model(&first)).collect();
        let experts = shares.iter().flat_map(|share| share.blocks.iter().cloned()).collect::<Vec<_>>();
        assert_eq!(experts, whole.blocks);
        assert_eq!((first.layers[0].blocks, first.layers[0].resident), (2, Bytes(8000)));
        assert_eq!(ExpertShare { rank: 1, ..two }.experts(2), 2..4);
        assert_eq!(share_of_experts(&whole, 3), Err(ParallelError::Experts { experts: 4, ranks: 3 }));
        let dense = Model { blocks: vec![], layers: vec![], ..whole };
        assert!(matches!(share_of_experts(&dense, 2), Err(ParallelError::NoExperts(_))));
    }

    #[test]
    fn heads_beyond_the_accelerators_are_copied_and_what_does_not_divide_is_refused() {
        let two = share_of_model(&model(96, 2), 8).unwrap();
        assert_eq!((two.layers[0].kv_per_token, two.layers[0].kv_heads), (Bytes(512), 1));
        assert_eq!(share_of_model(&model(96, 3), 2), Err(ParallelError::Heads { heads: 3, ranks: 2 }));
        assert_eq!(share_of_model(&model(98, 4), 4), Err(ParallelError::Width { width: 98, ranks: 4 }));
    }
}
