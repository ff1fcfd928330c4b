//! Every call of CUDA's driver fails once: when it refuses, and when the device is gone for good. In a process of its own,
//! one test at a time, since the double is one for all.

use crate::double::{Double, SERIAL};
use crate::engine::{DEVICE, engine, library, on_double, pass};
use crate::world::{DISK, DRAM, HBM, PEER, compute_command, copies, form, machine, model, whole};
use hw::content::Contents;
use hw::cuda::Cuda;
use hw::cuda::error::CudaError;
use hw::device::{Device, Setup};
use hw::refusal::DeviceError;
use policy::MoveId;
use policy::event::{EncodeAt, Part};
use policy::units::Bytes;
use std::ffi::c_int;

/// Out of memory; an address that is not there, after which nothing works any more.
const CODES: [c_int; 2] = [2, 700];
const OPENING: [&str; 7] = [
    "cuDriverGetVersion",
    "cuInit",
    "cuDeviceGetCount",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuModuleLoadData",
];
/// Calls that only set a device up, before the first of its commands.
const SETTING_UP: [&str; 4] =
    ["cuStreamCreateWithPriority", "cuMemHostRegister_v2", "cuDeviceCanAccessPeer", "cuCtxEnablePeerAccess"];
const RUNNING: [&str; 16] = [
    "cuStreamCreateWithPriority",
    "cuMemAlloc_v2",
    "cuMemHostRegister_v2",
    "cuDeviceCanAccessPeer",
    "cuCtxEnablePeerAccess",
    "cuMemHostAlloc",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyPeerAsync",
    "cuFileRead",
    "cuFileWrite",
    "cuModuleGetFunction",
    "cuLaunchKernel",
    "cuStreamSynchronize",
    "cuEventRecord",
    "cuEventSynchronize",
];

fn device(hbm: u64) -> Result<Device, DeviceError> {
    let setup = Setup {
        machine: &machine(hbm),
        contents: Contents::new(&model(), 7).into(),
        copies: &copies(),
        budgets: &[],
        cache: Bytes::ZERO,
        tokens: 1,
        check_reads: true,
    };
    Device::new(&*engine(), setup)
}

/// A promotion as it is, one that is coded on arrival by the host and one by the device, a demotion to disk and one to
/// another device, promotions from both, and a step that reads what has come up.
fn use_it(device: &mut Device) -> Result<(), DeviceError> {
    let (from, to) = (form(DRAM, "int4_g32"), form(HBM, "int4_g32"));
    device.submit(&whole(1, 0, from, to, EncodeAt::Source))?;
    device.wait(MoveId(1))?;
    device.submit(&whole(2, 0, form(DISK, "bf16"), form(DRAM, "bf16"), EncodeAt::Source))?;
    device.wait(MoveId(2))?;
    device.submit(&whole(3, 0, form(DRAM, "bf16"), form(HBM, "int8"), EncodeAt::Destination))?;
    device.wait(MoveId(3))?;
    device.submit(&whole(4, 0, form(HBM, "int8"), form(DISK, "int8"), EncodeAt::Source))?;
    device.wait(MoveId(4))?;
    device.submit(&whole(5, 1, form(DISK, "bf16"), form(HBM, "bf16"), EncodeAt::Source))?;
    device.wait(MoveId(5))?;
    device.submit(&whole(6, 1, form(HBM, "bf16"), form(PEER, "bf16"), EncodeAt::Source))?;
    device.wait(MoveId(6))?;
    device.submit(&whole(7, 1, form(PEER, "bf16"), form(HBM, "fp8_e4m3"), EncodeAt::Source))?;
    device.wait(MoveId(7))?;
    device.submit(&whole(8, 2, form(DISK, "bf16"), form(HBM, "mxfp4"), EncodeAt::Source))?;
    device.wait(MoveId(8))?;
    device.submit(&compute_command(&[(0, to), (0, form(HBM, "int8")), (1, form(PEER, "bf16"))]))?;
    device.wait_compute(Part::Experts)?;
    Ok(())
}

#[test]
fn a_device_that_cannot_be_opened_is_an_error() {
    let Some(double) = Double::alone() else { return };
    for (call, code) in OPENING.iter().flat_map(|call| CODES.map(|code| (call, code))) {
        double.reset(1 << 30);
        double.fail(call, 1, code);
        let error = Cuda::open(0, &std::env::temp_dir()).err().unwrap();
        assert!(matches!(error, CudaError::Driver { .. }), "{call}: {error}");
    }
    double.reset(1 << 30);
    assert!(matches!(Cuda::open(3, &std::env::temp_dir()), Err(CudaError::NoDevice { asked: 3, there: 2 })));
}

#[test]
fn a_tier_larger_than_the_device_is_refused() {
    let Some(double) = Double::alone() else { return };
    double.reset(1 << 30);
    let error = device(2 << 30).err().unwrap().to_string();
    assert!(error.contains("hbm") && error.contains("lower the tier's capacity"), "{error}");
}

/// Whatever fails, it fails with an error, nothing hangs, and a device that works on has lost no copy.
#[test]
fn every_call_may_fail_at_any_time() {
    let Some(double) = Double::alone() else { return };
    for (call, code) in RUNNING.iter().flat_map(|call| CODES.map(|code| (call, code))) {
        let mut failures = 0;
        for nth in 1..=3 {
            double.reset(1 << 30);
            let Ok(mut device) = device(40_000) else { unreachable!("nothing fails yet") };
            let before: Vec<_> = device.published().collect();
            double.fail(call, nth, code);
            failures += usize::from(use_it(&mut device).is_err());
            double.fail(call, c_int::MAX, 0);
            if code < 700 {
                let there = device.audit().unwrap();
                assert!(before.iter().all(|copy| there.contains(copy)), "{call} {nth}");
            }
            drop(device);
            double.reset(1 << 30);
            double.fail(call, nth, code);
            drop(self::device(40_000));
        }
        assert!(failures > 0 || SETTING_UP.contains(call), "{call} is never made");
    }
    double.reset(1 << 30);
}

#[test]
fn failures_of_the_driver_are_errors() {
    if std::env::var_os(DEVICE).is_some() {
        return;
    }
    let Some(double) = library::built() else { return };
    pass(on_double(&double).args(["failures::", "--test-threads=1"]).env(SERIAL, "1"));
}
