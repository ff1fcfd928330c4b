//! Times that can be computed by hand, to the nanosecond.

use crate::small::{Small, fast};
use policy::event::{Command, EncodeAt, Event, EventKind, Form, MoveChunk, MoveClass, Platform};
use policy::flight::Flight;
use policy::ledger::Ledger;
use policy::machine::Codec;
use policy::schedule::{Added, Schedule};
use policy::{
    Bandwidth, BlockId, Bytes, FormatId, Machine, MoveId, Nanos, Path, Paths, TierId, Time, registry,
};
use rand_distr::{Distribution, Exp};
use rand_pcg::Pcg64Mcg;
use sim::fabric::{Fabric, Flow};
use sim::{Case, Keep, World};

/// One token through one layer of a model that has never been asked for anything.
fn cold_demand(selected: u32, engines: u32, policy: &str) -> (Case, Nanos) {
    let small = Small { layers: 1, selected, engines, tokens: 1, traces: 1, ..Small::default() };
    let case = small.case();
    let entry = registry::lookup(policy).unwrap();
    let params = entry.resolve(&Default::default()).unwrap();
    let outcome = case.run(entry, &params, Keep::default(), |_| {}).unwrap();
    let tally = outcome.orchestrator.tally();
    assert_eq!((tally.demanded, tally.hits()), (u64::from(selected), 0));
    (case, tally.stall_total())
}

fn upward(case: &Case) -> Path {
    Paths::new(&case.machine).between(case.home.first(), fast(&case.machine)).unwrap().clone()
}

#[test]
fn one_cold_fetch_stalls_for_exactly_one_transfer() {
    for policy in ["lru", "predictive"] {
        let (case, stall) = cold_demand(1, 1, policy);
        assert_eq!(stall, upward(&case).transfer(case.model.largest_block()), "{policy}");
    }
}

#[test]
fn fetches_on_one_engine_follow_each_other_and_pay_the_latency_once() {
    for blocks in [2, 3] {
        let (case, stall) = cold_demand(blocks, 1, "lru");
        let (link, bytes) = (upward(&case), case.model.largest_block());
        let busy: Nanos = (0..blocks).map(|_| link.busy(bytes)).sum();
        assert_eq!(stall, busy + link.latency);
    }
}

#[test]
fn two_engines_share_the_rate_and_overlap_their_submits() {
    let (case, stall) = cold_demand(2, 2, "lru");
    let link = upward(&case);
    let work = link.work(case.model.largest_block());
    // Each copy has half the rate, so both end when the bytes of both have gone through at the whole.
    assert_eq!(stall, link.submit + link.peak.time_for(work + work) + link.latency);
}

#[test]
fn a_demand_waits_for_the_one_background_chunk_on_its_link_and_no_more() {
    let small = Small { chunk: 10_000, ..Small::default() };
    let case = small.case();
    let (home, fast) = (case.home.first(), fast(&case.machine));
    let native = case.model.blocks[0].native;
    let mut ledger =
        Ledger::new(case.model.clone(), &case.machine, &[native], &case.budgets, &case.home, &[]).unwrap();
    let links = upward(&case).set;
    let (from, to) = (Form { tier: home, format: native }, Form { tier: fast, format: native });
    let bytes = case.model.largest_block();
    let mut schedule = Schedule::new(case.pace);
    let mut fabric = Fabric::new(&case.machine);

    let mut begin = |ledger: &mut Ledger, schedule: &mut Schedule, now: u64, block, class| {
        let id = ledger.begin(Flight::new(BlockId(block), from.into(), to, class, bytes)).unwrap();
        schedule.add(id, Added::over(links, class), Time(now));
        let mut commands = Vec::new();
        schedule.dispatch(Time(now), ledger, &mut commands).unwrap();
        for command in commands {
            let Command::Move(chunk) = command else { panic!("{command:?}") };
            fabric.submit(Time(now), chunk.id, home, fast, chunk.len).unwrap();
        }
        id
    };
    begin(&mut ledger, &mut schedule, 0, 0, MoveClass::Speculation);
    begin(&mut ledger, &mut schedule, 0, 1, MoveClass::Prefetch);
    let demand = begin(&mut ledger, &mut schedule, 100, 2, MoveClass::Demand);

    let mut ends = Vec::new();
    while let Some(at) = fabric.next_due() {
        let mut delivered = Vec::new();
        fabric.collect(at, &mut delivered);
        ends.extend(delivered.iter().map(|copy| (copy.flow, copy.bytes, at)));
    }
    let link = upward(&case);
    let chunk = Time(0) + link.busy(case.pace.chunk);
    let flow = |id| Flow::Copy { id, from: home, to: fast };
    let after = chunk + link.busy(bytes);
    assert_eq!(ends, [(flow(MoveId(0)), case.pace.chunk, chunk), (flow(demand), bytes, after)]);
}

/// When the last chunk of a move is reported.
fn end_of(world: &mut World, chunk: MoveChunk) -> Time {
    world.submit(Command::Move(chunk)).unwrap();
    loop {
        match world.next_event().unwrap() {
            Some(Event { at, kind: EventKind::ChunkDone { id, .. } }) if id == chunk.id => return at,
            Some(_) => {}
            None => panic!("the move was never reported"),
        }
    }
}

fn whole(case: &Case, id: u64, from: Form, to: Form, crossing: FormatId) -> MoveChunk {
    MoveChunk {
        id: MoveId(id),
        block: BlockId(0),
        from: from.into(),
        to,
        keep: None,
        encode_at: EncodeAt::Source,
        class: MoveClass::Demand,
        deadline: None,
        offset: Bytes::ZERO,
        len: case.model.blocks[0].bytes(crossing),
        last: true,
    }
}

#[test]
fn a_packed_copy_crosses_in_its_own_bytes_and_expands_at_the_rate_of_its_decoder() {
    let case = Small { encoded: &["bf16_packed"], ..Small::default() }.case();
    let mut world = case.world(false).unwrap();
    let (packed, native) = (FormatId::named("bf16_packed").unwrap(), case.model.blocks[0].native);
    let form = |tier, format| Form { tier, format };
    let fast = fast(&case.machine);
    let block = &case.model.blocks[0];

    let up = whole(&case, 0, form(case.home.first(), packed), form(fast, packed), packed);
    let landed = end_of(&mut world, up);
    assert_eq!(landed, Time(0) + upward(&case).transfer(block.bytes(packed)));

    let expand = whole(&case, 1, form(fast, packed), form(fast, native), native);
    let decode = case.machine.codec(fast, packed).unwrap().decode;
    let took = case.machine.accelerator.launch + decode.time_for(block.bytes(native));
    assert_eq!(end_of(&mut world, expand), landed + took);
}

#[test]
fn a_fetch_that_expands_on_arrival_pays_for_both() {
    let case = Small { encoded: &["bf16_packed"], ..Small::default() }.case();
    let mut world = case.world(false).unwrap();
    let (packed, native) = (FormatId::named("bf16_packed").unwrap(), case.model.blocks[0].native);
    let (fast, block) = (fast(&case.machine), &case.model.blocks[0]);
    let mut fetch = whole(
        &case,
        0,
        Form { tier: case.home.first(), format: packed },
        Form { tier: fast, format: native },
        packed,
    );
    fetch.encode_at = EncodeAt::Destination;
    let decode = case.machine.codec(fast, packed).unwrap().decode.time_for(block.bytes(native));
    let cost = upward(&case).transfer(block.bytes(packed)) + case.machine.accelerator.launch + decode;
    assert_eq!(end_of(&mut world, fetch), Time(0) + cost);
}

/// Copies of one size at random times on one engine are an M/D/1 queue: they wait rho / (2 (1 - rho)) services.
#[test]
fn copies_at_random_wait_as_long_as_queueing_theory_says() {
    const COPIES: u64 = 400_000;
    let case = Small::default().case();
    let (home, fast, bytes) = (case.home.first(), fast(&case.machine), Bytes(100_000));
    let service = upward(&case).busy(bytes).0 as f64;
    for load in [0.5, 0.8] {
        let mut random = Pcg64Mcg::new(11);
        let gaps = Exp::new(load / service).unwrap();
        let mut fabric = Fabric::new(&case.machine);
        let (mut arrival, mut waited, mut delivered) = (0.0, 0.0, Vec::new());
        for copy in 0..COPIES {
            arrival += Distribution::<f64>::sample(&gaps, &mut random);
            let now = Time(arrival as u64);
            while let Some(due) = fabric.next_due().filter(|&due| due <= now) {
                fabric.collect(due, &mut delivered);
            }
            fabric.submit(now, MoveId(copy), home, fast, bytes).unwrap();
            waited += delivered.drain(..).map(|copy| copy.queued.0 as f64).sum::<f64>();
        }
        let theory = load / (2.0 * (1.0 - load)) * service;
        let mean = waited / COPIES as f64;
        assert!((mean / theory - 1.0).abs() < 0.02, "at {load}: {mean} ns, theory {theory} ns");
    }
}

/// With one block a step, a run's stall is its misses times one transfer: the average access time of two tiers.
#[test]
fn average_access_time_is_that_of_two_tiers() {
    let case = Small { layers: 1, selected: 1, slots: 3, tokens: 500, ..Small::default() }.case();
    let entry = registry::lookup("lru").unwrap();
    let outcome = case.run(entry, &[], Keep::default(), |_| {}).unwrap();
    let tally = outcome.orchestrator.tally();
    let misses = tally.demanded - tally.hits();
    assert!(misses > 100 && tally.hits() > 100, "{misses} misses");
    let transfer = upward(&case).transfer(case.model.largest_block());
    assert_eq!(tally.stall_total(), Nanos(misses * transfer.0));
}

/// A class that has a tenth of a link's time rests nine times as long as each of its chunks took.
#[test]
fn a_share_of_a_link_is_kept() {
    let small = Small { chunk: 10_000, ..Small::default() };
    let mut case = small.case();
    case.pace.spill_share = 0.1;
    let (home, fast) = (case.home.first(), fast(&case.machine));
    let native = case.model.blocks[0].native;
    let mut ledger =
        Ledger::new(case.model.clone(), &case.machine, &[native], &case.budgets, &case.home, &[]).unwrap();
    let (from, to) = (Form { tier: home, format: native }, Form { tier: fast, format: native });
    let mut schedule = Schedule::new(case.pace);
    let flight = Flight::new(BlockId(0), from.into(), to, MoveClass::Spill, Bytes(30_000));
    let id = ledger.begin(flight).unwrap();
    schedule.add(id, Added::over(upward(&case).set, flight.class), Time(0));
    let mut sends = |schedule: &mut Schedule, now| {
        let mut commands = Vec::new();
        schedule.dispatch(Time(now), &mut ledger, &mut commands).unwrap();
        commands.iter().filter(|command| matches!(command, Command::Move(_))).count()
    };
    assert_eq!(sends(&mut schedule, 0), 1);
    assert_eq!(schedule.landed(id, Time(700)), Some(Bytes(10_000)));
    assert_eq!(sends(&mut schedule, 6_999), 0);
    assert_eq!(sends(&mut schedule, 7_000), 1);
}

/// What `depth` readers reach who each ask for the next piece of `bytes` when the last has come: pieces a second. They
/// begin one after the other, as a thread submits: what begins together ends together, and leaves the drive idle.
fn reads_a_second(machine: &Machine, depth: u64, bytes: Bytes) -> f64 {
    const READS: u64 = 20_000;
    let tier = |name: &str| {
        let place = machine.tiers.iter().position(|tier| tier.name == name).unwrap();
        TierId(place as u8)
    };
    let (from, to) = (tier("nvme"), tier("dram"));
    let latency = Paths::new(machine).between(from, to).unwrap().latency;
    let mut fabric = Fabric::new(machine);
    let (mut delivered, mut next, mut now) = (Vec::new(), depth, Time(0));
    for id in 0..depth {
        fabric.submit(Time(id * 1_000), MoveId(id), from, to, bytes).unwrap();
    }
    while let Some(due) = fabric.next_due() {
        now = due;
        fabric.collect(now, &mut delivered);
        for _ in delivered.drain(..) {
            if next < READS {
                fabric.submit(now, MoveId(next), from, to, bytes).unwrap();
                next += 1;
            }
        }
    }
    READS as f64 / (now + latency).since(Time(0)).as_secs_f64()
}

/// A drive's latency at queue depth 1, its operations a second at depth 128, and its bytes a second in large pieces, all
/// from one link: 82.6 us, 555 thousand and 5.86 GiB/s are what SPDK measured.
#[test]
fn storage_has_a_queue_depth() {
    let machine = scenarios::machine("h100-sxm").unwrap();
    let close = |ours: f64, measured: f64| (ours / measured - 1.0).abs() < 0.02;
    let alone = 1e6 / reads_a_second(&machine, 1, Bytes(4096));
    assert!(close(alone, 82.6), "{alone} us");
    let operations = reads_a_second(&machine, 128, Bytes(4096));
    assert!(close(operations, 555e3), "{operations} a second");
    let rate = reads_a_second(&machine, 128, Bytes(144_000)) * 144_000.0;
    assert!(close(rate, 5.86 * f64::from(1 << 30)), "{rate} B/s");
}

/// A copy that the host encodes before it leaves pays the host's rate and then sends fewer bytes; two of them are
/// encoded one after the other.
#[test]
fn encoding_on_the_host_comes_before_the_links() {
    let mut case = Small { encoded: &["int8"], ..Small::default() }.case();
    let (int8, native) = (FormatId::named("int8").unwrap(), case.model.blocks[0].native);
    let rate = Bandwidth(1_000_000_000);
    let mut machine = Machine::clone(&case.machine);
    machine.host_codecs = vec![Codec { format: int8, encode: rate, decode: rate }];
    case.machine = machine.into();
    let mut world = case.world(false).unwrap();
    let (from, to) =
        (Form { tier: case.home.first(), format: native }, Form { tier: fast(&case.machine), format: int8 });
    let block = &case.model.blocks[0];
    let encode = rate.time_for(block.bytes(native));
    let transfer = upward(&case).transfer(block.bytes(int8));
    let moves = [whole(&case, 0, from, to, int8), whole(&case, 1, from, to, int8)];
    for (chunk, block) in moves.into_iter().zip([0, 1].map(BlockId)) {
        let chunk = MoveChunk { block, ..chunk };
        world.submit(Command::Move(MoveChunk { encode_at: EncodeAt::Source, ..chunk })).unwrap();
    }
    assert!(transfer < encode);
    let mut done = Vec::new();
    while let Some(event) = world.next_event().unwrap() {
        done.extend(matches!(event.kind, EventKind::ChunkDone { .. }).then_some(event.at));
    }
    assert_eq!(done, [Time(0) + encode + transfer, Time(0) + encode + encode + transfer]);
}

#[test]
fn a_format_is_made_on_the_cheaper_side_of_the_link() {
    let side = |link| {
        let case = Small { recode: &["int8"], drift_budget: 1.0, link, ..Small::default() }.case();
        let entry = registry::lookup("lru").unwrap();
        let orchestrator = case.orchestrator(entry, &[], false).unwrap();
        let context = orchestrator.context();
        let int8 = FormatId::named("int8").unwrap();
        let route = context.costs.fetch(&context.ledger, BlockId(0), int8).unwrap();
        assert_eq!(route.from.copy().unwrap().format, case.model.blocks[0].native);
        route.encode_at
    };
    assert_eq!((side(0.5), side(50.0)), (EncodeAt::Source, EncodeAt::Destination));
}
