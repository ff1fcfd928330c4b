//! GPUDirect Storage: bytes of a file go to an accelerator's memory and come from it past the host's, where NVIDIA's
//! libcufile and its driver are there.
//!
//! The library is loaded here and not by cudarc, which looks for `libcufile.so` alone (only development packages have
//! that name), ends the process where a function is missing, and makes Rust enums of codes that it may not know.
//! Buffers are not registered: that would pin all of a tier behind the device's PCI window, which may be smaller than the
//! tier. So the library passes bytes through buffers of its own in the device's memory.

use crate::store::Way;
use libloading::{Library, Symbol};
use std::error::Error as _;
use std::ffi::{OsString, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use thiserror::Error;

/// What the library is called where only its runtime is installed.
const NAME: &str = "libcufile.so.0";
/// Names a developer's own library in place of [`NAME`].
const OVERRIDE: &str = "HOTSET_CUFILE";
/// The library reads here what its storage is; in containers that lack it, it may crash (KvikIO's runtime settings).
const UDEV: &str = "/run/udev";

/// Why files do not go to an accelerator past the host's memory.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StorageError {
    /// The library cannot be loaded.
    #[error("{0}")]
    NoLibrary(String),
    /// The library would not find its storage.
    #[error("{UDEV} cannot be read, which libcufile needs")]
    NoUdev,
    /// The kernel's side is missing: the library would read files as we do, and copy.
    #[error(
        "libcufile finds neither the nvidia-fs driver nor storage that it knows (its compatibility mode)"
    )]
    NoDriver,
    /// Direct transfers of the file are not possible at all.
    #[error("the file goes through the page cache")]
    Buffered,
    /// It was asked not to.
    #[error("it is switched off")]
    Off,
    /// A call of the library's failed.
    #[error("{call} failed with {code}")]
    Refused {
        /// The call.
        call: &'static str,
        /// cuFile's code, from 5001 on.
        code: i64,
    },
}

/// What calls return: a code of cuFile's and one of CUDA's.
#[repr(C)]
struct Status {
    code: c_int,
    cuda: c_int,
}

/// `CUfileDescr_t`.
#[repr(C)]
struct Descriptor {
    kind: c_int,
    /// A union with a pointer, which is larger.
    file: FileNumber,
    operations: *const c_void,
}

#[repr(C, align(8))]
struct FileNumber(c_int);

/// `CU_FILE_HANDLE_TYPE_OPAQUE_FD`.
const OPAQUE_FILE: c_int = 1;

/// The beginning of `CUfileDrvProps_t`, and room for what later versions may add.
#[repr(C)]
#[derive(Clone, Copy)]
struct Properties {
    major: u32,
    minor: u32,
    poll_threshold: usize,
    most_direct: usize,
    /// A bit for each kind of storage that the driver knows.
    status: u32,
    rest: [u32; 61],
}

type Call<Arguments> = Symbol<'static, Arguments>;

/// The library's functions.
struct CuFile {
    register: Call<unsafe extern "C" fn(*mut *mut c_void, *mut Descriptor) -> Status>,
    deregister: Call<unsafe extern "C" fn(*mut c_void)>,
    read: Call<Transfer>,
    write: Call<Transfer>,
}

/// A file, an address of the device's, how many bytes, where in the file, and how far behind the address. How many bytes
/// were carried, or -1 for an error of the system's, or a negated code of cuFile's.
type Transfer = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, i64, i64) -> isize;

/// The library, loaded and opened once; it has threads, so it is never unloaded.
fn library() -> Result<&'static CuFile, StorageError> {
    static LIBRARY: OnceLock<Result<CuFile, StorageError>> = OnceLock::new();
    LIBRARY.get_or_init(CuFile::open).as_ref().map_err(Clone::clone)
}

fn succeeded(call: &'static str, status: Status) -> Result<(), StorageError> {
    if status.code == 0 { Ok(()) } else { Err(StorageError::Refused { call, code: status.code.into() }) }
}

impl CuFile {
    #[allow(unsafe_code)]
    fn open() -> Result<CuFile, StorageError> {
        let own = std::env::var_os(OVERRIDE);
        // The error itself only says which call failed.
        let why = |error: libloading::Error| error.source().map_or(error.to_string(), ToString::to_string);
        let failed = |error| StorageError::NoLibrary(why(error));
        let name = own.clone().unwrap_or_else(|| OsString::from(NAME));
        // SAFETY: it is NVIDIA's, or the one that was asked for; what runs when it is loaded is its affair.
        let library: &'static Library = Box::leak(Box::new(unsafe { Library::new(name) }.map_err(failed)?));
        if own.is_none() && std::fs::read_dir(UDEV).is_err() {
            return Err(StorageError::NoUdev);
        }
        // SAFETY: the types are those of cufile.h.
        let (open, properties, cufile) = unsafe {
            let open: Call<unsafe extern "C" fn() -> Status> =
                library.get(b"cuFileDriverOpen").map_err(failed)?;
            let properties: Call<unsafe extern "C" fn(*mut Properties) -> Status> =
                library.get(b"cuFileDriverGetProperties").map_err(failed)?;
            let cufile = CuFile {
                register: library.get(b"cuFileHandleRegister").map_err(failed)?,
                deregister: library.get(b"cuFileHandleDeregister").map_err(failed)?,
                read: library.get(b"cuFileRead").map_err(failed)?,
                write: library.get(b"cuFileWrite").map_err(failed)?,
            };
            (open, properties, cufile)
        };
        let mut found =
            Properties { major: 0, minor: 0, poll_threshold: 0, most_direct: 0, status: 0, rest: [0; 61] };
        // SAFETY: the library is initialised by the first call; the second writes no more than it is given.
        unsafe {
            succeeded("cuFileDriverOpen", open())?;
            succeeded("cuFileDriverGetProperties", properties(&raw mut found))?;
        }
        if (found.major, found.minor, found.status) == (0, 0, 0) {
            Err(StorageError::NoDriver)
        } else {
            Ok(cufile)
        }
    }
}

/// A file that the library knows.
pub(crate) struct DirectFile {
    library: &'static CuFile,
    handle: *mut c_void,
    /// Open for as long as it is known.
    _file: File,
}

// SAFETY: the handle is a name of the library's, whose calls may be made by any threads at once.
#[allow(unsafe_code)]
unsafe impl Send for DirectFile {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for DirectFile {}

impl DirectFile {
    /// Makes a file known that is open for direct transfers. The first call opens the library.
    #[allow(unsafe_code)]
    pub(crate) fn new(file: &File) -> Result<DirectFile, StorageError> {
        let library = library()?;
        let failed = |error: io::Error| StorageError::NoLibrary(error.to_string());
        let file = file.try_clone().map_err(failed)?;
        let mut descriptor = Descriptor {
            kind: OPAQUE_FILE,
            file: FileNumber(file.as_raw_fd()),
            operations: std::ptr::null(),
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: both places outlive the call.
        let status = unsafe { (library.register)(&raw mut handle, &raw mut descriptor) };
        succeeded("cuFileHandleRegister", status)?;
        Ok(DirectFile { library, handle, _file: file })
    }

    /// Carries up to `len` bytes between byte `at` of the file and an address of the current device's memory; how many.
    ///
    /// # Safety
    /// The address is that of `len` bytes that nobody else writes, nor reads where they are loaded.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn carry(&self, way: Way, at: u64, memory: u64, len: u64) -> io::Result<usize> {
        let (call, name) = match way {
            Way::Load => (&self.library.read, "cuFileRead"),
            Way::Save => (&self.library.write, "cuFileWrite"),
        };
        let memory = std::ptr::without_provenance_mut(memory as usize);
        // SAFETY: the caller answers for the memory; the handle is known until it is dropped.
        let carried = unsafe { call(self.handle, memory, len as usize, at.cast_signed(), 0) };
        match carried {
            -1 => Err(io::Error::last_os_error()),
            carried => usize::try_from(carried).map_err(|_| {
                io::Error::other(StorageError::Refused { call: name, code: (carried as i64).wrapping_neg() })
            }),
        }
    }
}

impl Drop for DirectFile {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: it is ours, and no transfer borrows it.
        unsafe { (self.library.deregister)(self.handle) };
    }
}
