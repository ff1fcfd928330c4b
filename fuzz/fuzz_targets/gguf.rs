//! Any bytes are the header of a GGUF model or an error that can be printed.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, header).expect("a file");
    if let Err(wrong) = scenarios::model(&path.display().to_string()) {
        assert!(!wrong.to_string().is_empty());
    }
});
