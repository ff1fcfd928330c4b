//! The controls of the test double of CUDA's driver, of which there is one for all tests of a process: those that use them
//! run one at a time, in a process of their own.

use crate::engine::library;
use libloading::{Library, Symbol};
use std::ffi::{CString, c_char, c_int, c_longlong};

/// Set in such a process.
pub(crate) const SERIAL: &str = "HOTSET_TEST_SERIAL";

/// The double that the driver's calls come from.
pub(crate) struct Double(Library);

impl Double {
    /// None in a process where other tests run as well.
    #[allow(unsafe_code)]
    pub(crate) fn alone() -> Option<Double> {
        std::env::var_os(SERIAL)?;
        // SAFETY: it is the library that the driver's calls already come from.
        Some(Double(unsafe { Library::new(library::built().unwrap()) }.unwrap()))
    }

    /// Has the `nth` call from now of a function fail.
    #[allow(unsafe_code)]
    pub(crate) fn fail(&self, call: &str, nth: c_int, code: c_int) {
        let call = CString::new(call).unwrap();
        // SAFETY: the type is that of the definition in driver.cpp.
        unsafe {
            let fail: Symbol<'_, unsafe extern "C" fn(*const c_char, c_int, c_int)> =
                self.0.get(b"hotset_double_fail").unwrap();
            fail(call.as_ptr(), nth, code);
        }
    }

    /// Forgets all that is to fail; bytes of each device's memory from now on.
    #[allow(unsafe_code)]
    pub(crate) fn reset(&self, bytes: u64) {
        // SAFETY: as above.
        unsafe {
            let reset: Symbol<'_, unsafe extern "C" fn(u64)> = self.0.get(b"hotset_double_reset").unwrap();
            reset(bytes);
        }
    }

    /// Whether devices opened from now on can reach each other's memory.
    #[allow(unsafe_code)]
    pub(crate) fn let_reach(&self, can: bool) {
        // SAFETY: as above.
        unsafe {
            let peers: Symbol<'_, unsafe extern "C" fn(c_int)> = self.0.get(b"hotset_double_peers").unwrap();
            peers(can.into());
        }
    }

    /// Whether a device was given access to the other one's memory.
    #[allow(unsafe_code)]
    pub(crate) fn reaches(&self, device: c_int) -> bool {
        // SAFETY: as above.
        unsafe {
            let reaches: Symbol<'_, unsafe extern "C" fn(c_int) -> c_int> =
                self.0.get(b"hotset_double_reaches").unwrap();
            reaches(device) != 0
        }
    }

    /// Bytes of a device's memory that are taken.
    #[allow(unsafe_code)]
    pub(crate) fn taken(&self, device: c_int) -> u64 {
        // SAFETY: as above.
        unsafe {
            let taken: Symbol<'_, unsafe extern "C" fn(c_int) -> u64> =
                self.0.get(b"hotset_double_taken").unwrap();
            taken(device)
        }
    }

    /// Direct transfers of files carry no more than so many bytes at once from now on.
    #[allow(unsafe_code)]
    pub(crate) fn cut_short(&self, bytes: u64) {
        // SAFETY: the type is that of the definition in cufile.cpp.
        unsafe {
            let short: Symbol<'_, unsafe extern "C" fn(u64)> = self.0.get(b"hotset_double_short").unwrap();
            short(bytes);
        }
    }

    /// Files that are known to GPUDirect Storage.
    #[allow(unsafe_code)]
    pub(crate) fn files(&self) -> i64 {
        // SAFETY: as above.
        unsafe {
            let files: Symbol<'_, unsafe extern "C" fn() -> c_longlong> =
                self.0.get(b"hotset_double_files").unwrap();
            files()
        }
    }
}
