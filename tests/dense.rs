//! Dense layers: every block of a layer is read at every step, so what comes next is certain, and a link that is busy all
//! the time hides all it can.

use crate::ROOT;
use policy::{Bytes, Paths, registry};
use sim::{Case, Keep};
use std::path::Path;

/// A shipped scenario of a dense model, with so much fast memory.
fn llama(hbm: &str) -> Case {
    let path = Path::new(ROOT).join("scenarios/llama-3.1-70b-h100.yaml");
    let overrides = [("memory.hbm".to_owned(), hbm.to_owned())];
    let scenario = scenarios::load(&path.display().to_string(), &overrides, &sim::resolve::check_policy);
    Case::from_scenario(&scenario.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)))).unwrap()
}

/// Mean time of a step once the first has filled fast memory, and the bound: the longer of the compute and of moving
/// what does not fit, in nanoseconds.
fn step_and_bound(case: &Case) -> (f64, f64) {
    let entry = registry::lookup("predictive").unwrap();
    let params = entry.resolve(&Default::default()).unwrap();
    let outcome = case.run(entry, &params, Keep::default(), |_| {}).unwrap();
    let tally = outcome.orchestrator.tally();
    let step = tally.latencies.itl.mean().unwrap();
    let fast = outcome.orchestrator.context().costs.fast;
    let blocks: Bytes = case.model.blocks.iter().map(|block| block.bytes(block.native)).sum();
    let missing = blocks.saturating_sub(case.budgets[fast.index()]);
    let link =
        Paths::new(&case.machine).between(case.home.first(), fast).unwrap().peak.time_for(missing).0 as f64;
    let compute = outcome.world.compute_time().0 as f64 / tally.output_tokens as f64;
    (step, link.max(compute))
}

#[test]
fn llama_70b_at_half_its_bytes_streams_at_the_pace_of_its_link() {
    let case = llama("65.7 GiB");
    let all = case.model.resident_bytes()
        + case.model.blocks.iter().map(|block| block.bytes(block.native)).sum::<Bytes>();
    let half = all.0 as f64 / 2.0;
    assert!((65.7 * f64::from(1 << 30) / half - 1.0).abs() < 0.001, "half of {all}");
    let (step, bound) = step_and_bound(&case);
    println!("half: a step takes {:.1} ms, the bound is {:.1} ms", step / 1e6, bound / 1e6);
    assert!((1.0..1.03).contains(&(step / bound)), "{step} ns, bound {bound} ns");
}

#[test]
fn other_shares_of_the_model_stream_as_well() {
    for hbm in ["30 GiB", "50 GiB", "78 GiB"] {
        let (step, bound) = step_and_bound(&llama(hbm));
        println!("{hbm}: a step takes {:.1} ms, the bound is {:.1} ms", step / 1e6, bound / 1e6);
        assert!((1.0..1.03).contains(&(step / bound)), "{hbm}: {step} ns, bound {bound} ns");
    }
}

#[test]
fn a_model_that_stays_takes_the_sum_of_its_kernels_and_an_event_a_step() {
    let text = "
name: stays
machine: h100-sxm
model: llama-3.1-8b
resident: { dense: true }
workload: { routing: { dense: { requests: 1, tokens: 16 } }, prompt_tokens: 100, requests: { closed: { batch: 1 } } }
policy: lru
seed: 7
";
    let scenario = scenarios::load_text("stays.yaml", text, &[], &sim::resolve::check_policy);
    let case =
        Case::from_scenario(&scenario.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)))).unwrap();
    assert!(case.model.blocks.is_empty());
    let entry = registry::lookup("lru").unwrap();
    let outcome =
        case.run(entry, &entry.resolve(&Default::default()).unwrap(), Keep::default(), |_| {}).unwrap();

    let (model, processor) = (&case.model, case.machine.accelerator);
    let kernel = |bytes: u64, operations: u64| {
        (processor.read.time_for(Bytes(bytes)).max(processor.flops.time_for(operations)) + processor.launch).0
    };
    let step = |cached: u64| {
        let mixers = model.layers.iter().map(|layer| {
            let operations = layer.flops_per_token + layer.flops_per_pair * (cached + 1);
            kernel(layer.resident.0 + layer.kv_per_token.0 * cached, operations)
        });
        mixers.sum::<u64>() + kernel(model.head_read.0, model.head_flops_per_token)
    };
    assert_eq!(outcome.world.now().0, (100..116).map(step).sum::<u64>());
    assert_eq!(outcome.world.compute_time().0, outcome.world.now().0);
    let tally = outcome.orchestrator.tally();
    assert_eq!((tally.layer_steps, tally.demanded, tally.output_tokens), (32 * 16, 0, 16));
    assert!(outcome.world.ticks() <= 16 + 1, "{} events", outcome.world.ticks());
}
