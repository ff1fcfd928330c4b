//! A million layer steps of a simulated run, controller and world together, on one core: gpt-oss-20b (24 layers of 32
//! experts, 4 a token) on generated routing, with room for a quarter of the experts, for half and for all of them. And one minute
//! of requests to DeepSeek-V3 on eight accelerators that have its experts in shares: a sixtieth of an hour.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sim::resolve::{check_policy, resolve_policy};
use sim::simulate::{Case, Keep};
use std::collections::BTreeMap;
use std::time::Duration;

/// 41,667 tokens of 24 layers.
const LAYER_STEPS: u64 = 1_000_008;

fn case(slots: u32) -> Case {
    let text = format!(
        "name: layer steps
machine: h100-sxm
model: gpt-oss-20b
memory: {{ hbm: {slots} slots }}
workload:
  routing: {{ zipf_markov: {{ skew: 0.8, stickiness: 0.3, coupling: 0.2, traces: 399, tokens: 41895 }} }}
  limit_tokens: {}
policy: lru
seed: 20
",
        LAYER_STEPS / 24
    );
    let scenario = scenarios::load_text("layer_steps.yaml", &text, &[], &check_policy)
        .unwrap_or_else(|errors| panic!("{}", errors.render(false)));
    Case::from_scenario(&scenario).expect("a case")
}

fn layer_steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("layer steps");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(10))
        .throughput(Throughput::Elements(LAYER_STEPS));
    for slots in [192, 384, 768] {
        let case = case(slots);
        for policy in ["lru", "predictive"] {
            let (entry, params) = resolve_policy(policy, &BTreeMap::new()).expect("a registered policy");
            let run = || case.run(entry, &params, Keep::default(), |_| {}).expect("a run");
            assert_eq!(run().orchestrator.tally().layer_steps, LAYER_STEPS);
            let id = BenchmarkId::new(policy, format!("{slots} slots"));
            group.bench_function(id, |bench| bench.iter(run));
        }
    }
    group.finish();
}

/// 120 requests, two a second: each rank has 58 routed layers a step, all of whose experts fit.
fn eight_accelerators(criterion: &mut Criterion) {
    let text = "name: eight accelerators
machine: h200
model: deepseek-v3
parallel: { expert: 8 }
workload:
  routing: { zipf_markov: { tokens: 4000, traces: 16, skew: 0.8, stickiness: 0.3, coupling: 0.3 } }
  requests: { poisson: { rate: 2 /s, batch: 64, limit: 120 } }
  prompt_tokens: 500
  output_tokens: 200
  prefill: { chunk: 2048 }
policy: fifo
seed: 7
";
    let scenario = scenarios::load_text("eight_accelerators.yaml", text, &[], &check_policy)
        .unwrap_or_else(|errors| panic!("{}", errors.render(false)));
    let case = Case::from_scenario(&scenario).expect("a case");
    let (entry, params) = resolve_policy("fifo", &BTreeMap::new()).expect("a registered policy");
    let run = || case.run(entry, &params, Keep::default(), |_| {}).expect("a run");
    let mut group = criterion.benchmark_group("eight accelerators");
    let layer_steps = run().orchestrator.tally().layer_steps;
    group.sample_size(10).throughput(Throughput::Elements(8 * layer_steps));
    group.bench_function("a minute of deepseek-v3", |bench| bench.iter(run));
    group.finish();
}

criterion_group!(benches, layer_steps, eight_accelerators);
criterion_main!(benches);
