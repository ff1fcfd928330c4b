//! The schema takes what the reader takes, and refuses what it refuses.

use super::*;
use crate::check::check;
use crate::include::resolve;
use crate::scenario::{PolicyChoice, PolicyComplaint};
use crate::tree::Entry;
use jsonschema::Validator;
use policy::registry::lookup;
use std::collections::{BTreeMap, BTreeSet};

/// Scenarios that between them have every key of the language.
const EVERY_KEY: [&str; 11] = [
    "
name: experts merged from adapters, caches in pages
machine: h100-sxm
model: mixtral-8x7b
recipe: { low_rank: { rank: 16 } }
kv: { paged: { page: 16, most: 4 GiB, prefixes: true, keep: 60 s } }
workload: { routing: { zipf_markov: {} }, prefill: { chunk: 512 } }
policy: lru
",
    "
name: conversations on a model with recurrent layers
machine: h100-sxm
model: nemotron-h-8b
kv: { paged: { page: 16, most: 4 GiB, prefixes: true } }
checkpoints: { place: every, every: 1024, count: 4, evict: marconi, alpha: 0.5,
  pools: { hbm: { room: 16 slots, format: fp16, reduce_to: int4 }, dram: { room: 4 GiB } } }
workload:
  routing: { dense: {} }
  prefill: { chunk: 512 }
  requests: { conversations: { sessions: 9, rate: 1 /s, turns: 3, think: 9 s, prefixes: 2, prefix_tokens: 512, skew: 1, branch: 10 %,
    message: 99, answer: 9, block: 64, batch: 8, limit: 100 } }
policy: lru
",
    "
name: every key
machine:
  name: mine
  tiers:
    hbm: { class: fast, backing: device, capacity: 80 GiB, granularity: 512 B, read: 3 TB/s, write: 3 TB/s }
    dram: { class: staged, backing: pinned, node: 0, capacity: 1 TiB, read: 400 GB/s, write: 400 GB/s }
    peer: { class: staged, backing: device, device: 1, transient: true, capacity: 80 GiB, read: 3 TB/s, write: 3 TB/s }
    nvme: { class: cold, backing: file, capacity: 4 TB, read: 6 GB/s, write: 6 GB/s, stripes: 2, endurance: 4 TB,
      compute: { flops: 1 TFLOP/s, read: 6 GB/s, launch: 20 us, kernels: { int8: { 1: 6 GB/s } } } }
  links:
    pcie:
      between: [dram, hbm]
      forward: 56 GB/s
      backward: 57 GB/s
      latency: 1.4 us
      submit: 1.4 us
      half_size: 64 KiB
      engines: 2
      duplex: { forward: 25 GB/s, backward: 55 GB/s }
    nvlink: { between: [peer, hbm], forward: 400 GB/s, backward: 400 GB/s, latency: 2 us, submit: 1.4 us, engines: 1,
      duplex: { forward: 400 GB/s, backward: 400 GB/s } }
    disk:
      between: [nvme, dram]
      forward: { 64 KiB: 1 GB/s, 16 MiB: 6 GB/s }
      backward: 6 GB/s
      latency: 80 us
      submit: 0 ns
      stripes: 2
      engines: 32
      duplex: { forward: 3 GB/s, backward: 3 GB/s }
  accelerator:
    flops: 700 TFLOP/s
    read: 2800 GB/s
    launch: 3 us
    kernels: { int8: { 1: 2 TB/s, 16: 1 TB/s } }
    peak: { flops: 989 TFLOP/s, read: 3350 GB/s }
    peers: { latency: 5 us, rate: 360 GB/s, over: [nvlink] }
    times:
      any:
        mixer: { csv: { path: tests/times.csv, sum: [q_proj, o_proj] } }
        expert: { points: { 1: 129 us, 512: 287 us } }
        experts: { points: { 8: { 1: 50 us, 64: 71 us }, 16: { 2: 135 us } } }
        head: { points: { 1: 109 us } }
  merge: 30 TFLOP/s
  codecs: { int8: { encode: 1 TB/s, decode: 1 TB/s }, bf16_packed: { encode: 400 GB/s, decode: 400 GB/s } }
  host:
    codecs: { int8: { encode: 4 GB/s, decode: 8 GB/s } }
    compute: { flops: 2 TFLOP/s, read: 110 GB/s, launch: 20 us, kernels: { int8: { 1: 100 GB/s } } }
  price: { per_hour: 3.99 USD, date: 2026-11-09, source: a list of prices }
model:
  model_type: mixtral
  hidden_size: 4096
  intermediate_size: 14336
  num_hidden_layers: 2
  num_local_experts: 8
  num_experts_per_tok: 2
  num_attention_heads: 32
  num_key_value_heads: 8
  vocab_size: 32000
  sliding_window: 4096
  layer_types: [full_attention, sliding_attention]
  tie_word_embeddings: false
  torch_dtype: bfloat16
memory: { hbm: 8 slots, dram: 200 GiB }
resident: { activations: 1 GiB, fragmentation: 3 %, dense: false }
kv: 1 GiB
pressure: { at: 20 s, take: { memory: { tier: peer, size: 10 GiB } } }
home: dram
staging: [peer]
encoded: [int8]
recode: [int4_g32]
host_compute: false
load: { from: nvme }
workload:
  routing: { zipf_markov: { tokens: 400, traces: 8, skew: 0.8, stickiness: 0.3, coupling: 0.3, kinds: 4, specialisation: 1, favourites: 1 } }
  requests: { poisson: { rate: 4 /s, batch: 16, limit: 100 } }
  fit: [Cargo.toml]
  include_repetition: true
  limit_tokens: 100
  order: shuffled
  prompt_tokens: 512
  lookahead: [90 %, 80 %]
  prefill: { chunk: 256 }
policy: { predictive: { ahead: 1 } }
guard: { drift_budget: 1 %, window: 64, floors: { expert: int8, attention: bf16 } }
sensitivity:
  int8: { error: 0.01, upper: 2 %, source: a guess }
  int4_g32: { error: 0.1, upper: 0.2, source: a guess }
slo: { ttft: 2 s, tpot: 50 ms, percentile: 99 }
schedule: { chunk: 1 MiB, background_share: 50 %, spill_share: 0.1 }
seed: 7
",
    "
name: the other choices
machine: h100-sxm
pressure: { at: 10 s, take: { link: { name: pcie, rate: 10 GB/s } } }
parallel: { tensor: 2, expert: 1, replicas: 0, pipeline: 2, micro_batches: 4 }
model: { model_type: llama, hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 2, num_attention_heads: 32,
  vocab_size: 32000, torch_dtype: bfloat16 }
workload:
  routing: { dense: { requests: 4, tokens: 256 } }
  requests: { closed: { batch: 2, think: 1 s, limit: 3 } }
policy: lru
",
    "
name: a model from a GGUF file
machine: h100-sxm
model: { gguf: tests/gguf/qwen3moe-q4_k_m.gguf }
workload: { routing: { zipf_markov: {} } }
policy: lru
",
    "
name: a pipeline of phases
machine: h100-sxm
model:
  { model_type: pipeline, torch_dtype: bfloat16, image: { width: 512, height: 256 }, phases: {
    text: { tokens: 77, layers: { blocks: { rows: 64, columns: 64, tokens: 0 } } },
    transformer: { steps: 4, sequences: 2, tokens: { pixels: 16, text: 77 }, tolerance: [100 %, 0.5], layers: { count: 2, attention: { heads: 2, head_dim: 32 }, vectors: 64, blocks: { rows: 64, columns: 64, count: 4, kind: attention } } } } }
tenants: { name: chats, model: llama-3.1-8b, workload: { routing: { dense: {} }, prompt_tokens: 9 } }
workload: { routing: { dense: { requests: 4 } } }
policy: lru
",
    "
name: experts with a width of their own
machine: h100-sxm
model: { model_type: qwen3_moe, hidden_size: 2048, moe_intermediate_size: 768, num_hidden_layers: 2,
  num_local_experts: 8, num_experts_per_tok: 2, num_attention_heads: 32, vocab_size: 32000, torch_dtype: bfloat16 }
parallel: { expert: 2 }
pressure: [{ at: 1 s, take: { accelerators: [1] } }, { at: 2 s, take: { accelerators: [] } }]
workload: { routing: { trace: [Cargo.toml] }, prefill: { chunk: 64 } }
policy: { lru: {} }
",
    "
name: bursts of requests
machine: h100-sxm
model: gpt-oss-20b
workload:
  routing: { zipf_markov: {} }
  requests: { gamma: { rate: 4 /s, cv: 2, batch: 8, limit: 100 } }
  prompt_tokens: { lognormal: { mean: 1000, p99: 4000 } }
  output_tokens: { uniform: { from: 1, to: 100 } }
policy: lru
",
    "
name: other bursts
machine: h100-sxm
model: gpt-oss-20b
workload: { routing: { fitted: { trace: [Cargo.toml], tokens: 100 } }, requests: { weibull: { rate: 4 /s, shape: 0.6, batch: 8, limit: 100 } } }
policy: lru
",
    "
name: more and more requests
machine: h100-sxm
model: gpt-oss-20b
workload:
  routing: { zipf_markov: {} }
  requests: { ramp: { from: 1 /s, to: 9 /s, over: 60 s, batch: 8, limit: 100 } }
policy: lru
",
    "
name: recorded requests
machine: h100-sxm
model: gpt-oss-20b
workload:
  routing: { zipf_markov: {} }
  requests: { csv: { path: Cargo.toml, rate_scale: 2, from: 1 us, until: 9 s, batch: 8, limit: 100 } }
policy: lru
",
];
/// One of every kind of value, right and wrong.
const VALUES: [&str; 22] = [
    "{ nonsense: 1 }",
    "[nonsense]",
    "[]",
    "{}",
    "nonsense",
    "~",
    "-1",
    "0",
    "1",
    "1.5",
    "true",
    "6 GiB",
    "0 B",
    "2 GB/s",
    "1 us",
    "4 /s",
    "1 TFLOP/s",
    "5 %",
    "200 %",
    "bf16",
    "fast",
    "3 slots",
];

/// What the reader says of a value that is not written as its key takes it.
const WRITTEN_WRONG: [&str; 13] = [
    "unknown key",
    "is expected",
    "has no unit",
    "is no unit",
    "does not start with a decimal number",
    "of zero",
    "is negative",
    "is no plain number",
    "is no whole number",
    "is not between 0 and 1",
    "is out of range",
    "is no format",
    "truth value",
];

fn node(text: &str) -> Node {
    let mut report = Report::default();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let source = report.add_source(String::new(), text.to_owned(), folder);
    tree::parse(&mut report, source, 0).unwrap_or_else(|| panic!("{text}"))
}

fn known_policy(choice: &PolicyChoice) -> Result<(), PolicyComplaint> {
    let complaint = |message: String| PolicyComplaint { key: None, message, hint: None };
    let entry = lookup(&choice.name).map_err(|error| complaint(error.to_string()))?;
    if entry.simulate.is_none() {
        return Err(complaint("replay only".to_owned()));
    }
    if entry.scripted != choice.script.is_some() {
        return Err(complaint("a script, or none, is expected".to_owned()));
    }
    entry.resolve(&choice.params).map(drop).map_err(|error| complaint(error.to_string()))
}

/// What the reader has against a scenario.
fn complaints(root: &Node) -> Vec<String> {
    let mut report = Report::default();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    report.add_source(String::new(), String::new(), folder);
    let mut root = root.clone();
    if let tree::Value::Map(entries) = &mut root.value {
        for entry in entries {
            let kind = [MACHINE, MODEL, SENSITIVITY].into_iter().find(|kind| kind.key == entry.key);
            if let Some(kind) = kind {
                resolve(&mut report, kind, &mut entry.value);
            }
        }
    }
    let scenario = check(&mut report, &root, &known_policy);
    match report.finish(scenario) {
        Ok(_) => vec![],
        Err(wrong) => wrong.all().iter().map(|one| format!("{}: {}", one.path, one.message)).collect(),
    }
}

fn validator(document: Document) -> Validator {
    jsonschema::draft202012::new(&schema(document)).unwrap()
}

fn check_valid(validator: &Validator, name: &str, text: &str) {
    let wrong: Vec<String> = validator
        .iter_errors(&value(&node(text)))
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{name}: {wrong:#?}");
}

/// The entries of every map of a tree, each with what its map takes: `visit` may change the tree.
fn walk(takes: Type, node: &Node, path: &mut Vec<usize>, visit: &mut dyn FnMut(Type, &Entry, &[usize])) {
    let takes = match takes {
        Type::File(kind) => language(kind),
        Type::Either(_, rows) => *rows,
        // One value may stand in the place of a list.
        Type::List(item) => *item,
        takes => takes,
    };
    for (index, entry) in node.entries().iter().enumerate() {
        path.push(index);
        visit(takes, entry, path);
        if let Some(below) = takes.below(&entry.key) {
            walk(below, &entry.value, path, visit);
        }
        path.pop();
    }
}

/// The entries of the map that a path ends in.
fn entries_at<'n>(root: &'n mut Node, path: &[usize]) -> &'n mut Vec<Entry> {
    let tree::Value::Map(entries) = &mut root.value else { panic!("a path leads through maps") };
    match path {
        [_] => entries,
        [index, rest @ ..] => entries_at(&mut entries[*index].value, rest),
        [] => panic!("a path is not empty"),
    }
}

/// The tables below a type, by their names.
fn tables(takes: Type, found: &mut BTreeMap<&'static str, &'static Table>) {
    match takes {
        Type::Map(table) => {
            if let Some(other) = found.insert(table.name, table) {
                assert!(std::ptr::eq(other, table), "two tables are called {}", table.name);
                return;
            }
            table.keys.iter().for_each(|key| tables(key.takes, found));
        }
        Type::Rows(rows) => tables(rows.value, found),
        Type::Choice(choices) => choices.iter().for_each(|choice| tables(choice.takes, found)),
        Type::Either(one, other) => [one, other].into_iter().for_each(|takes| tables(*takes, found)),
        Type::List(item) => tables(*item, found),
        Type::File(kind) => tables(language(kind), found),
        _ => {}
    }
}

#[test]
fn every_schema_is_one() {
    for document in [Document::Scenario, Document::Machine, Document::Model, Document::Sensitivity] {
        let schema = schema(document);
        jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{document:?}: {error}"));
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    }
}

#[test]
fn what_ships_is_valid() {
    let documents = [
        (SCENARIO, Document::Scenario),
        (MACHINE, Document::Machine),
        (MODEL, Document::Model),
        (SENSITIVITY, Document::Sensitivity),
    ];
    for (kind, document) in documents {
        let validator = validator(document);
        assert!(kind.entries().next().is_some());
        kind.entries().for_each(|entry| check_valid(&validator, entry.name, entry.text));
    }
}

#[test]
fn the_scenarios_of_the_readme_are_valid() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let snippets: Vec<&str> =
        readme.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!snippets.is_empty());
    let validator = validator(Document::Scenario);
    snippets.iter().for_each(|snippet| check_valid(&validator, "README.md", snippet));
}

#[test]
fn every_key_is_read_and_in_the_schema() {
    let mut known = BTreeMap::new();
    tables(Type::File(SCENARIO), &mut known);
    let all = known.values().flat_map(|table| table.names().map(|key| (table.name, key)));
    let mut seen = BTreeSet::new();
    let validator = validator(Document::Scenario);
    for text in EVERY_KEY {
        let root = node(text);
        assert_eq!(complaints(&root), Vec::<String>::new());
        check_valid(&validator, "every key", text);
        walk(Type::File(SCENARIO), &root, &mut vec![], &mut |takes, entry, path| {
            let Type::Map(table) = takes else { return };
            seen.insert((table.name, table.key(&entry.key).map_or("", |key| key.name)));
            if table.open {
                // What a model needs depends on its family.
                return;
            }
            // Renamed, it is unknown or missing, to the one as to the other.
            let mut renamed = root.clone();
            entries_at(&mut renamed, path)[path[path.len() - 1]].key += "x";
            assert_eq!(
                complaints(&renamed).is_empty(),
                validator.is_valid(&value(&renamed)),
                "{}",
                entry.key
            );
            let mut removed = root.clone();
            entries_at(&mut removed, path).remove(path[path.len() - 1]);
            // That checkpoints need prefixes, that caches in pages need prompts, and a time to keep prefixes needs prefixes, is between two keys, which no schema says.
            let others = ["prefill", "prefixes", "kv", "checkpoints"];
            let pages = others.contains(&entry.key.as_str()) && text.contains("paged");
            // So is that only staged copies are taken away, and accelerators only where others go on.
            let others_go_on = ["parallel", "expert", "prefill"].contains(&entry.key.as_str());
            if pages || entry.key == "staging" || others_go_on && text.contains("accelerators") {
                return;
            }
            let (refused, valid) = (complaints(&removed), validator.is_valid(&value(&removed)));
            assert_eq!(refused.is_empty(), valid, "{}: {refused:?}", entry.key);
        });
    }
    let missing: Vec<_> = all.filter(|key| !seen.contains(key)).collect();
    assert!(missing.is_empty(), "no example of {missing:?}");
}

#[test]
fn the_schema_takes_what_the_reader_takes() {
    let validator = validator(Document::Scenario);
    let values: Vec<Node> = VALUES.iter().map(|text| node(text)).collect();
    let mut seen = BTreeSet::new();
    for text in EVERY_KEY {
        let root = node(text);
        walk(Type::File(SCENARIO), &root, &mut vec![], &mut |takes, entry, path| {
            // Once is enough for a key of a table.
            if let Type::Map(table) = takes
                && !seen.insert((table.name, entry.key.clone()))
            {
                return;
            }
            for (text, new) in VALUES.iter().zip(&values) {
                let mut changed = root.clone();
                entries_at(&mut changed, path)[path[path.len() - 1]].value = new.clone();
                let (refused, valid) = (complaints(&changed), validator.is_valid(&value(&changed)));
                let place = format!("`{}: {text}`: {refused:?}", entry.key);
                assert!(valid || !refused.is_empty(), "the schema alone refuses {place}");
                // What only the reader sees is what takes other values, files or the model to see.
                let plain = |told: &String| WRITTEN_WRONG.iter().any(|wrong| told.contains(wrong));
                assert!(!valid || !refused.iter().any(plain), "the reader alone refuses {place}");
            }
        });
    }
}

#[test]
fn what_differs_from_a_base_is_checked_in_part() {
    let validator = validator(Document::Scenario);
    let valid = |text: &str| validator.is_valid(&value(&node(text)));
    for part in [
        "base: quickstart",
        "{ base: quickstart, machine: { tiers: { dram: { capacity: 1 TiB } } }, seed: ~ }",
        "{ base: quickstart, workload: { requests: { poisson: { batch: 2 } } }, model: { base: mixtral-8x7b } }",
        "{ base: quickstart, machine: { tiers: { nvme: ~ }, links: { disk: ~ } }, sensitivity: { int8: { error: 1 % } } }",
    ] {
        assert!(valid(part), "{part}");
    }
    for wrong in [
        "name: a scenario that starts from nothing",
        "base: [quickstart]",
        "{ base: quickstart, memroy: { hbm: 6 GiB } }",
        "{ base: quickstart, memory: { hbm: 6 } }",
        "{ base: quickstart, machine: { tiers: { dram: { capacity: 1 } } } }",
        "{ base: quickstart, machine: { tiers: { dram: { base: hbm } } } }",
        "{ base: quickstart, machine: { links: { pcie: { forward: { 1 MiB: ~ } } } } }",
        "{ base: quickstart, workload: { requests: { poisson: {}, closed: {} } } }",
    ] {
        assert!(!valid(wrong), "{wrong}");
    }
}

#[test]
fn examples_and_defaults_are_valid() {
    let mut known = BTreeMap::new();
    tables(Type::File(SCENARIO), &mut known);
    let mut builder = Builder { definitions: Map::new() };
    for key in known.values().flat_map(|table| table.keys) {
        let mut schema = builder.of(key.takes, Extent::Whole);
        schema["$defs"] = Value::Object(builder.definitions.clone());
        if let Some(example) = written(key.example()) {
            let valid = jsonschema::draft202012::new(&schema).unwrap().is_valid(&example);
            assert!(valid, "{}: {example}", key.name);
        }
    }
}
