//! Everything that ships loads, and says what its sources say.

use policy::model::BlockKind;
use policy::{Bandwidth, Bytes, FormatId, Nanos};
use scenarios::{Arrivals, Cap, PolicyChoice, PolicyComplaint, Requests, Routing, Scenario};
use std::path::PathBuf;

fn any_policy(_: &PolicyChoice) -> Result<(), PolicyComplaint> {
    Ok(())
}

fn shipped(name: &str, overrides: &[(&str, String)]) -> Scenario {
    let overrides: Vec<_> = overrides.iter().map(|(path, value)| (path.to_string(), value.clone())).collect();
    let path = format!("{}/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    scenarios::load(&path, &overrides, &any_policy).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// The folder of real inputs, or a visible line that says that it is absent.
fn data() -> Option<PathBuf> {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("HOTSET_DATA").map_or_else(default, PathBuf::from);
    if !folder.is_dir() {
        println!("skipped: no data at {}", folder.display());
        return None;
    }
    Some(folder)
}

/// A stand-in for a routing trace: loading checks that it is there, the simulator opens it.
fn trace() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.hrt");
    std::fs::write(&path, b"a trace").unwrap();
    let path = path.display().to_string();
    (folder, path)
}

#[test]
fn every_shipped_scenario_loads() {
    let (_folder, trace) = trace();
    let mut seen = Vec::new();
    for name in scenarios::scenarios() {
        let routing = match name {
            "gpt-oss-20b-h100" => {
                vec![("workload.routing.trace", trace.clone()), ("workload.fit", trace.clone())]
            }
            "azure-code-gpt-oss-20b" | "azure-conv-gpt-oss-20b" => {
                let of = |path| (path, trace.clone());
                ["workload.routing.trace", "workload.fit", "workload.requests.azure_csv.path"].map(of).into()
            }
            "azure-code-gpt-oss-120b" => vec![("workload.requests.azure_csv.path", trace.clone())],
            name if name.starts_with("states/mooncake-") => {
                vec![("workload.requests.mooncake_jsonl.path", trace.clone())]
            }
            "mooncake-gpt-oss-20b" => {
                let of = |path| (path, trace.clone());
                ["workload.routing.trace", "workload.requests.mooncake_jsonl.path"].map(of).into()
            }
            "quickstart" => vec![("workload.routing.trace", trace.clone())],
            _ => vec![],
        };
        let scenario = shipped(name, &routing);
        let recorded = routing.iter().any(|(path, _)| *path == "workload.routing.trace");
        assert_eq!(matches!(scenario.workload.routing, Routing::Trace(_)), recorded, "{name}");
        assert!(scenario.fast_budget() >= scenario.slot(scenario.fast()), "{name}");
        // What is kept of a model with recurrent layers is of use only with its states.
        assert_eq!(scenario.checkpoints.is_some(), scenario.model.is_recurrent(), "{name}");
        seen.push(name);
    }
    assert_eq!(
        seen,
        [
            "adapters-on-host",
            "azure-code-120b-generated",
            "azure-code-generated",
            "azure-code-gpt-oss-120b",
            "azure-code-gpt-oss-20b",
            "azure-conv-generated",
            "azure-conv-gpt-oss-20b",
            "deepseek-v3-accelerator-loss",
            "deepseek-v3-eight-nodes",
            "deepseek-v3-nvme",
            "deepseek-v3-two-nodes",
            "dit-xl-2-4090",
            "flux-1-dev-4090",
            "flux-1-dev-fp8-4090",
            "gpt-oss-20b-h100",
            "llama-3.1-70b-h100",
            "llama-and-sd3-4090",
            "llava-1.5-7b-4090",
            "mer-qwen3-coder-30b",
            "mixtral-8x22b-cxl-pnm",
            "mixtral-8x22b-cxl-pool",
            "mixtral-8x22b-cxl",
            "mixtral-8x7b-4090",
            "mixtral-8x7b-h100",
            "mixtral-8x7b-joint",
            "mixtral-8x7b-peer",
            "mixtral-offloading",
            "moe-on-gpu",
            "moe-on-host",
            "mooncake-gpt-oss-20b",
            "quickstart",
            "qwen3-30b-a3b-joint",
            "sd3-medium-4090",
            "states/hp-aso",
            "states/mooncake-nemotron-h-8b",
            "states/on-host",
            "states/on-storage",
            "states/prefix-reuse",
            "states/published-pool",
            "states/tiered-cache",
        ]
    );
}

#[test]
fn the_mmlu_scenario_finds_the_public_traces() {
    let Some(data) = data() else { return };
    let traces = data.join("moe_routing/gpt-oss-20b");
    let at = |file: &str| traces.join(file).display().to_string();
    let both = format!("[{}, {}]", at("mmlu_test_a.npz"), at("mmlu_test_b.npz"));
    let overrides = [("workload.routing.trace", both), ("workload.fit", at("mmlu_dev.npz"))];
    let scenario = shipped("gpt-oss-20b-h100", &overrides);
    let Routing::Trace(files) = &scenario.workload.routing else { panic!("a trace") };
    assert_eq!((files.len(), scenario.workload.fit.len()), (2, 1));
}

#[test]
fn slots_are_counted_beside_what_is_resident() {
    let (_folder, trace) = trace();
    let scenario = shipped("quickstart", &[("workload.routing.trace", trace)]);
    let hbm = scenario.fast();
    assert_eq!(scenario.memory["hbm"], Cap::Slots(192));
    // 13,219,200 bytes rounded up to 512.
    assert_eq!(scenario.slot(hbm), Bytes(13_219_328));
    assert_eq!(scenario.fast_budget(), Bytes(192 * 13_219_328));
    assert_eq!(scenario.capacity(hbm), scenario.fast_budget() + scenario.resident_floor());
    // 12 layers keep 4096 tokens and 12 keep 128, at 2 * 8 * 64 * 2 bytes a token.
    assert_eq!(scenario.kv_reserve(), Bytes(12 * (4096 + 128) * 2048));
    assert_eq!(scenario.machine.tier(scenario.home.first()).name, "dram");
    assert_eq!(
        scenario.workload.requests,
        Requests { arrivals: Arrivals::Closed { think: Nanos::ZERO }, batch: 1, limit: None }
    );
    assert_eq!((scenario.seed, scenario.policy.name.as_str()), (7, "predictive"));
    assert_eq!(scenario.guard.drift_budget, 0.0);
}

#[test]
fn a_size_is_the_whole_tier() {
    let overrides = [("memory.hbm", "24 GiB".to_owned()), ("kv", "1 GiB".to_owned())];
    let scenario = shipped("mixtral-8x7b-h100", &overrides);
    let expected = Bytes(24 << 30) - Bytes(1 << 30) - scenario.model.resident_bytes();
    assert_eq!(scenario.fast_budget(), expected);
    assert_eq!(scenario.guard.drift_budget, 0.01);
    assert_eq!(scenario.guard.floors[&BlockKind::Expert], FormatId::named("int4_g32").unwrap());
    let encoded: Vec<_> = scenario.encoded.iter().map(|format| format.name()).collect();
    assert_eq!(encoded, ["int8", "bf16_packed"]);
}

#[test]
fn an_override_reaches_into_a_named_machine() {
    let overrides = [("machine.links.pcie.forward", "30 GB/s".to_owned())];
    let scenario = shipped("mixtral-8x7b-h100", &overrides);
    assert_eq!(scenario.machine.name, "h100-sxm");
    let pcie = scenario.machine.links.iter().find(|link| link.name == "pcie").unwrap();
    assert_eq!(pcie.rate.peak(), Bandwidth(30_000_000_000));
}
