//! The engine that the laws are tried on: the host, or the accelerator that `HOTSET_TEST_DEVICE` names (`cuda:0`). Without
//! an accelerator the same laws are tried on a test double of CUDA's driver, in a process of its own.

#[path = "../kernels/library.rs"]
pub(crate) mod library;

use hw::cuda::Cuda;
use hw::engine::Engine;
use hw::host::Host;
use std::process::Command;

pub(crate) const DEVICE: &str = "HOTSET_TEST_DEVICE";

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

#[test]
fn the_laws_hold_on_a_test_double_of_cuda() {
    if is_accelerator() {
        return;
    }
    let Some(double) = library::built() else { return };
    let tests = Command::new(std::env::current_exe().unwrap())
        .env(DEVICE, "cuda:0")
        .env("LD_LIBRARY_PATH", double.parent().unwrap())
        .output()
        .unwrap();
    assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stdout));
}
