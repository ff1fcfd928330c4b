//! A world that goes through layers by itself where nothing is to be decided gives what one gives that asks at every layer.

use crate::small::policies;
use policy::policies::script::Script;
use policy::registry::{Entry, lookup};
use policy::{Bytes, Nanos, Orchestrator, TierId, Time, Watch};
use scenarios::{Pressure, Taken};
use sim::{Case, Keep, Outcome, Summary, World};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A model of 48 experts, of which so many fit.
fn case(parallel: &str, slots: u32, load: &str) -> Case {
    let text = format!(
        "name: passing
machine:
  base: rtx-4090
  accelerator: {{ launch: 2 us, peers: {{ latency: 5 us, rate: 50 GB/s }} }}
model: {{ model_type: mixtral, hidden_size: 256, intermediate_size: 512, num_hidden_layers: 6, num_local_experts: 8,
  num_experts_per_tok: 2, num_attention_heads: 8, num_key_value_heads: 8, vocab_size: 32, tie_word_embeddings: false,
  torch_dtype: bfloat16 }}
parallel: {{ {parallel} }}
seed: 3
workload:
  routing: {{ zipf_markov: {{ traces: 12, tokens: 60, skew: 0.6 }} }}
{load}policy: lru
memory: {{ hbm: {slots} slots }}
"
    );
    let scenario = scenarios::load_text("passing.yaml", &text, &[], &sim::resolve::check_policy);
    let scenario = scenario.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)));
    let script = Script::read("next-use.rhai", include_str!("../scenarios/scripts/next-use.rhai"));
    Case { script: Some(Arc::new(script.unwrap())), ..Case::from_scenario(&scenario).unwrap() }
}

/// Counts what the first controller is given.
#[derive(Default)]
struct Given(usize);

impl Watch<World> for Given {
    fn event(&mut self, _: Time, _: &mut Orchestrator, _: &World) {
        self.0 += 1;
    }
}

/// Everything that a run says of itself, and how many events its first controller was given.
fn said(case: &Case, entry: &Entry) -> (String, usize) {
    let params = entry.resolve(&BTreeMap::new()).unwrap();
    let mut given = Given::default();
    let Outcome { orchestrator, world } = case
        .watch(entry, &params, Keep { timeline: true, ..Keep::default() }, &mut given)
        .unwrap_or_else(|failure| panic!("{}: {failure}", entry.name));
    let ranks = std::iter::once((&orchestrator, &world)).chain(world.others());
    let each = ranks.map(|(rank, world)| {
        let context = rank.context();
        let waited = (world.now(), world.waited(), world.compute_time());
        format!("{:?}\n{:?}\n{waited:?}\n{:?}", context.signals, rank.tally(), world.provenance())
    });
    let each: Vec<String> = each.collect();
    let mut timeline = Vec::new();
    world.timeline().unwrap().write(&mut timeline).unwrap();
    let timeline = String::from_utf8(timeline).unwrap().replace("},", "},\n");
    let mut summary =
        serde_json::to_value(Summary::new(case, &Outcome { orchestrator, world }, entry.name, 1.0)).unwrap();
    summary.as_object_mut().unwrap().remove("wall_s");
    (format!("{summary:#}\n{}\n{timeline}", each.join("\n")), given.0)
}

/// The same case, in which others take memory once the run is long over: so at every moment they still could.
fn disturbed(case: &Case) -> Case {
    let pressure = Pressure { at: Nanos(1 << 60), taken: Taken::Memory(TierId(0), Bytes(1)) };
    Case { pressure: vec![pressure], ..case.clone() }
}

/// Runs both ways; how many events the controller was given, with leave and without.
fn ways(case: &Case, entry: &'static Entry) -> (&'static str, usize, usize) {
    let ((with, few), (without, all)) = (said(case, entry), said(&disturbed(case), entry));
    let differ = with.lines().zip(without.lines()).find(|(with, without)| with != without);
    assert_eq!(differ, None, "{}", entry.name);
    assert_eq!(with.len(), without.len());
    (entry.name, few, all)
}

/// The same with every policy.
fn both_ways(case: &Case) -> Vec<(&'static str, usize, usize)> {
    let usable = |entry: &&'static Entry| !case.share.is_part() || !(entry.fitted || entry.clairvoyant);
    policies(case.is_closed() && case.cache.is_none()).filter(usable).map(|entry| ways(case, entry)).collect()
}

const CLOSED: &str = "  requests: { closed: { batch: 3 } }\n";
const COMING: &str = "  requests: { poisson: { rate: 900 /s, batch: 4 } }
  prompt_tokens: 30
  output_tokens: 20
  prefill: { chunk: 16 }
";

#[test]
fn nothing_but_the_number_of_events_tells_that_layers_were_passed() {
    for parallel in ["expert: 1", "expert: 2", "expert: 4, replicas: 2", "tensor: 2"] {
        for load in [CLOSED, COMING] {
            let given = both_ways(&case(parallel, 48, load));
            let (_, few, all) = given.iter().find(|(name, ..)| *name == "lru").unwrap();
            assert!(few < all, "{parallel}: {few} of {all} events");
        }
    }
}

#[test]
fn layers_are_passed_between_those_that_lack_a_block() {
    for parallel in ["expert: 1", "expert: 2"] {
        for slots in [12, 20, 30, 42] {
            let given = both_ways(&case(parallel, slots, COMING));
            assert!(given.iter().all(|(_, few, all)| few <= all), "{given:?}");
            assert!(slots < 30 || given.iter().any(|(_, few, all)| few < all), "{given:?}");
        }
    }
}

#[test]
fn a_cache_that_takes_memory_from_blocks_ends_it() {
    let paged = "  requests: { closed: { batch: 12 } }
  prompt_tokens: 200
  output_tokens: 60
  prefill: { chunk: 64 }
kv: { paged: { most: 10 MiB } }
";
    let case = case("expert: 1", 54, paged);
    for name in ["fifo", "lru", "lfu", "s3_fifo", "arc", "gdsf", "predictive"] {
        let (_, few, all) = ways(&case, lookup(name).unwrap());
        assert!(few < all, "{name}: {few} of {all} events");
    }
}
