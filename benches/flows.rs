//! How many flows the fabric finishes in a second: a closed loop, in which every flow that ends is replaced by one of
//! random size on a random path, so that their number stays the same.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use policy::machine::{Backing, Class, Link, Processor, Tier};
use policy::{Bandwidth, Bytes, FlopRate, LinkId, Machine, MoveId, Nanos, Rate, TierId, Time};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use sim::fabric::{Delivered, Fabric};
use std::time::Duration;

const GB: u64 = 1_000_000_000;
/// Flows finished in one round of the loop.
const FLOWS: u64 = 20_000;

/// Accelerator memory, host memory, a memory expander and a drive; host memory is in the middle.
fn four_tiers(engines: u32, submit: Nanos) -> Machine {
    let tier = |(name, rate): (&str, u64)| Tier {
        name: name.into(),
        capacity: Bytes(1 << 40),
        class: if name == "hbm" { Class::Fast } else { Class::Staged },
        backing: Backing::Pinned,
        node: None,
        device: None,
        transient: false,
        endurance: None,
        granularity: Bytes(4096),
        read: Bandwidth(rate * GB),
        write: Bandwidth(rate * GB),
    };
    let link = |(name, from, to, rate, opposite): (&str, u8, u8, u64, u8)| Link {
        name: name.into(),
        from: TierId(from),
        to: TierId(to),
        latency: Nanos(0),
        submit,
        rate: Rate::with_half_size(Bandwidth(rate * GB), Bytes(0)),
        duplex: Bandwidth(rate * GB * 3 / 4),
        engines,
        opposite: Some(LinkId(opposite)),
    };
    let links = [
        ("pcie", 1, 0, 56, 1),
        ("pcie", 0, 1, 57, 0),
        ("cxl", 2, 1, 26, 3),
        ("cxl", 1, 2, 25, 2),
        ("disk", 3, 1, 7, 5),
        ("disk", 1, 3, 6, 4),
    ];
    Machine {
        name: "four tiers".into(),
        tiers: [("hbm", 2570), ("dram", 408), ("cxl", 76), ("nvme", 9)].map(tier).into(),
        links: links.map(link).into(),
        accelerator: Processor { flops: FlopRate(1), read: Bandwidth(1), launch: Nanos(0) },
        codecs: vec![],
        host_codecs: vec![],
        near: vec![],
        kernels: vec![],
        peak: None,
        times: vec![],
        peers: None,
        merge: None,
    }
}

/// A fabric with a number of flows on random paths between its first tiers.
struct Loop {
    fabric: Fabric,
    tiers: u8,
    draws: Pcg64Mcg,
    names: u64,
    delivered: Vec<Delivered>,
}

impl Loop {
    fn new(machine: &Machine, tiers: u8, concurrent: u64) -> Loop {
        let mut run = Loop {
            fabric: Fabric::new(machine),
            tiers,
            draws: Pcg64Mcg::seed_from_u64(7),
            names: 0,
            delivered: Vec::new(),
        };
        (0..concurrent).for_each(|_| run.submit(Time(0)));
        run
    }

    fn submit(&mut self, now: Time) {
        let draw: u64 = self.draws.random();
        let pairs = u64::from(self.tiers) * u64::from(self.tiers - 1);
        let pair = ((draw >> 32) * pairs) >> 32;
        let from = (pair / u64::from(self.tiers - 1)) as u8;
        let other = (pair % u64::from(self.tiers - 1)) as u8;
        let to = other + u8::from(other >= from);
        self.send(now, TierId(from), TierId(to), Bytes(4096 + (draw & 0xf_ffff)));
    }

    fn send(&mut self, now: Time, from: TierId, to: TierId, bytes: Bytes) {
        self.names += 1;
        self.fabric.submit(now, MoveId(self.names), from, to, bytes).expect("every tier reaches every other");
    }

    fn finish(&mut self, flows: u64, next: impl Fn(&mut Loop, Time)) {
        let mut finished = 0;
        while finished < flows {
            let now = self.fabric.next_due().expect("something flows");
            let mut delivered = std::mem::take(&mut self.delivered);
            self.fabric.collect(now, &mut delivered);
            for _ in delivered.drain(..) {
                finished += 1;
                next(self, now);
            }
            self.delivered = delivered;
        }
    }
}

fn flows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flows");
    group.sample_size(20).measurement_time(Duration::from_secs(2)).throughput(Throughput::Elements(FLOWS));
    let shared = four_tiers(u32::MAX, Nanos(0));
    for concurrent in [16, 64, 256, 1024] {
        let mut run = Loop::new(&shared, 4, concurrent);
        group.bench_function(BenchmarkId::new("four tiers", concurrent), |bench| {
            bench.iter(|| run.finish(FLOWS, Loop::submit));
        });
    }
    let one_way = |run: &mut Loop, now: Time| {
        let draw: u64 = run.draws.random();
        run.send(now, TierId(1), TierId(0), Bytes(4096 + (draw & 0xf_ffff)));
    };
    for (name, engines, submit) in
        [("one link shared", u32::MAX, Nanos(0)), ("one engine in order", 1, Nanos(1_400))]
    {
        let mut run = Loop::new(&four_tiers(engines, submit), 4, 0);
        (0..16).for_each(|_| one_way(&mut run, Time(0)));
        group.bench_function(BenchmarkId::new(name, 16), |bench| bench.iter(|| run.finish(FLOWS, one_way)));
    }
    group.finish();
}

criterion_group!(benches, flows);
criterion_main!(benches);
