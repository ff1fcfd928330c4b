//! Laws of any system that serves, whatever it serves and under whatever policy: what is seen from outside, between controller and world,
//! and what the summary says are two measurements of the same.

use crate::small::{Small, fast, policies};
use policy::event::{Command, Event, EventKind, Platform};
use policy::registry::{self, Entry};
use policy::serving::cache::CacheSpec;
use policy::{Bytes, Nanos, Paths, RequestId, Time};
use proptest::prelude::*;
use scenarios::Length;
use sim::{Case, Keep, Outcome, Summary, World, WorldError};
use std::collections::BTreeMap;

/// A request, as seen from outside.
#[derive(Clone, Copy, Debug)]
struct Stay {
    arrived: Time,
    left: Option<Time>,
    prompt: u32,
    output: u32,
}

/// A world, and who is in the system.
struct Observer {
    world: World,
    now: Time,
    inside: u64,
    /// Requests in the system, integrated over time.
    request_time: u128,
    stays: BTreeMap<RequestId, Stay>,
}

impl Platform for Observer {
    type Error = WorldError;

    fn next_event(&mut self) -> Result<Option<Event>, WorldError> {
        let event = self.world.next_event()?;
        let Some(Event { at, kind }) = &event else { return Ok(event) };
        self.request_time += u128::from(self.inside) * u128::from(at.since(self.now).0);
        self.now = *at;
        if let &EventKind::RequestArrived { request, context_tokens, output_tokens, .. } = kind {
            let stay = Stay { arrived: *at, left: None, prompt: context_tokens, output: output_tokens };
            assert!(self.stays.insert(request, stay).is_none(), "{request:?} came twice");
            self.inside += 1;
        }
        Ok(event)
    }

    fn submit(&mut self, command: Command) -> Result<(), WorldError> {
        if let Command::Finish { request } = command {
            let left = self.stays.get_mut(&request).unwrap().left.replace(self.now);
            assert!(left.is_none(), "{request:?} left twice");
            self.inside -= 1;
        }
        self.world.submit(command)
    }
}

/// A run, what was seen of it, and what its summary says.
fn observe(case: &Case, entry: &Entry) -> (Observer, serde_json::Value) {
    let params = entry.resolve(&BTreeMap::new()).unwrap();
    let mut orchestrator = case.orchestrator(entry, &params, false).unwrap();
    let world = case.world(false).unwrap();
    let mut seen = Observer { world, now: Time(0), inside: 0, request_time: 0, stays: BTreeMap::new() };
    policy::run(&mut orchestrator, &mut seen, |_| {})
        .unwrap_or_else(|error| panic!("{}: {error}", entry.name));
    let outcome = Outcome { orchestrator, world: seen.world };
    let summary = serde_json::to_value(Summary::new(case, &outcome, entry.name, 0.0)).unwrap();
    (Observer { world: outcome.world, ..seen }, summary)
}

fn number(summary: &serde_json::Value, key: &str) -> f64 {
    summary[key].as_f64().unwrap_or_else(|| panic!("{key}: {}", summary[key]))
}

/// Requests whose prompts begin alike, with priorities and times of their own, as a Mooncake trace.
fn trace(requests: &[(u32, u32, u32, u64)]) -> String {
    let mut at = 0;
    let line = |&(gap, prompt, output, family): &(u32, u32, u32, u64)| {
        at += gap;
        let blocks: Vec<String> =
            (0..u64::from(prompt.div_ceil(512))).map(|place| (family << 8 | place).to_string()).collect();
        let blocks = blocks.join(", ");
        format!(
            "{{\"timestamp\": {at}, \"input_length\": {prompt}, \"output_length\": {output}, \"hash_ids\": [{blocks}]}}\n"
        )
    };
    requests.iter().map(line).collect()
}

/// How a law's case serves.
#[derive(Clone, Debug)]
struct Serves {
    requests: Vec<(u32, u32, u32, u64)>,
    recorded: bool,
    clients: u32,
    slots: u32,
    prefixes: bool,
    /// Whether prefixes that nobody reads go after a while.
    keep: bool,
    /// The share of what blocks have that caches may take; without it every request has its room.
    share: Option<f64>,
    seed: u16,
}

fn serves() -> impl Strategy<Value = Serves> {
    let request = (0u32..30, 1u32..900, 1u32..150, 0u64..3);
    let load = (prop::collection::vec(request, 1..12), any::<bool>(), 1u32..9);
    let memory = (6u32..40, any::<(bool, bool)>(), prop::option::of(0.03f64..0.4), any::<u16>());
    (load, memory).prop_map(|((requests, recorded, clients), (slots, (prefixes, keep), share, seed))| {
        Serves { requests, recorded, clients, slots, prefixes, keep, share, seed }
    })
}

impl Serves {
    fn case(&self) -> Case {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.jsonl");
        std::fs::write(&path, trace(&self.requests)).unwrap();
        let (clients, requests) = (self.clients, self.requests.len());
        let requests = match self.recorded {
            true => format!("{{ mooncake_jsonl: {{ path: {}, batch: {clients} }} }}", path.display()),
            false => format!("{{ closed: {{ batch: {clients}, think: 3 ms, limit: {requests} }} }}"),
        };
        let small =
            Small { requests, slots: self.slots, layers: 2, seed: self.seed.into(), ..Small::default() };
        let mut case = small.case();
        case.prefill_chunk = Some(200);
        if !self.recorded {
            case.prompt_tokens = Length::Uniform { from: 1, to: 900 };
            case.output_tokens = Some(Length::Uniform { from: 1, to: 150 });
        }
        let tier = fast(&case.machine);
        let slot = case.model.largest_block().round_up(case.machine.tier(tier).granularity);
        let room = case.budgets[tier.index()].saturating_sub(slot).0 as f64;
        case.cache = self.share.map(|share| CacheSpec {
            page: 16,
            most: Bytes((room * share) as u64),
            prefix_block: (self.prefixes && self.recorded).then_some(512),
            keep: self.keep.then_some(Nanos(20_000_000)),
        });
        case
    }
}

/// L = lambda W: the mean number of requests in the system is the rate at which they come times the mean time they stay. Over a whole
/// run it is an identity, whatever was refused, pre-empted or queued.
fn littles_law(seen: &Observer, summary: &serde_json::Value) {
    let seconds = number(summary, "simulated_s");
    if seconds == 0.0 {
        return assert_eq!(seen.request_time, 0, "everybody was refused at once");
    }
    let inside = seen.request_time as f64 / 1e9 / seconds;
    let completed = number(summary, "requests_completed");
    let stay = if completed > 0.0 { number(summary, "mean_e2e_ms") / 1e3 } else { 0.0 };
    let product = number(summary, "request_throughput_rps") * stay;
    assert!(
        (inside - product).abs() <= 1e-9 * inside.max(product),
        "{inside} in the system, {product} by the law"
    );
}

/// Who comes leaves, once; what is put out is what was asked for; and what is computed of prompts is what was not there.
fn nothing_is_lost(seen: &Observer, summary: &serde_json::Value) {
    let count = |key: &str| summary[key].as_u64().unwrap_or(0);
    let (served, refused): (Vec<&Stay>, Vec<&Stay>) =
        seen.stays.values().partition(|stay| stay.left > Some(stay.arrived));
    assert!(seen.inside == 0 && refused.iter().all(|stay| stay.left.is_some()));
    assert_eq!(served.len() as u64, count("requests_completed"));
    assert_eq!(refused.len() as u64, count("requests_rejected"));
    let tokens = |of: fn(&Stay) -> u32| served.iter().map(|stay| u64::from(of(stay))).sum::<u64>();
    assert_eq!(tokens(|stay| stay.output), count("output_tokens"));
    let (computed, found) = (count("prompt_tokens"), count("prefix_hit_tokens"));
    let prompts = tokens(|stay| stay.prompt);
    assert!(computed + found >= prompts, "{computed} computed and {found} found of {prompts}");
    assert!(computed + found == prompts || count("preemptions") > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]
    #[test]
    fn who_is_in_the_system_is_who_comes_times_how_long_they_stay_and_nothing_is_lost(serves in serves()) {
        let case = serves.case();
        for entry in policies(false) {
            let (seen, summary) = observe(&case, entry);
            littles_law(&seen, &summary);
            nothing_is_lost(&seen, &summary);
        }
    }
}

/// Caches leave less than a slot beside the set that a policy keeps for good: it gives way.
#[test]
fn a_kept_set_gives_way_to_a_demand_where_caches_leave_no_slot() {
    let serves = Serves {
        requests: vec![(0, 1, 1, 0); 5],
        recorded: false,
        clients: 4,
        slots: 22,
        prefixes: false,
        keep: false,
        share: Some(0.352),
        seed: 24881,
    };
    let (seen, summary) = observe(&serves.case(), registry::lookup("static").unwrap());
    nothing_is_lost(&seen, &summary);
}

#[test]
fn the_cases_refuse_preempt_and_find_prefixes() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut reached = BTreeMap::new();
    for _ in 0..60 {
        let serves = serves().new_tree(&mut runner).unwrap().current();
        let (_, summary) = observe(&serves.case(), registry::lookup("lru").unwrap());
        for key in ["requests_rejected", "preemptions", "prefix_hit_tokens"] {
            *reached.entry(key).or_insert(0) += summary[key].as_u64().unwrap_or(0);
        }
    }
    assert!(reached.values().all(|&count| count > 0), "{reached:?}");
}

/// One request at a time, each of one step that always takes as long: a queue with one server, random arrivals and constant service (M/D/1).
/// Who comes waits for `load / (2 (1 - load))` services on average.
#[test]
fn requests_at_random_wait_as_long_as_queueing_theory_says() {
    let alone =
        Small { requests: "{ closed: { batch: 1, limit: 2000 } }".into(), slots: 32, ..Small::default() };
    let single = |small: &Small| Case { output_tokens: Some(Length::Fixed(1)), ..small.case() };
    let (_, summary) = observe(&single(&alone), registry::lookup("lru").unwrap());
    let service = number(&summary, "p50_e2e_ms");
    for load in [0.3, 0.6] {
        let rate = load / service * 1e3;
        let requests = format!("{{ poisson: {{ rate: {rate} /s, batch: 1, limit: 20000 }} }}");
        let (_, summary) =
            observe(&single(&Small { requests, ..alone.clone() }), registry::lookup("lru").unwrap());
        let (wait, expected) = (number(&summary, "mean_queue_ms"), load / (2.0 * (1.0 - load)) * service);
        assert!((wait / expected - 1.0).abs() < 0.06, "load {load}: {wait} ms, by theory {expected} ms");
    }
}

fn run(case: &Case, policy: &str) -> Outcome {
    let entry = registry::lookup(policy).unwrap();
    let params = entry.resolve(&BTreeMap::new()).unwrap();
    case.run(entry, &params, Keep::default(), |_| {}).unwrap()
}

/// A model whose tokens read all blocks of every layer, one request after the other.
fn reads_all(slots: u32) -> Case {
    Small { experts: 3, selected: 3, slots, ..Small::default() }.case()
}

/// What a step of one decoding request computes, by the roofline: each kernel reads its bytes and does its operations, whichever takes
/// longer, after a launch.
fn dense_step(case: &Case, context: u64) -> f64 {
    let processor = case.machine.accelerator;
    let kernel = |bytes: u64, operations: u64| {
        let reading = bytes as f64 / processor.read.0 as f64;
        reading.max(operations as f64 / processor.flops.0 as f64) * 1e9 + processor.launch.0 as f64
    };
    let layers = case.model.layers.iter().map(|layer| {
        let cache = layer.kv_per_token.0 * context;
        let mixer = layer.flops_per_token + layer.flops_per_pair * (context + 1);
        let first = layer.first_block.index();
        let blocks = &case.model.blocks[first..first + layer.blocks as usize];
        let bytes = blocks.iter().map(|block| block.bytes(block.native).0).sum();
        let operations = blocks.iter().map(|block| 2 * block.elements()).sum();
        kernel(layer.resident.0 + cache, mixer) + kernel(bytes, operations)
    });
    layers.sum::<f64>() + kernel(case.model.head_read.0, case.model.head_flops_per_token)
}

/// The time of a layer step's demand, when all of its blocks cross the link.
fn all_cross(case: &Case) -> Nanos {
    let link = Paths::new(&case.machine).between(case.home.first(), fast(&case.machine)).unwrap().clone();
    let busy: Nanos = (0..3).map(|_| link.busy(case.model.largest_block())).sum();
    busy + link.latency
}

#[test]
fn with_everything_resident_a_step_is_what_it_computes() {
    let case = reads_all(12);
    let outcome = run(&case, "lru");
    let tally = outcome.orchestrator.tally();
    // Everything is fetched once, when it is first asked for.
    assert_eq!(tally.stall_total(), Nanos(4 * all_cross(&case).0));
    assert_eq!(tally.demanded - tally.hits(), 12);
    let computed: f64 = (0..3).flat_map(|_| 0..20).map(|context| dense_step(&case, context)).sum();
    let whole = outcome.world.now().0 as f64;
    let expected = computed + tally.stall_total().0 as f64;
    // A nanosecond of rounding for each kernel.
    assert!((whole - expected).abs() <= 60.0 * 9.0, "{whole} ns, by the formula {expected} ns");
}

#[test]
fn with_nothing_resident_every_demand_crosses_the_link() {
    let case = reads_all(3);
    let outcome = run(&case, "lru");
    let tally = outcome.orchestrator.tally();
    assert_eq!((tally.hits(), tally.layer_steps), (0, 240));
    assert_eq!(tally.stall_total(), Nanos(240 * all_cross(&case).0));
    let computed: f64 = (0..3).flat_map(|_| 0..20).map(|context| dense_step(&case, context)).sum();
    let (whole, expected) = (outcome.world.now().0 as f64, computed + tally.stall_total().0 as f64);
    assert!((whole - expected).abs() <= 60.0 * 9.0, "{whole} ns, by the formula {expected} ns");
}
