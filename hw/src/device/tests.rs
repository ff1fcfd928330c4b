use super::*;
use crate::host;
use policy::Model;
use policy::event::{EncodeAt, MoveChunk, MoveClass, Read, Source};
use policy::machine::{Backing, Class, Link, Processor, Tier};
use policy::model::{Block, BlockKind, Matrix};
use policy::units::{Bandwidth, FlopRate, Nanos};
use policy::{FormatId, LayerId, Rate};

const UP: (TierId, TierId) = (TierId(1), TierId(0));

fn device() -> (Device, Copy, Copy) {
    let rate = Bandwidth(1);
    let tier = |name: &str, class, backing| Tier {
        name: name.into(),
        capacity: Bytes(1 << 16),
        class,
        backing,
        node: None,
        device: None,
        transient: false,
        endurance: None,
        granularity: Bytes(64),
        read: rate,
        write: rate,
    };
    let link = Link {
        name: "link".into(),
        from: UP.0,
        to: UP.1,
        latency: Nanos::ZERO,
        submit: Nanos::ZERO,
        rate: Rate::with_half_size(rate, Bytes::ZERO),
        duplex: rate,
        engines: 1,
        opposite: None,
    };
    let machine = Machine {
        name: "two tiers".into(),
        tiers: vec![tier("hbm", Class::Fast, Backing::Device), tier("disk", Class::Cold, Backing::File)],
        links: vec![link],
        accelerator: Processor { flops: FlopRate(1), read: rate, launch: Nanos::ZERO },
        codecs: vec![],
        host_codecs: vec![],
        near: vec![],
        kernels: vec![],
        peak: None,
        times: vec![],
        peers: None,
        merge: None,
    };
    let native = FormatId::named("bf16").unwrap();
    let block = Block {
        kind: BlockKind::Expert,
        layer: LayerId(0),
        index: 0,
        matrices: [Matrix { rows: 10, columns: 100 }].into(),
        native,
        mixed: None,
        recipe: None,
    };
    let model = Model { name: "one block".into(), blocks: vec![block], ..Model::default() };
    let copy = |tier| (BlockId(0), Form { tier, format: native });
    let (home, fast) = (copy(UP.0), copy(UP.1));
    (host::device(&machine, &model, &[home], 3, &std::env::temp_dir()).unwrap(), home, fast)
}

fn up(home: Copy, fast: Copy) -> Command {
    Command::Move(MoveChunk {
        id: MoveId(1),
        block: home.0,
        from: Source::Copy(home.1),
        to: fast.1,
        keep: None,
        encode_at: EncodeAt::Source,
        class: MoveClass::Demand,
        deadline: None,
        offset: Bytes::ZERO,
        len: Bytes(2000),
        last: true,
    })
}

fn flip_a_bit(device: &Device, copy: Copy) {
    let region = device.readable("test", copy).unwrap();
    let mut byte = [0];
    region.read_at(1234, &mut byte).unwrap();
    region.write_at(1234, &[byte[0] ^ 1]).unwrap();
}

fn is_mismatch(error: &DeviceError) -> bool {
    matches!(error, DeviceError::Job(JobError::Mismatch { block: 0, .. }))
}

#[test]
fn one_wrong_bit_in_the_source_keeps_the_copy_from_being_published() {
    let (mut device, home, fast) = device();
    flip_a_bit(&device, home);
    device.submit(&up(home, fast)).unwrap();
    assert!(is_mismatch(&device.wait(MoveId(1)).unwrap_err()));
    assert_eq!(device.totals().mismatches, 1);
    assert_eq!(device.published().collect::<Vec<_>>(), [home]);
    assert!(is_mismatch(&device.audit().unwrap_err()), "the home copy itself");
}

#[test]
fn one_wrong_bit_in_a_published_copy_is_found_by_compute_and_by_the_audit() {
    let (mut device, home, fast) = device();
    device.submit(&up(home, fast)).unwrap();
    device.wait(MoveId(1)).unwrap();
    flip_a_bit(&device, fast);
    let read = Read { block: fast.0, form: fast.1, tokens: 1 };
    let compute = Command::Compute {
        mixers: 0..0,
        layer: LayerId(0),
        part: Part::Experts,
        batch: [].into(),
        reads: vec![read],
        through: None,
    };
    device.submit(&compute).unwrap();
    assert!(is_mismatch(&device.wait_compute(Part::Experts).unwrap_err()));
    assert!(is_mismatch(&device.audit().unwrap_err()));
    assert_eq!(device.totals().mismatches, 2);
}

#[test]
fn a_processor_that_the_machine_does_not_have_is_refused_before_anything_is_read() {
    let (mut device, home, fast) = device();
    let part = Part::Near(ProcessorId(0));
    let reads = vec![Read { block: home.0, form: home.1, tokens: 1 }];
    let batch = [].into();
    let compute = Command::Compute { mixers: 0..0, layer: LayerId(0), part, batch, reads, through: None };
    assert!(matches!(device.submit(&compute), Err(DeviceError::NoProcessor)));
    assert!(matches!(device.wait_compute(part), Err(DeviceError::NoProcessor)));
    device.submit(&up(home, fast)).unwrap();
    device.wait(MoveId(1)).unwrap();
}

#[test]
fn waiting_for_what_was_never_submitted_is_an_error_not_a_hang() {
    let (mut device, home, fast) = device();
    assert!(matches!(device.wait_compute(Part::Experts), Err(DeviceError::NoCompute)));
    assert!(matches!(device.wait(MoveId(1)), Err(DeviceError::NoSuchMove { id: 1 })));
    device.submit(&up(home, fast)).unwrap();
    device.wait(MoveId(1)).unwrap();
    assert!(matches!(device.wait(MoveId(1)), Err(DeviceError::NoSuchMove { id: 1 })));
}
