//! The ways that pass the host by: another accelerator's memory, and files by GPUDirect Storage. On the test double, which
//! can take them away.

use crate::double::{Double, SERIAL};
use crate::engine::{DEVICE, engine, library, on_double, pass};
use crate::world::{DISK, DRAM, HBM, PEER, copies, form, machine, model, whole};
use hw::arena::ArenaError;
use hw::content::Contents;
use hw::cuda::Cuda;
use hw::device::{Device, Setup};
use hw::engine::Engine;
use hw::refusal::DeviceError;
use policy::event::{EncodeAt, Form};
use policy::units::Bytes;
use policy::{BlockId, Machine, MoveId};

const MEMORY: u64 = 1 << 30;
const HBM_BYTES: u64 = 80_000;
/// No library has this name.
const NO_LIBRARY: &str = "no-such-library";

fn device(engine: &dyn Engine, machine: &Machine) -> Result<Device, DeviceError> {
    let setup = Setup {
        machine,
        contents: Contents::new(&model(), 7).into(),
        copies: &copies(),
        budgets: &[],
        cache: Bytes::ZERO,
        tokens: 1,
        check_reads: true,
    };
    Device::new(engine, setup)
}

fn cuda() -> Cuda {
    Cuda::open(0, &std::env::temp_dir()).unwrap()
}

/// Moves a block from form to form, each of which is compared with the block when it is published.
fn tour(device: &mut Device, block: u32, forms: &[Form]) -> Result<(), DeviceError> {
    for (id, ends) in (u64::from(block) * 100..).zip(forms.windows(2)) {
        device.submit(&whole(id, block, ends[0], ends[1], EncodeAt::Source))?;
        device.wait(MoveId(id))?;
    }
    Ok(())
}

fn notes(device: &Device, about: &str) -> Vec<String> {
    device.notes().filter(|note| note.contains(about)).collect()
}

/// Whether the folder of files takes direct transfers; says so where it does not.
fn files_are_direct(device: &Device) -> bool {
    let cached = !notes(device, "through the page cache").is_empty();
    if cached {
        println!("skipped: no direct transfers in {}", std::env::temp_dir().display());
    }
    !cached
}

#[test]
fn another_device_holds_its_tier_and_gives_and_takes_copies() {
    let Some(double) = Double::alone() else { return };
    for reach in [true, false] {
        double.reset(MEMORY);
        double.let_reach(reach);
        let before = double.taken(1);
        let mut device = device(&cuda(), &machine(HBM_BYTES)).unwrap();
        assert!(double.taken(1) >= before + (1 << 20), "the tier lies elsewhere");
        assert_eq!([double.reaches(0), double.reaches(1)], [reach; 2]);
        assert_eq!(notes(&device, "do not reach each other's memory").is_empty(), reach);

        tour(
            &mut device,
            0,
            &[form(DISK, "bf16"), form(HBM, "bf16"), form(PEER, "bf16"), form(HBM, "mxfp4")],
        )
        .unwrap();
        tour(
            &mut device,
            1,
            &[form(DISK, "bf16"), form(DRAM, "bf16"), form(PEER, "int8"), form(HBM, "int8")],
        )
        .unwrap();
        for (id, at, to) in [(900, EncodeAt::Destination, "fp8_e4m3"), (901, EncodeAt::Source, "int4_g32")] {
            device.submit(&whole(id, 0, form(PEER, "bf16"), form(HBM, to), at)).unwrap();
            device.wait(MoveId(id)).unwrap();
        }
        device.submit(&whole(902, 0, form(HBM, "bf16"), form(PEER, "int8"), EncodeAt::Destination)).unwrap();
        device.wait(MoveId(902)).unwrap();
        assert_eq!(device.audit().unwrap().len(), copies().len() + 9);
        drop(device);
        assert_eq!(double.taken(1), before);
    }
    double.let_reach(true);
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let Some(double) = Double::alone() else { return };
    double.reset(MEMORY);
    let mut machine = machine(HBM_BYTES);
    machine.tiers[PEER.index()].device = Some(7);
    let refused = device(&cuda(), &machine).err().unwrap();
    assert!(matches!(refused, DeviceError::Arena(ArenaError::NoAccelerator { .. })), "{refused}");
    assert!(
        refused.to_string().starts_with("peer: there is no device cuda:7; the driver knows 2"),
        "{refused}"
    );
}

#[test]
fn files_pass_the_host_by() {
    let Some(double) = Double::alone() else { return };
    let forms = [form(DISK, "bf16"), form(HBM, "bf16"), form(HBM, "int8"), form(DISK, "int8")];
    for direct in [true, false] {
        double.reset(MEMORY);
        let engine = if direct { cuda() } else { cuda().through_host() };
        let mut device = device(&engine, &machine(HBM_BYTES)).unwrap();
        if !files_are_direct(&device) {
            return;
        }
        assert_eq!(engine.name().contains("files by GPUDirect Storage"), direct, "{}", engine.name());
        assert_eq!(double.files(), i64::from(direct));
        // Without pinned memory nothing goes through the host's.
        double.fail("cuMemHostAlloc", 1, 2);
        let moved = tour(&mut device, 0, &forms);
        match direct {
            true => moved.unwrap(),
            false => assert!(moved.unwrap_err().to_string().contains("taking pinned memory")),
        }
        drop(device);
        assert_eq!(double.files(), 0, "a file is still known");
    }
}

#[test]
fn transfers_that_are_cut_short_are_gone_on_with() {
    let Some(double) = Double::alone() else { return };
    double.reset(MEMORY);
    let forms = [form(DISK, "bf16"), form(HBM, "bf16"), form(HBM, "int8"), form(DISK, "int8")];
    let mut device = device(&cuda(), &machine(HBM_BYTES)).unwrap();
    if !files_are_direct(&device) {
        return;
    }
    // No multiple of a block: what is beyond the last whole one is asked for again.
    double.cut_short(5000);
    tour(&mut device, 0, &forms).unwrap();
    // Less than a block, again and again, is none.
    double.cut_short(100);
    let ended = tour(&mut device, 1, &forms).unwrap_err();
    assert!(
        matches!(ended, DeviceError::Job(_)) && ended.to_string().contains("disk: its file has shrunk"),
        "{ended}"
    );
    double.cut_short(0);
    tour(&mut device, 1, &forms).unwrap();
    device.audit().unwrap();
}

#[test]
fn transfers_that_fail_leave_what_was_there() {
    let Some(double) = Double::alone() else { return };
    double.reset(MEMORY);
    let forms = [form(DISK, "bf16"), form(HBM, "bf16"), form(HBM, "int8"), form(DISK, "int8")];
    let mut device = device(&cuda(), &machine(HBM_BYTES)).unwrap();
    if !files_are_direct(&device) {
        return;
    }
    let failures = [
        ("cuFileRead", libc::EIO, "disk: cannot read at byte 0: Input/output error"),
        ("cuFileRead", 5030, "disk: cannot read at byte 0: cuFileRead failed with 5030"),
        ("cuFileWrite", libc::ENOSPC, "No space left on device"),
        ("cuFileWrite", 5011, "cuFileWrite failed with 5011"),
    ];
    let published = device.audit().unwrap();
    for (block, (call, code, said)) in (0..).zip(failures) {
        double.fail(call, 1, code);
        let error = tour(&mut device, block, &forms).unwrap_err().to_string();
        assert!(
            error.contains(&said.replace("byte 0", &format!("byte {}", u64::from(block) * 12288))),
            "{error}"
        );
        let made = form(DISK, "int8");
        assert!(!device.audit().unwrap().contains(&(BlockId(block), made)), "{call}");
        assert!(device.audit().unwrap().is_superset(&published), "{call}");
    }
    tour(&mut device, 4, &forms).unwrap();
}

#[test]
fn a_file_that_is_not_taken_goes_through_pinned_memory() {
    let Some(double) = Double::alone() else { return };
    double.reset(MEMORY);
    double.fail("cuFileHandleRegister", 1, 5008);
    falls_back("cuFileHandleRegister failed with 5008");
}

#[test]
fn a_library_that_does_not_open_is_done_without() {
    let Some(double) = Double::alone() else { return };
    double.reset(MEMORY);
    match std::env::var("HOTSET_CUFILE").is_ok_and(|name| name == NO_LIBRARY) {
        true => falls_back(NO_LIBRARY),
        false if std::env::var(SERIAL).is_ok_and(|which| which == "opening") => {
            double.fail("cuFileDriverOpen", 1, 5001);
            falls_back("cuFileDriverOpen failed with 5001");
        }
        false => {}
    }
}

/// Files go through pinned memory, with a note that says why.
fn falls_back(why: &str) {
    let engine = cuda();
    let mut device = device(&engine, &machine(HBM_BYTES)).unwrap();
    if !files_are_direct(&device) {
        return;
    }
    let notes = notes(&device, "no GPUDirect Storage");
    assert!(matches!(&notes[..], [note] if note.starts_with("disk: ") && note.contains(why)), "{notes:?}");
    assert!(engine.name().contains("files through pinned memory"), "{}", engine.name());
    tour(&mut device, 0, &[form(DISK, "bf16"), form(HBM, "bf16"), form(HBM, "int8"), form(DISK, "int8")])
        .unwrap();
}

#[test]
fn the_ways_past_the_host_on_a_test_double() {
    if std::env::var_os(DEVICE).is_some() {
        return;
    }
    let Some(double) = library::built() else { return };
    let tests = |which: &str, only: &str| {
        let mut tests = on_double(&double);
        tests.args([only, "--test-threads=1"]).env(SERIAL, which);
        tests
    };
    pass(&mut tests("all", "paths::"));
    pass(&mut tests("opening", "paths::a_library_that"));
    pass(tests("opening", "paths::a_library_that").env("HOTSET_CUFILE", NO_LIBRARY));
}

/// On the host all memory is the host's.
#[test]
fn on_the_host_another_device_is_memory_as_any_other() {
    if std::env::var_os(DEVICE).is_some() {
        return;
    }
    let mut machine = machine(HBM_BYTES);
    machine.tiers[PEER.index()].device = Some(7);
    let mut device = device(&*engine(), &machine).unwrap();
    tour(&mut device, 0, &[form(DISK, "bf16"), form(HBM, "bf16"), form(PEER, "bf16"), form(HBM, "mxfp4")])
        .unwrap();
}
