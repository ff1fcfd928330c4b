//! Whether the compiled kernels were made of the sources.

use crate::library::{digests, folder};
use std::collections::BTreeMap;

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
