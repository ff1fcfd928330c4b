//! The kernels and the test double of CUDA's libraries as a library of the CPU, built once from the sources as they are.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of every file in a folder whose name ends in one of `endings`.
pub(crate) fn digests(folder: &Path, endings: &[&str]) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(name, _)| endings.iter().any(|ending| name.ends_with(ending)))
        .map(|(name, path)| (name, hex(&Sha256::digest(std::fs::read(path).unwrap()))))
        .collect()
}

/// A name for what the library is made of.
fn digest() -> String {
    let mut all = digests(&folder(), &[".cu", ".cuh"]);
    all.extend(digests(&folder().join("cpu"), &[".hpp", ".cpp"]));
    hex(&Sha256::digest(format!("{all:?}")))[..16].to_string()
}

/// The library, or `None` with a line that says so where there is no compiler. It lies in a folder of its own, under the
/// name by which cudarc looks for the driver first.
pub(crate) fn built() -> Option<PathBuf> {
    // Once in a process, however many tests ask.
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build).clone()
}

fn build() -> Option<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let folder_of_it = target.join(format!("kernels-{}", digest()));
    let path = folder_of_it.join("libcuda.so");
    if path.exists() {
        return Some(path);
    }
    if Command::new(&compiler).arg("--version").output().is_err() {
        println!("skipped: no C++ compiler at {compiler} to run kernels with");
        return None;
    }
    std::fs::create_dir_all(&folder_of_it).unwrap();
    let unfinished = folder_of_it.join(format!("{}.part", std::process::id()));
    let built = Command::new(&compiler)
        .args(["-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-Wall", "-Werror"])
        .args(["-Wno-unknown-pragmas", "-x", "c++"])
        .arg(folder().join("cpu/driver.cpp"))
        .arg("-o")
        .arg(&unfinished)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let blas = folder_of_it.join("libcublasLt.so");
    if !blas.exists() {
        // Another process may be as far.
        let _ = std::os::unix::fs::symlink("libcuda.so", blas);
    }
    std::fs::rename(&unfinished, &path).unwrap();
    Some(path)
}
