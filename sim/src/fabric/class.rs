//! The flows of one path, or the kernels that read one memory at one rate: all have the same rate at any time, so one
//! counter tells how much each has been given, and the next to end is the one that asked for the least.

use policy::{Bandwidth, Bytes, Nanos, Time};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Fraction bits of a rate in bytes a second: 5 GB/s shared a thousand ways is still exact to one part in 10^9, and the
/// work of 64 MiB fits 64 bits.
const FRACTION_BITS: u32 = 8;
/// Faster than this (36 PB/s) is taken to be this fast, so that a rate in fixed point fits 63 bits.
const FASTEST: u64 = 1 << 55;
/// Work is a rate times nanoseconds.
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A rate in fixed point.
pub(super) fn fixed(rate: Bandwidth) -> u64 {
    rate.0.clamp(1, FASTEST) << FRACTION_BITS
}

/// Work in fixed point: a rate in fixed point times nanoseconds.
pub(super) fn fixed_work(bytes: Bytes) -> u128 {
    (u128::from(bytes.0) << FRACTION_BITS) * NANOS_PER_SECOND
}

/// A resource that every flow of a class crosses, and how much of it a unit of the flow's rate takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub(super) resource: u16,
    pub(super) weight: f64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Class {
    /// No flow of it is faster than this, in fixed point.
    pub(super) cap: u64,
    /// Nor are all together faster than this.
    pub(super) total: u64,
    /// What each flow crosses; first the resources that copies alone can fill.
    uses: Vec<Use>,
    scarce: usize,
    /// What each flow has to have been given when it ends, and its job.
    flows: BinaryHeap<Reverse<(u128, u32)>>,
    /// What a flow that was there from the first has been given by `since`.
    given: u128,
    since: Time,
    rate: u64,
    end: Time,
    /// Flows came or went after `end` was worked out.
    moved: bool,
}

impl Class {
    /// A class without flows. The first `scarce` of its uses are of resources that copies alone can fill.
    pub(super) fn new(cap: Bandwidth, total: Bandwidth, uses: Vec<Use>, scarce: usize) -> Class {
        Class {
            cap: fixed(cap.min(total)),
            total: fixed(total),
            uses,
            scarce,
            flows: BinaryHeap::new(),
            given: 0,
            since: Time(0),
            rate: 0,
            end: Time(u64::MAX),
            moved: false,
        }
    }

    /// What each flow crosses; where no kernel reads, without the memories that copies alone cannot fill.
    pub(super) fn uses(&self, read: bool) -> &[Use] {
        if read { &self.uses } else { self.uses.split_at(self.scarce).0 }
    }

    /// How many flow.
    pub(super) fn len(&self) -> u64 {
        self.flows.len() as u64
    }

    /// When the first of them ends at the present rate.
    pub(super) fn end(&self) -> Time {
        self.end
    }

    pub(super) fn join(&mut self, now: Time, work: Bytes, job: u32) {
        self.catch_up(now);
        self.flows.push(Reverse((self.given + fixed_work(work), job)));
        self.moved = true;
    }

    /// Sets what each flow is given from now on: not zero.
    pub(super) fn set_rate(&mut self, now: Time, rate: u64) {
        if rate == self.rate && !self.moved {
            return;
        }
        self.catch_up(now);
        self.rate = rate;
        self.moved = false;
        let Some(Reverse((target, _))) = self.flows.peek() else { return };
        self.end = now + time_for(target.saturating_sub(self.given), rate);
    }

    /// Takes out the flows that have got all they asked for.
    pub(super) fn take_ended(&mut self, now: Time, ended: &mut Vec<u32>) {
        if self.end > now && !self.moved {
            return;
        }
        self.catch_up(now);
        while let Some(&Reverse((target, job))) = self.flows.peek() {
            if target > self.given {
                break;
            }
            self.flows.pop();
            self.moved = true;
            ended.push(job);
        }
        if self.flows.is_empty() {
            (self.given, self.rate, self.end) = (0, 0, Time(u64::MAX));
        }
    }

    fn catch_up(&mut self, now: Time) {
        self.given += u128::from(self.rate) * u128::from(now.since(self.since).0);
        self.since = now;
    }
}

/// Work over rate, rounded up. A division of 128 bits costs several times one of 64.
pub(super) fn time_for(work: u128, rate: u64) -> Nanos {
    match u64::try_from(work) {
        Ok(work) => Nanos(work.div_ceil(rate)),
        Err(_) => Nanos(u64::try_from(work.div_ceil(rate.into())).unwrap_or(u64::MAX)),
    }
}
