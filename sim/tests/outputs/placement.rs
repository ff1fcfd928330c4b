use crate::{case, run};
use serde_json::Value;
use sim::{Output, Summary};
use std::path::Path;

fn written(folder: &Path, overrides: &[(&str, &str)]) -> (Value, Summary) {
    let case = case("quickstart", overrides);
    let output = Output::create(folder, &case).unwrap();
    let outcome = run(&case, |_| {});
    let summary = Summary::new(&case, &outcome, "predictive", 1.0);
    output.finish("a run", &outcome, &summary).unwrap();
    let text = std::fs::read_to_string(folder.join("placement.json")).unwrap();
    (serde_json::from_str(&text).unwrap(), summary)
}

#[test]
fn the_placement_agrees_with_the_run_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let (placement, summary) = written(folder.path(), &[]);
    let layers = placement["layers"].as_array().unwrap();
    assert_eq!(layers.len() as u64, placement["layers_total"].as_u64().unwrap());
    let all = |key: &'static str| layers.iter().flat_map(move |layer| layer[key].as_array().unwrap().clone());
    let demands: u64 = all("demands").map(|count| count.as_u64().unwrap()).sum();
    // gpt-oss-20b asks four experts of 24 layers for each of 40 tokens.
    assert_eq!(demands, 40 * 24 * 4);
    assert_eq!(placement["blocks_resident"], 192, "the quickstart has 192 slots");
    assert_eq!(all("resident").count(), 192);
    let residency: Vec<f64> = all("residency").map(|share| share.as_f64().unwrap()).collect();
    assert!(residency.iter().all(|share| (0.0..=1.0).contains(share)));
    // The time-weighted sum of what was there never exceeds the slots; late in the run they are all in use.
    let mean: f64 = residency.iter().sum();
    assert!(mean <= 192.0 && mean > 96.0, "{mean}");
    let rate = |key: &str| placement["hit_rate"][key].as_f64().unwrap();
    assert_eq!(rate("run"), summary.hit_rate);
    assert!(rate("by_layer") <= rate("most_demanded") && rate("by_block") <= rate("most_demanded"));
}

#[test]
fn a_model_that_fits_needs_no_overrides() {
    let folder = tempfile::tempdir().unwrap();
    let (placement, _) = written(folder.path(), &[("memory.hbm", "768 slots")]);
    for rate in ["by_block", "by_layer", "most_demanded"] {
        assert_eq!(placement["hit_rate"][rate], 1.0);
    }
    let text = std::fs::read_to_string(folder.path().join("llama-cpp.txt")).unwrap();
    assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
    let yaml = std::fs::read_to_string(folder.path().join("ktransformers.yaml")).unwrap();
    assert!(!yaml.contains("KExpertsCPU"), "{yaml}");
}
