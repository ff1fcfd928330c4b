//! Several models on one machine: steps of their phases take turns, and one controller decides for all of them.

use crate::phases::{PIPELINE, desk};
use crate::small::{self, fast, policies};
use policy::Bytes;
use policy::registry::lookup;
use sim::{Case, Keep, Outcome};

const DECODER: &str = "{ model_type: llama, hidden_size: 64, intermediate_size: 192, num_hidden_layers: 6, num_attention_heads: 4,
  vocab_size: 256, torch_dtype: bfloat16 }";

/// A small decoder that serves 4 requests of 12 tokens, and beside it, or alone, a pipeline that makes 3 images.
fn case(hbm: &str, models: [bool; 2], requests: &str) -> Case {
    let chats = format!(
        "{{ routing: {{ dense: {{ requests: 4, tokens: 12 }} }}, prompt_tokens: 5, requests: {requests} }}"
    );
    let images = format!("{{ routing: {{ dense: {{ requests: 3 }} }}, requests: {requests} }}");
    let of = |model: &str, load: &str| format!("model: {model}\nworkload: {load}\n");
    let text = match models {
        [true, true] => {
            let tenant = format!("tenants: [{{ name: images, model: {PIPELINE}, workload: {images} }}]\n");
            format!("{}{tenant}", of(DECODER, &chats))
        }
        [true, false] => of(DECODER, &chats),
        _ => of(PIPELINE, &images),
    };
    desk(&format!("{text}kv: 64 KiB\nmemory: {{ hbm: {hbm} }}"), &[])
}

const CLOSED: &str = "{ closed: { batch: 1 } }";

fn run(case: &Case, policy: &str) -> Outcome {
    let entry = lookup(policy).unwrap();
    case.run(entry, &entry.resolve(&Default::default()).unwrap(), Keep::default(), |_| {}).unwrap()
}

#[test]
fn together_they_compute_what_each_computes_alone() {
    let of = |models| run(&case("64 MiB", models, CLOSED), "predictive");
    let [both, chats, images] = [[true, true], [true, false], [false, true]].map(of);
    let compute = |outcome: &Outcome| outcome.world.compute_time();
    assert_eq!(compute(&both), compute(&chats) + compute(&images));
    let tally = both.orchestrator.tally();
    assert_eq!(both.world.now().0, compute(&both).0 + tally.stall_total().0);
    let served: Vec<_> =
        tally.tenants.iter().map(|tenant| (tenant.completed, tenant.output_tokens)).collect();
    assert_eq!(served, [(4, 48), (3, 3)]);
    assert_eq!((tally.completed, tally.output_tokens), (7, 51));
}

#[test]
fn their_steps_take_turns() {
    let both = run(&case("64 MiB", [true, true], CLOSED), "predictive");
    let alone = run(&case("64 MiB", [true, false], CLOSED), "predictive");
    let tokens = |outcome: &Outcome| outcome.orchestrator.tally().latencies.itl.mean().unwrap();
    // A token waits for one step of the other model, and not for its whole request.
    let image = both.orchestrator.tally().tenants[1].latencies.e2e.mean().unwrap();
    assert!(tokens(&both) > tokens(&alone));
    assert!(tokens(&both) < image / 4.0, "{} of {image}", tokens(&both));
}

#[test]
fn every_policy_serves_both_within_one_memory() {
    for requests in [CLOSED, "{ poisson: { rate: 500 /s, batch: 2, limit: 4 } }"] {
        let case = case("900 KiB", [true, true], requests);
        let mut served = 0;
        for entry in policies(case.is_closed()) {
            if case.orchestrator(entry, &entry.resolve(&Default::default()).unwrap(), false).is_err() {
                continue;
            }
            let seen = small::run(&case, entry, case.world(false).unwrap())
                .unwrap_or_else(|wrong| panic!("{} with {requests}: {wrong}", entry.name));
            let tally = seen.orchestrator.tally();
            assert_eq!(tally.completed, tally.arrived, "{}", entry.name);
            assert!(tally.tenants.iter().all(|tenant| tenant.completed > 0), "{}", entry.name);
            served += 1;
        }
        assert!(served > 10, "only {served} policies ran");
    }
}

#[test]
fn memory_goes_to_whichever_model_it_saves_most_for() {
    // The decoder alone fits; beside the pipeline, which reads more a step, it keeps what pays.
    let case = case("900 KiB", [true, true], CLOSED);
    let ours = run(&case, "predictive");
    let lru = run(&case, "lru");
    let stall = |outcome: &Outcome| outcome.orchestrator.tally().stall_total();
    assert!(stall(&ours) < stall(&lru), "{:?} of {:?}", stall(&ours), stall(&lru));
    let usage = ours.orchestrator.context().ledger.usage(fast(&case.machine));
    assert!(usage.peak > Bytes::ZERO && usage.peak <= usage.capacity);
}
