//! The engine that the laws are tried on: the host, or the accelerator that `HOTSET_TEST_DEVICE` names (`cuda:0`). Without
//! an accelerator the same laws are tried on a test double of CUDA's driver, in processes of their own: once with all that
//! a machine can have, once without what it may lack.

#[path = "../kernels/library.rs"]
pub(crate) mod library;

use crate::world::PEER_DEVICE;
use hw::cuda::Cuda;
use hw::engine::Engine;
use hw::host::Host;
use std::path::Path;
use std::process::Command;

pub(crate) const DEVICE: &str = "HOTSET_TEST_DEVICE";
/// Has the double's two devices not reach each other's memory.
pub(crate) const ALONE: &str = "HOTSET_DOUBLE_ALONE";

/// Whether the laws are being tried on one.
pub(crate) fn is_accelerator() -> bool {
    std::env::var_os(DEVICE).is_some()
}

pub(crate) fn engine() -> Box<dyn Engine> {
    let folder = std::env::temp_dir();
    match std::env::var(DEVICE) {
        Ok(name) => {
            let ordinal = name.strip_prefix("cuda:").unwrap().parse().unwrap();
            Box::new(Cuda::open(ordinal, &folder).unwrap())
        }
        Err(_) => Box::new(Host::new(&folder)),
    }
}

/// These tests in a process of their own, on a test double of CUDA's driver with a second device and GPUDirect Storage.
pub(crate) fn on_double(double: &Path) -> Command {
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.env(DEVICE, "cuda:0").env(PEER_DEVICE, "1").env("HOTSET_CUFILE", double);
    tests.env("LD_LIBRARY_PATH", double.parent().unwrap());
    tests
}

/// Runs them; they must pass.
pub(crate) fn pass(tests: &mut Command) {
    let tests = tests.output().unwrap();
    assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stdout));
}

#[test]
fn the_laws_hold_on_a_test_double_of_cuda() {
    if is_accelerator() {
        return;
    }
    let Some(double) = library::built() else { return };
    pass(&mut on_double(&double));
    pass(on_double(&double).env("HOTSET_CUFILE", "no-such-library").env(ALONE, "1"));
}
