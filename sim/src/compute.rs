//! What a part of a layer asks of the accelerator: a roofline over bytes read and operations done, plus the launch.

use policy::event::{Part, Read, Slice};
use policy::sizes::Sizes;
use policy::{Bytes, FormatId, LayerId, Machine, Model, Nanos};

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
        let flops = machine.accelerator.flops;
        let multiply = |bytes, tokens, operations| {
            let measured = machine.kernel_time(false, FormatId::BF16, bytes, tokens);
            measured.unwrap_or_else(|| flops.time_for(operations))
        };
        match part {
            Part::Mixer => {
                let layer = model.layer(layer);
                let seen = slices.iter().map(|slice| slice.seen(layer.window)).sum::<u64>();
                let cache = Bytes(seen.saturating_mul(layer.kv_per_token.0));
                let pairs =
                    slices.iter().map(|slice| looked_at(slice, layer.window)).fold(0, u64::saturating_add);
                let tokens: u64 = slices.iter().map(|slice| u64::from(slice.tokens)).sum();
                let attention = layer.flops_per_pair.saturating_mul(pairs);
                let weights = layer.flops_per_token.saturating_mul(tokens);
                let operations = match machine.kernel_time(false, FormatId::BF16, cache, 1) {
                    Some(looking) => multiply(layer.resident, tokens as u32, weights) + looking,
                    None => flops.time_for(weights.saturating_add(attention)),
                };
                Kernel { bytes: layer.resident + cache, operations }
            }
            Part::Experts | Part::Host => Kernel::of_blocks(machine, model, sizes, part, reads),
            Part::Head => {
                let operations = model.head_flops_per_token.saturating_mul(emitting);
                let operations = multiply(model.head_read, emitting as u32, operations);
                Kernel { bytes: model.head_read, operations }
            }
        }
    }

    /// Routed blocks, each for its tokens, on the accelerator or on the host.
    pub fn of_blocks(machine: &Machine, model: &Model, sizes: &Sizes, part: Part, reads: &[Read]) -> Kernel {
        let on_host = part == Part::Host;
        let flops = if on_host { machine.host_compute.map(|host| host.flops) } else { None };
        let flops = flops.unwrap_or(machine.accelerator.flops);
        let mut kernel = Kernel { bytes: Bytes::ZERO, operations: Nanos::ZERO };
        let mut operations = 0u64;
        for read in reads {
            let bytes = sizes.bytes(read.block, read.form.format);
            kernel.bytes += bytes;
            match machine.kernel_time(on_host, read.form.format, bytes, read.tokens) {
                Some(measured) => kernel.operations += measured,
                None => {
                    let elements = model.block(read.block).elements();
                    operations =
                        operations.saturating_add(elements.saturating_mul(2 * u64::from(read.tokens)));
                }
            }
        }
        kernel.operations += flops.time_for(operations);
        kernel
    }
}

/// Pairs of a token and one it looks at: all before it and itself, or as many as its window has.
fn looked_at(slice: &Slice, window: Option<u32>) -> u64 {
    let (cached, tokens) = (u64::from(slice.cached), u64::from(slice.tokens));
    let reach = window.map_or(u64::MAX, u64::from);
    // Tokens whose window is not full yet see one more each.
    let growing = reach.saturating_sub(cached).min(tokens);
    let grown = growing.saturating_mul(2 * cached + growing + 1) / 2;
    grown.saturating_add((tokens - growing).saturating_mul(reach))
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::RequestId;

    #[test]
    fn a_token_looks_at_all_before_it_within_its_window() {
        for window in [None, Some(1), Some(5), Some(8), Some(100)] {
            for (cached, tokens) in [(0, 1), (0, 7), (3, 1), (3, 7), (20, 4)] {
                let slice = Slice { request: RequestId(0), cached, tokens };
                let one = |position: u32| u64::from((position + 1).min(window.unwrap_or(u32::MAX)));
                let all: u64 = (cached..cached + tokens).map(one).sum();
                assert_eq!(looked_at(&slice, window), all, "{window:?}, {slice:?}");
            }
        }
    }
}
