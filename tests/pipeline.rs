//! Pipeline parallelism, against closed forms and against one accelerator that has all layers.

use policy::machine::Class;
use policy::{Bytes, Nanos, Orchestrator};
use scenarios::Scenario;
use sim::provenance::Kind;
use sim::{Case, Keep, Outcome, Summary, World, resolve::resolve_policy};

/// Eight equal layers, with an embedding and a head that are next to nothing.
const MODEL: &str = "{ model_type: mixtral, hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 8, \
    num_local_experts: 8, num_experts_per_tok: 2, num_attention_heads: 32, num_key_value_heads: 8, vocab_size: 32, \
    tie_word_embeddings: false, torch_dtype: bfloat16 }";

/// With so many stages and micro-batches; with no stages, nothing is said of them.
fn scenario(stages: u32, extra: &str) -> Result<Scenario, String> {
    let parallel = if stages > 0 { format!("parallel: {{ pipeline: {stages} }}\n") } else { String::new() };
    let text = format!("name: pipeline\nmachine: h100-sxm\nmodel: {MODEL}\n{parallel}seed: 3\n{extra}");
    scenarios::load_text("pipeline.yaml", &text, &[], &sim::resolve::check_policy)
        .map_err(|wrong| wrong.render(false))
}

/// Requests of so many tokens each, of which so many are served together; nothing is read from their caches, so that all
/// steps are alike.
fn load(requests: u32, batch: u32, tokens: u32) -> String {
    format!(
        "workload:
  routing: {{ zipf_markov: {{ traces: {requests}, tokens: {} }} }}
  requests: {{ closed: {{ batch: {batch} }} }}
policy: lru
",
        requests * tokens
    )
}

fn run(stages: u32, extra: &str) -> (Case, Outcome) {
    let case =
        Case::from_scenario(&scenario(stages, extra).unwrap_or_else(|wrong| panic!("{wrong}"))).unwrap();
    let (entry, params) = resolve_policy("lru", &Default::default()).unwrap();
    let outcome = case.run(entry, &params, Keep::default(), |_| {}).unwrap();
    (case, outcome)
}

fn stages(outcome: &Outcome) -> Vec<(&Orchestrator, &World)> {
    std::iter::once((&outcome.orchestrator, &outcome.world)).chain(outcome.world.others()).collect()
}

/// Enough fast memory for everything, so that after the first loads nothing is waited for.
fn resident(requests: u32, batch: u32, tokens: u32) -> String {
    load(requests, batch, tokens) + "memory: { hbm: 64 slots }\nkv: 1 GiB\n"
}

#[test]
fn one_stage_is_no_pipeline() {
    let text = load(6, 4, 20) + "memory: { hbm: 24 slots }\n";
    let summary = |stages: u32| {
        let (case, outcome) = run(stages, &text);
        serde_json::to_value(Summary::new(&case, &outcome, "lru", 0.0)).unwrap()
    };
    assert_eq!(summary(1), summary(0));
    assert!(summary(1).get("pipeline_stages").is_none());
}

#[test]
fn stages_together_do_what_one_accelerator_does_alone() {
    let text = load(6, 1, 20) + "memory: { hbm: 8 slots }\n";
    let ((_, one), (case, four)) = (run(1, &text), run(4, &text));
    assert_eq!(case.models().map(|model| model.layers.len()).collect::<Vec<_>>(), [2; 4]);
    let alone = one.orchestrator.tally();
    let demanded: u64 = stages(&four).iter().map(|(stage, _)| stage.tally().demanded).sum();
    let layer_steps: u64 = stages(&four).iter().map(|(stage, _)| stage.tally().layer_steps).sum();
    assert_eq!((demanded, layer_steps), (alone.demanded, alone.layer_steps));
    let first = four.orchestrator.tally();
    assert_eq!((first.completed, first.output_tokens), (alone.completed, alone.output_tokens));
    for (stage, world) in stages(&four) {
        // A stage's steps are computing and waiting for memory.
        assert_eq!(world.compute_time() + stage.tally().stall_total(), stage.tally().step_time);
    }
    // Four times as much fast memory for the same blocks.
    let hits = stages(&four).iter().map(|(stage, _)| stage.tally().hits()).sum::<u64>();
    assert!(hits > alone.hits());
    let summary = Summary::new(&case, &four, "lru", 0.0);
    assert_eq!(summary.pipeline_stages.iter().map(|stage| stage.layers).collect::<Vec<_>>(), [[0, 1], [2, 3], [4, 5], [6, 7]]);
}
