//! What the kernels are made of, and whether the compiled ones were made of it.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of every file in a folder whose name ends in one of `endings`.
fn digests(folder: &Path, endings: &[&str]) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(name, _)| endings.iter().any(|ending| name.ends_with(ending)))
        .map(|(name, path)| (name, hex(&Sha256::digest(std::fs::read(path).unwrap()))))
        .collect()
}

/// One digest of all sources, those for the CPU too.
pub(crate) fn digest() -> String {
    let mut all = digests(&folder(), &[".cu", ".cuh"]);
    all.extend(digests(&folder().join("cpu"), &[".hpp", ".cpp"]));
    hex(&Sha256::digest(format!("{all:?}")))[..16].to_string()
}

#[test]
fn the_compiled_kernels_are_those_of_the_sources() {
    let record = std::fs::read_to_string(folder().join("hotset.sha256")).unwrap();
    let recorded: BTreeMap<String, String> = record
        .lines()
        .map(|line| line.split_once("  ").unwrap())
        .map(|(digest, name)| (name.to_string(), digest.to_string()))
        .collect();
    assert_eq!(
        recorded,
        digests(&folder(), &[".cu", ".cuh", ".fatbin"]),
        "run hw/kernels/build.sh: hotset.fatbin was not made of these sources"
    );
}
