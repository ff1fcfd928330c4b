//! The trace commands from end to end: an engine's log in, an answer out.

use crate::{ROOT, hotset};
use std::path::Path;
use std::process::{Command, Output};

const LOG: &str = "traces/samples/vllm-responses.jsonl";

fn run(arguments: &[&str]) -> Output {
    hotset().args(arguments).output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str], texts: &[&str]) {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(output.stdout.is_empty());
    texts.iter().for_each(|text| assert!(errors.contains(text), "`{text}` is not in: {errors}"));
}

#[test]
fn a_log_says_the_same_in_every_format_it_is_converted_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let replay = |trace: &str| stdout(&["replay", trace, "--slots", "192,384", "--policies", "lru,belady"]);
    let expected = replay(LOG);
    for name in ["a.hrt", "b.jsonl"] {
        stdout(&["trace", "convert", LOG, "-o", &path(name)]);
        assert_eq!(replay(&path(name)), expected, "{name}");
        assert_eq!(stdout(&["trace", "info", &path(name)]), stdout(&["trace", "info", LOG]));
    }
    // Without layers, the same accesses one by one.
    stdout(&["trace", "convert", LOG, "-o", &path("c.oracleGeneral")]);
    let by_access = |trace: &str| {
        stdout(&["replay", trace, "--slots", "192", "--policies", "lru,belady", "--order", "access"])
    };
    assert_eq!(by_access(&path("c.oracleGeneral")), by_access(LOG));
    std::fs::rename(path("c.oracleGeneral"), path("d")).unwrap();
    refused(&["replay", &path("d")], &["not a routing trace"]);
    stdout(&["replay", &path("d"), "--input-format", "oracle-general", "--slots", "192"]);
}

#[test]
fn batches_demand_more_of_each_step() {
    let hits = |batch: &str| {
        let arguments = ["replay", LOG, "--batch", batch, "--slots", "384", "--policies", "lru"];
        let text = stdout(&[&arguments[..], &["--format", "json"]].concat());
        let runs: serde_json::Value = serde_json::from_str(&text).unwrap();
        (runs[0]["accesses"].as_u64().unwrap(), runs[0]["hit_rate"].as_f64().unwrap())
    };
    let (one, four) = (hits("1"), hits("4"));
    assert_eq!(one.0, 128 * 96);
    // Four requests of equal length: a quarter of the steps, in which they share some experts.
    assert!(four.0 < one.0 && four.0 > one.0 / 4 && four.1 < one.1, "{one:?} {four:?}");
    refused(&["replay", LOG, "--batch", "0"], &["--batch"]);
}

#[test]
fn routing_like_a_log_comes_with_how_like_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("more.hrt");
    let output = output.to_str().unwrap();
    let made = ["trace", "generate", "--fit", LOG, "--traces", "6", "--tokens", "20", "--output", output];
    let text = stdout(&made);
    assert!(text.contains("Worst difference in points of the hit rate: "), "{text}");
    let info: serde_json::Value =
        serde_json::from_str(&stdout(&["trace", "info", output, "--format", "json"])).unwrap();
    assert_eq!((&info["traces"], &info["tokens"]), (&6.into(), &120.into()));
    let json = stdout(&[&made[..], &["--format", "json"]].concat());
    let points: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert!(points.iter().all(|point| point["recorded"].as_f64().unwrap() <= 1.0));
    refused(&["trace", "generate", "--fit", LOG, "--skew", "1", "--output", output], &["--skew"]);
    refused(&["trace", "generate", "--fit", LOG, "--tokens", "0", "--output", output], &["expected 1 to"]);
}

#[test]
fn an_answer_from_sglang_needs_the_number_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sglang.json");
    // Two tokens, one layer, two experts, little-endian int32.
    let text = r#"{"meta_info": {"prompt_tokens": 1, "completion_tokens": 2,
        "routed_experts": "AAAAAAEAAAABAAAAAgAAAA=="}}"#;
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    refused(&["trace", "info", path], &["does not say top_k", "--top-k"]);
    refused(&["trace", "info", path, "--top-k", "3"], &["4 expert ids, which"]);
    let info = stdout(&["trace", "info", path, "--top-k", "2", "--format", "json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&info).unwrap()["accesses"], 2);
}

#[test]
fn what_the_exporter_writes_is_read() {
    let tests = Path::new(ROOT).join("traces/tools/test_sglang_to_jsonl.py");
    let python = |arguments: &[&str]| Command::new("python3").arg("-B").arg(&tests).args(arguments).output();
    let Ok(output) = python(&[]) else {
        println!("skipped: no python3");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = tempfile::tempdir().unwrap();
    assert!(python(&[folder.path().to_str().unwrap()]).unwrap().status.success());
    let written = folder.path().join("sglang.jsonl");
    let info: serde_json::Value =
        serde_json::from_str(&stdout(&["trace", "info", written.to_str().unwrap(), "--format", "json"]))
            .unwrap();
    assert_eq!((&info["layers"], &info["experts"], &info["traces"]), (&1.into(), &4.into(), &2.into()));
    assert_eq!((&info["tokens"], &info["prompt_rows"]), (&4.into(), &3.into()));
}
