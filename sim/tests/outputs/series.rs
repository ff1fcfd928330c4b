//! A run over time: its windows add up to what its summary says, however long it is.

use crate::page::SCENARIOS;
use crate::{case, files};
use sim::Summary;
use std::collections::BTreeMap;

/// The columns of `series.csv` by name, and the summary of the run.
fn series(scenario: &str, overrides: &[(&str, &str)]) -> (BTreeMap<String, Vec<Option<f64>>>, Summary) {
    let folder = tempfile::tempdir().unwrap();
    let summary = files::write(&case(scenario, overrides), folder.path(), "a run", 1.0);
    let mut csv = csv::Reader::from_path(folder.path().join("series.csv")).unwrap();
    let names: Vec<String> = csv.headers().unwrap().iter().map(str::to_owned).collect();
    let mut columns: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
    for row in csv.records().map(Result::unwrap) {
        for (name, field) in names.iter().zip(&row) {
            let value = (!field.is_empty()).then(|| field.parse().unwrap());
            columns.entry(name.clone()).or_default().push(value);
        }
    }
    (columns, summary)
}

fn near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= 1e-6 * expected.abs() + 1e-6, "{what}: {found}, {expected}");
}

#[test]
fn windows_fill_the_run_and_add_up_to_it() {
    for (scenario, overrides) in SCENARIOS {
        let (columns, summary) = series(scenario, overrides);
        let column = |name: &str| columns[name].as_slice();
        let sum = |name: &str| column(name).iter().flatten().sum::<f64>();
        let (from, to) = (column("from_s"), column("to_s"));
        assert!((2..=sim::series::MOST).contains(&from.len()), "{} windows", from.len());
        assert_eq!((from[0], from[1..].to_vec()), (Some(0.0), to[..to.len() - 1].to_vec()));
        near(to[to.len() - 1].unwrap(), summary.simulated_s, "the end");
        let lengths: Vec<f64> = from.iter().zip(to).map(|(from, to)| to.unwrap() - from.unwrap()).collect();
        assert!(lengths.iter().all(|&length| length > 0.0));
        // The mean of a share or of bytes is weighed with the length of windows.
        let weighed = |name: &str| {
            column(name).iter().zip(&lengths).map(|(v, length)| v.unwrap() * length).sum::<f64>()
        };

        near(sum("output_tokens"), summary.output_tokens as f64, "output tokens");
        near(sum("prompt_tokens"), summary.prompt_tokens as f64, "prompt tokens");
        near(sum("requests_completed"), summary.requests_completed as f64, "requests");
        near(weighed("output_throughput_tok_s"), summary.output_tokens as f64, "throughput");
        assert!((weighed("compute_utilization") - summary.compute_s).abs() < 1e-6 * summary.simulated_s);
        for (cause, ms) in &summary.stall_ms_by_cause {
            near(sum(&format!("stall_ms_{cause}")), *ms, cause);
        }
        for veto in &summary.vetoes {
            near(sum(&format!("vetoes_{}", veto.reason)), veto.count as f64, veto.reason);
        }
        for state in &summary.states {
            let held = weighed(&format!("mean_bytes_{}", state.state));
            // Bytes are whole.
            assert!(
                (held - state.byte_seconds).abs() <= summary.simulated_s + 1e-6 * held,
                "{}",
                state.state
            );
        }
        for link in &summary.links {
            let name = format!("{} {}", link.name, link.direction);
            near(sum(&format!("bytes {name}")), link.bytes as f64, &name);
            assert!(
                (weighed(&format!("utilization {name}")) / summary.simulated_s - link.utilization).abs()
                    < 1e-6
            );
        }
        let most = column("drift_max").iter().flatten().fold(0.0, |most: f64, &drift| most.max(drift));
        assert!((most - summary.drift_max).abs() < 1e-8, "{most}, {}", summary.drift_max);
        let itl = column("p99_itl_ms").iter().flatten().fold(0.0, |most: f64, &p99| most.max(p99));
        assert!(itl >= summary.latencies["p50_itl_ms"].unwrap());
    }
}
