//! NVIDIA's run-time compiler, which needs no driver, where it is installed.

use crate::library::folder;
use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts, sys};
use hw::cuda::gpu::compile_options;

#[test]
#[allow(unsafe_code)]
fn nvrtc_compiles_the_kernels_for_every_architecture() {
    // SAFETY: it only tries to load the library.
    if !unsafe { sys::is_culib_present() } {
        println!("skipped: no libnvrtc on the library path (PyPI has it as nvidia-cuda-nvrtc)");
        return;
    }
    std::thread::scope(|scope| {
        for architecture in ["compute_80", "compute_90"] {
            scope.spawn(|| compile(architecture));
        }
    });
}

fn compile(architecture: &'static str) {
    let source = std::fs::read_to_string(folder().join("hotset.cu")).unwrap();
    let options = CompileOptions { arch: Some(architecture), ..compile_options(&folder()) };
    let ptx = compile_ptx_with_opts(&source, options).unwrap().to_src();
    for kernel in [".entry checksum(", ".entry matmul_bf16_8(", ".entry decode_bf16_packed_to_bf16("] {
        assert!(ptx.contains(kernel), "{architecture}: {kernel}");
    }
}
