//! What one layer step's decision costs: taking in what was routed, predicting, choosing the victims for the misses, and
//! looking for what to fetch meanwhile. On gpt-oss-20b (24 layers of 32 experts, 4 a token) and on a model of
//! DeepSeek-V3's size (58 layers of 256, 8 a token), with fast memory for a quarter of the experts and generated routing; and
//! on Mixtral-8x7B with two reduced formats under a drift budget, where formats are chosen too.

#[path = "decisions/layer_steps.rs"]
mod layer_steps;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use layer_steps::{JOINT, LayerSteps};

/// Tokens before measuring begins: more than the predictor remembers.
const WARM: usize = 1200;

/// Name, parameters.
const PREDICTORS: [(&str, &[(&str, f64)]); 3] =
    [("popularity", &[("predictor", 0.0)]), ("full", &[]), ("full, 9 distances", &[("ahead", 8.0)])];

fn decisions(criterion: &mut Criterion, model: &str, slots: u32, tokens: u32, joint: &str) {
    let mut group = criterion.benchmark_group(format!("decision for {model}, {slots} slots"));
    for (name, params) in PREDICTORS {
        let mut steps = LayerSteps::new(model, slots, tokens, params, joint);
        (0..WARM * steps.layers()).for_each(|_| steps.run());
        group.bench_function(BenchmarkId::from_parameter(name), |bench| bench.iter(|| steps.run()));
    }
    group.finish();
}

fn small(criterion: &mut Criterion) {
    decisions(criterion, "gpt-oss-20b", 192, 4000, "");
}

fn large(criterion: &mut Criterion) {
    decisions(criterion, "deepseek-v3", 3_712, 1500, "");
}

fn joint(criterion: &mut Criterion) {
    decisions(criterion, "mixtral-8x7b", 64, 4000, JOINT);
}

criterion_group!(benches, small, large, joint);
criterion_main!(benches);
