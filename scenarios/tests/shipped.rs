//! Everything that ships loads, and says what its sources say.

use policy::machine::Class;
use policy::model::BlockKind;
use policy::{Bandwidth, Bytes, FormatId};
use scenarios::{Cap, PolicyComplaint, Requests, Routing, Scenario};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn any_policy(_: &str, _: &BTreeMap<String, f64>) -> Result<(), PolicyComplaint> {
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
        let generated = name.starts_with("mixtral");
        let routing = match name {
            "gpt-oss-20b-h100" => {
                vec![("workload.routing.trace", trace.clone()), ("workload.fit", trace.clone())]
            }
            _ if generated => vec![],
            _ => vec![("workload.routing.trace", trace.clone())],
        };
        let scenario = shipped(name, &routing);
        assert_eq!(matches!(scenario.workload.routing, Routing::ZipfMarkov(_)), generated, "{name}");
        assert!(scenario.fast_budget() >= scenario.slot(scenario.fast()), "{name}");
        seen.push(name);
    }
    assert_eq!(seen, ["gpt-oss-20b-h100", "mixtral-8x7b-4090", "mixtral-8x7b-h100", "quickstart"]);
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
    assert_eq!(scenario.kv_reserve, Bytes(12 * (4096 + 128) * 2048));
    assert_eq!(scenario.machine.tier(scenario.home).name, "dram");
    assert_eq!(scenario.workload.requests, Requests::Closed { batch: 1 });
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

#[test]
fn machines_have_one_fast_tier_and_links_with_two_directions() {
    let machines = scenarios::machines().unwrap();
    let names: Vec<_> = machines.iter().map(|machine| machine.name.as_str()).collect();
    assert_eq!(names, ["h100-sxm", "rtx-4090"]);
    for machine in &machines {
        assert_eq!(machine.tiers_of(Class::Fast).count(), 1);
        for (index, link) in machine.links.iter().enumerate() {
            let other = machine.link(link.opposite.unwrap());
            assert_eq!((other.from, other.to, &other.name), (link.to, link.from, &link.name));
            assert_eq!(other.opposite.unwrap().index(), index);
            assert!(link.duplex <= link.rate.peak());
        }
    }
    assert_eq!(machines[0].links[0].rate.peak(), Bandwidth(56_500_000_000));
    assert_eq!(machines[0].links[1].rate.peak(), Bandwidth(57_400_000_000));
}

#[test]
fn models_have_the_published_sizes() {
    let close = |counted: u64, published: f64| (counted as f64 / published - 1.0).abs() < 0.01;
    let (gpt_oss, facts) = scenarios::model("gpt-oss-20b").unwrap();
    assert_eq!((facts.layers, facts.blocks_per_layer, facts.selected, facts.native), (24, 32, 4, "mxfp4"));
    assert_eq!(facts.block_bytes, Bytes(13_219_200));
    // The model card: 20.9 billion parameters.
    assert!(close(facts.parameters, 20.9e9), "{}", facts.parameters);
    let windows: Vec<_> = gpt_oss.layers.iter().map(|layer| layer.window).collect();
    assert_eq!(windows[..4], [Some(128), None, Some(128), None]);
    assert_eq!(gpt_oss.layers[0].kv_per_token, Bytes(2 * 8 * 64 * 2));
    assert_eq!(gpt_oss.head_read, Bytes(201_088 * 2880 * 2));
    // Counted by hand: projections with biases, sinks, norms, router, expert biases.
    let attention = 2 * 2880 * (4096 + 512) + (4096 + 2 * 512 + 2880) + 64;
    let layer = attention + 2 * 2880 + 32 * (2880 + 1) + 32 * 3 * 2880;
    assert_eq!(gpt_oss.layers[0].resident, Bytes(2 * layer));
    assert_eq!(gpt_oss.uniform_blocks(), Some(32));

    let (mixtral, facts) = scenarios::model("mixtral-8x7b").unwrap();
    assert_eq!((facts.layers, facts.blocks_per_layer, facts.selected, facts.native), (32, 8, 2, "bf16"));
    assert_eq!(facts.block_bytes, Bytes(352_321_536));
    // The Mixtral paper: 46.7 billion parameters, 12.9 billion active.
    assert!(close(facts.parameters, 46.7e9), "{}", facts.parameters);
    assert!(close(facts.active_parameters, 12.9e9), "{}", facts.active_parameters);
    assert!(mixtral.layers.iter().all(|layer| layer.window.is_none()));
    let layer = 2 * 4096 * (4096 + 1024) + 2 * 4096 + 4096 * 8;
    assert_eq!(mixtral.layers[0].resident, Bytes(2 * layer));
    assert_eq!(scenarios::models().unwrap().len(), 2);
}

/// What the public configs import to: parameters in billions as published, or what the refusal names.
const CONFIGS: &[(&str, Result<f64, &str>)] = &[
    ("DeepSeek-V2-Lite.config.json", Ok(15.7)),
    ("DeepSeek-V3.facts.json", Err("`torch_dtype` is missing")),
    ("DeepSeekMoE-16B.config.json", Ok(16.4)),
    ("DiT-XL-2.facts.json", Err("a diffusion model (`patch_size`) cannot be imported")),
    ("FLUX.1-dev.facts.json", Err("a diffusion model (`in_channels`) cannot be imported")),
    ("GRIN-MoE.config.json", Ok(41.9)),
    ("Granite-4.0-H-Small.facts.json", Err("a model with recurrent layers (`ssm_state`) cannot be imported")),
    (
        "Granite-4.0-H-dense-2048.facts.json",
        Err("a model with recurrent layers (`mamba_heads`) cannot be imported"),
    ),
    ("Jamba-Mini-1.6.config.json", Err("a model with recurrent layers (`jamba`) cannot be imported")),
    (
        "JetMoE-8B.config.json",
        Err("a model whose attention heads are experts too (`jetmoe`) cannot be imported"),
    ),
    ("Llama-3.1-70B.config.json", Ok(70.6)),
    ("Llama-3.1-8B.config.json", Ok(8.03)),
    // 13.6 without the embedding, as MiniCPM counts.
    ("MiniCPM-MoE-8x2B.config.json", Ok(13.6 + 0.28)),
    ("Mixtral-8x22B.facts.json", Ok(140.6)),
    ("Mixtral-8x7B-v0.1.config.json", Ok(46.7)),
    ("NLLB-MoE-54B.config.json", Err("an encoder-decoder model (`nllb-moe`) cannot be imported")),
    (
        "Nemotron-H-8B.facts.json",
        Err("a model with recurrent layers (`hybrid_override_pattern`) cannot be imported"),
    ),
    ("OLMoE-1B-7B-0125.config.json", Ok(6.92)),
    ("Phi-3.5-MoE-instruct.config.json", Ok(41.9)),
    ("Phi-mini-MoE-instruct.config.json", Ok(7.6)),
    // 3.37 as stored, with the tied embedding twice.
    ("PowerMoE-3B.config.json", Ok(3.37 - 0.0755)),
    ("Qwen1.5-MoE-A2.7B.config.json", Ok(14.3)),
    ("Qwen2-57B-A14B.config.json", Ok(57.4)),
    ("Qwen3-235B-A22B.facts.json", Ok(235.0)),
    ("Qwen3-30B-A3B-Instruct-2507.config.json", Ok(30.5)),
    ("Qwen3-30B-A3B.config.json", Ok(30.5)),
    ("Qwen3-32B.config.json", Ok(32.8)),
    ("SD3-medium.facts.json", Err("a diffusion model (`patch_size`) cannot be imported")),
    (
        "Switch-Base-128.config.json",
        Err("an encoder-decoder model (`switch_transformers`) cannot be imported"),
    ),
    ("XVERSE-MoE-A4.2B.config.json", Ok(25.8)),
    ("Zamba2-2.7B.facts.json", Err("a model with recurrent layers (`mamba_d_state`) cannot be imported")),
    ("gpt-oss-120b.facts.json", Err("`alternating sliding/full` is no layer type")),
    ("gpt-oss-20b.facts.json", Err("`alternating sliding/full` is no layer type")),
    ("mamba-2.8b-hf.facts.json", Err("a model with recurrent layers (`mamba`) cannot be imported")),
    ("mamba2-2.7b.facts.json", Err("a model with recurrent layers (`mamba2`) cannot be imported")),
];

#[test]
fn every_public_config_imports_or_says_what_is_missing() {
    let Some(data) = data() else { return };
    let folder = data.join("model_configs");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, CONFIGS.iter().map(|(file, _)| *file).collect::<Vec<_>>());
    for (file, expected) in CONFIGS {
        let imported = scenarios::model(&folder.join(file).display().to_string());
        match (expected, imported) {
            (Ok(billions), Ok((_, facts))) => {
                let counted = facts.parameters as f64 / 1e9;
                assert!((counted / billions - 1.0).abs() < 0.01, "{file}: {counted} for {billions}");
            }
            (Err(message), Err(wrong)) => {
                assert!(wrong.all().iter().any(|one| one.message == *message), "{file}: {wrong}");
            }
            (_, Ok((_, facts))) => panic!("{file} imports: {facts:?}"),
            (_, Err(wrong)) => panic!("{file}: {wrong}"),
        }
    }
}
