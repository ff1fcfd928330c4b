//! Expert parallelism: what all accelerators do together, against one that does it alone and against closed forms.

use policy::{Bytes, Nanos};
use scenarios::Scenario;
use sim::provenance::Kind;
use sim::{Case, Keep, Outcome, Summary, resolve::resolve_policy};

/// With so many ranks; with none, nothing is said of them.
fn scenario(expert: u32, extra: &str) -> Result<Scenario, String> {
    let parallel = if expert > 0 { format!("parallel: {{ expert: {expert} }}\n") } else { String::new() };
    let text = format!(
        "name: parallel
machine: h100-sxm
model: mixtral-8x7b
{parallel}seed: 3
{extra}"
    );
    scenarios::load_text("parallel.yaml", &text, &[], &sim::resolve::check_policy)
        .map_err(|wrong| wrong.render(false))
}

fn load(batch: u32) -> String {
    format!(
        "workload:
  routing: {{ zipf_markov: {{ traces: 6, tokens: 120, skew: 0.6 }} }}
  requests: {{ closed: {{ batch: {batch} }} }}
policy: lru
"
    )
}

fn run(expert: u32, extra: &str) -> (Case, Outcome) {
    let case =
        Case::from_scenario(&scenario(expert, extra).unwrap_or_else(|wrong| panic!("{wrong}"))).unwrap();
    let (entry, params) = resolve_policy("lru", &Default::default()).unwrap();
    let outcome = case.run(entry, &params, Keep::default(), |_| {}).unwrap();
    (case, outcome)
}

#[test]
fn the_ranks_together_do_what_one_does_alone() {
    let extra = load(4) + "memory: { hbm: 72 slots }\n";
    let ((_, one), (case, four)) = (run(1, &extra), run(4, &extra));
    let ranks: Vec<_> =
        std::iter::once((&four.orchestrator, &four.world)).chain(four.world.others()).collect();
    assert_eq!((ranks.len(), case.model.layers[0].blocks), (4, 2));
    let alone = one.orchestrator.tally();
    let sum: u64 = ranks.iter().map(|(rank, _)| rank.tally().demanded).sum();
    assert_eq!(sum, alone.demanded, "each expert is somewhere, and once");
    for (rank, world) in &ranks {
        let tally = rank.tally();
        assert_eq!((tally.completed, tally.output_tokens), (alone.completed, alone.output_tokens));
        // They begin and end every step together.
        assert_eq!(tally.step_time, ranks[0].0.tally().step_time);
        assert_eq!(tally.latencies.e2e, ranks[0].0.tally().latencies.e2e);
        // A step is computing, waiting for memory, and waiting for the others.
        let spent = world.compute_time() + tally.stall_total() + world.waited();
        assert_eq!(spent, tally.step_time);
    }
    // Each has as much fast memory as the one alone, for a quarter of the experts.
    let hits = |rank: &policy::Orchestrator| rank.tally().hits() as f64 / rank.tally().demanded as f64;
    assert!(ranks.iter().all(|(rank, _)| hits(rank) > hits(&one.orchestrator)));
    let summary = Summary::new(&case, &four, "lru", 0.0);
    assert_eq!(summary.expert_ranks.len(), 4);
    assert!((summary.operator_time_share.values().sum::<f64>() - 1.0).abs() < 1e-9);
}

#[test]
fn tokens_go_there_and_back_once_a_layer() {
    // One request alone is attended to by the first rank; its two experts are at one rank, or at two.
    let (case, outcome) = run(4, &load(1));
    let tally = outcome.orchestrator.tally();
    let row = outcome.world.provenance().rows().find(|(kind, ..)| *kind == Kind::AllToAll).unwrap().2;
    assert_eq!(row.times, tally.layer_steps);
    // 4096 numbers of 16 bits, three quarters of them from elsewhere, at 360 GB/s after 5 us; there and back.
    let peers = case.machine.peers.unwrap();
    let way = |experts: u64| 2 * peers.all_to_all(Bytes(4096 * 2 * experts)).0;
    assert_eq!(way(1), 2 * (5000 + (8192 * 3_u64 / 4 * 1_000_000_000).div_ceil(360_000_000_000)));
    let both = (row.time.0 - way(1) * row.times) / (way(2) - way(1));
    assert_eq!(
        row.time,
        Nanos(way(1) * (row.times - both) + way(2) * both),
        "each step has one or two experts at a rank"
    );
    assert!(both > 0 && both < row.times);
    // The others wait while it attends, and it waits while they have its tokens.
    let idle = outcome.world.others().map(|(_, world)| world.compute_time()).max().unwrap();
    assert!(idle < outcome.world.compute_time());
}

#[test]
fn one_rank_is_no_parallelism() {
    let text = load(4) + "memory: { hbm: 24 slots }\n";
    let summary = |expert: u32| {
        let (case, outcome) = run(expert, &text);
        serde_json::to_value(Summary::new(&case, &outcome, "lru", 0.0)).unwrap()
    };
    assert_eq!(summary(1), summary(0));
    assert!(summary(1).get("expert_ranks").is_none());
}

#[test]
fn prompts_are_computed_in_the_same_chunks_everywhere() {
    let more = "memory: { hbm: 24 slots }\n";
    let load = load(3).replace("policy: lru", "  prompt_tokens: 200\n  prefill: { chunk: 64 }\npolicy: lru");
    let (_, outcome) = run(2, &(load + more));
    let first = outcome.orchestrator.tally();
    assert!(first.prompt_tokens > 0);
    for (rank, _) in outcome.world.others() {
        let tally = rank.tally();
        assert_eq!((tally.prompt_tokens, tally.step_time), (first.prompt_tokens, first.step_time));
        assert_eq!(&tally.latencies, &first.latencies);
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let refused = |expert: u32, extra: &str, told: &str| {
        let wrong = scenario(expert, extra).map(|_| ()).unwrap_err();
        assert!(wrong.contains(told), "{wrong}");
    };
    let load = load(4);
    refused(3, &load, "equal shares of 8 experts");
    refused(300, &load, "at most 256");
    let paged = load.replace("policy: lru", "  prefill: { chunk: 64 }\npolicy: lru");
    refused(2, &(paged + "kv: { paged: { most: 8 GiB } }\n"), "pages of a cache");
    refused(2, &(load.clone() + "load: { from: nvme }\n"), "load their weights in times of their own");
    let case = Case::from_scenario(&scenario(2, &load).unwrap()).unwrap();
    let (entry, params) = resolve_policy("static", &Default::default()).unwrap();
    let wrong = case.run(entry, &params, Keep::default(), |_| {}).map(|_| ()).unwrap_err();
    assert!(wrong.to_string().contains("fitted on all experts"), "{wrong}");
}

#[test]
fn nobody_waits_for_requests_that_are_yet_to_come() {
    let load = "workload:
  routing: { zipf_markov: { traces: 6, tokens: 120, skew: 0.6 } }
  requests: { poisson: { rate: 0.05 /s, batch: 4, limit: 3 } }
  output_tokens: 20
policy: lru
";
    let (_, outcome) = run(4, load);
    let tally = outcome.orchestrator.tally();
    assert_eq!(tally.completed, 3);
    assert!(
        tally.step_time < Nanos(3_000_000_000),
        "three short requests, minutes apart: {:?}",
        tally.step_time
    );
}

/// Requests of one router whose favourites are the same everywhere, in steps of many tokens.
fn skewed(replicas: u32) -> String {
    format!(
        "parallel: {{ expert: 4, replicas: {replicas} }}
workload:
  routing: {{ zipf_markov: {{ traces: 4, tokens: 1600, skew: 1.2, stickiness: 0, coupling: 0 }} }}
  requests: {{ closed: {{ batch: 16, limit: 48 }} }}
  prompt_tokens: 1024
  output_tokens: 150
  prefill: {{ chunk: 512 }}
policy: lru
"
    )
}

#[test]
fn replicas_of_hot_experts_even_out_the_tokens_as_greedy_choice_says() {
    let (case, none) = run(0, &skewed(0));
    let (_, two) = run(0, &skewed(2));
    // What routers chose over all, layer by layer: an expert's tokens at its own accelerator, and with two copies more.
    let mut tokens = vec![vec![0_u64; 8]; 32];
    let demands = case.routing().unwrap().demands(false);
    for step in 0..demands.len() {
        demands.step(step).iter().for_each(|&id| tokens[id as usize / 8][id as usize % 8] += 1);
    }
    let load = |tokens: &[u64], at: &[Vec<u32>], rank: u32| -> f64 {
        let here = |expert: usize| expert as u32 / 2 == rank || at[expert].contains(&rank);
        let part = |expert: usize| tokens[expert] as f64 / (1 + at[expert].len()) as f64;
        (0..8).filter(|&expert| here(expert)).map(part).sum()
    };
    let expected = |replicas: u32| {
        let layer = |tokens: &Vec<u64>| {
            let at = policy::replicas::chosen(tokens, &[0, 0, 1, 1, 2, 2, 3, 3], &[0, 1, 2, 3], replicas);
            let most = (0..4).map(|rank| load(tokens, &at, rank)).fold(0.0, f64::max);
            most * 4.0 / tokens.iter().sum::<u64>() as f64
        };
        tokens.iter().map(layer).sum::<f64>() / 32.0
    };
    let [without, _] = none.world.balance().max_over_mean(4);
    let [with, beside] = two.world.balance().max_over_mean(4);
    // Steps differ from the whole by chance, which only raises what the fullest has.
    assert!((without / expected(0) - 1.0).abs() < 0.1, "{without} for {}", expected(0));
    assert!((with / expected(2) - 1.0).abs() < 0.15, "{with} for {}", expected(2));
    assert!(with < 0.8 * without && (beside / without - 1.0).abs() < 0.02, "{with} {beside} {without}");
    // Nothing is lost or done twice: all serve the same, in less time.
    let tally = |outcome: &Outcome| outcome.orchestrator.tally().output_tokens;
    assert_eq!(tally(&two), tally(&none));
    assert_eq!(two.world.balance().tokens, none.world.balance().tokens);
}

#[test]
fn replicas_take_fast_memory_and_the_link_as_blocks_do() {
    let at = |replicas: u32| {
        let (case, outcome) = run(0, &(skewed(replicas) + "memory: { hbm: 48 slots }\n"));
        assert_eq!(case.model.layers[0].blocks, if replicas > 0 { 8 } else { 2 });
        let ranks = std::iter::once(&outcome.world).chain(outcome.world.others().map(|other| other.1));
        ranks.map(|world| world.links().map(|(_, count)| count.bytes).sum::<u64>()).collect::<Vec<_>>()
    };
    let (none, two) = (at(0), at(2));
    assert!(two.iter().sum::<u64>() > none.iter().sum::<u64>(), "{two:?} {none:?}");
    let text = format!("parallel: {{ replicas: 2 }}\n{}", load(4));
    assert!(scenario(0, &text).map(|_| ()).unwrap_err().contains("write `expert: 4` or more too"));
}

#[test]
fn a_replica_that_nobody_has_is_not_fetched_for_every_token() {
    let at = |replicas: u32| {
        let (_, outcome) = run(0, &(skewed(replicas) + "memory: { hbm: 48 slots }\n"));
        let ranks = std::iter::once(&outcome.orchestrator).chain(outcome.world.others().map(|other| other.0));
        ranks.map(|rank| rank.tally().stall_total().as_secs_f64()).sum::<f64>()
    };
    // 64 experts are each rank's own, and 48 have room. Dealt out alike, tokens would have eight more fetched in every step: 1 in 8
    // of those demanded, beside misses of 1 in 4. Sent to who has them, only a choice has them fetched, once in 64 steps.
    let (none, eight) = (at(0), at(8));
    assert!(eight < 1.15 * none, "{eight} s of stall, {none} s without replicas");
}
