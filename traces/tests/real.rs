//! Totals of the recorded routing, as published beside it.

use std::path::PathBuf;
use traces::{GateOrigin, RoutingTrace, open};

/// The folder of recorded routing; `None`, with a line that says so, where it is absent.
pub(crate) fn recorded(file: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let root = std::env::var_os("HOTSET_DATA").map_or(root, PathBuf::from);
    let path = root.join("moe_routing/gpt-oss-20b").join(file);
    if !path.exists() {
        println!("skipped: no data at {}", path.display());
        return None;
    }
    Some(path)
}

fn totals(trace: &RoutingTrace) -> (usize, usize, usize) {
    let kept = trace.without_repetition().unwrap();
    let demands = trace.demands(false);
    assert_eq!(demands, kept.demands(true));
    assert_eq!(demands.len(), kept.tokens() * 24);
    assert_eq!(demands.trace_starts().len(), kept.trace_count());
    (kept.trace_count(), kept.tokens(), demands.ids().len())
}

#[test]
fn mmlu_validation_has_the_published_totals() {
    let Some(path) = recorded("mmlu_validation.npz") else { return };
    let trace = open(path).unwrap();
    assert_eq!((trace.shape().layers, trace.shape().experts, trace.shape().top_k), (24, 32, 4));
    assert_eq!((trace.trace_count(), trace.tokens()), (145, 40_122));
    assert_eq!(totals(&trace), (98, 30_968, 2_972_928));
    assert_eq!(trace.trace(0).prompt_tokens, Some(178));
    assert_eq!(trace.trace(0).dataset.as_deref(), Some("mmlu_validation"));
}

#[test]
fn mmlu_test_a_and_b_together_have_the_published_totals() {
    let (Some(a), Some(b)) = (recorded("mmlu_test_a.npz"), recorded("mmlu_test_b.npz")) else { return };
    let trace = RoutingTrace::concat(vec![open(a).unwrap(), open(b).unwrap()]).unwrap();
    assert_eq!(totals(&trace), (114, 39_590, 3_800_640));
}

#[test]
fn a_sample_with_probabilities_reads_as_one_trace() {
    let Some(path) = recorded("sample_mmlu_pro_test_0.csv") else { return };
    let trace = open(path).unwrap();
    assert_eq!((trace.trace_count(), trace.tokens(), trace.shape().experts), (1, 511, 32));
    assert_eq!(trace.selection(0, 1), [18, 29, 12, 9]);
    assert_eq!(trace.gates(0, 1).unwrap(), [0.5742, 0.2773, 0.0815, 0.0669]);
    assert_eq!(trace.gate_origin(), Some(GateOrigin::Trace));
}
