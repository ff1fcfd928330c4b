//! The memory of a tier: what it promises about room, generations and bytes.

use hw::arena::{Arena, ArenaError};
use hw::store::Note;
use policy::machine::{Backing, Class, Tier};
use policy::units::{Bandwidth, Bytes};
use proptest::prelude::*;
use std::env::temp_dir;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

fn tier(capacity: u64, granularity: u64, backing: Backing) -> Tier {
    Tier {
        name: "memory".into(),
        capacity: Bytes(capacity),
        class: Class::Staged,
        backing,
        node: None,
        device: None,
        transient: false,
        granularity: Bytes(granularity),
        read: Bandwidth(1),
        write: Bandwidth(1),
    }
}

fn arena(capacity: u64, granularity: u64, backing: Backing) -> Arena {
    Arena::new(&tier(capacity, granularity, backing), &temp_dir()).unwrap()
}

fn pattern(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31) ^ salt).collect()
}

#[test]
fn a_stale_slot_is_an_error_even_when_its_bytes_have_a_new_owner() {
    let mut arena = arena(4096, 512, Backing::Pageable);
    let old = arena.allocate(Bytes(1000)).unwrap();
    arena.free(old).unwrap();
    let new = arena.allocate(Bytes(1000)).unwrap();
    assert_ne!(old, new);
    assert!(matches!(arena.free(old), Err(ArenaError::Stale { .. })));
    assert!(matches!(arena.region(old), Err(ArenaError::Stale { .. })));
    arena.region(new).unwrap();
}

#[test]
fn sizes_are_rounded_and_the_capacity_is_never_exceeded() {
    // 4000 bytes are seven whole pages of 512.
    let mut arena = arena(4000, 512, Backing::Device);
    let slot = arena.allocate(Bytes(513)).unwrap();
    assert_eq!(arena.held(), Bytes(1024));
    arena.allocate(Bytes(5 * 512)).unwrap();
    let full = arena.allocate(Bytes(1)).unwrap_err();
    assert_eq!(full.to_string(), "memory is full: 512 B asked, 3.50 KiB of 3.50 KiB held");
    arena.free(slot).unwrap();
    arena.allocate(Bytes(1024)).unwrap();
}

#[test]
fn scattered_free_pages_hold_one_slot_and_its_bytes_in_every_backing() {
    for backing in [Backing::Device, Backing::Pinned, Backing::Pageable, Backing::Numa, Backing::File] {
        let mut arena = arena(8 * 512, 512, backing);
        let small: Vec<_> = (0..8).map(|_| arena.allocate(Bytes(512)).unwrap()).collect();
        small.iter().skip(1).step_by(2).for_each(|slot| arena.free(*slot).unwrap());
        let keep: Vec<_> = small.iter().step_by(2).map(|slot| arena.region(*slot).unwrap()).collect();
        keep.iter().for_each(|region| region.write_at(0, &pattern(512, 1)).unwrap());

        let scattered = arena.allocate(Bytes(2000)).unwrap();
        let region = arena.region(scattered).unwrap();
        region.write_at(0, &pattern(2000, 2)).unwrap();
        assert!(region.with_bytes(|bytes| bytes == pattern(2000, 2)).unwrap());
        region.fill(|bytes| bytes.copy_from_slice(&pattern(2000, 3))).unwrap();
        let mut middle = vec![0; 700];
        region.read_at(400, &mut middle).unwrap();
        assert_eq!(middle, pattern(2000, 3)[400..1100]);
        for region in &keep {
            assert!(region.with_bytes(|bytes| bytes == pattern(512, 1)).unwrap(), "a neighbour was touched");
        }
    }
}

#[test]
fn bytes_are_copied_between_any_two_backings_range_by_range() {
    let backings = [Backing::Device, Backing::File];
    for (from, to) in backings.into_iter().flat_map(|from| backings.map(|to| (from, to))) {
        let (mut source, mut target) = (arena(1 << 16, 4096, from), arena(1 << 16, 512, to));
        let slots = (source.allocate(Bytes(9999)).unwrap(), target.allocate(Bytes(9999)).unwrap());
        let (source, target) = (source.region(slots.0).unwrap(), target.region(slots.1).unwrap());
        source.write_at(0, &pattern(9999, 5)).unwrap();
        target.write_at(0, &[0; 9999]).unwrap();
        for (offset, len) in [(0, 4097), (4097, 1), (4098, 5901)] {
            target.copy_from(&source, offset, len).unwrap();
        }
        assert!(target.with_bytes(|bytes| bytes == pattern(9999, 5)).unwrap());
        let beyond = target.copy_from(&source, 9000, 1000).unwrap_err();
        assert!(matches!(beyond, ArenaError::OutOfRange { end: 10000, len: 9999, .. }));
    }
}

#[test]
fn freed_bytes_are_handed_out_again_only_after_their_last_reader() {
    let mut arena = arena(512, 512, Backing::Device);
    let slot = arena.allocate(Bytes(512)).unwrap();
    let reader = arena.region(slot).unwrap();
    reader.write_at(0, &pattern(512, 9)).unwrap();
    arena.free(slot).unwrap();
    let (sender, receiver) = channel();
    let next = thread::spawn(move || {
        let slot = arena.allocate(Bytes(512)).unwrap();
        arena.region(slot).unwrap().write_at(0, &[0; 512]).unwrap();
        sender.send(()).unwrap();
    });
    assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err(), "the reader is still there");
    assert!(reader.with_bytes(|bytes| bytes == pattern(512, 9)).unwrap());
    drop(reader);
    receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    next.join().unwrap();
}

#[test]
fn memory_that_cannot_be_had_is_an_error_and_an_empty_tier_is_not() {
    let refused = Arena::new(&tier(u64::MAX / 2, 1, Backing::Device), &temp_dir());
    assert!(matches!(refused, Err(ArenaError::NoMemory { .. })));
    let nowhere = Arena::new(&tier(512, 1, Backing::File), &temp_dir().join("no such folder"));
    assert!(matches!(nowhere, Err(ArenaError::NoMemory { .. })));
    let mut empty = arena(100, 512, Backing::Device);
    assert!(empty.allocate(Bytes(1)).is_err());
    empty.allocate(Bytes(0)).unwrap();
}

proptest! {
    // Each case writes to a real disk.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn chunks_of_any_size_arrive_whole_in_scattered_slots_of_any_backing(
        backings in prop::sample::subsequence(
            vec![Backing::Device, Backing::Pageable, Backing::File, Backing::File, Backing::Numa], 2),
        granularity in prop::sample::select(vec![512u64, 4096]),
        len in 1u64..40_000,
        chunk in 1u64..20_000,
    ) {
        let scattered = |backing, granularity| {
            let mut arena = arena(1 << 17, granularity, backing);
            let small: Vec<_> = (0..(1 << 17) / 4096).map(|_| arena.allocate(Bytes(4096)).unwrap()).collect();
            small.iter().step_by(2).for_each(|slot| arena.free(*slot).unwrap());
            let slot = arena.allocate(Bytes(len)).unwrap();
            arena.region(slot).unwrap()
        };
        let (source, target) = (scattered(backings[0], 4096), scattered(backings[1], granularity));
        source.write_at(0, &pattern(len as usize, 5)).unwrap();
        for offset in (0..len).step_by(chunk as usize) {
            target.copy_from(&source, offset, chunk.min(len - offset)).unwrap();
        }
        prop_assert!(target.with_bytes(|bytes| bytes == pattern(len as usize, 5)).unwrap());
        let mut last = [0];
        target.read_at(len - 1, &mut last).unwrap();
        prop_assert_eq!(last[0], pattern(len as usize, 5)[len as usize - 1]);
    }
}

fn notes(capacity: u64, granularity: u64, backing: Backing, node: Option<u32>) -> Vec<String> {
    let arena = Arena::new(&Tier { node, ..tier(capacity, granularity, backing) }, &temp_dir()).unwrap();
    arena.notes().iter().map(Note::to_string).collect()
}

#[test]
fn what_a_tier_asks_for_and_does_not_get_is_said() {
    let said = |notes: &[String], what: &str| notes.iter().any(|note| note.contains(what));
    let small_slots = notes(1 << 16, 512, Backing::File, None);
    assert!(said(&small_slots, "page cache: slots are multiples of 512 bytes"), "{small_slots:?}");
    // No file system has so much to give.
    let too_large = notes(15 << 40, 4096, Backing::File, None);
    assert!(said(&too_large, "15.00 TiB of disk are not reserved"), "{too_large:?}");
    let nowhere = notes(1 << 16, 512, Backing::Numa, Some(1000));
    assert!(said(&nowhere, "not bound to NUMA node 1000"), "{nowhere:?}");
    let beyond = notes(1 << 16, 512, Backing::Numa, Some(u32::MAX));
    assert!(said(&beyond, "not bound to NUMA node 4294967295"), "{beyond:?}");
    assert!(said(&notes(1 << 16, 512, Backing::Numa, None), "no NUMA node is named"));
    assert!(!said(&notes(1 << 16, 512, Backing::Pinned, None), "NUMA"));
    if std::path::Path::new("/sys/devices/system/node/node0").exists() {
        let bound = notes(1 << 16, 512, Backing::Numa, Some(0));
        assert!(!said(&bound, "NUMA"), "{bound:?}");
    }
    // Only tiers of locked memory ask for locks.
    assert!(!said(&notes(1 << 16, 512, Backing::Pageable, None), "page-locked"));
}

/// One test for both, since they are counted for the process; the other tests of it hold little.
#[test]
fn a_slot_has_its_pages_before_anybody_copies_to_it_and_they_are_locked_or_it_is_said() {
    let (locked_before, resident_before) = (locked(), resident());
    let mut arena = arena(64 << 20, 4096, Backing::Pinned);
    let slot = arena.allocate(Bytes(32 << 20)).unwrap();
    let lacks = |what: fn(&Note) -> bool| arena.notes().iter().find(|note| what(note));
    match lacks(|note| matches!(note, Note::NotPopulated(_))) {
        Some(note) => println!("skipped: {note}"),
        None => assert!(resident() >= resident_before + (24 << 20), "{resident_before} to {}", resident()),
    }
    match lacks(|note| matches!(note, Note::NotLocked { .. })) {
        Some(note) => println!("skipped: {note}"),
        None => assert!(locked() >= locked_before + (48 << 20), "{locked_before} to {}", locked()),
    }
    arena.free(slot).unwrap();
}

/// Bytes of this process that are page-locked.
fn locked() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
