//! The same requests, the same times of a step, the same names: TTFT, TPOT, ITL and throughput as AISimulate reports them (PyPI `aisimulate`
//! 0.13.0.dev202610270000000085). `golden/aisimulate.csv` holds its figures; `benches/conventions.py` takes them anew.
//!
//! Its passes compute prompts and decode one after the other: 30 ms where there are prompts, 20 ms where requests decode, 50 ms for both. Here
//! three kernels launch for 20 ms in all, and a step of more tokens than requests run together has a prompt in it: 30 ms more.
//!
//! What stays different, and why:
//!
//! - AISimulate's percentiles of ITL come from a sketch, 0.1 % beside the steps' times.
//! - A pass with prompts only takes 30 ms there and 50 ms here: it happens when nothing else runs.
//! - In a closed loop, a client's next request comes after the step is formed that begins when its last one ended, here; AISimulate
//!   has it join that step. A real client does not hear of the end of its request before the next step is under way. So its TTFT is a step longer here.
//! - Where caches are full, the 99th percentile of TPOT is that of ten requests of a thousand which were pre-empted while they decoded. Who they
//!   are depends on the step that each request meets, and so on the clocks, which passes with prompts only put apart: of one and the same trace
//!   with its requests moved by less than a step, either has percentiles from 31 to 38 ms. So their means over such traces are compared.

use crate::{ROOT, data};
use policy::registry;
use sim::{Case, Keep, Summary};
use std::path::Path;
use traces::requests::{Cut, Request, RequestFormat, open_requests};

/// What figures may differ by.
const TOLERANCE: f64 = 0.03;
/// Traces that are Azure's with each request moved by less than a step, of 20 ms.
const MOVED: u64 = 16;
const STEP: u64 = 20_000_000;
/// Bytes of the model's cache for a page of 16 tokens.
const PAGE: u64 = 16 * 64;

const STEPS: &str = "
machine:
  name: constant steps
  tiers:
    hbm: { class: fast, backing: device, capacity: 1 TiB, read: 1000000 GB/s, write: 1000000 GB/s }
    dram: { class: staged, backing: pinned, capacity: 1 TiB, read: 1000000 GB/s, write: 1000000 GB/s }
  links:
    pcie: { between: [dram, hbm], forward: 100000 GB/s, backward: 100000 GB/s, latency: 0 ns, submit: 0 ns, half_size: 0 B, engines: 1,
      duplex: { forward: 100000 GB/s, backward: 100000 GB/s } }
  accelerator: { flops: 1000000 TFLOP/s, read: 1000000 GB/s, launch: 6666666 ns,
    kernels: { bf16: { 1: 1000000 GB/s, 32: 1000000 GB/s, 33: 0.0012373333 GB/s, 4096: 0.0012373333 GB/s } } }
model: { model_type: llama, hidden_size: 64, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1,
  head_dim: 16, vocab_size: 64, torch_dtype: bfloat16 }
policy: lru
";

/// Our figures of a load, with a cache of so many pages.
fn ours(requests: &str, pages: u64) -> serde_json::Value {
    let text = format!(
        "name: conventions{STEPS}kv: {{ paged: {{ page: 16, most: {} B }} }}
workload: {{ routing: {{ dense: {{}} }}, prefill: {{ chunk: 2048 }}, {requests} }}
",
        pages * PAGE
    );
    let scenario = scenarios::load_text("conventions.yaml", &text, &[], &sim::resolve::check_policy);
    let case = Case::from_scenario(&scenario.unwrap_or_else(|wrong| panic!("{wrong}"))).unwrap();
    let outcome = case.run(registry::lookup("lru").unwrap(), &[], Keep::default(), |_| {}).unwrap();
    serde_json::to_value(Summary::new(&case, &outcome, "lru", 0.0)).unwrap()
}

/// AISimulate's figures of a case.
fn theirs(case: &str) -> Vec<(String, f64)> {
    let text = std::fs::read_to_string(Path::new(ROOT).join("tests/golden/aisimulate.csv")).unwrap();
    let rows = text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
    let figures = rows.filter(|row| row[0] == case).map(|row| (row[1].to_owned(), row[2].parse().unwrap()));
    let figures: Vec<_> = figures.collect();
    assert!(!figures.is_empty(), "{case}");
    figures
}

/// Compares all figures but those `of` which something else is expected; returns how far these are beyond theirs.
fn compare(case: &str, ours: &serde_json::Value, of: &str) -> Vec<f64> {
    let mut others = Vec::new();
    for (name, theirs) in theirs(case) {
        let ours = ours[&name].as_f64().unwrap();
        if name.contains(of) {
            others.push(ours - theirs);
            continue;
        }
        assert!((ours / theirs - 1.0).abs() <= TOLERANCE, "{case}, {name}: {ours}, theirs {theirs}");
    }
    others
}

#[test]
fn requests_at_an_even_rate_are_timed_as_aisimulate_times_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("steady.csv");
    let line = |number: u32| format!("{:.0},300,100\n", f64::from(number) * 1e9 / 9.3);
    let lines: String = (0..240).map(line).collect();
    std::fs::write(&path, format!("arrival_ns,prompt_tokens,output_tokens\n{lines}")).unwrap();
    let requests = format!("requests: {{ csv: {{ path: {}, batch: 32 }} }}", path.display());
    compare("steady", &ours(&requests, 1_000_000), "nothing");
}

#[test]
fn a_client_of_a_closed_loop_waits_for_the_step_that_its_last_request_ended_at() {
    let requests = "requests: { closed: { batch: 24, limit: 240 } }, prompt_tokens: 300, output_tokens: 100";
    let later = compare("closed", &ours(requests, 1_000_000), "ttft");
    // A step that decodes, or one with prompts too.
    assert_eq!(later.len(), 5);
    assert!(later.iter().all(|&later| (20.0..51.0).contains(&later)), "{later:?}");
}

#[test]
fn azures_conversations_are_timed_as_aisimulate_times_them() {
    let Some(trace) = data().map(|data| data.join("request_traces/AzureLLMInferenceTrace_conv_2023.csv"))
    else {
        return;
    };
    let requests =
        format!("requests: {{ azure_csv: {{ path: {}, batch: 32, limit: 1000 }} }}", trace.display());
    for (case, pages) in [("azure", 1_000_000), ("azure_2000_pages", 2000), ("azure_1500_pages", 1500)] {
        let ours = ours(&requests, pages);
        let full = case != "azure";
        compare(case, &ours, if full { "p99_tpot" } else { "nothing" });
        // The smaller caches are full: their figures hold pre-emption to AISimulate's.
        assert_eq!(ours["preemptions"].as_u64().unwrap() > 100, full, "{case}");
    }
}

#[test]
fn pre_emption_makes_the_tail_as_long_as_aisimulates() {
    let Some(trace) = data().map(|data| data.join("request_traces/AzureLLMInferenceTrace_conv_2023.csv"))
    else {
        return;
    };
    let recorded = open_requests(&trace, RequestFormat::AzureCsv, &Cut::default()).unwrap();
    let recorded = &recorded.requests()[..1000];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moved.csv");
    let requests = format!("requests: {{ csv: {{ path: {}, batch: 32 }} }}", path.display());
    for pages in [2000, 1500] {
        let tails = (0..MOVED).map(|which| {
            let moved = |(number, request): (u64, &Request)| {
                request.at.0 + (number + 1) * (which + 1) * 7_919_000 % STEP
            };
            let mut times: Vec<u64> = (0..).zip(recorded).map(moved).collect();
            times.sort_unstable();
            let line = |(at, request): (u64, &Request)| {
                format!("{at},{},{}\n", request.prompt_tokens, request.output_tokens)
            };
            let lines: String = times.into_iter().zip(recorded).map(line).collect();
            std::fs::write(&path, format!("arrival_ns,prompt_tokens,output_tokens\n{lines}")).unwrap();
            ours(&requests, pages)["p99_tpot_ms"].as_f64().unwrap()
        });
        let mean = serde_json::json!({ "mean_p99_tpot_ms": tails.sum::<f64>() / MOVED as f64 });
        compare(&format!("moved_{pages}_pages"), &mean, "nothing");
    }
}
