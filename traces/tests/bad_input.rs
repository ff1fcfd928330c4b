//! Every malformed input is an error that says where and what.

use std::io::Write;
use std::path::PathBuf;
use traces::hrt::{self, GateWidth};
use traces::{At, Format, Options, Problem, RoutingTrace, TraceError, open, open_with, parse, write};
use zip::write::SimpleFileOptions;

/// Asserts the problem's variant, and that the message contains the given text.
macro_rules! refused {
    ($result:expr, $problem:pat, $text:expr) => {{
        let error = $result.unwrap_err();
        assert!(matches!(&*error.problem, $problem), "{error:?}");
        assert!(error.to_string().contains($text), "{error}");
    }};
}

fn npy(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

fn npz(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// Three tokens, two layers, top 2 of 4.
const IDS: [u8; 12] = [0, 1, 2, 3, 1, 2, 3, 0, 0, 2, 1, 3];

fn offsets(values: &[i64]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    npy("<i8", &format!("({},)", values.len()), &data)
}

fn with_offsets(values: &[i64]) -> Vec<u8> {
    npz(&[("experts.npy", npy("|u1", "(3, 2, 2)", &IDS)), ("offsets.npy", offsets(values))])
}

fn with_experts(experts: Vec<u8>) -> Vec<u8> {
    npz(&[("experts.npy", experts), ("offsets.npy", offsets(&[0, 1, 3]))])
}

fn read_npz(bytes: &[u8]) -> Result<RoutingTrace, TraceError> {
    parse(bytes, Format::Npz, None, &Options::default())
}

fn read_csv(text: &str) -> Result<RoutingTrace, TraceError> {
    parse(text.as_bytes(), Format::Csv, None, &Options::default())
}

fn read_jsonl(text: &str) -> Result<RoutingTrace, TraceError> {
    parse(text.as_bytes(), Format::Jsonl, None, &Options::default())
}

fn four_experts() -> Options {
    Options { experts: Some(4), ..Options::default() }
}

#[test]
fn the_good_archive_is_read() {
    let metadata = br#"[{"repetition": true, "decode_tokens": 1}, {"path": "b", "prompt_tokens": 7, "decode_tokens": 2}]"#;
    let trace = parse(&with_offsets(&[0, 1, 3]), Format::Npz, Some(metadata), &Options::default()).unwrap();
    assert_eq!((trace.tokens(), trace.trace_count(), trace.shape().experts), (3, 2, 4));
    assert_eq!(trace.selection(1, 1), [3, 0]);
    assert!(trace.trace(0).repetition && !trace.trace(1).repetition);
    assert_eq!(trace.trace(1).prompt_tokens, Some(7));
    assert_eq!(trace.demands(false).ids()[..], [1, 2, 7, 4, 0, 2, 5, 7]);
}

#[test]
fn truncated_npz() {
    let whole = with_offsets(&[0, 1, 3]);
    for len in [1, 10, 100, whole.len() / 2, whole.len() - 1] {
        refused!(read_npz(&whole[..len]), Problem::Archive(_), "damaged archive");
    }
}

#[test]
fn damaged_npz() {
    let mut bytes = with_offsets(&[0, 1, 3]);
    let place = bytes.len() / 5;
    bytes[place] ^= 0x55;
    read_npz(&bytes).unwrap_err();
}

#[test]
fn missing_array() {
    let bytes = npz(&[("experts.npy", npy("|u1", "(3, 2, 2)", &IDS))]);
    refused!(read_npz(&bytes), Problem::MissingArray("offsets.npy"), "offsets.npy");
}

#[test]
fn wrong_dtype() {
    let wide: Vec<u8> = IDS.iter().flat_map(|&id| (id as i64).to_le_bytes()).collect();
    refused!(read_npz(&with_experts(npy("<i8", "(3, 2, 2)", &wide))), Problem::Dtype { .. }, "experts.npy");
    let bytes =
        npz(&[("experts.npy", npy("|u1", "(3, 2, 2)", &IDS)), ("offsets.npy", npy("<f8", "(2,)", &[0; 16]))]);
    refused!(read_npz(&bytes), Problem::Dtype { .. }, "offsets.npy");
}

#[test]
fn wrong_shape() {
    refused!(
        read_npz(&with_experts(npy("|u1", "(3, 4)", &IDS))),
        Problem::Shape { .. },
        "[tokens, layers, k]"
    );
    refused!(
        read_npz(&with_experts(npy("|u1", "(4, 2, 2)", &IDS))),
        Problem::Size { .. },
        "16 bytes declared, 12"
    );
    let huge = npy("|u1", "(4294967296, 4294967296, 2)", &IDS);
    refused!(read_npz(&with_experts(huge)), Problem::Size { .. }, "12 there");
    refused!(read_npz(&with_experts(npy("|u1", "(3, 2, two)", &IDS))), Problem::NpyHeader(_), "shape");
    refused!(read_npz(&with_experts(b"\x93NUMPY\x01\x00\xff\xff{".to_vec())), Problem::NpyHeader(_), "ends");
    refused!(read_npz(&with_experts(npy("|u1", "(0, 2, 2)", &[]))), Problem::Empty, "no token");
    refused!(read_npz(&with_experts(npy("|u1", "(12, 1, 1)", &IDS))), Problem::Boundary { .. }, "12");
    refused!(read_npz(&with_experts(npy("|u1", "(3, 4, 0)", &[]))), Problem::Dimensions { .. }, "top 0");
}

#[test]
fn fortran_order() {
    let mut array = npy("|u1", "(3, 2, 2)", &IDS);
    let place = array.windows(5).position(|text| text == b"False").unwrap();
    array[place..place + 5].copy_from_slice(b"True ");
    refused!(read_npz(&with_experts(array)), Problem::NpyHeader(_), "Fortran");
}

#[test]
fn boundaries_that_do_not_rise() {
    for values in [&[0, 2, 1, 3][..], &[1, 3], &[0, 1], &[0, 3, 3], &[0, 0, 3], &[0, -1, 3], &[0, 4]] {
        refused!(read_npz(&with_offsets(values)), Problem::Boundary { .. }, "offsets.npy");
    }
    refused!(read_npz(&with_offsets(&[0])), Problem::Shape { .. }, "at least [2]");
}

#[test]
fn metadata_of_another_file() {
    let bytes = with_offsets(&[0, 1, 3]);
    let read = |metadata: &str| parse(&bytes, Format::Npz, Some(metadata.as_bytes()), &Options::default());
    refused!(read("[{}]"), Problem::MetadataCount { found: 1, expected: 2 }, "2");
    refused!(
        read(r#"[{"decode_tokens": 1}, {"decode_tokens": 9}]"#),
        Problem::MetadataTokens { .. },
        "trace 1"
    );
    refused!(read("[{},\n{\"repetition\": 3}]"), Problem::Metadata(_), "line 2, column");
}

#[test]
fn a_flaw_in_the_metadata_names_the_metadata_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    std::fs::write(&path, with_offsets(&[0, 1, 3])).unwrap();
    assert_eq!(open(&path).unwrap().trace_count(), 2);
    std::fs::write(folder.path().join("a.meta.json"), "[{}").unwrap();
    refused!(open(&path), Problem::Metadata(_), "a.meta.json: line 1, column 3");
}

#[test]
fn expert_out_of_range() {
    let mut ids = IDS;
    ids[9] = 200;
    let bytes = with_experts(npy("|u1", "(3, 2, 2)", &ids));
    let error = parse(&bytes, Format::Npz, None, &four_experts()).unwrap_err();
    assert_eq!(error.at, Some(At::Selection { row: 2, layer: 0 }));
    assert!(error.to_string().contains("expert 200 is out of range"), "{error}");
    assert_eq!(read_npz(&bytes).unwrap().shape().experts, 256);

    let text = b"token,layer,e0\n0,0,3\n1,0,4\n";
    let error = parse(text, Format::Csv, None, &four_experts()).unwrap_err();
    assert_eq!(error.at, Some(At::Line(3, None)));
    refused!(read_csv("token,layer,e0\n0,0,65535\n"), Problem::ExpertOutOfRange { .. }, "65535");
    refused!(read_csv("token,layer,e0\n0,0,-1\n"), Problem::Cell { .. }, "'-1' is not an expert id");
}

#[test]
fn a_repeated_expert() {
    let mut ids = IDS;
    ids[3] = ids[2];
    refused!(
        read_npz(&with_experts(npy("|u1", "(3, 2, 2)", &ids))),
        Problem::RepeatedExpert(2),
        "row 0, layer 1"
    );
    refused!(read_csv("token,layer,e0,e1\n0,0,3,3\n"), Problem::RepeatedExpert(3), "line 2");
}

#[test]
fn an_archive_that_expands_beyond_the_limit() {
    let zeros = vec![0; 4 << 20];
    let bytes = with_experts(npy("|u1", "(1048576, 2, 2)", &zeros));
    assert!(bytes.len() < 20_000);
    let options = Options { max_decoded_bytes: 1 << 20, ..Options::default() };
    refused!(parse(&bytes, Format::Npz, None, &options), Problem::TooLarge { .. }, "1048576");
}

#[test]
fn a_padding_bomb() {
    let wide: Vec<String> = (0..2_000).map(|id| id.to_string()).collect();
    let mut text = format!("{{\"layer_idx\":0,\"token_idx\":0,\"selected_ids\":[{}]}}\n", wide.join(","));
    for token in 1..2_000 {
        text += &format!("{{\"layer_idx\":0,\"token_idx\":{token},\"selected_ids\":[1]}}\n");
    }
    refused!(read_jsonl(&text), Problem::TooLarge { .. }, "after padding");
}

#[test]
fn empty_traces() {
    for format in [Format::Hrt, Format::Npz, Format::Csv, Format::Jsonl] {
        refused!(parse(b"", format, None, &Options::default()), Problem::Empty, "no token");
    }
    refused!(read_csv("token,layer,e0\n"), Problem::Empty, "no token");
    refused!(read_jsonl("\n\n"), Problem::Empty, "no token");
    refused!(read_csv("token,layer,e0,e1\n0,0,,\n"), Problem::NoExpert, "line 2");
    refused!(
        read_jsonl("{\"layer_idx\":0,\"token_idx\":0,\"selected_ids\":[]}"),
        Problem::NoExpert,
        "line 1"
    );
}

const LINE: &str = r#"{"layer_idx": 0, "token_idx": 0, "selected_ids": [3, 1], "gate_weights": [0.6, 0.4]}"#;

#[test]
fn a_json_line_cut_in_half() {
    let text = format!("{LINE}\n{}", &LINE.replace("\"token_idx\": 0", "\"token_idx\": 1")[..40]);
    let error = read_jsonl(&text).unwrap_err();
    assert_eq!(error.at, Some(At::Line(2, Some(40))));
    assert!(error.to_string().contains("hint: the line was cut"), "{error}");
}

#[test]
fn json_lines_of_another_form() {
    refused!(read_jsonl(r#"{"layer_idx": 0, "selected_ids": [1]}"#), Problem::Json(_), "token_idx");
    refused!(read_jsonl(&LINE.replace("[3, 1]", "[3, -1]")), Problem::Json(_), "line 1, column");
    refused!(
        read_jsonl(&LINE.replace("[0.6, 0.4]", "[1.0]")),
        Problem::GateCount { .. },
        "1 gate weights for 2"
    );
    refused!(read_jsonl(&LINE.replace("0.6, 0.4", "0.6, -0.4")), Problem::BadGates(_), "line 1");
    refused!(read_jsonl(&LINE.replace("0.6, 0.4", "0, 0")), Problem::BadGates(_), "not all zero");
    // Too large for a float: refused by the JSON reader or after it, as its features go.
    let infinite = read_jsonl(&LINE.replace("0.6, 0.4", "1e300, 1")).unwrap_err();
    assert!(infinite.to_string().contains("line 1"), "{infinite}");
    let mixed = format!("{LINE}\n{}", r#"{"layer_idx": 0, "token_idx": 1, "selected_ids": [1]}"#);
    refused!(read_jsonl(&mixed), Problem::MixedGates, "line 2");
    let layer = LINE.replace("\"layer_idx\": 0", "\"layer_idx\": 4000000000");
    refused!(read_jsonl(&layer), Problem::TooLarge { .. }, "layers");
    refused!(
        read_jsonl(&LINE.replace("}", ", \"num_experts\": 3}")),
        Problem::ExpertOutOfRange { .. },
        "3 experts"
    );
}

#[test]
fn rows_that_are_missing_or_there_twice() {
    let header = "token,layer,e0\n";
    let read = |rows: &str| read_csv(&format!("{header}{rows}"));
    assert_eq!(read("1,1,0\n1,0,1\n2,0,2\n2,1,3\n").unwrap().raw_selections(), [1, 0, 2, 3]);
    refused!(
        read("0,0,1\n0,1,1\n1,0,1\n"),
        Problem::MissingRow { token: 1, layer: 1, .. },
        "token 1, layer 1"
    );
    refused!(read("0,1,1\n1,0,1\n1,1,1\n"), Problem::MissingRow { token: 0, layer: 0, .. }, "line 2");
    refused!(read("0,0,1\n0,2,1\n"), Problem::MissingRow { token: 0, layer: 1, .. }, "missing");
    refused!(read("0,0,1\n2,0,1\n"), Problem::MissingRow { token: 1, layer: 0, .. }, "line 3");
    refused!(read("0,0,1\n18446744073709551615,0,1\n"), Problem::MissingRow { token: 1, .. }, "line 3");
    refused!(read("0,0,1\n0,0,2\n"), Problem::DuplicateRow { first: 2, .. }, "line 3");
    let two = "{\"layer\":1,\"token\":0,\"topk_ids\":[1],\"req_id\":\"a\"}\n{\"layer\":0,\"token\":0,\"topk_ids\":[1],\"req_id\":7}\n";
    refused!(read_jsonl(two), Problem::MissingRow { layer: 0, .. }, "(request 'a')");
}

#[test]
fn csv_of_another_form() {
    refused!(read_csv("token,e0\n0,1\n"), Problem::MissingColumn(_), "'layer'");
    refused!(read_csv("token,layer,x\n0,0,1\n"), Problem::MissingColumn(_), "'e0'");
    refused!(read_csv("token,layer,e0,e1,p0\n0,0,1,2,1\n"), Problem::GateCount { .. }, "line 1");
    refused!(read_csv("token,layer,e0\n0,0\n"), Problem::Csv(_), "2 cells, but the header has 3");
    refused!(read_csv("token,layer,e0,p0\n0,0,1,x\n"), Problem::Cell { .. }, "column 'p0': 'x'");
    refused!(read_csv("token,layer,e0,p0\n0,0,1,NaN\n"), Problem::BadGates(_), "line 2");
    refused!(read_csv("token,layer,e0,e1\n0,0,,1\n"), Problem::Cell { .. }, "column 'e0'");
}

fn small_hrt() -> Vec<u8> {
    hrt::encode(&read_npz(&with_offsets(&[0, 1, 3])).unwrap(), GateWidth::F32).unwrap()
}

#[test]
fn hrt_of_another_form() {
    let whole = small_hrt();
    let changed = |offset: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[offset] = byte;
        hrt::decode(&bytes)
    };
    refused!(changed(0, 0), Problem::NotHrt, "byte 0");
    refused!(changed(8, 9), Problem::Field { what: "version", found: 9, .. }, "expected 1 to 2");
    refused!(changed(20, 9), Problem::Checksum { .. }, "header");
    refused!(changed(192, 3), Problem::Checksum { .. }, "section 'ids'");
    refused!(changed(whole.len() - 1, b' '), Problem::Checksum { .. }, "section 'metadata'");
    for len in 1..whole.len() {
        hrt::decode(&whole[..len]).unwrap_err();
    }
    let longer = [whole.as_slice(), b"x"].concat();
    refused!(hrt::decode(&longer), Problem::Size { .. }, "declared");
    let asked = Options { experts: Some(8), ..Options::default() };
    refused!(parse(&whole, Format::Hrt, None, &asked), Problem::ExpertsDiffer { found: 4, asked: 8 }, "8");
}

#[test]
fn files_that_cannot_be_read_or_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    refused!(open(path("absent.hrt")), Problem::Io(_), "absent.hrt");
    refused!(open(folder.path()), Problem::Io(_), "directory");
    std::fs::write(path("notes.txt"), "hello").unwrap();
    refused!(open(path("notes.txt")), Problem::UnknownFormat, ".jsonl");
    std::fs::write(path("empty.npz"), "").unwrap();
    refused!(open(path("empty.npz")), Problem::Empty, "empty.npz");
    std::fs::write(path("text.npz"), "hello").unwrap();
    refused!(open(path("text.npz")), Problem::Archive(_), "text.npz");

    let trace = hrt::decode(&small_hrt()).unwrap();
    refused!(write(path("trace.npz"), &trace), Problem::CannotWrite(_), ".hrt, .jsonl");
    refused!(write(path("trace"), &trace), Problem::CannotWrite(_), "without extension");
    refused!(write(path("absent/trace.hrt"), &trace), Problem::Io(_), "trace.hrt");
    assert!(!path("trace.npz").exists());
}

#[test]
fn the_format_is_found_by_content_first() {
    let folder = tempfile::tempdir().unwrap();
    let files: [(&str, Vec<u8>); 4] = [
        ("a.csv", small_hrt()),
        ("b.dat", with_offsets(&[0, 1, 3])),
        ("c", LINE.into()),
        ("d.txt", b"token,layer,e0\n0,0,1\n".to_vec()),
    ];
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        open(&path).unwrap();
        assert_eq!(open_with(&path, &four_experts()).unwrap().shape().experts, 4);
    }
}

#[test]
fn traces_that_do_not_fit_together() {
    let npz = read_npz(&with_offsets(&[0, 1, 3])).unwrap();
    let csv = read_csv("token,layer,e0\n0,0,1\n").unwrap();
    refused!(RoutingTrace::concat(vec![npz, csv]), Problem::NotAlike { .. }, "trace 1");
    refused!(RoutingTrace::concat(vec![]), Problem::Empty, "no token");
}

#[test]
fn nothing_but_repetition() {
    let line = LINE.replace("}", ", \"repetition\": true}");
    let trace = read_jsonl(&line).unwrap();
    refused!(trace.without_repetition(), Problem::OnlyRepetition, "hint");
    refused!(traces::info(&trace, false), Problem::OnlyRepetition, "repetition");
    assert!(trace.demands(false).is_empty());
}
