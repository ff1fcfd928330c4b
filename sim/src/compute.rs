//! What a part of a layer asks of the accelerator: a roofline over bytes read and operations done, plus the launch.

use policy::event::{Part, Read, Slice};
use policy::sizes::Sizes;
use policy::{Bytes, FlopRate, LayerId, Machine, Model, Nanos};

/// The demand of one kernel: it ends when its bytes are read and its operations done, and a launch after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Bytes it reads from fast memory.
    pub bytes: Bytes,
    /// Time its operations take at least.
    pub operations: Nanos,
}

impl Kernel {
    /// The mixer, the routed blocks or the output head of a layer for the tokens of a step.
    ///
    /// The weights of a block are read once, however many tokens go through it, and so is each request's cache. The head
    /// runs for requests that get a token, `emitting` of them.
    pub fn of(
        machine: &Machine,
        model: &Model,
        sizes: &Sizes,
        (layer, part): (LayerId, Part),
        slices: &[Slice],
        emitting: u64,
        reads: &[Read],
    ) -> Kernel {
        let (bytes, flops) = match part {
            Part::Mixer => {
                let layer = model.layer(layer);
                let seen = |slice: &Slice| {
                    let context = u64::from(slice.cached) + u64::from(slice.tokens) - 1;
                    layer.window.map_or(context, |window| {
                        context.min(u64::from(window) + u64::from(slice.tokens) - 1)
                    })
                };
                let cache = slices.iter().map(seen).sum::<u64>().saturating_mul(layer.kv_per_token.0);
                let tokens: u64 = slices.iter().map(|slice| u64::from(slice.tokens)).sum();
                (layer.resident + Bytes(cache), layer.flops_per_token.saturating_mul(tokens))
            }
            Part::Experts => {
                let bytes = reads.iter().map(|read| sizes.bytes(read.block, read.form.format)).sum();
                let one = |read: &Read| 2 * model.block(read.block).elements * u64::from(read.tokens);
                (bytes, reads.iter().map(one).sum())
            }
            Part::Head => (model.head_read, model.head_flops_per_token.saturating_mul(emitting)),
        };
        let flop_rate: FlopRate = machine.accelerator.flops;
        Kernel { bytes, operations: flop_rate.time_for(flops) }
    }
}
