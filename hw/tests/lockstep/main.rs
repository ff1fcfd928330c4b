//! A device under a timeline: every command on real memory, contents checked at every step.

mod both;
mod checkpoints;
mod double;
mod engine;
mod failures;
mod laws;
mod paths;
mod recipes;
mod recurrent;
mod timeline;
mod world;

use hw::lockstep::{Lockstep, LockstepError};
use hw::refusal::DeviceError;
use policy::event::{Command, EncodeAt, Event, EventKind, Part, Platform};
use policy::units::Bytes;
use policy::{MoveId, TierId, Time};
use world::{APART, DISK, DRAM, HBM, World, cancel, chunk, drop_copy, form, form_of, whole};

#[test]
fn a_block_comes_up_goes_down_and_comes_up_again_in_another_format() {
    let mut world = World::new(40_000);
    world.run(whole(1, 0, form(DISK, "bf16"), form(DRAM, "bf16"), EncodeAt::Source));
    world.run(whole(2, 0, form(DRAM, "bf16"), form(HBM, "bf16"), EncodeAt::Source));
    world.run(whole(3, 0, form(HBM, "bf16"), form(HBM, "int8"), EncodeAt::Source));
    world.submit(drop_copy(0, form(HBM, "bf16"))).unwrap();
    world.run(whole(4, 0, form(DRAM, "bf16"), form(HBM, "bf16_packed"), EncodeAt::Source));
    world.run(whole(5, 0, form(HBM, "bf16_packed"), form(DISK, "fp8_e4m3"), EncodeAt::Destination));
    world.compute(&[(0, form(HBM, "int8")), (0, form(HBM, "bf16_packed"))]);
    let report = world.finish().unwrap();
    assert_eq!((report.totals.moves, report.totals.drops, report.totals.computes), (5, 1, 1));
    assert_eq!(report.totals.mismatches, 0);
    let size = |name| world::bytes(0, form_of(name));
    assert_eq!(report.totals.bytes_moved[&(DISK, DRAM)], size("bf16"));
    assert_eq!(report.totals.bytes_moved[&(DRAM, HBM)], size("bf16") + size("bf16_packed"));
    assert_eq!(report.totals.bytes_moved[&(HBM, HBM)], size("int8"));
    assert_eq!(report.totals.bytes_moved[&(HBM, DISK)], size("bf16_packed"), "the source's format crosses");
    assert_eq!(report.totals.real_move_ns.values().sum::<u64>(), 5);
    // Home copies and those encoded ahead, and the four that are left of five.
    assert_eq!(report.live_copies, world::COPIES_AT_START + 4);
    assert_eq!(report.totals.verified_copies, 5 + report.live_copies);
}

#[test]
fn what_crosses_is_the_format_on_that_side_and_both_sides_give_the_same_bytes() {
    for (encode_at, crossing) in [(EncodeAt::Source, "int4_g128"), (EncodeAt::Destination, "bf16")] {
        let mut world = World::new(40_000);
        let total = world::bytes(0, form_of(crossing));
        world.chunks(7, 0, form(DISK, "bf16"), form(DRAM, "int4_g128"), encode_at, total, 5);
        let report = world.finish().unwrap();
        assert_eq!(report.totals.bytes_moved[&(DISK, DRAM)], total);
        assert_eq!((report.totals.moves, report.totals.mismatches), (1, 0));
    }
}

#[test]
fn a_copy_cannot_be_read_before_its_last_chunk() {
    let mut world = World::new(40_000);
    let (from, to) = (form(DRAM, "int4_g32"), form(HBM, "int4_g32"));
    let total = world::bytes(1, to.format);
    let read = world::compute_command(&[(1, to)]);
    let [first, last] = [(0, 1000, false), (1000, total.0 - 1000, true)]
        .map(|(offset, len, last)| chunk(9, 1, from, to, EncodeAt::Source, offset, len, last));
    world.submit(first).unwrap();
    let early = world.submit(read.clone()).unwrap_err();
    assert!(matches!(early, LockstepError::Device(DeviceError::NotPublished { .. })), "{early}");
    assert!(early.to_string().contains("block 1 as int4_g32 in hbm is not published"), "{early}");
    world.submit(last).unwrap();
    assert!(world.submit(read.clone()).is_err(), "submitted is not arrived");
    world.next();
    assert!(world.submit(read.clone()).is_err(), "one chunk of two");
    world.next();
    world.submit(read).unwrap();
    world.next();
    assert_eq!(world.finish().unwrap().totals.computes, 1);
}

#[test]
fn chunks_must_follow_each_other_and_agree() {
    let (from, to) = (form(DRAM, "int4_g32"), form(HBM, "int4_g32"));
    let total = world::bytes(1, to.format).0;
    let ok = |offset, len, last| chunk(9, 1, from, to, EncodeAt::Source, offset, len, last);
    let other = chunk(9, 2, from, to, EncodeAt::Source, 100, total - 100, true);
    for bad in [ok(101, 10, false), ok(0, 10, false), ok(100, total, true), ok(100, 10, true), other] {
        let mut world = World::new(40_000);
        world.submit(ok(0, 100, false)).unwrap();
        let refused = world.submit(bad).unwrap_err();
        assert!(matches!(refused, LockstepError::Device(DeviceError::Chunk { id: 9, .. })), "{refused}");
        world.submit(ok(100, total - 100, true)).unwrap();
        let refused = world.submit(ok(total, 0, true)).unwrap_err();
        assert!(matches!(refused, LockstepError::Device(DeviceError::Chunk { id: 9, .. })), "{refused}");
    }
}

#[test]
fn a_move_whose_first_chunk_is_refused_leaves_nothing() {
    let total = world::bytes(0, form_of("int4_g32")).0;
    let mut world = World::new(total);
    let (from, to) = (form(DRAM, "int4_g32"), form(HBM, "int4_g32"));
    for id in 0..3 {
        let short = chunk(id, 0, from, to, EncodeAt::Source, 0, total / 2, true);
        assert!(world.submit(short).is_err());
        assert!(world.submit(cancel(id)).is_err(), "there is nothing to give up");
    }
    world.run(whole(3, 1, from, to, EncodeAt::Source));
}

#[test]
fn a_cancelled_move_leaves_nothing_and_its_memory_is_used_again() {
    let fits_one = world::bytes(0, form_of("int4_g32")).0;
    let mut world = World::new(fits_one);
    let (from, to) = (form(DRAM, "int4_g32"), form(HBM, "int4_g32"));
    for round in 0..50 {
        world.submit(chunk(round, 0, from, to, EncodeAt::Source, 0, fits_one / 2, false)).unwrap();
        world.submit(cancel(round)).unwrap();
        assert!(world.submit(cancel(round)).is_err(), "given up already");
    }
    world.run(whole(50, 1, from, to, EncodeAt::Source));
    world.compute(&[(1, to)]);
    let report = world.finish().unwrap();
    assert_eq!(report.totals.bytes_moved[&(DRAM, HBM)], Bytes(50 * (fits_one / 2) + fits_one));
    assert_eq!((report.totals.moves, report.live_copies), (1, world::COPIES_AT_START + 1));
}

#[test]
fn a_full_tier_refuses_and_a_dropped_copy_makes_room_even_under_its_last_reader() {
    let fits_one = world::bytes(0, form_of("int4_g32")).0;
    let mut world = World::new(fits_one);
    let (from, to) = (form(DRAM, "int4_g32"), form(HBM, "int4_g32"));
    world.run(whole(0, 0, from, to, EncodeAt::Source));
    let full = world.submit(whole(1, 1, from, to, EncodeAt::Source)).unwrap_err();
    assert!(full.to_string().contains("hbm is full"), "{full}");
    for round in 0..50 {
        let block = round as u32 % 2;
        // A spill reads the copy while it is dropped and its bytes are given to the next one.
        let id = 10 + 3 * round;
        world.submit(whole(id, block, to, form(DISK, "int4_g32"), EncodeAt::Source)).unwrap();
        world.submit(drop_copy(block, to)).unwrap();
        world.submit(whole(id + 1, 1 - block, from, to, EncodeAt::Source)).unwrap();
        world.next();
        world.next();
        world.compute(&[(1 - block, to)]);
        world.submit(drop_copy(block, form(DISK, "int4_g32"))).unwrap();
    }
    let report = world.finish().unwrap();
    assert_eq!((report.totals.moves, report.totals.mismatches), (101, 0));
}

#[test]
fn copies_that_are_read_and_last_copies_are_not_dropped() {
    let mut world = World::new(40_000);
    let (from, to) = (form(DRAM, "int4_g32"), form(HBM, "int4_g32"));
    world.run(whole(0, 0, from, to, EncodeAt::Source));
    world.submit(world::compute_command(&[(0, to)])).unwrap();
    let refused = world.submit(drop_copy(0, to)).unwrap_err();
    assert!(matches!(refused, LockstepError::Device(DeviceError::InUse { .. })), "{refused}");
    world.next();
    world.submit(chunk(1, 0, to, form(DISK, "int4_g32"), EncodeAt::Source, 0, 10, false)).unwrap();
    let refused = world.submit(drop_copy(0, to)).unwrap_err();
    assert!(refused.to_string().contains("still read by move 1"), "{refused}");
    world.submit(cancel(1)).unwrap();
    world.submit(drop_copy(0, to)).unwrap();
    let refused = world.submit(drop_copy(0, form(DISK, "bf16"))).unwrap_err();
    assert!(matches!(refused, LockstepError::Device(DeviceError::LastCopy { .. })), "{refused}");
    let refused = world.submit(drop_copy(0, to)).unwrap_err();
    assert!(matches!(refused, LockstepError::Device(DeviceError::NotPublished { .. })), "{refused}");
    world.finish().unwrap();
}

#[test]
fn moves_that_cannot_be_are_refused_with_the_reason() {
    let refusal = |command: Command| match World::new(40_000).submit(command) {
        Err(LockstepError::Device(error)) => error,
        other => panic!("{other:?}"),
    };
    let source = EncodeAt::Source;
    let lossy = refusal(whole(1, 0, form(DRAM, "int4_g32"), form(HBM, "int8"), source));
    assert!(matches!(lossy, DeviceError::LossySource { id: 1, .. }), "{lossy}");
    let exists = refusal(whole(1, 0, form(DISK, "bf16"), form(DRAM, "int4_g32"), source));
    assert!(matches!(exists, DeviceError::Exists { id: 1, .. }), "{exists}");
    let no_link = refusal(whole(1, 0, form(DISK, "bf16"), form(APART, "bf16"), source));
    assert!(matches!(no_link, DeviceError::NoLink { from: DISK, to: APART }), "{no_link}");
    let nowhere = refusal(whole(1, 0, form(DISK, "bf16"), form(TierId(9), "bf16"), source));
    assert!(matches!(nowhere, DeviceError::Unknown { what: "tier", number: 9 }), "{nowhere}");
    let nobody = refusal(drop_copy(99, form(DISK, "bf16")));
    assert!(matches!(nobody, DeviceError::Unknown { what: "block", number: 99 }), "{nobody}");
    assert!(matches!(refusal(cancel(5)), DeviceError::NoSuchMove { id: 5 }));
}

#[test]
fn two_links_carry_at_once_and_each_in_order() {
    let mut world = World::new(80_000);
    let (up, down) =
        ((form(DRAM, "int4_g32"), form(HBM, "int4_g32")), (form(DISK, "bf16"), form(DRAM, "bf16")));
    for block in 0..4 {
        world.submit(whole(block as u64, block, up.0, up.1, EncodeAt::Source)).unwrap();
        world.submit(whole(10 + block as u64, block, down.0, down.1, EncodeAt::Source)).unwrap();
    }
    let mut order = Vec::new();
    while let Some(event) = world.platform.next_event().unwrap() {
        if let EventKind::ChunkDone { id: MoveId(id), .. } = event.kind {
            order.push(id);
        }
    }
    let on = |link: u64| order.iter().filter(|id| **id / 10 == link).copied().collect::<Vec<_>>();
    assert_eq!((on(0), on(1)), (vec![0, 1, 2, 3], vec![10, 11, 12, 13]));
    let report = world.finish().unwrap();
    assert_eq!((report.totals.moves, report.totals.verified_copies), (8, 8 + report.live_copies));
    assert!(report.lockstep_wait.0 > 0);
}

/// A timeline that says that the head is done, whatever was asked.
struct Liar;

impl Platform for Liar {
    type Error = std::convert::Infallible;

    fn next_event(&mut self) -> Result<Option<Event>, Self::Error> {
        Ok(Some(Event { at: Time(1), kind: EventKind::HeadDone }))
    }

    fn submit(&mut self, _command: Command) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[test]
fn the_timeline_may_not_end_a_compute_that_is_not_the_oldest() {
    let mut platform = Lockstep::new(Liar, world::device(40_000, 1));
    platform.submit(world::compute_command(&[])).unwrap();
    let refused = platform.next_event().unwrap_err();
    assert!(matches!(refused, LockstepError::OutOfOrder { .. }), "{refused}");
    let refused = platform.next_event().unwrap_err().to_string();
    assert!(refused.contains("oldest compute under way is none"), "{refused}");
}

#[test]
fn the_device_shows_the_same_digest_for_the_same_bytes_and_another_for_others() {
    let digests = |seed| {
        let mut device = world::device(40_000, seed);
        let native = form(DISK, "bf16");
        device
            .submit(&world::compute_command(&[(0, native), (1, native), (0, form(DRAM, "int4_g32"))]))
            .unwrap();
        device.wait_compute(Part::Experts).unwrap().digests
    };
    let first = digests(1);
    assert_eq!(first, digests(1));
    assert_ne!(first, digests(2));
    assert_ne!(first[0], first[1]);
    assert_ne!(first[0], first[2]);
}
