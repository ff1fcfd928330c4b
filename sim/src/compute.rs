//! What a part of a layer asks of the accelerator: a roofline over bytes read and operations done, plus the launch.

use policy::event::{Part, Read, Slice};
use policy::machine::Processor;
use policy::sizes::Sizes;
use policy::{Bytes, FormatId, LayerId, Machine, Model, Nanos};

/// The demand of one kernel: it ends when its bytes are read and its operations done, and a launch after that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        let roofline = |bytes, operations| Kernel { bytes, operations: flops.time_for(operations) };
        let measured = |bytes, tokens| machine.kernel_time(false, FormatId::BF16, bytes, tokens);
        match part {
            Part::Mixer => {
                let layer = model.layer(layer);
                let seen = slices.iter().map(|slice| slice.seen(layer.window)).sum::<u64>();
                let cache = Bytes(seen.saturating_mul(layer.kv_per_token.0));
                let pairs =
                    slices.iter().map(|slice| looked_at(slice, layer.window)).fold(0, u64::saturating_add);
                let tokens: u64 = slices.iter().map(|slice| u64::from(slice.tokens)).sum();
                match measured(layer.resident, tokens as u32).zip(measured(cache, 1)) {
                    Some((multiplying, looking)) => {
                        Kernel::lasting(&machine.accelerator, multiplying + looking)
                    }
                    None => {
                        let attention = layer.flops_per_pair.saturating_mul(pairs);
                        let weights = layer.flops_per_token.saturating_mul(tokens);
                        roofline(layer.resident + cache, weights.saturating_add(attention))
                    }
                }
            }
            Part::Experts | Part::Host => Kernel::of_blocks(machine, model, sizes, part, reads),
            Part::Head => match measured(model.head_read, emitting as u32) {
                Some(time) => Kernel::lasting(&machine.accelerator, time),
                None => roofline(model.head_read, model.head_flops_per_token.saturating_mul(emitting)),
            },
        }
    }

    /// A kernel that was measured: it flows for so long, at the rate at which the processor reads, as if it were bound by
    /// memory. So what was measured alone is met alone, and what slows copies down slows it down. On a host, whose copies
    /// are made by the cores that multiply, that is what happens; beside an accelerator's memory a link is too narrow to matter.
    fn lasting(processor: &Processor, time: Nanos) -> Kernel {
        let work = u128::from(processor.read.0) * u128::from(time.0) / 1_000_000_000;
        Kernel { bytes: Bytes(u64::try_from(work).unwrap_or(u64::MAX)), operations: Nanos::ZERO }
    }

    /// Routed blocks, each for its tokens, on the accelerator or on the host.
    pub fn of_blocks(machine: &Machine, model: &Model, sizes: &Sizes, part: Part, reads: &[Read]) -> Kernel {
        let on_host = part == Part::Host;
        let host = machine.host_compute.as_ref().filter(|_| on_host);
        let processor = host.unwrap_or(&machine.accelerator);
        let (mut kernel, mut measured, mut operations) = (Kernel::default(), Nanos::ZERO, 0u64);
        for read in reads {
            let bytes = sizes.bytes(read.block, read.form.format);
            match machine.kernel_time(on_host, read.form.format, bytes, read.tokens) {
                Some(time) => measured += time,
                None => {
                    kernel.bytes += bytes;
                    let elements = model.block(read.block).elements();
                    operations =
                        operations.saturating_add(elements.saturating_mul(2 * u64::from(read.tokens)));
                }
            }
        }
        kernel.bytes += Kernel::lasting(processor, measured).bytes;
        kernel.operations = processor.flops.time_for(operations) + measured;
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
    use policy::units::Bandwidth;
    use policy::{FlopRate, RequestId};

    #[test]
    fn a_measured_kernel_alone_lasts_as_long_as_it_was_measured() {
        let read = Bandwidth(30_123_456_789);
        let processor = Processor { flops: FlopRate(1), read, launch: Nanos::ZERO };
        for time in [1, 999, 123_456, 98_765_432_100].map(Nanos) {
            let kernel = Kernel::lasting(&processor, time);
            assert_eq!(kernel.operations, Nanos::ZERO);
            assert!(read.time_for(kernel.bytes).0.abs_diff(time.0) <= 1, "{time:?}");
        }
    }

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
