//! Pipeline parallelism, against closed forms and against one accelerator that has all layers.

use policy::tally::RequestTimes;
use policy::{Bytes, Orchestrator, Watch};
use scenarios::Scenario;
use sim::provenance::Kind;
use sim::{Case, Keep, Outcome, Summary, World, resolve::resolve_policy};

/// Eight equal layers that look at one token, and a head that is next to nothing.
const MODEL: &str = "{ model_type: mixtral, hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 8, \
    num_local_experts: 8, num_experts_per_tok: 2, num_attention_heads: 32, num_key_value_heads: 8, vocab_size: 32, \
    sliding_window: 1, tie_word_embeddings: false, torch_dtype: bfloat16 }";

/// What the head reads, 32 rows of 4096 numbers of 16 bits, at 2810 GB/s; launches take no time here.
const HEAD: u64 = (32 * 4096 * 2 * 1_000_000_000_u64).div_ceil(2_810_000_000_000);

/// With what is said of `parallel`, if anything is.
fn scenario(parallel: &str, extra: &str) -> Result<Scenario, String> {
    let parallel = if parallel.is_empty() { String::new() } else { format!("parallel: {{ {parallel} }}\n") };
    let machine = "{ base: h100-sxm, accelerator: { launch: 0 ns } }";
    let text = format!("name: pipeline\nmachine: {machine}\nmodel: {MODEL}\n{parallel}seed: 3\n{extra}");
    scenarios::load_text("pipeline.yaml", &text, &[], &sim::resolve::check_policy)
        .map_err(|wrong| wrong.render(false))
}

fn case(parallel: &str, extra: &str) -> Case {
    Case::from_scenario(&scenario(parallel, extra).unwrap_or_else(|wrong| panic!("{wrong}"))).unwrap()
}

/// So many requests of so many tokens each, of which so many are served together.
fn load(requests: u32, batch: u32, tokens: u32) -> String {
    format!(
        "workload:
  routing: {{ zipf_markov: {{ traces: {requests}, tokens: {}, skew: 0 }} }}
  requests: {{ closed: {{ batch: {batch} }} }}
policy: lru
kv: 1 GiB
",
        requests * tokens
    )
}

/// Writes down the requests that leave.
#[derive(Default)]
struct Left(Vec<RequestTimes>);

impl Watch<World> for Left {
    fn request(&mut self, request: RequestTimes) {
        self.0.push(request);
    }
}

fn watch(parallel: &str, extra: &str) -> (Case, Outcome, Vec<RequestTimes>) {
    let case = case(parallel, extra);
    let (entry, params) = resolve_policy("lru", &Default::default()).unwrap();
    let mut left = Left::default();
    let outcome = case.watch(entry, &params, Keep::default(), &mut left).unwrap();
    (case, outcome, left.0)
}

fn stages(outcome: &Outcome) -> Vec<(&Orchestrator, &World)> {
    std::iter::once((&outcome.orchestrator, &outcome.world)).chain(outcome.world.others()).collect()
}

/// A message of so many bytes: 5 us, and 360 GB/s.
fn send(bytes: u64) -> u64 {
    5000 + (bytes * 1_000_000_000).div_ceil(360_000_000_000)
}

/// The time between two tokens of the last request, when everything is in fast memory, of so many served together.
fn period(parallel: &str, batch: u32) -> u64 {
    let (_, _, left) = watch(parallel, &(load(3 * batch, batch, 60) + "memory: { hbm: 64 slots }\n"));
    assert_eq!(left.len(), 3 * batch as usize);
    left.last().and_then(RequestTimes::tpot).unwrap().0
}

#[test]
fn a_token_takes_as_many_stage_times_as_there_are_stages_or_micro_batches() {
    // A stage's two layers: a quarter of what one accelerator takes, but for the head.
    let alone = period("pipeline: 1", 1);
    assert_eq!((alone - HEAD) % 4, 0);
    let stage = (alone - HEAD) / 4;
    // A token's activations, 4096 numbers of 16 bits, three times; and the token, a number of 32 bits, back.
    let sends = 3 * send(4096 * 2) + send(4);
    for micro_batches in [1, 2, 3, 4, 5, 6, 8] {
        let parallel = format!("pipeline: 4, micro_batches: {micro_batches}");
        let around = 4 * stage + HEAD + sends;
        let expected = around.max(u64::from(micro_batches) * (stage + HEAD));
        assert_eq!(period(&parallel, micro_batches), expected, "{micro_batches} micro-batches");
    }
    // One micro-batch leaves each stage without work but for its own part, whatever is in it.
    let bubble = 1.0 - stage as f64 / period("pipeline: 4, micro_batches: 1", 1) as f64;
    assert!((bubble - 0.75).abs() < 0.003, "{bubble}");
}

#[test]
fn the_first_token_comes_when_its_prompt_has_been_through_all_stages() {
    let load = load(1, 1, 2).replace("policy", "  prompt_tokens: 300\n  prefill: { chunk: 512 }\npolicy");
    let load = load + "memory: { hbm: 64 slots }\n";
    let first = |parallel: &str| watch(parallel, &load).2[0].ttft().0;
    assert_eq!(first("pipeline: 4") - first("pipeline: 1"), 3 * send(300 * 4096 * 2) + send(4));
    // In chunks each goes through all stages before the next begins, as a request is in one micro-batch.
    let chunked = load.replace("512", "100");
    let first = |parallel: &str| watch(parallel, &chunked).2[0].ttft().0;
    let chunk = 3 * send(100 * 4096 * 2);
    assert_eq!(first("pipeline: 4") - first("pipeline: 1"), 3 * chunk + 2 * send(0) + send(4));
}

#[test]
fn micro_batches_share_the_requests_and_every_request_is_served_once() {
    let load = load(20, 8, 25) + "memory: { hbm: 12 slots }\n";
    let (case, outcome, left) = watch("pipeline: 2, micro_batches: 3", &load);
    let tally = outcome.orchestrator.tally();
    assert_eq!((tally.completed, tally.output_tokens), (20, 500));
    let mut requests: Vec<u32> = left.iter().map(|times| times.request.0).collect();
    requests.sort_unstable();
    assert_eq!(requests, (0..20).collect::<Vec<_>>());
    // Eight in three micro-batches: three at most.
    assert_eq!(case.step_tokens(), 3);
    let batch = tally.batch_time as f64 / tally.step_time.0 as f64;
    assert!(batch <= 3.0 && batch > 2.0, "{batch}");
    // All stages compute the same micro-batches, each its own layers: four.
    let layer_steps: Vec<u64> = stages(&outcome).iter().map(|(stage, _)| stage.tally().layer_steps).collect();
    assert!(layer_steps.iter().all(|&steps| steps == layer_steps[0] && steps % 4 == 0));
    let sent = |world: &World| world.provenance().rows().find(|row| row.0 == Kind::Send).unwrap().2.times;
    for (_, world) in stages(&outcome) {
        assert_eq!(sent(world), layer_steps[0] / 4);
    }
}

#[test]
fn one_stage_is_no_pipeline() {
    let text = load(6, 4, 20) + "memory: { hbm: 24 slots }\n";
    let summary = |parallel: &str| {
        let (case, outcome, _) = watch(parallel, &text);
        serde_json::to_value(Summary::new(&case, &outcome, "lru", 0.0)).unwrap()
    };
    assert_eq!(summary("pipeline: 1"), summary(""));
    assert!(summary("").get("pipeline_stages").is_none());
}

#[test]
fn stages_together_do_what_one_accelerator_does_alone() {
    let text = load(6, 1, 20) + "memory: { hbm: 8 slots }\n";
    let ((_, one, _), (case, four, _)) = (watch("", &text), watch("pipeline: 4", &text));
    assert_eq!(case.models().map(|model| model.layers.len()).collect::<Vec<_>>(), [2; 4]);
    let alone = one.orchestrator.tally();
    let sum = |of: fn(&Orchestrator) -> u64| stages(&four).iter().map(|(stage, _)| of(stage)).sum::<u64>();
    assert_eq!(sum(|stage| stage.tally().demanded), alone.demanded);
    assert_eq!(sum(|stage| stage.tally().layer_steps), alone.layer_steps);
    let first = four.orchestrator.tally();
    assert_eq!((first.completed, first.output_tokens), (alone.completed, alone.output_tokens));
    for (stage, world) in stages(&four) {
        // A stage's steps are computing and waiting for memory.
        assert_eq!(world.compute_time() + stage.tally().stall_total(), stage.tally().step_time);
    }
    // Four times as much fast memory for the same blocks.
    assert!(sum(|stage| stage.tally().hits()) > alone.hits());
    let summary = Summary::new(&case, &four, "lru", 0.0);
    let layers: Vec<_> = summary.pipeline_stages.iter().map(|stage| stage.layers).collect();
    assert_eq!(layers, [[0, 1], [2, 3], [4, 5], [6, 7]]);
}

#[test]
fn stages_are_as_even_as_layers_allow_and_each_has_room_for_its_own() {
    let scenario = scenario("pipeline: 3", &load(3, 3, 4).replace("kv: 1 GiB\n", "")).unwrap();
    assert_eq!(scenario.models().map(|model| model.layers.len()).collect::<Vec<_>>(), [2, 3, 3]);
    for index in 0..3 {
        let stage = scenario.at_stage(index);
        // Room for three requests of 4096 tokens, of which a layer keeps one: 8 heads of 128 numbers, keys and values.
        let token = 2 * 8 * 128 * 2;
        assert_eq!(stage.kv_reserve(), Bytes(3 * token * stage.model.layers.len() as u64));
        assert_eq!(stage.home.tiers(), scenario.home.tiers());
    }
    assert_eq!(scenario.parallel.accelerators(), 3);
}

#[test]
fn drift_stays_within_the_budget_at_every_stage() {
    let guarded = "policy: predictive\nguard: { drift_budget: 2 % }\nrecode: [int8]";
    let extra = load(6, 2, 40).replace("policy: lru", guarded) + "memory: { hbm: 6 slots }\n";
    let case = case("pipeline: 2", &extra);
    let (entry, params) = resolve_policy("predictive", &Default::default()).unwrap();
    let outcome = case.run(entry, &params, Keep::default(), |_| {}).unwrap();
    for stage in Summary::new(&case, &outcome, "predictive", 0.0).pipeline_stages {
        assert!(stage.drift_max > 0.0 && stage.drift_max <= 0.02, "{stage:?}");
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let refused = |parallel: &str, extra: &str, told: &str| {
        let wrong = scenario(parallel, extra).map(|_| ()).unwrap_err();
        assert!(wrong.contains(told), "{wrong}");
    };
    let load = load(4, 2, 10);
    refused("pipeline: 9", &load, "9 accelerators cannot have a layer each of 8");
    refused("pipeline: 2, expert: 2", &load, "`expert` and `pipeline` parallelism at once");
    refused("pipeline: 32, tensor: 16", &load, "at most 256");
    refused("pipeline: 2, micro_batches: 0", &load, "parallel.micro_batches");
    let paged = load.replace("policy", "  prefill: { chunk: 64 }\npolicy");
    refused("pipeline: 2", &paged.replace("1 GiB", "{ paged: { most: 8 GiB } }"), "pages of a cache");
    // The first stage has two layers, the second one three.
    let small = load.clone() + "memory: { hbm: 1550 MiB }\n";
    assert!(scenario("pipeline: 4", &small).is_ok());
    refused("pipeline: 3", &small, "cannot hold one block");
    refused("pipeline: 3", &small, "stage 1 of the pipeline, counted from 0, does not fit");
    let case = case("pipeline: 2", &load);
    for policy in ["static", "belady"] {
        let (entry, params) = resolve_policy(policy, &Default::default()).unwrap();
        let wrong = case.run(entry, &params, Keep::default(), |_| {}).map(|_| ()).unwrap_err();
        assert!(wrong.to_string().contains("`parallel.pipeline` cuts the layers up"), "{wrong}");
    }
}
