//! No bytes make a trace parser panic or allocate without bound, and what it accepts survives a round trip.
//!
//! The first byte of an input chooses the format, the rest is the file. `cargo +nightly fuzz run traces`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use traces::hrt::{self, GateWidth};
use traces::{Format, Options, parse};

const FORMATS: [Format; 4] = [Format::Hrt, Format::Npz, Format::Csv, Format::Jsonl];

fuzz_target!(|input: &[u8]| {
    let Some((choice, file)) = input.split_first() else { return };
    let options = Options { max_decoded_bytes: 1 << 20, ..Options::default() };
    let Ok(trace) = parse(file, FORMATS[*choice as usize % FORMATS.len()], None, &options) else { return };
    let bytes = hrt::encode(&trace, GateWidth::F32).expect("32 bits hold every weight");
    assert_eq!(hrt::decode(&bytes).expect("what was written can be read"), trace);
});
