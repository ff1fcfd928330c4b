//! Checkpoints of recurrent states in whole runs: what is reused, where it lies, and what that is worth.

use policy::event::{Command, Event, EventKind, MoveChunk, MoveClass, Platform, StateChunk};
use policy::state_format::StateFormat;
use policy::{Bytes, MoveId, Paths, TierId};
use proptest::prelude::*;
use sim::resolve::{check_policy, resolve_policy};
use sim::{Case, Keep, Summary, World, WorldError};
use std::path::PathBuf;

fn run(name: &str, set: &[(&str, &str)]) -> Summary {
    let set: Vec<_> = set.iter().map(|(path, value)| (path.to_string(), value.to_string())).collect();
    let scenario = scenarios::load(name, &set, &check_policy).unwrap_or_else(|wrong| panic!("{wrong}"));
    let case = Case::from_scenario(&scenario).unwrap();
    let (entry, params) = resolve_policy(&scenario.policy.name, &scenario.policy.params).unwrap();
    let outcome = case.run(entry, &params, Keep::default(), |_| {}).unwrap_or_else(|wrong| panic!("{wrong}"));
    Summary::new(&case, &outcome, entry.name, 0.0)
}

const PREFIXES: &str = "workload.requests.conversations.prefixes";
const SESSIONS: &str = "workload.requests.conversations.sessions";

#[test]
fn a_host_tier_keeps_what_the_published_pool_loses() {
    for prefixes in ["640", "1280"] {
        let summary = run("states/prefix-reuse", &[(PREFIXES, prefixes), (SESSIONS, "4000")]);
        let figures = summary.checkpoints.unwrap();
        assert!(figures.reuse_rate >= 0.94, "{prefixes}: {}", figures.reuse_rate);
        assert_eq!(summary.requests_completed, 4000);
        // 256 states of 24 layers in eight bits, and no more.
        assert!(figures.pools[0].peak_bytes <= figures.pools[0].room_bytes);
    }
    let published = |prefixes| {
        run("states/published-pool", &[(PREFIXES, prefixes), (SESSIONS, "4000")])
            .checkpoints
            .unwrap()
            .reuse_rate
    };
    assert!(published("384") >= 0.94, "{}", published("384"));
    assert!(published("640") <= 0.06, "{}", published("640"));
}

#[test]
fn fast_memory_is_the_same_for_any_length() {
    let tokens =
        |tokens| run("states/tiered-cache", &[("workload.requests.conversations.prefix_tokens", tokens)]);
    let (short, long) = (tokens("262144"), tokens("1048576"));
    for (summary, made) in [(&short, 128), (&long, 512)] {
        let figures = summary.checkpoints.as_ref().unwrap();
        assert_eq!(figures.made, made);
        let [fast, host] = &figures.pools[..] else { panic!("two pools") };
        assert!(fast.peak_bytes <= fast.room_bytes && fast.evictions > 0);
        // Every one of them as it was computed: 64 layers, in 16 bits.
        assert_eq!(host.peak_bytes.div_ceil(64 * (80 * 64 * 128 + 3 * 5376) * 2), made);
        assert_eq!((figures.restores, figures.recomputed_tokens), (1, 0));
    }
    let peak = |summary: &Summary| summary.checkpoints.as_ref().unwrap().pools[0].peak_bytes;
    assert_eq!(peak(&short), peak(&long));
}

#[test]
fn the_same_run_twice_gives_the_same_figures() {
    let set = [(SESSIONS, "200")];
    let text = || {
        let summary = serde_json::to_value(run("states/hp-aso", &set)).unwrap();
        let mut fields = summary.as_object().unwrap().clone();
        fields.remove("events_per_s");
        fields
    };
    let once = text();
    assert_eq!(once, text());
    assert!(once["checkpoints"]["restores"].as_u64() > Some(0));
}

#[test]
fn learned_reuse_computes_less_again_on_mooncake() {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let data = std::env::var_os("HOTSET_DATA").map_or_else(default, PathBuf::from);
    let trace = data.join("request_traces/mooncake_synthetic_full.jsonl");
    if !trace.is_file() {
        println!("skipped: no data at {}", trace.display());
        return;
    }
    let path = trace.display().to_string();
    let again = |evict, alpha| {
        let set = [
            ("workload.requests.mooncake_jsonl.path", path.as_str()),
            ("checkpoints.evict", evict),
            ("checkpoints.alpha", alpha),
        ];
        run("states/mooncake-nemotron-h-8b", &set).checkpoints.unwrap().recomputed_tokens as f64
    };
    let ours = again("benefit_per_byte", "1");
    let lru = again("lru", "1");
    assert!(ours < 0.9 * lru, "{ours} against {lru} of lru");
    for alpha in ["0.05", "0.2", "1"] {
        let marconi = again("marconi", alpha);
        assert!(ours < 0.9 * marconi, "{ours} against {marconi} of marconi with {alpha}");
    }
}

/// What a demand may find ahead of it on a link is at most one chunk, of blocks and of checkpoints alike, and what is no demand goes in chunks
/// and only where nothing else is.
struct Witness {
    world: World,
    paths: Paths,
    fast: TierId,
    chunk: Bytes,
    outstanding: Vec<Sent>,
    /// Demands of blocks that found a chunk of a checkpoint ahead of them, and chunks of checkpoints in all.
    behind: u64,
    chunks: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    id: MoveId,
    way: (TierId, TierId),
    class: MoveClass,
    len: Bytes,
    of_state: bool,
}

impl Witness {
    fn see(&mut self, sent: Sent) {
        let links = |of: &Sent| {
            self.paths.between(of.way.0, of.way.1).map(|path| path.links.clone()).unwrap_or_default()
        };
        let mut behind = false;
        for link in links(&sent) {
            let ahead: Vec<&Sent> =
                self.outstanding.iter().filter(|other| links(other).contains(&link)).collect();
            if sent.class == MoveClass::Demand {
                let background: Vec<_> =
                    ahead.iter().filter(|other| other.class != MoveClass::Demand).collect();
                assert!(background.len() <= 1, "{sent:?} behind {background:?}");
                assert!(background.iter().all(|other| other.len <= self.chunk));
                behind |= !sent.of_state && background.iter().any(|other| other.of_state);
            } else {
                assert!(ahead.is_empty(), "{sent:?} beside {ahead:?}");
                assert!(sent.len <= self.chunk);
            }
        }
        self.behind += u64::from(behind);
        self.chunks += u64::from(sent.of_state);
        if sent.way.0 != sent.way.1 {
            self.outstanding.push(sent);
        }
    }
}

impl Platform for Witness {
    type Error = WorldError;

    fn next_event(&mut self) -> Result<Option<Event>, WorldError> {
        let event = self.world.next_event()?;
        if let Some(Event { kind: EventKind::ChunkDone { id, .. }, .. }) = &event
            && let Some(place) = self.outstanding.iter().position(|sent| sent.id == *id)
        {
            self.outstanding.remove(place);
        }
        Ok(event)
    }

    fn submit(&mut self, command: Command) -> Result<(), WorldError> {
        match &command {
            Command::Move(chunk) => {
                let &MoveChunk { id, from, to, class, len, .. } = chunk;
                self.see(Sent { id, way: (from.tier(to), to.tier), class, len, of_state: false });
            }
            Command::MoveState(chunk) => {
                let [from, to] = [chunk.from, chunk.to].map(|end| end.form(self.fast).tier);
                let &StateChunk { id, class, len, .. } = chunk;
                self.see(Sent { id, way: (from, to), class, len, of_state: true });
            }
            _ => {}
        }
        self.world.submit(command)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(6) })]

    #[test]
    fn a_demand_waits_behind_one_chunk_with_checkpoints_on_the_links(
        chunk in 18u32..21,
        seed in 0u64..1000,
        share in prop::sample::select(vec!["10 %", "100 %"]),
    ) {
        // Experts live on the drive, and come over the links on which cold states come up to the host's memory.
        let set = [
            ("machine", "h100-pcie".to_owned()),
            ("model", "qwen3-next-80b-a3b".to_owned()),
            ("memory", "{ hbm: 60 GiB }".to_owned()),
            ("kv", "{ paged: { page: 16, most: 8 GiB, prefixes: true } }".to_owned()),
            ("checkpoints.pools", "{ dram: { room: 2 slots, format: int4 }, nvme: { room: 64 slots, format: int4 } }".to_owned()),
            ("checkpoints.evict", "lru".to_owned()),
            ("home", "nvme".to_owned()),
            ("workload.requests.conversations.sessions", "40".to_owned()),
            ("workload.requests.conversations.rate", "1 /s".to_owned()),
            ("workload.requests.conversations.prefixes", "4".to_owned()),
            ("workload.requests.conversations.prefix_tokens", "512".to_owned()),
            ("workload.routing", "{ zipf_markov: { skew: 0.8, tokens: 64, traces: 2 } }".to_owned()),
            ("resident.dense", "false".to_owned()),
            ("policy", "predictive".to_owned()),
            ("schedule", format!("{{ chunk: {} KiB, spill_share: {share} }}", 1 << (chunk - 10))),
            ("seed", seed.to_string()),
        ];
        let set: Vec<_> = set.map(|(path, value)| (path.to_owned(), value)).into();
        let scenario = scenarios::load("states/prefix-reuse", &set, &check_policy).unwrap_or_else(|wrong| panic!("{wrong}"));
        let case = Case::from_scenario(&scenario).unwrap();
        let (entry, params) = resolve_policy(&scenario.policy.name, &scenario.policy.params).unwrap();
        let mut controller = case.orchestrator(entry, &params, false).unwrap();
        let mut witness = Witness {
            world: case.world(false).unwrap(),
            paths: Paths::new(&case.machine),
            fast: scenario.fast(),
            chunk: case.pace.chunk,
            outstanding: Vec::new(),
            behind: 0,
            chunks: 0,
        };
        policy::run(&mut controller, &mut witness, |_| {}).unwrap();
        prop_assert!(witness.outstanding.is_empty());
        prop_assert_eq!(controller.tally().completed, 40);
        prop_assert!(witness.chunks > 100 && witness.behind > 0, "{} chunks, {} behind", witness.chunks, witness.behind);
    }
}

#[test]
fn a_drive_keeps_cold_states_and_they_come_back_from_there() {
    let sessions = (SESSIONS, "2000");
    let summary = run("states/on-storage", &[sessions]);
    let figures = summary.checkpoints.as_ref().unwrap();
    let [fast, host, drive] = &figures.pools[..] else { panic!("three pools") };
    // Of 640 beginnings in turns, memory has none when they come round again; the drive has all.
    assert!(figures.reuse_rate >= 0.94 && drive.hits > 9 * (fast.hits + host.hits), "{figures:?}");
    // Every state is written to the drive once, in four bits, and read at each hit; both ways lead through the host's memory.
    let state = StateFormat::named("int4").unwrap();
    let model = scenarios::load("states/on-storage", &[], &check_policy).unwrap().model;
    let bytes = model.state_bytes(state).0;
    let carried = |direction: &str| {
        summary.links.iter().find(|link| link.direction == direction).map(|link| link.bytes).unwrap()
    };
    assert_eq!(carried("dram to nvme"), figures.made * bytes);
    assert_eq!(carried("nvme to dram"), drive.hits * bytes);
    // Restoring beats computing 1024 tokens again, for the two requests of three that begin like another.
    let without = "{ hbm: { room: 32 slots, format: int8 }, dram: { room: 64 slots, format: int4 } }";
    let computed = run("states/on-storage", &[sessions, ("checkpoints.pools", without)]);
    assert!(computed.checkpoints.as_ref().unwrap().reuse_rate <= 0.06);
    let first = |summary: &Summary| summary.latencies["mean_ttft_ms"].unwrap();
    assert!(first(&summary) < 0.7 * first(&computed), "{} and {}", first(&summary), first(&computed));
}

#[test]
fn what_the_budget_does_not_allow_is_computed_again_and_said() {
    let budget = |budget| run("states/prefix-reuse", &[(SESSIONS, "1000"), ("guard.drift_budget", budget)]);
    let vetoes = |summary: &Summary| {
        summary.vetoes.iter().find(|veto| veto.reason == "drift_budget").map_or(0, |veto| veto.count)
    };
    // Near by are eight bits, behind the link four: at 2 % what is only there is not restored.
    let (all, some, none) = (budget("8 %"), budget("2 %"), budget("0"));
    let restores = |summary: &Summary| summary.checkpoints.as_ref().unwrap().restores;
    assert_eq!((vetoes(&all), restores(&none)), (0, 0));
    assert!(restores(&some) > 50 && vetoes(&some) > 50, "{} and {}", restores(&some), vetoes(&some));
    // What would have been restored and was not is a veto each.
    assert_eq!(restores(&some) + vetoes(&some), restores(&all));
    assert_eq!(vetoes(&none), restores(&all));
}
