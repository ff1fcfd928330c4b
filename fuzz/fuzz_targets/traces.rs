//! No bytes make a trace parser panic or allocate without bound, and what it accepts survives a round trip, can be put
//! into batches and can be measured.
//!
//! The first byte of an input chooses the format, the rest is the file. `cargo +nightly fuzz run traces`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use traces::hrt::{self, GateWidth};
use traces::{Format, Options, RoutingTrace, detect, info, parse};

const FORMATS: [Format; 8] = [
    Format::Hrt,
    Format::Npz,
    Format::Csv,
    Format::Jsonl,
    Format::Responses,
    Format::ExpertCsv,
    Format::BatchJsonl,
    Format::OracleGeneral,
];
/// Larger models are not measured here: statistics take time for every block and every pair of experts.
const MOST_BLOCKS: u32 = 1 << 12;

fuzz_target!(|input: &[u8]| {
    let Some((choice, file)) = input.split_first() else { return };
    let (kind, more) = (choice % 8, choice / 8);
    // What else the first byte says: numbers that a response of SGLang lacks.
    let number = |bits: u8| (bits > 0).then_some(bits as u32);
    let options = Options {
        max_decoded_bytes: 1 << 20,
        top_k: number(more & 3),
        layers: number(more >> 2 & 3),
        ..Options::default()
    };
    detect(file, None);
    let Ok(trace) = parse(file, FORMATS[kind as usize], None, &options) else { return };
    let bytes = hrt::encode(&trace, GateWidth::F32).expect("32 bits hold every weight");
    assert_eq!(hrt::decode(&bytes).expect("what was written can be read"), trace);
    for info in trace.traces() {
        assert_eq!(info.prompt().len(), info.prompt_rows);
    }
    let batched = trace.in_batches(3).expect("a trace can be batched");
    assert_eq!(distinct(&batched), distinct(&trace));
    if trace.shape().blocks() <= MOST_BLOCKS {
        let measured = info(&trace, true).expect("nothing is left out");
        assert!((0.0..=1.0).contains(&measured.reuse.first_uses), "{measured:?}");
    }
});

/// How many blocks are used at all.
fn distinct(trace: &RoutingTrace) -> usize {
    let demands = trace.demands(true);
    let mut ids = demands.ids().to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids.len()
}
