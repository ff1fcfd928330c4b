//! Demands replayed in a second on one core, at the size of a model of 58 layers with 256 experts each.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use policy::Demands;
use policy::registry::lookup;
use policy::replay::{Order, ReplayInput, Reset};
use rand::SeedableRng;
use rand::distr::Distribution;
use rand::seq::SliceRandom;
use rand_distr::Zipf;
use rand_pcg::Pcg64;
use std::collections::BTreeMap;

const LAYERS: u32 = 58;
const EXPERTS: u32 = 256;
/// A quarter of the blocks.
const SLOTS: usize = 3_712;

/// Independent draws over all ids, the popular ones strewn among the others; one step each.
fn draws(accesses: usize) -> Demands {
    let mut rng = Pcg64::seed_from_u64(1);
    let mut ids: Vec<u32> = (0..LAYERS * EXPERTS).collect();
    ids.shuffle(&mut rng);
    let zipf = Zipf::new(ids.len() as f64, 0.6).expect("a positive size and skew");
    let mut demands = Demands::new(LAYERS * EXPERTS);
    for _ in 0..accesses {
        let rank = zipf.sample(&mut rng) as usize;
        demands.push_step([ids[rank - 1]]);
    }
    demands
}

/// Layer after layer, each with the choices of `batch` tokens, eight experts a token; repeated choices as they come.
fn batches(steps: usize, batch: usize) -> Demands {
    let mut rng = Pcg64::seed_from_u64(2);
    let zipf = Zipf::new(f64::from(EXPERTS), 0.6).expect("a positive size and skew");
    let mut demands = Demands::of_layers(LAYERS, EXPERTS);
    for step in 0..steps {
        let layer = step as u32 % LAYERS;
        // Each layer has favourites of its own.
        let expert = |rank: u32| (rank * 37 + layer * 101) % EXPERTS;
        demands.push_step((0..8 * batch).map(|_| layer * EXPERTS + expert(zipf.sample(&mut rng) as u32 - 1)));
    }
    demands
}

fn replay(criterion: &mut Criterion, title: &str, demands: &Demands, order: Order, policies: &[&str]) {
    let mut group = criterion.benchmark_group(title);
    group.sample_size(10);
    for name in policies {
        let entry = lookup(name).expect("a registered policy");
        let params = entry.resolve(&BTreeMap::new()).expect("defaults");
        let input =
            ReplayInput { demands, fit: None, capacity: SLOTS, order, reset: Reset::Never, params: &params };
        let accesses = entry.run(&input).expect("a policy that learns nothing beforehand").accesses;
        group.throughput(Throughput::Elements(accesses));
        group.bench_function(BenchmarkId::from_parameter(name), |bench| bench.iter(|| entry.run(&input)));
    }
    group.finish();
}

fn access_order(criterion: &mut Criterion) {
    let policies = [
        "fifo",
        "lru",
        "sieve",
        "s3_fifo",
        "lfu",
        "moe_infinity_released",
        "lfu_decayed",
        "arc",
        "w_tiny_lfu",
        "gdsf",
        "belady",
    ];
    replay(criterion, "access", &draws(20_000_000), Order::Access, &policies);
}

fn atomic_order(criterion: &mut Criterion) {
    let policies = ["lru", "lru_layer", "sieve", "s3_fifo", "lfu", "lfru", "least_stale", "belady"];
    replay(criterion, "atomic, batch 1", &batches(58_000, 1), Order::Atomic, &policies);
    replay(criterion, "atomic, batch 16", &batches(5_800, 16), Order::Atomic, &policies);
}

criterion_group!(benches, access_order, atomic_order);
criterion_main!(benches);
