//! Request traces: what the files hold, and what is wrong with those that are refused.

use policy::{Nanos, Time};
use proptest::prelude::*;
use std::path::PathBuf;
use traces::requests::{
    Cut, REQUEST_FORMATS, Request, RequestFormat, RequestTrace, detect_requests, open_requests,
    read_requests, request_info, write_requests,
};

fn read(format: RequestFormat, text: &str) -> RequestTrace {
    read_requests(text.as_bytes(), format, &Cut::default()).unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn request(at: u64, prompt_tokens: u32, output_tokens: u32) -> Request {
    Request { at: Time(at), prompt_tokens, output_tokens }
}

/// A recorded request trace; `None`, with a line that says so, where it is absent.
fn recorded(file: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let root = std::env::var_os("HOTSET_DATA").map_or(root, PathBuf::from);
    let path = root.join("request_traces").join(file);
    if !path.exists() {
        println!("skipped: no data at {}", path.display());
        return None;
    }
    Some(path)
}

/// Requests, prompt tokens, output tokens and the last arrival.
type Totals = (usize, u64, u64, u64);

/// Counted from the files by another program.
const RECORDED: [(&str, RequestFormat, Totals); 4] = [
    (
        "AzureLLMInferenceTrace_code_2023.csv",
        RequestFormat::AzureCsv,
        (8_819, 18_059_974, 245_896, 3_435_948_056_000),
    ),
    (
        "AzureLLMInferenceTrace_conv_2023.csv",
        RequestFormat::AzureCsv,
        (19_366, 22_361_870, 4_088_665, 3_501_721_937_000),
    ),
    (
        "mooncake_synthetic_full.jsonl",
        RequestFormat::MooncakeJsonl,
        (3_993, 61_194_628, 595_432, 1_022_025_000_000),
    ),
    (
        "sharegpt_qwen3-30b-a3b_300req_lengths.csv",
        RequestFormat::SharegptCsv,
        (300, 258_691, 199_486, 29_183_763_203),
    ),
];

#[test]
fn the_recorded_traces_have_the_known_totals() {
    for (file, format, totals) in RECORDED {
        let Some(path) = recorded(file) else { continue };
        assert_eq!(detect_requests(&path).unwrap(), Some(format), "{file}");
        let trace = open_requests(&path, format, &Cut::default()).unwrap();
        let info = request_info(&trace);
        let last = trace.requests().last().unwrap().at.0;
        let found = (info.requests, info.prompt_tokens.total, info.output_tokens.total, last);
        assert_eq!((found, info.failed), (totals, 0), "{file}");
    }
}

#[test]
fn statistics_of_recorded_traces_are_those_counted_elsewhere() {
    let Some(path) = recorded(RECORDED[1].0) else { return };
    let info = request_info(&open_requests(path, RECORDED[1].1, &Cut::default()).unwrap());
    // Counted by another program.
    assert!((info.gap_cv.unwrap() - 1.094_169_981_843_777_6).abs() < 1e-9);
    assert!((info.rate_per_s.unwrap() - 19_365.0 / 3_501.721_937).abs() < 1e-9);
    let lengths =
        (info.prompt_tokens.p50, info.prompt_tokens.p99, info.output_tokens.p50, info.output_tokens.p99);
    assert_eq!((lengths, info.reusable_prefix), ((1_020, 4_142, 129, 601), None));
    let Some(path) = recorded(RECORDED[2].0) else { return };
    let trace = open_requests(path, RECORDED[2].1, &Cut::default()).unwrap();
    let blocks: usize = (0..trace.requests().len()).map(|index| trace.prefix(index).len()).sum();
    assert_eq!((blocks, trace.block_tokens().unwrap().get()), (121_877, 512));
    assert_eq!((trace.prefix(0).len(), trace.prefix(1)[0], trace.prefix(2)[0]), (79, 79, 151));
}

#[test]
fn each_format_has_its_clock_and_its_columns() {
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n\
                 2023-11-16 18:15:50.9951690,396,109";
    let expected = [request(0, 374, 44), request(4_314_579_000, 396, 109)];
    assert_eq!(read(RequestFormat::AzureCsv, azure).requests(), expected);
    // As the release of 2024 writes it.
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n\
                 2024-05-10 02:00:01.009930+02:00,2399,6\n";
    let expected = [request(0, 2162, 5), request(1_000_000_000, 2399, 6)];
    assert_eq!(read(RequestFormat::AzureCsv, azure).requests(), expected);
    let sharegpt = "arrival_time_ns,input_toks,output_toks\n46926808,2361,532\n9007199254740993,1128,772\n";
    let expected = [request(46_926_808, 2361, 532), request(9_007_199_254_740_993, 1128, 772)];
    assert_eq!(read(RequestFormat::SharegptCsv, sharegpt).requests(), expected);
    for (name, clock) in [("arrival_s", "0.25"), ("arrival_ms", "250"), ("arrival_ns", "250000000")] {
        let text = format!(
            "\u{feff}\"output_tokens\",\"note\",\"{name}\",\"prompt_tokens\"\n\n7,x, {clock} ,\"30\"\n"
        );
        assert_eq!(read(RequestFormat::Csv, &text).requests(), [request(250_000_000, 30, 7)]);
    }
}

#[test]
fn burstgpt_leaves_out_requests_that_failed() {
    let text = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                5,a,1.5,ChatGPT,472,18,490,Conversation log\n45.5,b,0,GPT-4,1087,0,1087,API log\n\
                118,c,2,GPT-4,417,276,693,Conversation log\n";
    let trace = read(RequestFormat::BurstgptCsv, text);
    assert_eq!(trace.requests(), [request(5_000_000_000, 472, 18), request(118_000_000_000, 417, 276)]);
    assert_eq!((trace.failed(), request_info(&trace).failed), (1, 1));
}

#[test]
fn a_benchmark_of_vllm_is_sorted_by_when_requests_began() {
    let text = r#"{"date": "20260101-000000", "num_prompts": 3, "request_rate": 4.0, "completed": 2,
        "input_lens": [100, 200, 300], "output_lens": [10, 0, 30], "ttfts": [0.1, 0.0, 0.2],
        "itls": [[0.01], [], [0.02, 0.02]], "start_times": [1000.5, 1000.25, 1000.125],
        "generated_texts": ["a", "", "b"], "errors": ["", "timeout", ""]}"#;
    let trace = read(RequestFormat::VllmJson, text);
    assert_eq!(trace.requests(), [request(0, 300, 30), request(375_000_000, 100, 10)]);
    assert_eq!(trace.failed(), 1);
    let at_once = r#"{"request_rate": "inf", "input_lens": [1, 2], "output_lens": [3, 4]}"#;
    assert_eq!(read(RequestFormat::VllmJson, at_once).requests(), [request(0, 1, 3), request(0, 2, 4)]);
}

#[test]
fn prefixes_are_reused_from_the_first_block_on() {
    let line = |at: u32, tokens: u32, hashes: &str| {
        format!(
            "{{\"timestamp\": {at}, \"input_length\": {tokens}, \"output_length\": 1, \"hash_ids\": [{hashes}]}}\n"
        )
    };
    let text = [line(0, 1024, "1, 2"), line(7, 1100, "1, 2, 3"), line(7, 600, "4, 2"), line(9, 700, "1, 2")]
        .concat();
    let trace = read(RequestFormat::MooncakeJsonl, &text);
    assert_eq!((trace.prefix(1), trace.prefix(3)), ([1, 2, 3].as_slice(), [1, 2].as_slice()));
    // Two blocks of the second, none of the third, whose first is new, and all of the fourth.
    let share = request_info(&trace).reusable_prefix.unwrap();
    assert!((share - (1024.0 + 700.0) / (1024.0 + 1100.0 + 600.0 + 700.0)).abs() < 1e-12);
    let later = trace.cut(&Cut { from: Nanos(5_000_000), limit: Some(2), ..Cut::default() }).unwrap();
    assert_eq!((later.prefix(0), later.prefix(1)), ([1, 2, 3].as_slice(), [4, 2].as_slice()));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
    const PLAIN: &str = "arrival_s,prompt_tokens,output_tokens\n";
    const LINE: &str = "{\"timestamp\": 0, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": [1]}\n";
    let bench = |keys: &str| format!("{{\"input_lens\": [1, 2], \"output_lens\": [1, 2]{keys}}}");
    use RequestFormat::{AzureCsv, BurstgptCsv, Csv, MooncakeJsonl, VllmJson};
    let cases = [
        (Csv, String::new(), "no request in it"),
        (Csv, PLAIN.to_owned(), "no request in it"),
        (
            Csv,
            "arrival,prompt_tokens,output_tokens\n0,1,1\n".to_owned(),
            "line 1: the header has no column 'arrival_s' or 'arrival_ms' or 'arrival_ns'\n  hint: a plain request trace begins",
        ),
        (
            AzureCsv,
            format!("{PLAIN}0,1,1\n"),
            "line 1: the header has no column 'TIMESTAMP'\n  hint: an Azure trace begins",
        ),
        (
            Csv,
            format!("{PLAIN}0,1,1\n0,1\n"),
            "line 3: 2 cells, but the header has 3\n  hint: was the line cut?",
        ),
        (
            Csv,
            format!("{PLAIN}2,1,1\n\n1.5,1,1\n"),
            "line 4: it arrives 0.5 s before the request above it\n  hint: sort",
        ),
        (Csv, format!("{PLAIN}-1,1,1\n"), "line 2: it arrives before time 0\n  hint: count"),
        (Csv, format!("{PLAIN}NaN,1,1\n"), "line 2, column 1: 'NaN' is not a time: a number"),
        (
            Csv,
            format!("{PLAIN}inf,1,1\n"),
            "line 2: it arrives more than 292 years after the start\n  hint: is the unit",
        ),
        (Csv, format!("{PLAIN}1e12,1,1\n"), "line 2: it arrives more than 292 years"),
        (Csv, format!("{PLAIN}0,0,1\n"), "line 2: a request with no prompt tokens\n  hint: leave out"),
        (Csv, format!("{PLAIN}0,1,0\n"), "line 2: a request with no output tokens"),
        (
            Csv,
            format!("{PLAIN}0,1,1000000000\n"),
            "line 2: a request with 1000000000 output tokens, more than the limit of 16777216\n  hint: is this",
        ),
        (
            Csv,
            format!("{PLAIN}0,99999999999999999999,1\n"),
            "line 2, column 3: '99999999999999999999' is not a whole number of tokens",
        ),
        (Csv, format!("{PLAIN}0,-1,1\n"), "line 2, column 3: '-1' is not a whole number of tokens"),
        (Csv, format!("{PLAIN}0, 12.5 ,1\n"), "line 2, column 3: '12.5' is not a whole number of tokens"),
        (
            Csv,
            format!("{}0,1,1,300\n", PLAIN.replace("output_tokens", "output_tokens,priority")),
            "line 2, column 7: '300' is not a priority, 0 to 255",
        ),
        (
            Csv,
            format!("{PLAIN}{}", "1".repeat(2 << 20)),
            "line 2: 1048577 bytes in a line, more than the limit of 1048576",
        ),
        (
            AzureCsv,
            format!("{AZURE}2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:4,1,1\n"),
            "line 3: it arrives 42.68 s before",
        ),
        (
            AzureCsv,
            format!("{AZURE}2023-11-16,374,44\n"),
            "line 2, column 1: '2023-11-16' is not a time such as 2023-11-16 18:15:46.6805900",
        ),
        (
            BurstgptCsv,
            "Timestamp,Request tokens,Response tokens\n1,1,0\n".to_owned(),
            "no request in it, without the 1 that failed",
        ),
        (
            MooncakeJsonl,
            format!("{LINE}{}", &LINE[..40]),
            "line 2, column 40: EOF while parsing a string\n  hint: it was cut",
        ),
        (
            MooncakeJsonl,
            LINE.replace("512", "-512"),
            "line 1, column 37: integer `-512`, expected a whole number, zero or more",
        ),
        (
            MooncakeJsonl,
            LINE.replace(": 0,", ": NaN,"),
            "line 1, column 15: expected value\n  hint: Mooncake has",
        ),
        (
            MooncakeJsonl,
            LINE.replace("[1]", "[1, 2]"),
            "line 1: 2 hashes for a prompt of 512 tokens in blocks of 512\n  hint: a hash",
        ),
        (MooncakeJsonl, LINE.replace("timestamp", "time"), "line 1, column 69: missing field `timestamp`"),
        (
            VllmJson,
            "{\"completed\": 7}".to_owned(),
            "no `input_lens`: this result has totals only\n  hint: run",
        ),
        (VllmJson, bench(", \"start_times\": [1]"), "1 start_times, but 2 input_lens"),
        (
            VllmJson,
            bench(", \"request_rate\": 4"),
            "no `start_times`, and requests were not sent all at once (request_rate: 4)\n  hint: newer",
        ),
        (VllmJson, bench(", \"start_times\": [1, -1e300]"), "it arrives more than 292 years"),
        (
            VllmJson,
            bench(", \"start_times\": [0, 0]").replacen("[1, 2]", "[1, 0]", 1),
            "request 1: a request with no prompt tokens",
        ),
        (
            VllmJson,
            "{\"input_lens\": [1, ".to_owned(),
            "line 1, column 19: EOF while parsing a value\n  hint: it was cut",
        ),
    ];
    for (format, text, expected) in cases {
        let wrong = read_requests(text.as_bytes(), format, &Cut::default()).expect_err(expected).to_string();
        assert!(wrong.starts_with(expected), "{format:?}: expected\n{expected}\nfound\n{wrong}");
    }
    let nothing = Cut { from: Nanos(1), ..Cut::default() };
    let wrong = read_requests(format!("{PLAIN}0,1,1\n").as_bytes(), Csv, &nothing).unwrap_err();
    assert_eq!(wrong.to_string(), "none of the 1 requests read is between `from` and `until`");
}

#[test]
fn a_trace_is_found_out_by_its_first_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let found = |text: &str| {
        std::fs::write(&path, text).unwrap();
        detect_requests(&path).unwrap()
    };
    let line = "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1}";
    assert_eq!(found(line), Some(RequestFormat::MooncakeJsonl));
    assert_eq!(found("{\"date\": \"today\", \"num_prompts\": 3,"), Some(RequestFormat::VllmJson));
    assert_eq!(found("Timestamp,Model,Request tokens,Response tokens\n"), Some(RequestFormat::BurstgptCsv));
    assert_eq!(found("prompt_tokens,arrival_ms,output_tokens\n"), Some(RequestFormat::Csv));
    for other in ["", "token,layer,e0,e1\n0,0,1,2\n", "{\"layer_idx\": 0}", "\u{0}\u{1}"] {
        assert_eq!(found(other), None, "{other}");
    }
    let missing = detect_requests(folder.path().join("none")).unwrap_err().to_string();
    assert!(missing.contains("none: No such file"), "{missing}");
}

fn any_trace() -> impl Strategy<Value = RequestTrace> {
    let requests = prop::collection::vec((0_u64..4_000_000_000, 1_u32..9000, 1_u32..900, 0_u8..4), 1..60);
    requests.prop_map(|requests| {
        let mut at = 0;
        let lines = requests.iter().map(|(gap, prompt, output, priority)| {
            at += gap;
            format!("{at},{prompt},{output},{priority}\n")
        });
        let header = "arrival_ns,prompt_tokens,output_tokens,priority\n".to_owned();
        read(RequestFormat::Csv, &std::iter::once(header).chain(lines).collect::<String>())
    })
}

fn shifted(trace: Result<RequestTrace, impl std::fmt::Debug>, by: u64) -> Vec<(Request, u8)> {
    let Ok(trace) = trace else { return Vec::new() };
    let moved = trace.requests().iter().map(|request| Request { at: Time(request.at.0 + by), ..*request });
    moved.enumerate().map(|(index, request)| (request, trace.priority(index))).collect()
}

proptest! {
    #[test]
    fn slices_partition_a_trace(trace in any_trace(), at in 0_u64..200_000_000_000) {
        let before = trace.cut(&Cut { until: Some(Nanos(at)), ..Cut::default() });
        let after = trace.cut(&Cut { from: Nanos(at), ..Cut::default() });
        let mut all = shifted(before, 0);
        all.extend(shifted(after, at));
        prop_assert_eq!(all, shifted(Ok::<_, ()>(trace), 0));
    }

    #[test]
    fn a_scale_of_the_rate_scales_the_gaps(trace in any_trace(), scale in 0.01_f64..100.0) {
        let faster = trace.cut(&Cut { rate_scale: scale, ..Cut::default() }).unwrap();
        prop_assert_eq!(faster.requests().len(), trace.requests().len());
        for (new, old) in faster.requests().iter().zip(trace.requests()) {
            prop_assert!((new.at.0 as f64 * scale - old.at.0 as f64).abs() <= 0.5 * scale + 1e-3);
            prop_assert_eq!((new.prompt_tokens, new.output_tokens), (old.prompt_tokens, old.output_tokens));
        }
        if let (Some(new), Some(old)) = (request_info(&faster).gap_cv, request_info(&trace).gap_cv) {
            prop_assert!((new - old).abs() < 1e-4);
        }
    }

    #[test]
    fn a_limit_takes_the_first_ones(trace in any_trace(), limit in 1_u32..80) {
        let first = trace.cut(&Cut { limit: Some(limit), ..Cut::default() }).unwrap();
        let kept = trace.requests().len().min(limit as usize);
        prop_assert_eq!(first.requests(), &trace.requests()[..kept]);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        header in prop::sample::select(vec!["", "TIMESTAMP,ContextTokens,GeneratedTokens\n", "arrival_s,prompt_tokens,output_tokens\n"]),
        body in prop::collection::vec(any::<u8>(), 0..200),
        text in "[0-9eE.,:+ \n\"-]{0,80}",
    ) {
        for (_, format) in REQUEST_FORMATS {
            for rest in [&body, text.as_bytes()] {
                let bytes = [header.as_bytes(), rest].concat();
                let _ = read_requests(bytes.as_slice(), format, &Cut::default());
            }
        }
    }
}

proptest! {
    // Each case waits for the disk.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn what_is_written_reads_back(trace in any_trace()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.csv");
        write_requests(&path, &trace).unwrap();
        prop_assert_eq!(open_requests(&path, RequestFormat::Csv, &Cut::default()).unwrap(), trace);
    }
}
