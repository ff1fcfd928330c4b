//! Tensor parallelism: several accelerators compute each layer together, every one with its share of each matrix, and add up
//! what they have. They do the same at the same time, so one of them stands for all: its shares of the model, its own
//! memory and link, and its share of what they have in common.

use crate::id::TierId;
use crate::machine::{Class, Codec, Link, Machine, Peers, Processor};
use crate::model::{Block, BlockKind, Layer, Matrix, Model};
use crate::units::{Bandwidth, Bytes, FlopRate};
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

/// What one of `ranks` accelerators has of a machine with so many: its own memory and the links to it, and an equal share of
/// the other memories and links, and of the host. Tables of whole operators hold for one accelerator alone, so they are left out.
///
/// # Errors
/// See [`ParallelError`].
pub fn share_of_machine(machine: &Machine, ranks: u32) -> Result<Machine, ParallelError> {
    let peers = machine.peers.ok_or_else(|| ParallelError::NoPeers(machine.name.clone()))?;
    if let Some(tier) = machine.tiers.iter().find(|tier| tier.device.is_some()) {
        return Err(ParallelError::PeerMemory(tier.name.clone()));
    }
    let mut share = machine.clone();
    let part = |rate: Bandwidth| Bandwidth((rate.0 / u64::from(ranks)).max(1));
    for tier in share.tiers.iter_mut().filter(|tier| tier.class != Class::Fast) {
        tier.capacity = Bytes(tier.capacity.0 / u64::from(ranks));
        (tier.read, tier.write) = (part(tier.read), part(tier.write));
    }
    let own = |tier: TierId| machine.tier(tier).class == Class::Fast;
    for link in share.links.iter_mut().filter(|link: &&mut Link| !own(link.from) && !own(link.to)) {
        link.rate = link.rate.shared(ranks);
        link.duplex = part(link.duplex);
        link.engines = (link.engines / ranks).max(1);
    }
    if let Some(Processor { flops, read, .. }) = &mut share.host_compute {
        *flops = FlopRate((flops.0 / u64::from(ranks)).max(1));
        *read = part(*read);
    }
    for Codec { encode, decode, .. } in &mut share.host_codecs {
        (*encode, *decode) = (part(*encode), part(*decode));
    }
    for kernel in &mut share.host_kernels {
        *kernel = kernel.shared(ranks);
    }
    share.times.clear();
    share.peers = Some(Peers { ranks, ..peers });
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
    use crate::id::{BlockId, LayerId};

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
    fn heads_beyond_the_accelerators_are_copied_and_what_does_not_divide_is_refused() {
        let two = share_of_model(&model(96, 2), 8).unwrap();
        assert_eq!((two.layers[0].kv_per_token, two.layers[0].kv_heads), (Bytes(512), 1));
        assert_eq!(share_of_model(&model(96, 3), 2), Err(ParallelError::Heads { heads: 3, ranks: 2 }));
        assert_eq!(share_of_model(&model(98, 4), 4), Err(ParallelError::Width { width: 98, ranks: 4 }));
    }
}
