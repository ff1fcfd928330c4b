//! The kernels as a library of the CPU, built once from the sources as they are, and memory to run them on.

use crate::library;
use hw::cuda::launch::{Launch, THREADS};
use libloading::{Library, Symbol};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::OnceLock;

type Run = unsafe extern "C" fn(*const c_char, u32, u32, u32, u32, *mut *mut c_void, c_int) -> c_int;

pub(crate) struct Kernels(Library);

/// The kernels, or `None` where no compiler is found.
pub(crate) fn kernels() -> Option<&'static Kernels> {
    static KERNELS: OnceLock<Option<Kernels>> = OnceLock::new();
    let found = KERNELS.get_or_init(|| library::built().map(|path| Kernels::open(&path)));
    found.as_ref()
}

impl Kernels {
    #[allow(unsafe_code)]
    fn open(path: &Path) -> Kernels {
        // SAFETY: the library was built from our own sources; loading it registers kernels and does nothing else.
        Kernels(unsafe { Library::new(path) }.unwrap())
    }

    /// Runs launches one after another; `backward` turns around the order in which threads run.
    #[allow(unsafe_code)]
    pub(crate) fn run(&self, launches: &[Launch], backward: bool) {
        // SAFETY: the type is that of the definition in library.cpp.
        let run: Symbol<'_, Run> = unsafe { self.0.get(b"hotset_launch") }.unwrap();
        for launch in launches {
            let name = CString::new(launch.kernel.as_str()).unwrap();
            let mut words = launch.arguments.clone();
            let mut arguments: Vec<*mut c_void> =
                words.iter_mut().map(|word| (word as *mut u64).cast()).collect();
            let [x, y, z] = launch.grid;
            // SAFETY: the arguments are words, as the library demands; the addresses among them are of buffers that
            // are larger than what a right kernel touches, and a wrong one is what the guards around them find.
            let code =
                unsafe { run(name.as_ptr(), x, y, z, THREADS, arguments.as_mut_ptr(), backward.into()) };
            assert_eq!(code, 0, "{launch:?}");
        }
    }

    /// The names of all kernels.
    #[allow(unsafe_code)]
    pub(crate) fn names(&self) -> Vec<String> {
        // SAFETY: the type is that of the definition; the string lives as long as the library.
        let names = unsafe {
            let names: Symbol<'_, unsafe extern "C" fn() -> *const c_char> =
                self.0.get(b"hotset_kernels").unwrap();
            CStr::from_ptr(names())
        };
        names.to_str().unwrap().lines().map(String::from).collect()
    }
}

const GUARD: u8 = 0xc7;

#[repr(C, align(256))]
#[derive(Clone, Copy)]
struct Chunk([u8; 256]);

/// Bytes at a multiple of 256, with guards on both sides that tell whether anything else was written.
pub(crate) struct Buffer {
    chunks: Vec<Chunk>,
    bytes: usize,
}

impl Buffer {
    pub(crate) fn of(bytes: &[u8]) -> Buffer {
        let mut chunks = vec![Chunk([GUARD; 256]); bytes.len().div_ceil(256) + 2];
        for (chunk, from) in chunks[1..].iter_mut().zip(bytes.chunks(256)) {
            chunk.0[..from.len()].copy_from_slice(from);
        }
        Buffer { chunks, bytes: bytes.len() }
    }

    /// Bytes that no kernel writes by chance.
    pub(crate) fn unset(bytes: u64) -> Buffer {
        Buffer::of(&vec![0xa5; bytes as usize])
    }

    pub(crate) fn numbers(values: &[f32]) -> Buffer {
        Buffer::of(bytemuck::cast_slice(values))
    }

    pub(crate) fn address(&mut self) -> u64 {
        self.chunks[1..].as_mut_ptr().expose_provenance() as u64
    }

    /// What is there now.
    pub(crate) fn read(&self) -> Vec<u8> {
        // Kernels write behind the compiler's back.
        let chunks = std::hint::black_box(&self.chunks);
        let all: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.0).collect();
        let (before, rest) = all.split_at(256);
        let (mine, after) = rest.split_at(self.bytes);
        assert!(before.iter().chain(after).all(|&byte| byte == GUARD), "written outside of a buffer");
        mine.to_vec()
    }

    pub(crate) fn read_numbers(&self) -> Vec<f32> {
        self.read().as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
    }
}
