//! `compare` and `tune` as experiments: the same however many runs are done at once, and wherever they were cut off.

use crate::hotset;
use crate::small::{Small, policies, run as run_small};
use scenarios::RequestOrder;
use serde_json::{Map, Value};
use sim::Case;
use snapbox::{assert_data_eq, file};
use std::path::Path;
use std::process::Output;

/// Four short cells, eight seeds, two policies.
const SMALL: &[&str] = &[
    "compare",
    "quickstart",
    "--sweep",
    "memory.hbm=192 slots,700 slots",
    "--sweep",
    "workload.limit_tokens=30,150",
    "--set",
    "workload.requests.closed.batch=2",
    "--policies",
    "lru,lfu",
    "--seeds",
    "8",
];

fn run(arguments: &[&str], more: &[&str]) -> Output {
    hotset().args(arguments).args(more).output().unwrap()
}

fn stdout(arguments: &[&str], more: &[&str]) -> String {
    let output = run(arguments, more);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn records(arguments: &[&str], more: &[&str]) -> Vec<Map<String, Value>> {
    serde_json::from_str(&stdout(arguments, &[more, &["--format", "json"]].concat())).unwrap()
}

fn refused(arguments: &[&str], texts: &[&str]) {
    let output = run(arguments, &[]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(output.stdout.is_empty() && errors.starts_with("error: "), "{errors}");
    texts.iter().for_each(|text| assert!(errors.contains(text), "`{text}` is not in: {errors}"));
}

/// A command on the quickstart scenario.
fn quick<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[command, "quickstart"], more].concat()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_comparison_reads_like_this() {
    let table = stdout(SMALL, &[]);
    assert_data_eq!(table, file!["snapshots/compare.txt"]);
}

#[test]
fn compare_json_has_the_keys_of_the_contract() {
    let records = records(SMALL, &[]);
    assert_eq!(records.len(), 4 * 2);
    for record in &records {
        for key in ["mean", "ci95_low", "ci95_high"] {
            assert!(record["stall_s"][key].is_number() && record["link_bytes"][key].is_number());
        }
        let interval = &record["stall_s"];
        let number = |key: &str| interval[key].as_f64().unwrap();
        assert!(number("ci95_low") <= number("mean") && number("mean") <= number("ci95_high"));
        assert!(record["scenario"].is_string() && record["policy"].is_string() && record["tie"].is_boolean());
        assert_eq!(record["seeds"].as_array().unwrap().len(), 8);
        assert!(["slack", "tight", "hopeless", "contended"].contains(&record["regime"].as_str().unwrap()));
        assert!(record["rank"].as_u64().is_some() && record["regret"].as_f64().unwrap() >= 0.0);
        assert!(!record.contains_key("decision_ns_per_layer_step"));
        let beyond = number("mean") - record["stall_bound_s"].as_f64().unwrap();
        assert!(beyond >= 0.0 && (record["stall_over_bound_s"].as_f64().unwrap() - beyond).abs() < 1e-12);
    }
    let timed = records_of_one(&["--cost"]);
    assert!(timed.iter().all(|record| record["decision_ns_per_layer_step"].as_f64().unwrap() > 0.0));
}

fn records_of_one(more: &[&str]) -> Vec<Map<String, Value>> {
    let one = ["compare", "quickstart", "--set", "workload.limit_tokens=10", "--policies", "lru,lfu,belady"];
    records(&one, more)
}

#[test]
fn one_seed_ranks_and_tests_nothing() {
    let one = records_of_one(&[]);
    assert!(one.iter().all(|record| record["tested"] == false && record["p_holm"].is_null()));
    assert!(one[..2].iter().all(|record| record["tie"] == true && record["rank"].is_u64()));
    assert_eq!((&one[2]["rank"], &one[2]["tie"]), (&Value::Null, &false.into()));
    let said =
        stdout(&["compare", "quickstart", "--set", "workload.limit_tokens=10", "--policies", "lru,lfu"], &[]);
    assert!(said.contains("with 1 seed nothing can be tested; --seeds 6 could"), "{said}");
}

#[test]
fn seeds_of_a_recording_are_different_runs_on_the_same_requests() {
    let stalls = |more: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.csv");
        stdout(SMALL, &[&["--out", text(&path)], more].concat());
        let mut rows = csv::Reader::from_path(&path).unwrap();
        let column = rows.headers().unwrap().iter().position(|name| name == "stall_s").unwrap();
        rows.records().map(|row| row.unwrap()[column].to_owned()).collect::<Vec<_>>()
    };
    let shuffled = stalls(&[]);
    assert_eq!(shuffled.len(), 4 * 2 * 8);
    let distinct = |stalls: &[String]| stalls.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!(distinct(&shuffled[..8]) > 1);
    // As recorded, a seed draws nothing that matters here, and the table says so.
    let recorded = stalls(&["--set", "workload.order=recorded"]);
    assert_eq!(distinct(&recorded[..8]), 1);
    let said = stdout(SMALL, &["--set", "workload.order=recorded"]);
    assert!(said.contains("all seeds gave the same runs"), "{said}");
    // A row of the experiment is the run that `simulate` does.
    let row =
        ["simulate", "quickstart", "--set", "workload.limit_tokens=30", "--set", "memory.hbm=192 slots"];
    let set =
        ["--set", "policy=lru", "--set", "workload.order=shuffled", "--set", "seed=9", "--format", "json"];
    let alone: Value = serde_json::from_str(&stdout(&row, &set)).unwrap();
    let stall: f64 = alone["stall_ms_by_cause"].as_object().unwrap().values().filter_map(Value::as_f64).sum();
    assert!((stall / 1e3 - shuffled[2].parse::<f64>().unwrap()).abs() < 1e-12);
}

#[test]
fn every_policy_is_asked_the_same() {
    for order in [RequestOrder::Recorded, RequestOrder::Shuffled] {
        let requests = "{ closed: { batch: 2 } }".to_owned();
        let case = Case { order, ..Small { traces: 6, requests, ..Small::default() }.case() };
        let asked = |entry| run_small(&case, entry, case.world(false).unwrap()).unwrap().witness.asked;
        let mut all = policies(true).map(asked);
        let first = all.next().unwrap();
        assert!(first.len() > 100 && all.all(|other| other == first));
    }
}

#[test]
fn the_number_of_jobs_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let outputs = |jobs: &str| {
        let path = |end: &str| folder.path().join(format!("{jobs}.{end}"));
        let files = ["csv", "json", "parquet"].map(|end| {
            stdout(SMALL, &["--jobs", jobs, "--out", text(&path(end))]);
            std::fs::read(path(end)).unwrap()
        });
        (stdout(SMALL, &["--jobs", jobs]), stdout(SMALL, &["--jobs", jobs, "--format", "json"]), files)
    };
    assert!(outputs("1") == outputs("3"));
}

#[test]
fn what_was_cut_off_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.jsonl");
    let resumed = || run(SMALL, &["--resume", text(&path), "--format", "json"]);
    let whole = stdout(SMALL, &["--format", "json"]);
    assert_eq!(String::from_utf8(resumed().stdout).unwrap(), whole);
    let finished = std::fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = finished.split_inclusive(|&byte| byte == b'\n').collect();
    // Two policies and the bound.
    assert_eq!(lines.len(), 4 * 8 * 3);
    std::fs::write(&path, [&lines[..50].concat(), &lines[50][..40]].concat()).unwrap();
    let again = resumed();
    assert_eq!(String::from_utf8(again.stdout).unwrap(), whole);
    let note = String::from_utf8(again.stderr).unwrap();
    assert!(note.starts_with("note: ") && note.contains("line 51: cut off"), "{note}");
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<Vec<u8>> =
            bytes.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    let rewritten = std::fs::read(&path).unwrap();
    assert!(rewritten.starts_with(&lines[..50].concat()) && sorted(&rewritten) == sorted(&finished));
    // All of it is finished: nothing is added.
    assert!(resumed().stderr.is_empty() && std::fs::read(&path).unwrap() == rewritten);
    // What is kept is used: a changed figure comes out changed. Another seed is another run.
    let tampered = String::from_utf8(rewritten).unwrap().replace("\"hit_rate\":0.", "\"hit_rate\":1.");
    std::fs::write(&path, &tampered).unwrap();
    assert_ne!(String::from_utf8(resumed().stdout).unwrap(), whole);
    stdout(SMALL, &["--resume", text(&path), "--set", "seed=100"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2 * 4 * 8 * 3);
    std::fs::write(&path, format!("notes\n{tampered}")).unwrap();
    refused(&[SMALL, &["--resume", text(&path)]].concat(), &["line 1: not a finished run"]);
}

#[test]
fn a_file_that_another_process_writes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.jsonl");
    let file = std::fs::File::create(&path).unwrap();
    file.lock().unwrap();
    refused(&[SMALL, &["--resume", text(&path)]].concat(), &["in use by another process"]);
    drop(file);
    stdout(SMALL, &["--resume", text(&path)]);
}

#[test]
fn an_experiment_that_makes_no_sense_is_refused() {
    refused(&quick("compare", &["--sweep", "policy=lru,lfu"]), &["use --policies"]);
    refused(&quick("compare", &["--sweep", "seed=1,2"]), &["use --seeds"]);
    refused(
        &quick("compare", &["--sweep", "kv=1 GiB", "--sweep", "kv=2 GiB"]),
        &["--sweep kv= is given twice"],
    );
    let many = format!("kv={}", vec!["1 GiB"; 200].join(","));
    let other = format!("load={}", vec!["x"; 200].join(","));
    refused(&quick("compare", &["--sweep", &many, "--sweep", &other]), &["more than 10000 points"]);
    refused(
        &quick("compare", &["--sweep", &many, "--seeds", "1000"]),
        &["200000 combinations", "at most 100000"],
    );
    refused(&quick("compare", &["--policies", "lru,lru"]), &["names `lru` twice"]);
    refused(&quick("compare", &["--out", "runs.xlsx"]), &["runs.xlsx", ".csv, .json or .parquet"]);
    refused(&quick("compare", &["--out", "absent/runs.csv"]), &["absent/runs.csv", "cannot be written"]);
    refused(&quick("compare", &["--resume", "traces"]), &["traces"]);
    refused(&quick("compare", &["--policies", "absent.yaml"]), &["absent.yaml"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.yaml");
    std::fs::write(&path, "policy:\n  predictive:\n    horizn: 3\nother: 1\n").unwrap();
    refused(
        &quick("compare", &["--policies", text(&path)]),
        &["bad.yaml:3:5", "no parameter `horizn`", "bad.yaml:4:1"],
    );
}

/// A search on the shipped trace, judged on made-up requests.
const TUNE: &[&str] = &[
    "tune",
    "quickstart",
    "--policy",
    "predictive",
    "--set",
    "workload.limit_tokens=20",
    "--validate-set",
    "workload.routing={ trace: traces/samples/vllm-responses.jsonl }",
    "--evaluations",
    "20",
    "--seeds",
    "6",
];

#[test]
fn a_search_is_the_same_twice_and_no_worse_than_what_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let file = |jobs: &str| {
        let path = folder.path().join(format!("tuned-{jobs}.yaml"));
        let json = stdout(TUNE, &["--jobs", jobs, "-o", text(&path), "--format", "json"]);
        (json, std::fs::read_to_string(&path).unwrap())
    };
    let (json, yaml) = file("1");
    assert_eq!((json.clone(), yaml.clone()), file("3"));
    let found: Value = serde_json::from_str(&json).unwrap();
    assert!(found["train_gain"].as_f64().unwrap() >= 0.0);
    let gap = found["train_gain"].as_f64().unwrap() - found["validation_gain"].as_f64().unwrap();
    assert_eq!(found["generalisation_gap"].as_f64().unwrap(), gap);
    assert!(found["validation_p_value"].is_f64());
    assert!(
        yaml.starts_with("# searched on ")
            && yaml.contains("generalisation gap")
            && yaml.contains("\npolicy:\n")
    );
    // The file is a policy, and gives the runs that it is said to give.
    let path = folder.path().join("tuned-1.yaml");
    let set = ["--set", "workload.limit_tokens=20", "--seeds", "6"];
    let compared = records(&["compare", "quickstart", "--policies", text(&path)], &set);
    assert_eq!(compared[0]["policy"], "predictive:tuned-1");
    let rows = found["figures"].as_array().unwrap();
    let stall = rows.iter().find(|row| row["name"] == "stall_s").unwrap();
    let difference =
        stall["train_found"].as_f64().unwrap() - compared[0]["stall_s"]["mean"].as_f64().unwrap();
    assert!(difference.abs() < 1e-9, "{difference}");
}

#[test]
fn a_search_keeps_to_its_constraints_or_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tuned.yaml");
    let out = ["-o", text(&path)];
    let output = run(TUNE, &[&out[..], &["--subject-to", "hit_rate>=1"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("none of 20 points keeps to the constraints") && errors.contains("hit_rate>=1"),
        "{errors}"
    );
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing is left behind");
    let bounded =
        stdout(TUNE, &["--maximize", "hit_rate", "--subject-to", "link_bytes<=1e12", "--format", "json"]);
    let found: Value = serde_json::from_str(&bounded).unwrap();
    assert_eq!(found["objective"], "maximize hit_rate, link_bytes<=1000000000000");
}

#[test]
fn a_search_that_makes_no_sense_is_refused() {
    refused(&quick("tune", &["--validate", "quickstart"]), &["is searched on and judged on"]);
    refused(
        &quick("tune", &["--validate", "quickstart", "--minimize", "stal"]),
        &["`stal` is no figure of a run"],
    );
    refused(&[TUNE, &["--params", "horizn"]].concat(), &["no parameter `horizn`", "horizon"]);
    refused(&[TUNE, &["--subject-to", "drift_max<0.1"]].concat(), &["write FIGURE<=NUMBER"]);
    let lru =
        ["--policy", "lru", "--validate-set", "workload.routing.trace=traces/samples/vllm-responses.jsonl"];
    refused(&quick("tune", &lru), &["lru has no parameter to search"]);
    assert_eq!(
        run(&["tune", "quickstart"], &[]).status.code(),
        Some(2),
        "what it is judged on has to be said"
    );
}
