//! What engines record, read into traces: known answers first, then everything that may be wrong with it.

use traces::{
    At, Format, Options, PADDING, Problem, RoutingTrace, TraceError, detect, open_demands, parse, write,
};

fn read(text: &str, format: Format) -> Result<RoutingTrace, TraceError> {
    parse(text.as_bytes(), format, None, &Options::default())
}

fn refused(result: Result<RoutingTrace, TraceError>, texts: &[&str]) {
    let error = result.unwrap_err();
    texts.iter().for_each(|text| assert!(error.to_string().contains(text), "`{text}` is not in: {error}"));
}

/// Two layers, top 2. The prompt has four tokens, of which the cache had the first two; two tokens are decoded, and
/// the last one sampled is in no layer.
const CHAT: &str = r#"{
  "id": "chat-1", "object": "chat.completion", "usage": {"prompt_tokens": 4, "completion_tokens": 3},
  "prompt_routed_experts": [[[-1, -1], [-1, -1]], [[-1, -1], [-1, -1]], [[0, 1], [2, 3]], [[1, 0], [3, 2]]],
  "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"},
    "routed_experts": [[[4, 5], [6, 7]], [[5, 4], [7, 6]], [[-1, -1], [-1, -1]]]}]
}"#;

#[test]
fn a_chat_response_of_vllm() {
    let trace = read(CHAT, Format::Responses).unwrap();
    assert_eq!((trace.shape().layers, trace.shape().experts, trace.shape().top_k), (2, 8, 2));
    let info = trace.trace(0);
    assert_eq!((info.prompt(), info.rows.clone(), info.prompt_tokens), (0..2, 2..4, Some(4)));
    assert_eq!(info.request_id.as_deref(), Some("chat-1"));
    assert_eq!((trace.selection(0, 1), trace.selection(3, 0)), (&[2, 3][..], &[5, 4][..]));
    // A replay decodes; the prompt is there for who asks for it.
    assert_eq!(trace.demands(false).ids()[..], [4, 5, 14, 15, 5, 4, 15, 14]);
}

#[test]
fn completions_as_json_lines_and_as_a_list() {
    let line =
        |id: &str, experts: &str| format!(r#"{{"id":"{id}","choices":[{{"routed_experts":{experts}}}]}}"#);
    let [a, b] = [line("a", "[[[1]],[[2]]]"), line("b", "[[[3]]]")];
    let lines = read(&format!("{a}\n{b}\n"), Format::Responses).unwrap();
    assert_eq!(lines.raw_selections(), [1, 2, 3]);
    assert_eq!((lines.trace(0).rows.clone(), lines.trace(1).rows.clone()), (0..2, 2..3));
    assert_eq!(read(&format!("[{a},\n{b}]"), Format::Responses).unwrap(), lines);
    // Two choices of one prompt: it ran once.
    let two = r#"{"id":7,"prompt_routed_experts":[[[0]]],"choices":[{"routed_experts":[[[1]]]},{"routed_experts":[[[2]]]}]}"#;
    let two = read(two, Format::Responses).unwrap();
    assert_eq!((two.trace(0).prompt_rows, two.trace(1).prompt_rows), (1, 0));
    assert_eq!((two.trace(0).prompt_tokens, two.trace(1).prompt_tokens), (Some(1), Some(1)));
    assert_eq!(two.trace(1).request_id.as_deref(), Some("7/1"));
    // A response that decoded nothing is passed over.
    let empty = line("c", "[]");
    assert_eq!(read(&format!("{empty}\n{a}\n{b}"), Format::Responses).unwrap(), lines);
}

fn base64(ids: &[i32]) -> String {
    use base64::Engine;
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn sglang(ids: &[i32], prompt: u32, completion: u32) -> String {
    let text = base64(ids);
    format!(
        r#"{{"text":"..","meta_info":{{"id":"r","prompt_tokens":{prompt},"completion_tokens":{completion},"routed_experts":"{text}"}}}}"#
    )
}

fn top_2() -> Options {
    Options { top_k: Some(2), ..Options::default() }
}

#[test]
fn a_response_of_sglang() {
    // Three layers of which the first is dense; two prompt tokens, three sampled, the last of which is not there.
    let ids: Vec<i32> = (0..4).flat_map(|token| [-1, -1, token, token + 1, 5, token]).collect();
    let text = sglang(&ids, 2, 3);
    let trace = parse(text.as_bytes(), Format::Responses, None, &top_2()).unwrap();
    assert_eq!((trace.shape().layers, trace.shape().top_k), (2, 2));
    assert_eq!((trace.trace(0).prompt(), trace.trace(0).rows.clone()), (0..2, 2..4));
    assert_eq!((trace.selection(3, 0), trace.selection(3, 1)), (&[3, 4][..], &[5, 3][..]));
    // The same inside a choice, with the counts where the OpenAI form has them.
    let inside = format!(
        r#"{{"id":"r","usage":{{"prompt_tokens":2,"completion_tokens":3}},"choices":[{{"sgl_ext":{{"routed_experts":"{}"}}}}]}}"#,
        base64(&ids)
    );
    assert_eq!(parse(inside.as_bytes(), Format::Responses, None, &top_2()).unwrap(), trace);
    // A response that starts at a later token: the layers do not follow, and have to be said.
    let cut = sglang(&ids[6..], 2, 3);
    refused(parse(cut.as_bytes(), Format::Responses, None, &top_2()), &["18 expert ids", "divide"]);
    let options = Options { layers: Some(3), ..top_2() };
    let cut = parse(cut.as_bytes(), Format::Responses, None, &options).unwrap();
    assert_eq!((cut.trace(0).prompt(), cut.trace(0).rows.clone()), (0..1, 1..3));
}

#[test]
fn sglang_responses_that_do_not_say_enough() {
    let ids: Vec<i32> = (0..8).collect();
    refused(read(&sglang(&ids, 1, 2), Format::Responses), &["does not say top_k", "--top-k"]);
    let parse = |text: &str| parse(text.as_bytes(), Format::Responses, None, &top_2());
    refused(parse(&sglang(&ids, 1, 2).replace("completion", "other")), &["completion_tokens"]);
    refused(parse(&sglang(&ids, 1, 2).replace("prompt_tokens", "other")), &["does not say layers"]);
    refused(parse(&sglang(&ids, 1, u32::MAX)), &["8 expert ids"]);
    refused(parse(&sglang(&ids, u32::MAX, u32::MAX)), &["8 expert ids"]);
    refused(parse(&sglang(&ids, 1, 2).replace("AAAA", "AA*A")), &["response 1", "not base64"]);
    let text = r#"{"meta_info":{"prompt_tokens":1,"completion_tokens":2,"routed_experts":"AAAAAAA="}}"#;
    refused(parse(text), &["8 bytes declared, 5 there"]);
    refused(parse(&sglang(&[], 1, 2)), &["no token in it"]);
    let options = Options { layers: Some(1), ..top_2() };
    let few = sglang(&ids[..4], 1, 9);
    refused(
        traces::parse(few.as_bytes(), Format::Responses, None, &options),
        &["of 2 tokens, but 8 were decoded"],
    );
}

#[test]
fn responses_of_another_form() {
    let json = |text: &str| read(text, Format::Responses);
    refused(json("{}"), &["no routed experts", "--enable-return-routed-experts"]);
    refused(json(r#"{"choices":[{"routed_experts":null}]}"#), &["no routed experts"]);
    refused(json("[1]"), &["line 1, column", "expected an object"]);
    refused(json(&CHAT[..CHAT.len() / 2]), &["line 3", "document was cut"]);
    refused(json(&CHAT.replace("[5, 4]", "[5]")), &["line 5", "1 places, expected 2"]);
    refused(json(&CHAT.replace("[[0, 1], [2, 3]]", "[[0, 1]]")), &["line 3", "1 layers, expected 2"]);
    refused(json(&CHAT.replace("[5, 4]", "[]")), &["line 5", "0 places"]);
    refused(
        json(&CHAT.replace("[5, 4]", "[5, 1152921504606846976]")),
        &["line 5, column", "expected a whole number"],
    );
    refused(json(&CHAT.replace("[5, 4]", "[5, 0.5]")), &["line 5, column", "number `0.5`"]);
    refused(json(&CHAT.replace("[5, 4]", "[5, NaN]")), &["line 5, column"]);
    refused(json(&CHAT.replace("[5, 4]", "[5, -2]")), &["token row 3, layer 0", "expert -2"]);
    refused(json(&CHAT.replace("[5, 4]", "[5, 65535]")), &["token row 3, layer 0", "expert 65535"]);
    refused(json(&CHAT.replace("[5, 4]", "[5, 5]")), &["token row 3, layer 0", "selected twice"]);
    refused(json(&CHAT.replace("[5, 4]", "[-1, 4]")), &["token row 3, layer 0", "padding"]);
    refused(json(&CHAT.replace("[5, 4]", "[-1, -1]")), &["token row 3, layer 0", "no expert"]);
    refused(json(&CHAT.replace("[1, 0]", "[-1, -1]")), &["token row 1, layer 0", "no expert"]);
    let narrow = r#"{"prompt_routed_experts":[[[1]]],"choices":[{"routed_experts":[[[1,2]]]}]}"#;
    refused(json(narrow), &["response 1", "1 layers, top 2"]);
    let other = r#"{"choices":[{"routed_experts":[[[1]]]}]}"#;
    refused(json(&format!("{CHAT}{other}")), &["trace 1", "1 layers, top 1", "2 layers, top 2"]);
    let deep = format!(r#"{{"choices":[{{"routed_experts":{}"#, "[".repeat(1 << 20));
    refused(json(&deep), &["line 1, column"]);
    let deep = format!(r#"{{"other":{}"#, "[".repeat(1 << 20));
    refused(json(&deep), &["line 1, column", "cut"]);
    refused(read(&deep, Format::Jsonl), &["line 1"]);
    refused(read(&deep, Format::BatchJsonl), &["line 1, column"]);
    let deep = format!(r#"{{"layer":0,"batch_id":0,"topk_experts":{}"#, "[".repeat(1 << 20));
    refused(read(&deep, Format::BatchJsonl), &["recursion limit"]);
}

#[test]
fn a_token_with_fewer_experts_is_padded() {
    let trace = read(r#"{"choices":[{"routed_experts":[[[3,1]],[[2,-1]]]}]}"#, Format::Responses).unwrap();
    assert_eq!(trace.raw_selections(), [3, 1, 2, PADDING]);
}

#[test]
fn the_csv_of_llama_cpp() {
    // Layers 1 and 2 are routed; a pass of two tokens, then two of one.
    let text = "layer_id,expert_ids\n1,3 1\n1,2 0\n2,0 1\n2,1 2\n1,1 2\n2,3 2\n1,0 1\n2,0 3\n";
    let trace = read(text, Format::ExpertCsv).unwrap();
    assert_eq!((trace.tokens(), trace.shape().layers, trace.shape().experts), (4, 2, 4));
    assert_eq!(trace.raw_selections(), [3, 1, 0, 1, 2, 0, 1, 2, 1, 2, 3, 2, 0, 1, 0, 3]);
    let one_layer = read("layer_id,expert_ids\n4,1\n4,0\n4,1\n", Format::ExpertCsv).unwrap();
    assert_eq!(one_layer.raw_selections(), [1, 0, 1]);

    let csv = |rows: &str| read(&format!("layer_id,expert_ids\n{rows}"), Format::ExpertCsv);
    refused(csv(""), &["no token"]);
    refused(csv("0,1 2\n1,1 2\n0,3 1\n"), &["token 1, layer 1 is missing"]);
    refused(csv("0,1 2\n1,-1 2\n"), &["line 3", "'-1' is not an expert id"]);
    refused(csv("0,1 2\nx,1 2\n"), &["line 3", "'x' is not a layer index"]);
    refused(csv("0,1 1\n"), &["line 2", "selected twice"]);
    refused(csv("0,\n"), &["line 2", "no expert"]);
    refused(csv("0,1 2,3\n"), &["3 cells"]);
    refused(csv("0,1 1152921504606846976\n"), &["line 2", "is not an expert id"]);
    refused(csv("1152921504606846976,1\n"), &["line 2", "is not a layer index"]);
    refused(read("layer_id,ids\n0,1\n", Format::ExpertCsv), &["'expert_ids' is missing"]);
    let many: String = (0..70_000).map(|layer| format!("{layer},1\n")).collect();
    refused(csv(&many), &["65536 layers", "line 65537"]);
}

#[test]
fn forward_passes_as_json_lines() {
    let text = r#"{"layer":3,"batch_id":9,"origin_rows":[0,1],"topk_experts":[[1,2],[2,0]]}
{"layer":5,"batch_id":9,"origin_rows":[0,1],"topk_experts":[[3,2],[3,0]]}
{"layer":3,"batch_id":12,"origin_rows":[0],"topk_experts":[[1,3]]}
{"layer":5,"batch_id":12,"origin_rows":[0],"topk_experts":[0,1]}
{"layer":5,"batch_id":12,"origin_rows":[4],"topk_experts":[[2,1]]}"#;
    let trace = read(text, Format::BatchJsonl).unwrap();
    let selections = [&[1, 2, 0][..], &[3, 2, 0], &[1, 3], &[0, 1, 2]];
    let found: Vec<_> = (0..4).map(|step| trace.selection(step / 2, step % 2)).collect();
    assert_eq!(found, selections);
    refused(read(r#"{"layer":0,"batch_id":0}"#, Format::BatchJsonl), &["line 1", "topk_experts"]);
    refused(read(&text.replace("[1,3]", "[-1,3]"), Format::BatchJsonl), &["line 3"]);
    refused(read(&text.replace("[1,3]", "[65535]"), Format::BatchJsonl), &["line 3", "65535"]);
    refused(read(&text.replace("[[1,3]]", "[]"), Format::BatchJsonl), &["line 3", "no expert"]);
    let gap = text.replace(r#""layer":3,"batch_id":12"#, r#""layer":5,"batch_id":12"#);
    refused(read(&gap, Format::BatchJsonl), &["token 1, layer 0 is missing"]);
}

#[test]
fn selections_of_requests_as_json_lines() {
    let text = r#"{"req_id":4,"token_idx":10,"layer":0,"topk_ids":[3,1],"topk_weights":[0.6,0.4]}"#;
    let trace = read(text, Format::Jsonl).unwrap();
    assert_eq!((trace.selection(0, 0), trace.gates(0, 0)), (&[3, 1][..], Some(&[0.6, 0.4][..])));
    assert_eq!(trace.trace(0).request_id.as_deref(), Some("4"));
    refused(read(&text.replace("0.6", "NaN"), Format::Jsonl), &["line 1"]);
}

fn access(time: u32, id: u64, size: u32, next: i64) -> Vec<u8> {
    [&time.to_le_bytes()[..], &id.to_le_bytes(), &size.to_le_bytes(), &next.to_le_bytes()].concat()
}

fn oracle(bytes: &[u8]) -> Result<RoutingTrace, TraceError> {
    parse(bytes, Format::OracleGeneral, None, &Options::default())
}

#[test]
fn accesses_of_libcachesim() {
    let bytes = [access(0, 7, 4096, 2), access(3, 5, 4096, -1), access(9, 7, 4096, i64::MAX)].concat();
    let trace = oracle(&bytes).unwrap();
    assert_eq!((trace.shape().layers, trace.shape().experts, trace.shape().top_k), (1, 8, 1));
    assert_eq!(trace.raw_selections(), [7, 5, 7]);
    // Ids that do not fit are numbered as they come.
    let large = [access(0, u64::MAX, 1, -1), access(0, 3, 1, 2), access(0, 3, 1, -1)].concat();
    assert_eq!(oracle(&large).unwrap().raw_selections(), [0, 1, 1]);
    refused(oracle(&bytes[..71]), &["72 bytes declared, 71 there", "truncated"]);
    refused(
        oracle(&[access(0, 1, 1, 0), access(0, 2, 5, 0)].concat()),
        &["byte 24", "an object of size 5, but the first one has 1"],
    );
    let many: Vec<u8> = (0..65_536).flat_map(|id| access(0, id << 20, 1, -1)).collect();
    refused(oracle(&many), &["65536 objects"]);
    assert_eq!(oracle(&many[..24 * 65_535]).unwrap().shape().experts, 65_535);
}

#[test]
fn accesses_written_for_libcachesim_say_when_each_is_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.oracleGeneral");
    let trace = read(CHAT, Format::Responses).unwrap();
    write(&path, &trace).unwrap();
    let written = std::fs::read(&path).unwrap();
    let expected = [
        access(0, 4, 1, 5),
        access(0, 5, 1, 4),
        access(0, 14, 1, 7),
        access(0, 15, 1, 6),
        access(1, 5, 1, -1),
        access(1, 4, 1, -1),
        access(1, 15, 1, -1),
        access(1, 14, 1, -1),
    ];
    assert_eq!(written, expected.concat());
    assert_eq!(traces::open(&path).unwrap().demands(false).ids(), trace.demands(false).ids());
    let bin = folder.path().join("trace.oracleGeneral.bin");
    std::fs::rename(&path, &bin).unwrap();
    assert_eq!(traces::open(&bin).unwrap().tokens(), 8);
}

#[test]
fn demands_come_straight_from_a_list_of_accesses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.oracleGeneral");
    let small = [access(0, 7, 1, 2), access(3, 5, 1, -1), access(9, 7, 1, -1)].concat();
    let large = [access(0, u64::MAX, 1, -1), access(0, 3, 1, 2), access(0, 3, 1, -1)].concat();
    for (bytes, experts) in [(&small, None), (&small, Some(16)), (&large, None)] {
        std::fs::write(&path, bytes).unwrap();
        let options = Options { experts, ..Options::default() };
        let through_a_trace = traces::open_with(&path, &options).unwrap().demands(false);
        assert_eq!(open_demands(&path, &options, false).unwrap(), through_a_trace);
    }
    for (bytes, experts) in [(&small[..], Some(7)), (&small[..71], None), (&[], None)] {
        std::fs::write(&path, bytes).unwrap();
        let options = Options { experts, ..Options::default() };
        let expected = traces::open_with(&path, &options).unwrap_err().to_string();
        assert_eq!(open_demands(&path, &options, false).unwrap_err().to_string(), expected);
    }
    let other = folder.path().join("trace.hrt");
    write(&other, &read(CHAT, Format::Responses).unwrap()).unwrap();
    let demands = open_demands(&other, &Options::default(), false).unwrap();
    assert_eq!(demands, traces::open(&other).unwrap().demands(false));
}

#[test]
fn the_format_shows_in_the_content() {
    let sniffed = [
        (CHAT, Some(Format::Responses)),
        (r#"{"meta_info": {}}"#, Some(Format::Responses)),
        ("  [", Some(Format::Responses)),
        ("layer_id, expert_ids\r\n0,1", Some(Format::ExpertCsv)),
        (r#"{"layer":0,"batch_id":0,"topk_experts":[[1]]}"#, Some(Format::BatchJsonl)),
        (r#"{"layer":0,"token":0,"topk_experts":[1]}"#, Some(Format::Jsonl)),
        ("token,layer,e0", Some(Format::Csv)),
        ("hello", None),
    ];
    for (text, format) in sniffed {
        assert_eq!(detect(text.as_bytes(), None), format, "{text}");
    }
    assert_eq!(detect(CHAT.as_bytes(), Some("jsonl")), Some(Format::Responses));
    assert_eq!(detect(b"\0\0", Some("oracleGeneral")), Some(Format::OracleGeneral));
}

#[test]
fn prompts_survive_every_format_that_has_a_place_for_them() {
    let trace = read(CHAT, Format::Responses).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.hrt", "a.jsonl"] {
        let path = folder.path().join(name);
        write(&path, &trace).unwrap();
        assert_eq!(traces::open(&path).unwrap(), trace, "{name}");
    }
    let hrt = std::fs::read(folder.path().join("a.hrt")).unwrap();
    assert_eq!(hrt[8..10], [2, 0]);
    // Without a prompt, the file is one that the first version can read.
    let plain = read(r#"{"choices":[{"routed_experts":[[[1]]]}]}"#, Format::Responses).unwrap();
    assert_eq!(traces::hrt::encode(&plain, traces::hrt::GateWidth::F32).unwrap()[8..10], [1, 0]);
}

#[test]
fn prompts_that_cannot_be() {
    let line = |more: &str| format!(r#"{{"layer":0,"token":0,"topk_ids":[1],{more}}}"#);
    let json = |more: &str| read(&line(more), Format::Jsonl);
    refused(json(r#""prompt_rows":1"#), &["trace 0", "boundary"]);
    refused(json(r#""prompt_rows":18446744073709551615"#), &["trace 0"]);
    refused(json(r#""prompt_rows":1,"prompt_tokens":0"#), &["1 rows of a prompt of 0 tokens"]);
    let error = json(r#""prompt_rows":-1"#).unwrap_err();
    assert!(matches!((&*error.problem, error.at), (Problem::Json(_), Some(At::Line(1, _)))));
}
