use crate::{case, watch};
use policy::state::STATES;
use serde_json::Value;
use sim::{Case, Output, OutputError, Summary};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Writes all files of a run into `folder` and answers its summary.
pub(crate) fn write(case: &Case, folder: &Path, scenario: &str, wall_s: f64) -> Summary {
    let mut output = Output::create(folder, case).unwrap();
    let outcome = watch(case, &mut output);
    let summary = Summary::new(case, &outcome, "predictive", wall_s);
    output.finish(scenario, &outcome, &summary).unwrap();
    summary
}

/// The files of a folder, by name.
fn read(folder: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap()))
        .collect()
}

#[test]
fn a_seed_determines_every_file_but_for_the_wall_clock() {
    let folder = tempfile::tempdir().unwrap();
    let of_run = |name: &str, wall_s: f64| {
        let case = case("quickstart", &[]);
        let folder = folder.path().join(name).join("new");
        write(&case, &folder, "a run", wall_s);
        read(&folder)
    };
    let (mut one, mut two) = (of_run("one", 1.25), of_run("two", 7.75));
    let names: Vec<_> = one.keys().cloned().collect();
    let expected = [
        "decisions.jsonl",
        "ktransformers.yaml",
        "llama-cpp.txt",
        "placement.json",
        "report.html",
        "requests.csv",
        "series.csv",
        "summary.json",
        "timeline.json",
    ];
    assert_eq!(names, expected);
    let timeless = |files: &mut BTreeMap<String, String>| {
        let mut summary: Value = serde_json::from_str(&files.remove("summary.json").unwrap()).unwrap();
        for key in ["wall_s", "events_per_s"] {
            summary.as_object_mut().unwrap().remove(key).unwrap();
        }
        summary
    };
    assert_eq!(timeless(&mut one), timeless(&mut two));
    assert!(one == two, "files differ");
}

#[test]
fn decisions_are_written_with_names_and_agree_with_the_summary() {
    let folder = tempfile::tempdir().unwrap();
    let case = case("mixtral-8x7b-4090", &[]);
    let summary = write(&case, folder.path(), "a run", 1.0);
    let text = fs::read_to_string(folder.path().join("decisions.jsonl")).unwrap();
    let mut refused_for_drift = 0;
    let mut forms = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let decision: Value = serde_json::from_str(line).unwrap();
        assert_eq!(decision["seq"], index);
        let (layer, expert) = decision["block"].as_str().unwrap().split_once("/E").unwrap();
        assert!(layer.trim_start_matches('L').parse::<usize>().unwrap() < case.model.layers.len());
        assert!(expert.parse::<u32>().unwrap() < case.model.uniform_blocks().unwrap());
        let state = decision["state"].as_str().unwrap();
        assert!(STATES.iter().any(|known| known.code() == state), "{line}");
        if decision["verdict"] == "reject" && decision["reason"] == "drift_budget" {
            refused_for_drift += 1;
        }
        if let Some(form) = decision["to"].as_str() {
            *forms.entry(form.to_owned()).or_insert(0) += 1;
        }
    }
    let counted = summary.vetoes.iter().find(|veto| veto.reason == "drift_budget").unwrap().count;
    assert!(counted > 0);
    assert_eq!(refused_for_drift, counted);
    assert!(forms.contains_key("hbm/bf16") && forms.contains_key("hbm/int8"), "{forms:?}");
}

#[test]
fn requests_add_up_to_the_summary() {
    let folder = tempfile::tempdir().unwrap();
    let requests = ("workload.requests", "{ poisson: { rate: 50 /s, batch: 2 } }");
    let case = case("quickstart", &[requests, ("workload.limit_tokens", "130")]);
    let summary = write(&case, folder.path(), "a run", 1.0);
    let mut csv = csv::Reader::from_path(folder.path().join("requests.csv")).unwrap();
    let header = "request,status,priority,arrived_ms,admitted_ms,ttft_ms,tpot_ms,e2e_ms,context_tokens,output_tokens,\
                  prefix_hit_tokens,preemptions";
    assert_eq!(csv.headers().unwrap(), &csv::StringRecord::from(header.split(',').collect::<Vec<_>>()));
    let mut rows: Vec<(usize, String, [f64; 10])> = csv.deserialize().map(Result::unwrap).collect();
    rows.sort_by_key(|row| row.0);
    assert_eq!(rows.len() as u64, summary.requests_completed);
    let mean = |column: usize| rows.iter().map(|row| row.2[column]).sum::<f64>() / rows.len() as f64;
    for (column, name) in [(3, "mean_ttft_ms"), (4, "mean_tpot_ms"), (5, "mean_e2e_ms")] {
        let expected = summary.latencies[name].unwrap();
        assert!((mean(column) - expected).abs() < 1e-5, "{name}: {} {expected}", mean(column));
    }
    assert_eq!(rows.iter().map(|row| row.2[7]).sum::<f64>() as u64, summary.output_tokens);
    for (index, row) in rows.iter().enumerate() {
        assert_eq!((row.0, row.1.as_str()), (index, "served"));
        let [_, arrived, admitted, ttft, _, e2e, ..] = row.2;
        assert!(arrived <= admitted && ttft <= e2e, "{row:?}");
    }
}

#[test]
fn a_failed_run_leaves_nothing_and_what_was_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("summary.json"), "old").unwrap();
    let case = case("quickstart", &[]);
    let mut output = Output::create(folder.path(), &case).unwrap();
    watch(&case, &mut output);
    drop(output);
    assert_eq!(read(folder.path()), BTreeMap::from([("summary.json".to_owned(), "old".to_owned())]));
}

#[test]
fn folders_made_for_a_run_that_fails_are_gone_and_those_before_it_stay() {
    let folder = tempfile::tempdir().unwrap();
    let case = case("quickstart", &[]);
    let outer = folder.path().join("outer");
    drop(Output::create(&outer.join("inner"), &case).unwrap());
    assert!(!outer.exists());
    fs::create_dir(&outer).unwrap();
    drop(Output::create(&outer.join("inner"), &case).unwrap());
    assert_eq!(fs::read_dir(&outer).unwrap().count(), 0);
}

#[test]
fn a_path_that_is_no_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let case = case("quickstart", &[]);
    for path in [file.clone(), file.join("below")] {
        let error = Output::create(&path, &case).err().unwrap();
        assert!(matches!(&error, OutputError::NotAFolder { path: named } if *named == path), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_folder_that_vanishes_is_an_error_with_the_files_path() {
    let folder = tempfile::tempdir().unwrap();
    let case = case("quickstart", &[]);
    let mut output = Output::create(folder.path(), &case).unwrap();
    let outcome = watch(&case, &mut output);
    let summary = Summary::new(&case, &outcome, "predictive", 1.0);
    fs::remove_dir_all(folder.path()).unwrap();
    let error = output.finish("a run", &outcome, &summary).unwrap_err();
    assert!(matches!(&error, OutputError::File { path, .. } if path.starts_with(folder.path())), "{error}");
}
