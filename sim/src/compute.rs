//! How long a part of a layer takes: a roofline over weights read and operations done, plus the launch.

use policy::event::{Part, Read};
use policy::sizes::Sizes;
use policy::{Bytes, LayerId, Machine, Model, Nanos};

/// Time of the mixer, the routed blocks or the output head of a layer for one token of each request.
///
/// `contexts` are the tokens in the cache of each request. The weights of a block are read once, however many tokens
/// go through it.
pub fn time(
    machine: &Machine,
    model: &Model,
    sizes: &Sizes,
    layer: LayerId,
    part: Part,
    contexts: &[u32],
    reads: &[Read],
) -> Nanos {
    let accelerator = &machine.accelerator;
    let batch = contexts.len() as u64;
    let (bytes, flops) = match part {
        Part::Mixer => {
            let layer = model.layer(layer);
            let seen = |&context: &u32| u64::from(layer.window.map_or(context, |window| context.min(window)));
            let cache = contexts.iter().map(seen).sum::<u64>().saturating_mul(layer.kv_per_token.0);
            (layer.resident + Bytes(cache), layer.flops_per_token.saturating_mul(batch))
        }
        Part::Experts => {
            let bytes = reads.iter().map(|read| sizes.bytes(read.block, read.form.format)).sum();
            let one = |read: &Read| 2 * model.block(read.block).elements * u64::from(read.tokens);
            (bytes, reads.iter().map(one).sum())
        }
        Part::Head => (model.head_read, model.head_flops_per_token.saturating_mul(batch)),
    };
    accelerator.launch + accelerator.read.time_for(bytes).max(accelerator.flops.time_for(flops))
}
