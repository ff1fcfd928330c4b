//! `hotset validate` and `hotset calibrate` from the outside.

use crate::hotset;
use serde_json::Value;

/// The shipped scenario, made small.
const SMALL: [&str; 10] = [
    "--set",
    "model.hidden_size=128",
    "--set",
    "model.intermediate_size=96",
    "--set",
    "model.num_hidden_layers=3",
    "--set",
    "memory.hbm=20 slots",
    "--set",
    "workload.limit_tokens=12",
];

/// The exit code, and what went to standard output and to standard error.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = hotset().args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What is said of input that is refused.
fn refused(arguments: &[&str]) -> String {
    let (code, out, errors) = run(arguments);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {errors}");
    errors
}

fn validate(more: &[&str]) -> String {
    let (code, out, errors) = run(&[&["validate", "moe-on-host"], &SMALL[..], more].concat());
    assert_eq!(code, Some(0), "{errors}");
    out
}

#[test]
fn the_host_does_what_the_simulator_says() {
    let out = validate(&["--format", "json", "--live"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&report["decisions_equal"], &report["bytes_equal"]),
        (&Value::Bool(true), &Value::Bool(true))
    );
    assert_eq!(report["first_difference"], Value::Null);
    assert_eq!(report["steps"], 12);
    assert!(report["decisions"].as_u64().unwrap() > 12);
    let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("{key}: {}", report[key]));
    assert!(number("step_time_mape") > 0.0 && number("step_time_p99_error") >= 0.0);
    assert!(
        number("drift_measured") > 0.0 && number("drift_measured") < 0.02,
        "{}",
        report["drift_measured"]
    );
    assert!(number("drift_predicted") > 0.0 && (0.0..=1.0).contains(&number("overlap")));
    let (peak, budget) = (number("peak_bytes"), number("budget_bytes"));
    assert!(peak > 0.0 && peak <= budget, "{peak} of {budget}");
    let carried = |link: &Value| (link["simulated"].as_u64().unwrap(), link["real"].as_u64().unwrap());
    let links = report["links"].as_array().unwrap();
    assert!(links.iter().any(|link| carried(link).0 > 0), "{links:?}");
    assert!(links.iter().all(|link| carried(link).0 == carried(link).1), "{links:?}");
    for component in ["mixer", "experts", "head", "dram to hbm"] {
        assert!(report["components"][component]["measured_total_ms"].as_f64().unwrap() > 0.0, "{component}");
    }
    let live = &report["live"];
    assert!((0.0..=1.0).contains(&live["residency_jaccard"].as_f64().unwrap()));
    assert!(live["hit_rate"].as_f64().unwrap() > 0.0 && live["step_time_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_host_keeps_the_checkpoints_that_the_simulator_says() {
    let (code, out, errors) = run(&["validate", "states/on-host", "--format", "json"]);
    assert_eq!(code, Some(0), "{errors}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let equal = Value::Bool(true);
    assert_eq!((&report["bytes_equal"], &report["checkpoints"]["equal"]), (&equal, &equal));
    let count = |key: &str| report["checkpoints"][key].as_u64().unwrap_or_else(|| panic!("{key}: {out}"));
    let (made, restores, moves, copies) = (count("made"), count("restores"), count("moves"), count("copies"));
    assert!(
        made > 10 && restores > 20 && copies > 10 && moves > made + restores,
        "{}",
        report["checkpoints"]
    );
    // Each move is checked when it has arrived, and what is left at the end once more.
    assert_eq!(report["copies_verified"], moves + copies);
    for pool in report["checkpoints"]["pools"].as_array().unwrap() {
        let [simulated, real] =
            ["simulated", "real"].map(|of| pool[format!("peak_bytes_{of}")].as_u64().unwrap());
        assert!(0 < real && real <= simulated, "{pool}");
    }
    let coded = &report["components"]["recoding in hbm"];
    assert!(
        coded["count"].as_u64().unwrap() > 0 && coded["measured_total_ms"].as_f64().unwrap() > 0.0,
        "{coded}"
    );
    let error = refused(&["validate", "states/on-host", "--live"]);
    assert!(error.contains("--live") && error.contains("checkpoints"), "{error}");
}

#[test]
fn both_timelines_are_in_one_file() {
    let folder = tempfile::tempdir().unwrap();
    validate(&["--out", folder.path().to_str().unwrap()]);
    let text = std::fs::read_to_string(folder.path().join("timeline.json")).unwrap();
    let trace: Value = serde_json::from_str(&text).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let named =
        |name: &str| events.iter().find(|event| event["args"]["name"] == name).map(|event| &event["pid"]);
    for world in ["simulated", "measured"] {
        for process in ["device", "links"] {
            let pid = named(&format!("{world} {process}")).unwrap_or_else(|| panic!("{world} {process}"));
            assert!(
                events.iter().any(|event| event["ph"] == "X" && event["pid"] == *pid),
                "{world} {process} is empty"
            );
        }
    }
}

#[test]
fn a_device_that_is_not_there_is_refused_with_the_reason() {
    let error = refused(&["validate", "moe-on-host", "--device", "gpu"]);
    assert!(error.contains("no device is called `gpu`") && error.contains("cuda:0"), "{error}");
    let error = refused(&["calibrate", "--device", "cuda:x"]);
    assert!(error.contains("no device is called `cuda:x`"), "{error}");
    let error = refused(&["validate", "moe-on-host", "--device", "cuda:99"]);
    assert!(error.contains("cuda:99 cannot be opened") && error.contains("driver"), "{error}");
}

/// Contents of this model would take hours to make up, and memory without end.
#[test]
fn a_model_that_the_machine_has_no_room_for_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let machine = folder.path().join("large.yaml");
    let tiers = "{ hbm: { capacity: 1000 TB }, dram: { capacity: 1000 TB } }";
    std::fs::write(&machine, format!("{{ base: epyc-2core-vm, tiers: {tiers} }}")).unwrap();
    let wide = ["--set", "model.hidden_size=131072", "--set", "model.intermediate_size=131072"];
    let machine = ["validate", "moe-on-host", "--machine", machine.to_str().unwrap()];
    let error = refused(&[&machine[..], &wide].concat());
    assert!(error.contains("of main memory are needed") && error.contains("are free"), "{error}");
}

#[test]
fn a_scratch_that_is_no_folder_is_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for command in [&["validate", "moe-on-host"][..], &["calibrate"]] {
        for scratch in ["no/such/folder", file.path().to_str().unwrap()] {
            let error = refused(&[command, &["--scratch", scratch]].concat());
            assert!(error.contains(scratch) && error.contains("no such folder"), "{error}");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_is_refused_before_the_run_and_one_made_for_nothing_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = refused(&["validate", "moe-on-host", "--out", file.to_str().unwrap()]);
    assert!(error.contains("not a folder"), "{error}");
    // Weights are looked for once the folder is there.
    let (outer, inner) = (folder.path().join("outer"), folder.path().join("outer/inner"));
    let absent = ["--weights", "no/such/model.safetensors", "--out", inner.to_str().unwrap()];
    refused(&[&["validate", "moe-on-host"], &SMALL[..], &absent].concat());
    assert!(!outer.exists());
}

#[test]
fn weights_and_machines_that_are_not_there_are_refused() {
    let with = |more: &[&str]| refused(&[&["validate", "moe-on-host"], &SMALL[..], more].concat());
    let error = with(&["--weights", "no/such/model.safetensors"]);
    assert!(error.contains("no/such/model.safetensors"), "{error}");
    let error = with(&["--machine", "no/such.yaml"]);
    assert!(error.contains("no/such.yaml"), "{error}");
    let error = refused(&["calibrate", "-o", "no/such/folder/machine.yaml"]);
    assert!(error.contains("no/such/folder/machine.yaml"), "{error}");
    let error = refused(&["calibrate", "--name", "{x: 1}"]);
    assert!(error.contains("--name"), "{error}");
}
