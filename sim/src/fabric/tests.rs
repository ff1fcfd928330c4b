//! Closed forms, and the whole against a reference that shares out flow by flow in floating point.

use super::*;
use policy::machine::{Backing, Class, Link, Processor, Tier};
use policy::{FlopRate, Rate};
use proptest::prelude::*;

const GB: u64 = 1_000_000_000;
const MB: u64 = 1_000_000;
const HBM: TierId = TierId(0);
const DRAM: TierId = TierId(1);
const NVME: TierId = TierId(2);

fn tier(name: &str, read: u64, write: u64) -> Tier {
    Tier {
        name: name.into(),
        capacity: Bytes(1 << 40),
        class: if name == "hbm" { Class::Fast } else { Class::Staged },
        backing: Backing::Pinned,
        node: None,
        device: None,
        transient: false,
        endurance: None,
        granularity: Bytes(1),
        read: Bandwidth(read),
        write: Bandwidth(write),
    }
}

/// Both directions between two memories: 700 ns latency, 1 us submit cost, half the rate against each other.
fn link(first: u8, from: TierId, to: TierId, rate: u64, engines: u32) -> [Link; 2] {
    let direction = |from: TierId, to: TierId, opposite| Link {
        name: format!("{}-{}", from.0, to.0),
        from,
        to,
        latency: Nanos(700),
        submit: Nanos(1_000),
        rate: Rate::with_half_size(Bandwidth(rate), Bytes(4_000)),
        duplex: Bandwidth(rate / 2),
        engines,
        opposite: Some(LinkId(opposite)),
    };
    [direction(from, to, first + 1), direction(to, from, first)]
}

fn machine(tiers: Vec<Tier>, links: Vec<Link>) -> Machine {
    Machine {
        name: "test".into(),
        tiers,
        links,
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

/// HBM, DRAM and a drive in a row: 20 GB/s and 5 GB/s, memories wide enough not to matter.
fn row(engines: u32) -> Machine {
    let tiers = vec![
        tier("hbm", 1000 * GB, 1000 * GB),
        tier("dram", 500 * GB, 500 * GB),
        tier("nvme", 100 * GB, 100 * GB),
    ];
    let links = [link(0, DRAM, HBM, 20 * GB, engines), link(2, NVME, DRAM, 5 * GB, engines)].concat();
    machine(tiers, links)
}

/// The name of every flow and when it ended.
fn drain(fabric: &mut Fabric) -> Vec<(u64, Time)> {
    let mut all = Vec::new();
    let mut delivered = Vec::new();
    while let Some(at) = fabric.next_due() {
        fabric.collect(at, &mut delivered);
        all.extend(delivered.drain(..).map(|copy| (name(&copy), at)));
    }
    all
}

fn name(copy: &Delivered) -> u64 {
    match copy.flow {
        Flow::Copy { id, .. } => id.0,
        Flow::Read { tag, .. } | Flow::Exchange { tag, .. } => tag,
    }
}

#[test]
fn an_idle_copy_takes_submit_and_bytes_over_rate_to_the_nanosecond() {
    let machine = row(1);
    let paths = Paths::new(&machine);
    for path in paths.iter() {
        for bytes in [1, 4_095, 1_000_001, (1 << 40) + 1].map(Bytes) {
            let mut fabric = Fabric::new(&machine);
            fabric.submit(Time(50), MoveId(1), path.from, path.to, bytes).unwrap();
            assert_eq!(drain(&mut fabric), [(1, Time(50) + path.busy(bytes))], "{path:?} {bytes}");
        }
    }
}

#[test]
fn a_machine_without_a_way_refuses() {
    let mut fabric = Fabric::new(&row(1));
    let refused = NoPath { from: HBM, to: TierId(9) };
    assert_eq!(fabric.submit(Time(0), MoveId(1), HBM, TierId(9), Bytes(1)), Err(refused));
    assert_eq!(fabric.submit(Time(0), MoveId(1), HBM, HBM, Bytes(1)), Err(NoPath { from: HBM, to: HBM }));
    assert_eq!(fabric.next_due(), None);
}

#[test]
fn one_engine_is_first_in_first_out() {
    let mut fabric = Fabric::new(&row(1));
    for id in [1, 2] {
        fabric.submit(Time(0), MoveId(id), DRAM, HBM, Bytes(996_000)).unwrap();
    }
    assert_eq!(drain(&mut fabric), [(1, Time(51_000)), (2, Time(102_000))]);
    let expected = LinkCount { bytes: 1_992_000, copies: 2, busy: Nanos(102_000), queued: Nanos(51_000) };
    assert_eq!(fabric.count(Time(500_000), LinkId(0)), expected);
    assert_eq!(fabric.count(Time(500_000), LinkId(1)), LinkCount::default());
}

#[test]
fn an_exchange_alone_goes_at_its_own_rate_and_shares_with_a_copy() {
    let both: LinkSet = [LinkId(0), LinkId(1)].into_iter().collect();
    let bytes = Bytes(1_808_000);
    let mut fabric = Fabric::new(&row(1));
    fabric.exchange(Time(0), 7, both, bytes, Bandwidth(8 * GB));
    assert_eq!(drain(&mut fabric), [(7, Time(226_000))]);
    // The copy sets out after its submit cost of 1 us. Both directions are busy, so each carries half: 5 GB/s for each of the
    // two, until the copy's 1 MB are through, its half size included. What is then left goes at 8 GB/s again.
    let mut fabric = Fabric::new(&row(1));
    fabric.exchange(Time(0), 7, both, bytes, Bandwidth(8 * GB));
    fabric.submit(Time(0), MoveId(1), DRAM, HBM, Bytes(996_000)).unwrap();
    assert_eq!(drain(&mut fabric), [(1, Time(201_000)), (7, Time(301_000))]);
    let (towards, back) = (fabric.count(Time(301_000), LinkId(0)), fabric.count(Time(301_000), LinkId(1)));
    assert_eq!((towards.bytes, towards.busy), (996_000 + bytes.0, Nanos(301_000)));
    assert_eq!((back.bytes, back.copies, back.busy), (bytes.0, 0, Nanos(301_000)));
    // It takes no engine: a second copy waits for the first, not for the exchange.
    let mut fabric = Fabric::new(&row(1));
    fabric.exchange(Time(0), 7, both, Bytes(GB), Bandwidth(8 * GB));
    for id in [1, 2] {
        fabric.submit(Time(0), MoveId(id), DRAM, HBM, Bytes(996_000)).unwrap();
    }
    assert_eq!(drain(&mut fabric)[..2], [(1, Time(201_000)), (2, Time(402_000))]);
}

#[test]
fn equal_flows_get_equal_parts() {
    for n in [2, 3, 7, 100, 1000] {
        let mut fabric = Fabric::new(&row(2_000));
        for id in 0..n {
            fabric.submit(Time(0), MoveId(id), DRAM, HBM, Bytes(996_000)).unwrap();
        }
        let ended = drain(&mut fabric);
        let exact = Time(1_000 + 50_000 * n);
        assert_eq!(ended.len() as u64, n);
        assert!(ended.iter().all(|&(_, at)| at == exact || at == exact + Nanos(1)), "{n}: {ended:?}");
        assert!(ended.iter().map(|&(id, _)| id).eq(0..n), "not in order of hand-over");
    }
}

#[test]
fn the_rate_falls_while_the_other_direction_is_busy() {
    let mut fabric = Fabric::new(&row(1));
    fabric.submit(Time(0), MoveId(1), DRAM, HBM, Bytes(1_996_000)).unwrap();
    // The other way: 1 us of submit cost and 19 us of bytes at 10 GB/s, all of which the first copy feels.
    fabric.submit(Time(51_000), MoveId(2), HBM, DRAM, Bytes(186_000)).unwrap();
    // 50 us at the full rate, 20 us at half of it: 40 us of work are left.
    assert_eq!(drain(&mut fabric), [(2, Time(71_000)), (1, Time(71_000 + 40_000))]);
}

#[test]
fn a_copy_over_two_links_shares_each_of_them() {
    let mut fabric = Fabric::new(&row(4));
    // 5 GB/s through both links, and what is left of the first link for the other.
    fabric.submit(Time(0), MoveId(1), NVME, HBM, Bytes(5_000_000)).unwrap();
    fabric.submit(Time(1_000), MoveId(2), DRAM, HBM, Bytes(14_996_000)).unwrap();
    assert_eq!(drain(&mut fabric), [(2, Time(1_002_000)), (1, Time(2_000 + 1_000_800))]);
}

#[test]
fn no_copy_overtakes_another_on_a_shared_link() {
    let mut fabric = Fabric::new(&row(1));
    fabric.submit(Time(0), MoveId(1), DRAM, HBM, Bytes(996_000)).unwrap();
    // Waits for the first link and so keeps the third copy off the second, which is free.
    fabric.submit(Time(0), MoveId(2), NVME, HBM, Bytes(46_000)).unwrap();
    fabric.submit(Time(0), MoveId(3), NVME, DRAM, Bytes(46_000)).unwrap();
    let second = 51_000 + 2_000 + 10_000;
    assert_eq!(drain(&mut fabric), [(1, Time(51_000)), (2, Time(second)), (3, Time(second + 11_000))]);
}

#[test]
fn a_kernel_and_a_copy_share_the_memory() {
    let tiers = vec![tier("hbm", 100 * GB, 50 * GB), tier("dram", 500 * GB, 500 * GB)];
    let machine = machine(tiers, link(0, DRAM, HBM, 20 * GB, 1).to_vec());
    let mut fabric = Fabric::new(&machine);
    fabric.submit(Time(0), MoveId(1), DRAM, HBM, Bytes(1_996_000)).unwrap();
    // The copy writes at 20 GB/s, which takes 40 % of the memory; the kernel reads at 60 GB/s, not at its 90.
    fabric.read(Time(1_000), 2, HBM, Bytes(3_000_000), Bandwidth(90 * GB));
    assert_eq!(drain(&mut fabric), [(2, Time(51_000)), (1, Time(101_000))]);
    fabric.read(Time(200_000), 3, HBM, Bytes(900_000), Bandwidth(90 * GB));
    assert_eq!(drain(&mut fabric), [(3, Time(210_000))]);
    // Two kernels share what a memory gives: 50 GB/s each.
    fabric.read(Time(300_000), 4, HBM, Bytes(500_000), Bandwidth(90 * GB));
    fabric.read(Time(300_000), 5, HBM, Bytes(500_000), Bandwidth(80 * GB));
    assert_eq!(drain(&mut fabric), [(4, Time(310_000)), (5, Time(310_000))]);
}

#[test]
fn absurd_machines_do_not_break_the_arithmetic() {
    for rate in [1, u64::MAX] {
        let tiers = vec![tier("hbm", u64::MAX, 1), tier("dram", 1, u64::MAX)];
        let machine = machine(tiers, link(0, DRAM, HBM, rate, u32::MAX).to_vec());
        let mut fabric = Fabric::new(&machine);
        for id in 0..100 {
            let (from, to) = if id % 2 == 0 { (DRAM, HBM) } else { (HBM, DRAM) };
            fabric.submit(Time(id), MoveId(id), from, to, Bytes(u64::MAX)).unwrap();
            fabric.read(Time(id), id, HBM, Bytes(u64::MAX), Bandwidth(u64::MAX - id));
        }
        // What is slower than all of time stays due at its end.
        let mut delivered = Vec::new();
        while let Some(at) = fabric.next_due().filter(|&at| at < Time(u64::MAX)) {
            fabric.collect(at, &mut delivered);
        }
        assert_eq!(fabric.next_due(), Some(Time(u64::MAX)));
    }
}

/// One flow of the reference.
struct Reference {
    links: Vec<usize>,
    /// Memory and the reciprocal rates at which it is used.
    memories: Vec<(usize, f64)>,
    cap: f64,
    taken_up: f64,
    flows_from: f64,
    left: f64,
    end: Option<f64>,
}

/// Rates flow by flow: all grow alike until something is full.
fn fair_rates(machine: &Machine, flows: &[Reference], now: f64) -> Vec<f64> {
    let under_way = |flow: &&Reference| flow.taken_up <= now && flow.end.is_none();
    let busy: Vec<bool> = (0..machine.links.len())
        .map(|link| flows.iter().filter(under_way).any(|flow| flow.links.contains(&link)))
        .collect();
    let width = |(index, link): (usize, &Link)| {
        let opposed = machine.links[index].opposite.is_some_and(|other| busy[other.index()]);
        (if opposed { link.duplex } else { link.rate.peak() }).0 as f64
    };
    let mut left: Vec<f64> = machine.links.iter().enumerate().map(width).collect();
    let mut time_left = vec![1.0; machine.tiers.len()];
    let mut rates = vec![0.0; flows.len()];
    let mut open: Vec<usize> = (0..flows.len())
        .filter(|&index| flows[index].flows_from <= now && flows[index].end.is_none())
        .collect();
    while !open.is_empty() {
        let mut share: Vec<f64> = Vec::new();
        for &index in &open {
            let flow = &flows[index];
            let users =
                |link: usize| open.iter().filter(|&&other| flows[other].links.contains(&link)).count();
            let by_link = flow.links.iter().map(|&link| left[link] / users(link) as f64);
            let by_memory = flow.memories.iter().map(|&(memory, _)| {
                let cost: f64 = open
                    .iter()
                    .flat_map(|&other| &flows[other].memories)
                    .filter(|(used, _)| *used == memory)
                    .map(|(_, cost)| cost)
                    .sum();
                time_left[memory] / cost
            });
            share.push(by_link.chain(by_memory).fold(flow.cap, f64::min));
        }
        let level = share.iter().copied().fold(f64::INFINITY, f64::min);
        let mut still_open = Vec::new();
        for (&index, &share) in open.iter().zip(&share) {
            if share > level * (1.0 + 1e-12) {
                still_open.push(index);
                continue;
            }
            rates[index] = level;
            flows[index].links.iter().for_each(|&link| left[link] -= level);
            flows[index].memories.iter().for_each(|&(memory, cost)| time_left[memory] -= level * cost);
        }
        open = still_open;
    }
    rates
}

/// When each flow ends, engines not limiting.
fn reference(machine: &Machine, flows: &mut [Reference]) -> Vec<f64> {
    let mut now = 0.0;
    while flows.iter().any(|flow| flow.end.is_none()) {
        let rates = fair_rates(machine, flows, now);
        let open = || flows.iter().zip(&rates).filter(|(flow, _)| flow.end.is_none());
        let changes = open().flat_map(|(flow, &rate)| {
            let end = if rate > 0.0 { now + flow.left / rate * 1e9 } else { f64::INFINITY };
            [flow.taken_up, flow.flows_from].into_iter().filter(|&at| at > now).chain([end])
        });
        let next = changes.fold(f64::INFINITY, f64::min);
        for (flow, rate) in flows.iter_mut().zip(&rates).filter(|(flow, _)| flow.end.is_none()) {
            flow.left -= rate * (next - now) * 1e-9;
            if *rate > 0.0 && flow.left <= 1e-6 {
                flow.end = Some(next);
            }
        }
        now = next;
    }
    flows.iter().map(|flow| flow.end.unwrap()).collect()
}

/// A chain of four memories, the rates of its links and memories in MB/s.
fn chain(links: &[u64], memories: &[(u64, u64)]) -> Machine {
    let tiers = memories.iter().map(|&(read, write)| tier("memory", read * MB, write * MB)).collect();
    let links = links.iter().zip(0u8..);
    machine(
        tiers,
        links.flat_map(|(&rate, at)| link(2 * at, TierId(at + 1), TierId(at), rate * MB, 100)).collect(),
    )
}

proptest! {
    #[test]
    fn flows_end_when_a_reference_says(
        links in proptest::collection::vec(1u64..100, 3),
        memories in proptest::collection::vec((1u64..200, 1u64..200), 4),
        // When, from where, to where (the same: a kernel reads), how much, at most how fast.
        asked in proptest::collection::vec((0u64..200_000_000, 0u8..4, 0u8..4, 1u64..2_000_000, 1u64..300), 1..24),
    ) {
        let machine = chain(&links, &memories);
        let paths = Paths::new(&machine);
        let mut asked = asked;
        asked.sort_unstable();
        let flow = |&(at, from, to, bytes, most): &(u64, u8, u8, u64, u64)| {
            let read = |memory: TierId| 1.0 / machine.tier(memory).read.0 as f64;
            let write = |memory: TierId| 1.0 / machine.tier(memory).write.0 as f64;
            let (from, to) = (TierId(from), TierId(to));
            let Some(path) = paths.between(from, to) else {
                return Reference {
                    links: vec![],
                    memories: vec![(from.index(), read(from))],
                    cap: (most * MB) as f64,
                    taken_up: at as f64,
                    flows_from: at as f64,
                    left: bytes as f64,
                    end: None,
                };
            };
            let through = path.links.iter().skip(1).map(|&link| machine.link(link).from);
            let ends = [(from.index(), read(from)), (to.index(), write(to))];
            Reference {
                links: path.links.iter().map(|link| link.index()).collect(),
                memories: through.map(|memory| (memory.index(), read(memory) + write(memory))).chain(ends).collect(),
                cap: path.peak.0 as f64,
                taken_up: at as f64,
                flows_from: at as f64 + path.submit.0 as f64,
                left: path.work(Bytes(bytes)).0 as f64,
                end: None,
            }
        };
        let mut flows: Vec<Reference> = asked.iter().map(flow).collect();
        let expected = reference(&machine, &mut flows);

        let mut fabric = Fabric::new(&machine);
        let mut got = vec![None; asked.len()];
        let mut delivered = Vec::new();
        let mut run_to = |fabric: &mut Fabric, until: u64, got: &mut Vec<Option<u64>>| {
            while let Some(at) = fabric.next_due().filter(|at| at.0 <= until) {
                fabric.collect(at, &mut delivered);
                for copy in delivered.drain(..) {
                    got[name(&copy) as usize] = Some(at.0);
                }
            }
        };
        for (index, &(at, from, to, bytes, most)) in (0u64..).zip(&asked) {
            run_to(&mut fabric, at, &mut got);
            if from == to {
                fabric.read(Time(at), index, TierId(from), Bytes(bytes), Bandwidth(most * MB));
            } else {
                fabric.submit(Time(at), MoveId(index), TierId(from), TierId(to), Bytes(bytes)).unwrap();
            }
        }
        run_to(&mut fabric, u64::MAX, &mut got);
        // Each end before may come a nanosecond late, at up to 200 times the rate that makes up for it; flows take some
        // 10^8 nanoseconds.
        let tolerance = 200.0 * asked.len() as f64;
        for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let got = got.unwrap() as f64;
            prop_assert!((got - expected).abs() <= tolerance, "flow {index}: {got}, reference {expected}");
        }
        let moved: u64 = (0..machine.links.len()).map(|link| fabric.count(Time(u64::MAX), LinkId(link as u8)).bytes).sum();
        let crossed: u64 = asked.iter().map(|&(_, from, to, bytes, _)| u64::from(from.abs_diff(to)) * bytes).sum();
        prop_assert_eq!(moved, crossed);
    }
}

proptest! {
    /// What follows each other on one path may be carried by itself: nobody can tell, at whatever time something else comes.
    #[test]
    fn a_train_is_as_fast_as_its_copies(
        asked in prop::collection::vec((0u64..400_000, 0u8..8, 1u64..3_000_000), 1..40), submit in 0u64..3_000
    ) {
        let mut machine = row(1);
        machine.links.iter_mut().for_each(|link| link.submit = Nanos(submit));
        let carried = |apart: bool| {
            let (mut fabric, mut now, mut all, mut delivered) = (Fabric::new(&machine), 0, Vec::new(), Vec::new());
            let mut run_to = |fabric: &mut Fabric, until: u64| {
                while let Some(at) = fabric.next_due().filter(|at| at.0 <= until) {
                    fabric.collect(at, &mut delivered);
                    all.extend(delivered.drain(..).map(|delivered| (at, delivered)));
                }
            };
            for (id, &(after, what, bytes)) in (0..).zip(&asked) {
                now += if what < 6 { after / 20 } else { after };
                run_to(&mut fabric, now);
                match what {
                    7 => fabric.read(Time(now), id, DRAM, Bytes(bytes), Bandwidth(300 * GB)),
                    6 => fabric.submit(Time(now), MoveId(id), HBM, DRAM, Bytes(bytes)).unwrap(),
                    _ => fabric.submit(Time(now), MoveId(id), DRAM, HBM, Bytes(bytes)).unwrap(),
                }
                if apart {
                    fabric.dissolve();
                }
            }
            run_to(&mut fabric, u64::MAX);
            let counts: Vec<_> = (0..4).map(|link| fabric.count(Time(now), LinkId(link))).collect();
            (all, counts)
        };
        prop_assert_eq!(carried(false), carried(true));
    }
}
