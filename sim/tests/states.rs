//! Checkpoints of recurrent states in whole runs: what is reused, where it lies, and what that is worth.

use sim::resolve::{check_policy, resolve_policy};
use sim::{Case, Keep, Summary};
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
