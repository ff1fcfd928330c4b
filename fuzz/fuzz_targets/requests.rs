//! No bytes make a reader of request traces panic or allocate without bound, and what it accepts is in order, within its limits, and
//! the same after it was written and read again.
//!
//! The first byte of an input chooses the format and whether a part is cut out, the rest is the file.
//! `cargo +nightly fuzz run requests`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::Nanos;
use traces::requests::{
    Cut, MOST_TOKENS, REQUEST_FORMATS, RequestFormat, RequestTrace, open_requests, read_requests, request_info,
    write_requests,
};

fuzz_target!(|input: &[u8]| {
    let Some((choice, file)) = input.split_first() else { return };
    let (kind, cuts) = (choice % 6, choice / 6);
    let (_, format) = REQUEST_FORMATS[kind as usize];
    let cut = match cuts % 2 {
        0 => Cut::default(),
        _ => Cut { from: Nanos(1_500_000_000), until: Some(Nanos(90_000_000_000)), limit: Some(3), rate_scale: 0.7 },
    };
    let Ok(trace) = read_requests(file, format, &cut) else { return };
    check(&trace, file.len());
    if cut == Cut::default() {
        write_and_read(&trace);
        if let Ok(part) = trace.cut(&Cut { from: Nanos(1), ..Cut::default() }) {
            check(&part, file.len());
        }
    }
});

fn check(trace: &RequestTrace, bytes: usize) {
    let requests = trace.requests();
    assert!(!requests.is_empty() && requests.len() <= bytes);
    assert!(requests.is_sorted_by_key(|request| request.at));
    for (index, request) in requests.iter().enumerate() {
        let lengths = [request.prompt_tokens, request.output_tokens];
        assert!(lengths.iter().all(|tokens| (1..=MOST_TOKENS).contains(tokens)), "{request:?}");
        let hashed = trace.block_tokens().map_or(0, |block| request.prompt_tokens.div_ceil(block.get()));
        assert!(trace.prefix(index).len() <= hashed as usize, "{request:?}");
    }
    request_info(trace);
}

/// Arrivals, lengths and priorities are kept; what plain CSV does not hold, hashes and failures, is not.
fn write_and_read(trace: &RequestTrace) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("requests.csv");
    write_requests(&path, trace).expect("what was read can be written");
    let again = open_requests(&path, RequestFormat::Csv, &Cut::default()).expect("what was written can be read");
    assert_eq!(again.requests(), trace.requests());
    let priorities = |trace: &RequestTrace| (0..trace.requests().len()).map(|one| trace.priority(one)).collect::<Vec<_>>();
    assert_eq!(priorities(&again), priorities(trace));
}
