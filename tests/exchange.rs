//! Exchanges between accelerators over the links that blocks move on.

use policy::machine::Peers;
use policy::{LinkSet, Machine, Nanos};
use sim::{Case, Keep, Outcome, resolve::resolve_policy};
use std::sync::Arc;

/// Eight layers on an accelerator whose sums and tokens take its only link, at 10 GB/s.
fn case(parallel: &str, extra: &str) -> Result<Case, String> {
    let text = format!(
        "name: exchange
machine:
  base: rtx-4090
  accelerator: {{ launch: 0 ns, peers: {{ latency: 5 us, rate: 10 GB/s, over: [pcie] }} }}
model: {{ model_type: mixtral, hidden_size: 4096, intermediate_size: 1792, num_hidden_layers: 8, num_local_experts: 8,
  num_experts_per_tok: 2, num_attention_heads: 32, num_key_value_heads: 8, vocab_size: 32, tie_word_embeddings: false,
  torch_dtype: bfloat16 }}
parallel: {{ {parallel} }}
seed: 3
kv: 1 GiB
{extra}"
    );
    let scenario = scenarios::load_text("exchange.yaml", &text, &[], &sim::resolve::check_policy);
    let scenario = scenario.map_err(|wrong| wrong.render(false))?;
    Ok(Case::from_scenario(&scenario).unwrap())
}

fn load(policy: &str, slots: u32, more: &str) -> String {
    format!(
        "workload:
  routing: {{ zipf_markov: {{ traces: 4, tokens: 160, skew: 0 }} }}
{more}policy: {policy}
memory: {{ hbm: {slots} slots }}
"
    )
}

/// The same case with links of their own for exchanges.
fn apart(case: &Case) -> Case {
    let peers = case.machine.peers.map(|peers| Peers { over: LinkSet::NONE, ..peers });
    Case { machine: Arc::new(Machine { peers, ..Machine::clone(&case.machine) }), ..case.clone() }
}

fn run(case: &Case, policy: &str) -> Outcome {
    let (entry, params) = resolve_policy(policy, &Default::default()).unwrap();
    case.run(entry, &params, Keep::default(), |_| {}).unwrap()
}

/// What both directions of the link have carried, and for how long.
fn carried(outcome: &Outcome) -> [(u64, Nanos); 2] {
    let links: Vec<_> = outcome.world.links().filter(|(link, _)| link.name == "pcie").collect();
    [0, 1].map(|direction| (links[direction].1.bytes, links[direction].1.busy))
}

#[test]
fn exchanges_alone_take_as_long_as_on_links_of_their_own() {
    // Demands come while nothing is exchanged: the mixers have ended, their sums included.
    for parallel in ["tensor: 2", "expert: 2", "pipeline: 2"] {
        let shared = case(parallel, &load("lru", 64, "")).unwrap();
        let (with, without) = (run(&shared, "lru"), run(&apart(&shared), "lru"));
        let (with_time, without_time) = (with.world.now().0, without.world.now().0);
        // Two sums are one exchange there, and rounded up once.
        let steps = with.orchestrator.tally().layer_steps;
        assert!(without_time - with_time <= steps, "{parallel}: {with_time} and {without_time}");
        assert!(carried(&with)[0].0 > carried(&without)[0].0, "{parallel}");
    }
}

#[test]
fn what_is_exchanged_is_counted_on_the_link_in_both_directions() {
    let shared = case("tensor: 2", &load("lru", 64, "")).unwrap();
    let (with, without) = (run(&shared, "lru"), run(&apart(&shared), "lru"));
    let tally = with.orchestrator.tally();
    // A token's 4096 numbers of 16 bits: for two accelerators each sends as much, for two sums a layer and one at the end.
    let sums = 2 * tally.layer_steps + tally.layer_steps / 8;
    let bytes = 4096 * 2 * sums;
    let (with, without) = (carried(&with), carried(&without));
    assert_eq!([0, 1].map(|way| with[way].0 - without[way].0), [bytes; 2]);
    let at_rate = bytes as f64 / 10.0;
    let busy = (with[1].1.0 - without[1].1.0) as f64;
    assert!((busy / at_rate - 1.0).abs() < 1e-3, "{busy} {at_rate}");
}

#[test]
fn promotions_under_way_slow_exchanges_down_and_a_controller_that_knows_keeps_them_off() {
    // Prompts of 512 tokens: 2 sums of 4 MB each a layer, 0.8 ms of the link. What comes next is foreseen, mostly wrongly.
    let more = "  requests: { closed: { batch: 2 } }\n  prompt_tokens: 2048\n  prefill: { chunk: 512 }\n  lookahead: [30 %]\n";
    let text = load("predictive", 24, more) + "schedule: { chunk: 16 MiB }\n";
    let shared = case("tensor: 2", &text).unwrap();
    let (entry, params) = resolve_policy("predictive", &Default::default()).unwrap();
    let unaware = {
        let mut orchestrator = apart(&shared).orchestrator(entry, &params, false).unwrap();
        let mut world = shared.world(false).unwrap();
        policy::run(&mut orchestrator, &mut world, |_| {}).unwrap();
        Outcome { orchestrator, world }
    };
    let (aware, unhindered) = (run(&shared, "predictive"), run(&apart(&shared), "predictive"));
    let times = [&unhindered, &aware, &unaware].map(|outcome| outcome.orchestrator.tally().step_time.0);
    let speculations =
        [&unhindered, &aware, &unaware].map(|outcome| outcome.orchestrator.tally().speculations);
    assert!(times[0] < times[1] && times[1] < times[2], "{times:?} {speculations:?}");
    // Kept off for a while, not for ever.
    assert!(aware.orchestrator.tally().speculations > 0, "{speculations:?}");
}

#[test]
fn links_that_cannot_carry_exchanges_are_refused() {
    let refused = |peers: &str, told: &str| {
        let machine = format!("{{ base: rtx-4090, accelerator: {{ peers: {peers} }} }}");
        let set = [("machine".to_owned(), machine)];
        let wrong =
            scenarios::load("quickstart", &set, &sim::resolve::check_policy).unwrap_err().render(false);
        assert!(wrong.contains(told), "{wrong}");
    };
    refused("{ latency: 5 us, rate: 10 GB/s, over: [nvlink] }", "no link is called `nvlink`");
    refused("{ latency: 5 us, rate: 2 GB/s, over: [disk] }", "`disk` does not lead to the fast tier");
    refused(
        "{ latency: 5 us, rate: 12 GB/s, over: [pcie] }",
        "beside the other direction, and messages go at",
    );
}
