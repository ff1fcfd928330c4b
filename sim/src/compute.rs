//! What a kernel asks of a processor: bytes to read and operations to do at the rates that it sustains, or a time that was
//! measured.

use crate::provenance::Booked;
use policy::event::Slice;
use policy::machine::Processor;
use policy::model::Layer;
use policy::times::{Basis, TimeTable, scaled};
use policy::{Bytes, Nanos};

/// The demand of one kernel: it ends when its bytes are read and its operations done, and a launch after that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Bytes it reads from fast memory.
    pub bytes: Bytes,
    /// Time its operations take at least.
    pub operations: Nanos,
    /// Time that the accelerators then take to add up what they have, where several compute together.
    pub summing: Nanos,
    /// Bytes that each sends and receives for that over links which copies take too; their time alone is in `summing`, at its
    /// end.
    pub exchanged: Bytes,
    /// Where its time comes from.
    pub booked: Booked,
}

impl Kernel {
    /// A kernel that was measured: it flows for so long, at the rate at which the processor reads, as if it were bound by
    /// memory. So what was measured alone is met alone, and what slows copies down slows it down. On a host, whose copies
    /// are made by the cores that multiply, that is what happens; beside an accelerator's memory a link is too narrow to matter.
    pub(crate) fn lasting(processor: &Processor, time: Nanos) -> Kernel {
        let work = u128::from(processor.read.0) * u128::from(time.0) / 1_000_000_000;
        Kernel { bytes: Bytes(u64::try_from(work).unwrap_or(u64::MAX)), ..Kernel::default() }
    }

    /// The kernel, after another one that was measured.
    pub(crate) fn after(self, processor: &Processor, time: Nanos) -> Kernel {
        let measured = Kernel::lasting(processor, time);
        Kernel { bytes: self.bytes + measured.bytes, operations: self.operations + time, ..self }
    }
}

/// Bytes to read and operations to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) bytes: Bytes,
    /// Multiplications and additions.
    pub(crate) operations: u64,
}

impl Demand {
    pub(crate) fn kernel(self, processor: &Processor) -> Kernel {
        let operations = processor.flops.time_for(self.operations);
        Kernel { bytes: self.bytes, operations, ..Kernel::default() }
    }

    /// Its time alone at the rates that a processor sustains, launch apart.
    pub(crate) fn roofline(self, processor: &Processor) -> Nanos {
        processor.read.time_for(self.bytes).max(processor.flops.time_for(self.operations))
    }

    pub(crate) fn plus(self, other: Demand) -> Demand {
        let operations = self.operations.saturating_add(other.operations);
        Demand { bytes: self.bytes + other.bytes, operations }
    }
}

/// The time of an operator from a table at a point. `like` is what the operator that was measured asks for at any point,
/// `instead` what this one does, where it is another.
pub(crate) fn timed(
    processor: &Processor,
    table: &TimeTable,
    (tokens, by): (u32, u32),
    like: impl Fn(u32, u32) -> Demand,
    instead: Option<Demand>,
) -> (Nanos, Basis) {
    let roofline = |demand: Demand| demand.roofline(processor) + processor.launch;
    let (time, basis) = table.time(tokens, by, |tokens, by| roofline(like(tokens, by)));
    match instead {
        None => (time, basis),
        Some(demand) => {
            (scaled(time, roofline(demand), roofline(like(tokens, by))), basis.max(Basis::Fitted))
        }
    }
}

/// Pairs of a token and one it looks at: all before it and itself, or as many as the layer's window has; where a layer looks
/// both ways, all of the step's.
pub(crate) fn looked_at(slice: &Slice, layer: &Layer) -> u64 {
    let (cached, tokens) = (u64::from(slice.cached), u64::from(slice.tokens));
    if layer.bidirectional {
        return tokens.saturating_mul(tokens);
    }
    let reach = layer.window.map_or(u64::MAX, u64::from);
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
                let slice = Slice { request: RequestId(0), cached, tokens, rank: 0 };
                let one = |position: u32| u64::from((position + 1).min(window.unwrap_or(u32::MAX)));
                let all: u64 = (cached..cached + tokens).map(one).sum();
                let layer = Layer { window, ..Layer::default() };
                assert_eq!(looked_at(&slice, &layer), all, "{window:?}, {slice:?}");
                let both_ways = Layer { bidirectional: true, ..layer };
                assert_eq!(looked_at(&slice, &both_ways), u64::from(tokens * tokens));
            }
        }
    }
}
