use super::*;
use crate::store::FileStore;
use std::env::temp_dir;

fn file_pool(capacity: u64, granularity: u64) -> Arc<Pool> {
    let mut notes = Vec::new();
    let store = FileStore::new(&temp_dir(), capacity, granularity, &mut notes).unwrap();
    Arc::new(Pool::new("disk".into(), Store::File(store), capacity))
}

fn file_of(pool: &Pool) -> &std::fs::File {
    match &pool.store {
        Store::File(store) => store.file(),
        Store::Memory(_) | Store::Device(_) => panic!("a file was made"),
    }
}

#[test]
fn a_file_that_shrinks_under_its_slots_is_an_error_that_says_so() {
    for granularity in [4096, 512] {
        let pool = file_pool(1 << 16, granularity);
        let region = Region::take(&pool, 50_000, 53_248).unwrap();
        region.write_at(0, &[7; 50_000]).unwrap();
        file_of(&pool).set_len(20_000).unwrap();
        let gone = region.with_bytes(|_| ()).unwrap_err();
        assert!(matches!(gone, ArenaError::Ended { at: 20_000.., .. }), "{gone}");
        assert!(gone.to_string().starts_with("disk: its file has shrunk, byte "), "{gone}");
        region.read_at(0, &mut [0; 100]).unwrap();
        file_of(&pool).set_len(1 << 16).unwrap();
        region.write_at(0, &[8; 50_000]).unwrap();
        assert!(region.with_bytes(|bytes| bytes == [8; 50_000]).unwrap());
    }
}

fn always(fault: Fault) -> Arc<Faults> {
    let faults = Faults::new(1, &[(fault, 1)]);
    faults.arm(true);
    Arc::new(faults)
}

#[test]
fn every_planned_failure_is_a_typed_error_and_a_flipped_bit_is_one_bit() {
    let memory = |name: &str| {
        let memory = Memory::new(1 << 16, policy::machine::Backing::Pageable, None, &mut vec![]).unwrap();
        Arc::new(Pool::new(name.into(), Store::Memory(memory), 1 << 16))
    };
    for pool in [memory("dram"), file_pool(1 << 16, 4096)] {
        let (source, target) =
            (Region::take(&memory("source"), 9000, 9000).unwrap(), Region::take(&pool, 9000, 12288).unwrap());
        source.write_at(0, &[0x55; 9000]).unwrap();
        target.write_at(0, &[0x55; 9000]).unwrap();
        assert!(pool.fail(always(Fault::Flip)));
        assert!(!pool.fail(always(Fault::Read)), "one plan");
        target.copy_from(&source, 1000, 500).unwrap();
        let wrong = |bytes: &[u8]| bytes.iter().map(|byte| (byte ^ 0x55).count_ones()).collect::<Vec<_>>();
        let bits = target.with_bytes(wrong).unwrap();
        assert_eq!(bits.iter().sum::<u32>(), 1);
        assert_eq!(bits[1000..1500].iter().sum::<u32>(), 1, "within what was copied");
        assert_eq!(pool.faults().unwrap().struck(Fault::Flip), 1);
    }
    for (fault, kind) in [(Fault::Read, "cannot read"), (Fault::Write, "cannot write")] {
        let pool = file_pool(1 << 16, 4096);
        let region = Region::take(&pool, 100, 4096).unwrap();
        pool.fail(always(fault));
        let error = if fault == Fault::Read {
            region.with_bytes(|_| ()).unwrap_err()
        } else {
            region.fill(|_| ()).unwrap_err()
        };
        assert!(
            error.to_string().starts_with(&format!("disk: {kind} at byte 0: Input/output error")),
            "{error}"
        );
    }
}
