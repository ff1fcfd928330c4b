//! What the commands print, byte for byte where it matters.

use crate::hotset;
use serde_json::{Map, Value};
use snapbox::{assert_data_eq, file};
use std::path::Path;

fn stdout(arguments: &[&str]) -> String {
    let output = hotset().args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.is_empty(), "no terminal, no progress bar: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The objects of a JSON array that is all there is on stdout.
fn records(arguments: &[&str]) -> Vec<Map<String, Value>> {
    serde_json::from_str(&stdout(&[arguments, &["--format", "json"]].concat())).unwrap()
}

fn keys(record: &Map<String, Value>) -> Vec<&str> {
    record.keys().map(String::as_str).collect()
}

const SAMPLE: &str = "traces/sample.hrt";
/// In alphabetical order, as a parsed object gives them.
const RUN_KEYS: [&str; 8] =
    ["accesses", "accesses_per_s", "capacity_bytes", "capacity_slots", "hit_rate", "hits", "order", "policy"];

#[test]
fn the_table_of_the_sample() {
    let fitted = stdout(&["replay", SAMPLE, "--fit", SAMPLE, "--model", "gpt-oss-20b"]);
    assert_data_eq!(fitted, file!["snapshots/replay.txt"].raw());
    let one_size = stdout(&["replay", SAMPLE, "--policies", "lru", "--slots", "192", "--order", "access"]);
    assert_data_eq!(one_size, file!["snapshots/replay-one-size.txt"].raw());
}

#[test]
fn facts_of_the_sample() {
    assert_data_eq!(stdout(&["trace", "info", SAMPLE]), file!["snapshots/trace-info.txt"].raw());
}

#[test]
fn replay_json_has_the_keys_of_the_contract() {
    let runs = records(&["replay", SAMPLE, "--policies", "lfu,belady", "--slots", "96,192"]);
    let which: Vec<_> =
        runs.iter().map(|run| (run["policy"].as_str(), run["capacity_slots"].as_u64())).collect();
    assert_eq!(
        which,
        [("lfu", 96), ("lfu", 192), ("belady", 96), ("belady", 192)]
            .map(|(name, slots)| (Some(name), Some(slots)))
    );
    for run in &runs {
        assert_eq!(keys(run), RUN_KEYS);
        assert_eq!((&run["order"], &run["capacity_bytes"]), (&"atomic".into(), &Value::Null));
        let (hits, accesses) = (run["hits"].as_u64().unwrap(), run["accesses"].as_u64().unwrap());
        assert_eq!(run["hit_rate"].as_f64().unwrap(), hits as f64 / accesses as f64);
        assert!(run["accesses_per_s"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_capacity_holds_whole_blocks() {
    let sized = records(&[
        "replay",
        SAMPLE,
        "--policies",
        "lru",
        "--capacity",
        "2GiB,1GB",
        "--block-bytes",
        "10000000",
    ]);
    let of = |key: &str| sized.iter().map(|run| run[key].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(of("capacity_slots"), [214, 100]);
    assert_eq!(of("capacity_bytes"), [2 << 30, 1_000_000_000]);
    let in_slots =
        records(&["replay", SAMPLE, "--policies", "lru", "--slots", "214", "--block-bytes", "10000000"]);
    assert_eq!(in_slots[0]["hits"], sized[0]["hits"]);
    assert_eq!(in_slots[0]["capacity_bytes"], 2_140_000_000u64);
}

#[test]
fn csv_says_the_same_as_json() {
    let arguments = ["replay", SAMPLE, "--policies", "lru,lfu", "--slots", "96"];
    let csv = stdout(&[&arguments[..], &["--format", "csv"]].concat());
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let header = reader.headers().unwrap().clone();
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    let runs = records(&arguments);
    assert_eq!(rows.len(), runs.len());
    for (row, run) in rows.iter().zip(&runs) {
        for (name, cell) in header.iter().zip(row).filter(|&(name, _)| name != "accesses_per_s") {
            let value = match &run[name] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                number => number.to_string(),
            };
            assert_eq!(cell, value, "{name}");
        }
    }
}

#[test]
fn threads_change_nothing_but_the_rate() {
    let lines = |threads: &str, format: &str| {
        let text = stdout(&["replay", SAMPLE, "--fit", SAMPLE, "--threads", threads, "--format", format]);
        text.lines().filter(|line| !line.contains("accesses_per_s")).map(str::to_owned).collect::<Vec<_>>()
    };
    for format in ["json", "table"] {
        assert_eq!(lines("1", format), lines("2", format));
    }
}

#[test]
fn several_traces_are_one_after_the_other() {
    let run = |arguments: &[&str]| {
        records(&[&["replay"], arguments, &["--policies", "lru", "--slots", "192"]].concat()).remove(0)
    };
    let (once, twice) = (run(&[SAMPLE]), run(&[SAMPLE, SAMPLE]));
    let count = |run: &Map<String, Value>, key: &str| run[key].as_u64().unwrap();
    assert_eq!(count(&twice, "accesses"), 2 * count(&once, "accesses"));
    assert!(count(&twice, "hits") > 2 * count(&once, "hits"), "the second time starts warm");
    let cold = run(&[SAMPLE, "--reset", "trace"]);
    assert!(count(&cold, "hits") < count(&once, "hits"), "every trace starts cold");
}

#[test]
fn policies_are_listed_with_what_they_serve() {
    let listed = records(&["policies"]);
    let names: Vec<_> = listed.iter().map(|policy| policy["name"].as_str().unwrap()).collect();
    let registered: Vec<_> = policy::registry::registry().iter().map(|entry| entry.name).collect();
    assert_eq!(names, registered);
    for policy in &listed {
        assert_eq!(keys(policy), ["about", "clairvoyant", "fitted", "name", "params", "serves"]);
        assert!(!policy["serves"].as_array().unwrap().is_empty());
        for param in policy["params"].as_array().unwrap() {
            assert_eq!(keys(param.as_object().unwrap()), ["about", "default", "max", "min", "name", "scale"]);
        }
    }
}

#[test]
fn catalogues_are_arrays_of_named_objects() {
    for (catalogue, name) in [("machines", "h100-sxm"), ("models", "gpt-oss-20b"), ("policies", "lru")] {
        let names: Vec<_> = records(&[catalogue]).into_iter().map(|mut entry| entry.remove("name")).collect();
        assert!(names.iter().all(|name| name.as_ref().is_some_and(Value::is_string)));
        assert!(names.contains(&Some(name.into())), "{names:?}");
    }
}

#[test]
fn two_simulations_differ_in_wall_time_only() {
    let summary = || {
        let text = stdout(&["simulate", "scenarios/quickstart.yaml", "--format", "json"]);
        let mut summary: Map<String, Value> = serde_json::from_str(&text).unwrap();
        assert!(summary["hit_rate"].as_f64().is_some_and(|rate| rate > 0.0 && rate < 1.0));
        for measured in ["wall_s", "events_per_s"] {
            assert!(summary.remove(measured).is_some_and(|value| value.is_number()));
        }
        summary
    };
    assert_eq!(summary(), summary());
}

#[test]
fn a_generated_trace_survives_conversion() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let generate = |name: &str| {
        let shape = ["--layers", "3", "--experts", "8", "--top-k", "2", "--traces", "2", "--tokens", "9"];
        stdout(&[&["trace", "generate", "-o", &path(name), "--seed", "5", "--gates"], &shape[..]].concat());
        std::fs::read(path(name)).unwrap()
    };
    assert_eq!(generate("a.hrt"), generate("b.hrt"));
    stdout(&["trace", "convert", &path("a.hrt"), "-o", &path("c.jsonl")]);
    stdout(&["trace", "convert", &path("c.jsonl"), "-o", &path("d.hrt")]);
    let selections = |name: &str| traces::open(Path::new(&path(name))).unwrap().raw_selections().to_vec();
    assert_eq!(selections("a.hrt"), selections("d.hrt"));
    let info: Value =
        serde_json::from_str(&stdout(&["trace", "info", &path("d.hrt"), "--format", "json"])).unwrap();
    assert_eq!((&info["layers"], &info["experts"], &info["tokens"]), (&3.into(), &8.into(), &18.into()));
}

#[test]
fn what_cannot_be_written_is_a_failed_run() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("absent/made.hrt");
    let output = hotset().args(["trace", "generate", "-o"]).arg(&target).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "));
}

#[test]
fn nobody_reading_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = hotset().arg("policies").stdout(writer).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn states_benchmark_has_its_tables_and_targets() {
    let text = stdout(&["bench", "states", "--quick", "--sections", "gated_quantisation"]);
    // The run of the seed is the same on every machine; what follows it has times.
    let seed_run: Vec<&str> = text.lines().take_while(|line| !line.contains("Nemotron")).collect();
    let seed_run = seed_run[..seed_run.len() - 1].join("\n") + "\n";
    assert_data_eq!(seed_run, file!["snapshots/gated-quantisation.txt"].raw());
    for target in ["Mamba2-2.7b", "one sequence", "Mamba-1 (5120 channels of 16)"] {
        assert!(text.contains(target), "{target}\n{text}");
    }

    let both =
        ["bench", "states", "--quick", "--sections", "co_design,gated_quantisation", "--format", "json"];
    let found: Value = serde_json::from_str(&stdout(&both)).unwrap();
    for layer in found["gated_quantisation"]["layers"].as_array().unwrap() {
        let row = layer["rows"].as_array().unwrap().iter().find(|row| row["state"] == "gated, ring").unwrap();
        assert!(row["share_of_fp16"].as_f64().unwrap() <= 1.0 / 3.0, "{row}");
        for error in row["errors"].as_array().unwrap() {
            assert!(error["output_mean"].as_f64().unwrap() <= 0.01, "{error}");
        }
    }
    let co_design = &found["co_design"];
    let lengths: Vec<_> =
        co_design["lengths"].as_array().unwrap().iter().map(|row| row["tokens"].as_u64()).collect();
    assert_eq!(lengths, [256, 1024, 2048].map(Some));
    let kept = &co_design["memory"][0];
    let share = kept["recurrent_bytes"].as_f64().unwrap() / kept["attention_bytes"].as_f64().unwrap();
    assert!(share <= 0.65, "{kept}");
}

/// What is asked of checkpoints in fewer bits and of the tiered cache, with real bytes.
#[test]
fn states_in_fewer_bits_keep_to_their_targets() {
    let sections = ["bench", "states", "--quick", "--sections", "hp_aso,tiered_cache", "--format", "json"];
    let found: Value = serde_json::from_str(&stdout(&sections)).unwrap();
    let rows = found["hp_aso"]["precisions"].as_array().unwrap();
    let gated = |budget: &str, error: f64, times: f64| {
        let row = rows.iter().find(|row| row["name"] == format!("gated at {budget}")).unwrap();
        assert!(row["weighted_error"].as_f64().unwrap() <= error, "{row}");
        assert!(row["times_fp16"].as_f64().unwrap() >= times, "{row}");
    };
    gated("8 %", 0.08, 3.15);
    gated("2 %", 0.02, 2.4);
    let cache = &found["tiered_cache"];
    assert!(
        cache["times_fewer"].as_f64().unwrap() >= 32.0 && cache["hot_error"].as_f64().unwrap() < 0.035,
        "{cache}"
    );
    assert_eq!((&cache["hot_states"], &cache["cold_states"]), (&Value::from(64), &Value::from(960)));
    assert_eq!(
        (&cache["exact_reads"], &cache["exact_reads_that_differ"]),
        (&Value::from(1024), &Value::from(0))
    );
}

#[test]
fn states_benchmark_refuses_what_it_does_not_know() {
    let refused = |arguments: &[&str]| {
        let output = hotset().args(["bench", "states"]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let unknown = refused(&["--sections", "codesign"]);
    assert!(unknown.contains("co_design") && unknown.contains("gated_quantisation"), "{unknown}");
    assert!(refused(&["--lengths", "0"]).contains("0 is not in 1..="));
    assert!(refused(&["--device", "tpu"]).contains("no device is called `tpu`: write host"));
}
