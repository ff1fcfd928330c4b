//! What starts from a base: maps merge, `null` takes away, everything else replaces, and each value keeps its place.

use policy::{Bandwidth, Bytes, Nanos};
use scenarios::{Arrivals, Diagnostics, Process, Requests, Routing, Scenario};
use std::path::Path;

const BASE: &str = "\
name: the base
machine: h100-sxm
model: mixtral-8x7b
memory: { hbm: 64 slots }
workload:
  routing: { zipf_markov: { skew: 0.8, tokens: 100 } }
  requests: { poisson: { rate: 4 /s, batch: 16 } }
policy: { predictive: { ahead: 1 } }
slo: { ttft: 2 s }
";

/// A folder with the base and further files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files.iter().chain(&[("base.yaml", BASE)]) {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn load(folder: &Path, name: &str) -> Result<Scenario, Diagnostics> {
    scenarios::load(&folder.join(name).display().to_string(), &[], &|_| Ok(()))
}

fn loaded(text: &str) -> Scenario {
    let folder = folder(&[("top.yaml", text)]);
    load(folder.path(), "top.yaml").unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// `file:line:column path: message` of every error of `top.yaml`.
fn refused(files: &[(&str, &str)]) -> Vec<String> {
    let folder = folder(files);
    let wrong = load(folder.path(), "top.yaml").map(|_| ()).unwrap_err();
    let place = |file: &str| file.rsplit('/').next().unwrap().to_owned();
    let line = |one: &scenarios::Diagnostic| {
        format!("{}:{}:{} {}: {}", place(&one.file), one.line, one.column, one.path, one.message)
    };
    wrong.all().iter().map(line).collect()
}

#[test]
fn a_scenario_differs_in_a_few_keys() {
    let same = loaded("base: base.yaml\n");
    assert_eq!((same.name.as_str(), same.seed), ("the base", 0));
    let scenario = loaded(
        "base: base.yaml\nname: mine\nseed: 7\nworkload: { routing: { zipf_markov: { skew: 1 } } }\nslo: ~\n",
    );
    assert_eq!((scenario.name.as_str(), scenario.seed, scenario.slo), ("mine", 7, None));
    let Routing::ZipfMarkov(zipf) = scenario.workload.routing else { panic!("zipf") };
    assert_eq!((zipf.skew, zipf.tokens), (1.0, 100));
    assert_eq!(scenario.workload.requests, same.workload.requests);
}

#[test]
fn a_choice_is_merged_with_its_like_and_replaced_by_another() {
    let faster = loaded("base: base.yaml\nworkload: { requests: { poisson: { batch: 8 } } }\n");
    let Requests { arrivals: Arrivals::Drawn(Process::Poisson { rate }), batch, .. } =
        faster.workload.requests
    else {
        panic!("poisson")
    };
    assert_eq!((rate.per_second(), batch), (4.0, 8));
    let closed = loaded("base: base.yaml\nworkload: { requests: { closed: { batch: 3 } } }\npolicy: lru\n");
    assert_eq!(
        closed.workload.requests,
        Requests { arrivals: Arrivals::Closed { think: Nanos::ZERO }, batch: 3, limit: None }
    );
    assert_eq!((closed.policy.name.as_str(), closed.policy.params.len()), ("lru", 0));
    let both = loaded("base: base.yaml\npolicy: { predictive: { horizon: 9 } }\n");
    assert_eq!(both.policy.params.keys().collect::<Vec<_>>(), ["ahead", "horizon"]);
}

#[test]
fn a_machine_and_a_model_start_from_named_ones() {
    let text = "base: base.yaml\nmachine: { base: rtx-4090, tiers: { dram: { capacity: 256 GiB } } }\n\
                memory: { hbm: 8 slots }\nmodel: { base: mixtral-8x7b, num_hidden_layers: 4 }\n";
    let scenario = loaded(text);
    let dram = scenario.machine.tiers.iter().find(|tier| tier.name == "dram").unwrap();
    let shipped = scenarios::machine("rtx-4090").unwrap();
    let old = shipped.tiers.iter().find(|tier| tier.name == "dram").unwrap();
    assert_eq!((dram.capacity, dram.read), (Bytes(256 << 30), old.read));
    assert_eq!(scenario.machine.links, shipped.links);
    assert_eq!((scenario.model.name.as_str(), scenario.model.layers.len()), ("mixtral-8x7b", 4));
    // A map without a base of its own is on top of what the scenario's base names.
    let capped = loaded(
        "base: base.yaml\nmachine: { links: { pcie: { half_size: ~, forward: { 1 MiB: 30 GB/s } } } }\n",
    );
    assert_eq!(capped.machine.name, "h100-sxm");
    assert_eq!(capped.machine.links[0].rate.peak(), Bandwidth(30_000_000_000));
}

#[test]
fn a_machine_file_may_start_from_another() {
    let machine = "base: h100-sxm\nname: two drives\ntiers: { nvme: { capacity: 8 TB } }\n";
    let top = "base: base.yaml\nmachine: two.yaml\n";
    let folder = folder(&[("two.yaml", machine), ("top.yaml", top)]);
    assert_eq!(load(folder.path(), "top.yaml").unwrap().machine.name, "two drives");
    let alone = scenarios::machine(&folder.path().join("two.yaml").display().to_string()).unwrap();
    assert_eq!(alone.tiers[2].capacity, Bytes(8_000_000_000_000));
}

#[test]
fn an_error_stands_where_the_bad_value_does() {
    let machine = "base: h100-sxm\ntiers: { hbm: { capacity: 3 } }\nlinks: { pcie: { latency: 2 } }\n";
    let top = "base: middle.yaml\nmemroy: 3\nmachine: { base: bad.yaml, tiers: { dram: { read: 1 } } }\n";
    let middle = "base: base.yaml\nseed: -1\n";
    assert_eq!(
        refused(&[("top.yaml", top), ("middle.yaml", middle), ("bad.yaml", machine)]),
        [
            "top.yaml:2:1 memroy: unknown key `memroy`",
            "top.yaml:3:51 machine.tiers.dram.read: `1` has no unit",
            "middle.yaml:2:7 seed: -1 is negative",
            "bad.yaml:2:27 machine.tiers.hbm.capacity: `3` has no unit",
            "bad.yaml:3:27 machine.links.pcie.latency: `2` has no unit",
        ]
    );
    let without = refused(&[("top.yaml", "base: base.yaml\nmachine: { tiers: { nvme: ~ } }\n")]);
    let [dangling] = &without[..] else { panic!("{without:?}") };
    assert!(dangling.starts_with("h100-sxm:"), "{dangling}");
    assert!(
        dangling.ends_with(" machine.links.disk.between[0]: the machine has no tier `nvme`"),
        "{dangling}"
    );
    let removed = refused(&[("top.yaml", "base: base.yaml\npolicy: ~\n")]);
    assert_eq!(removed, ["top.yaml:1:1 : `policy` is missing"]);
    let nothing = refused(&[("top.yaml", "base: base.yaml\nkv: ~\n")]);
    assert_eq!(nothing, ["top.yaml:2:5 kv: no value where a single value is expected"]);
}

#[test]
fn a_base_that_leads_back_is_refused_with_the_way() {
    let told = refused(&[("top.yaml", "base: ./a.yaml\n"), ("a.yaml", "base: top.yaml\n")]);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("a.yaml:1:7 base: a file that starts from itself: "), "{told:?}");
    assert!(told[0].contains("top.yaml -> ") && told[0].ends_with("top.yaml"), "{told:?}");
    let machine = "base: base.yaml\nmachine: m.yaml\n";
    let told = refused(&[("top.yaml", machine), ("m.yaml", "base: m.yaml\n")]);
    assert!(told[0].starts_with("m.yaml:1:7 base: a file that starts from itself: "), "{told:?}");
    let chain: Vec<(String, String)> = (1..20)
        .map(|n| (format!("c{n}.yaml"), format!("base: c{}.yaml\n", n - 1)))
        .chain([
            ("c0.yaml".to_owned(), BASE.to_owned()),
            ("top.yaml".to_owned(), "base: c19.yaml\n".to_owned()),
        ])
        .collect();
    let chain: Vec<(&str, &str)> = chain.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let told = refused(&chain);
    assert!(told[0].contains("more than 16 files that start from one another"), "{told:?}");
}

#[test]
fn a_base_is_a_name_or_a_path() {
    for (base, expected) in [
        ("nowhere.yaml", "top.yaml:1:7 base: no scenario called `nowhere.yaml`, and no such file"),
        ("[base.yaml]", "top.yaml:1:7 base: a list where a single value is expected"),
        ("~", "top.yaml:1:7 base: no value where a single value is expected"),
        ("words.txt", "words.txt:1:1 : a map is expected"),
    ] {
        let top = format!("base: {base}\n");
        assert_eq!(refused(&[("top.yaml", top.as_str()), ("words.txt", "only words\n")]), [expected]);
    }
    let nested = refused(&[("top.yaml", "base: base.yaml\nworkload: { base: other }\n")]);
    assert_eq!(nested, ["top.yaml:2:13 workload.base: unknown key `base`"]);
    let shipped = loaded("base: mixtral-8x7b-h100\nname: fewer bits\n");
    assert_eq!((shipped.machine.name.as_str(), shipped.encoded.len()), ("h100-sxm", 2));
}

#[test]
fn an_override_reaches_through_a_base_but_not_the_base() {
    let folder =
        folder(&[("top.yaml", "base: base.yaml\nmachine: { base: rtx-4090 }\nmemory: { hbm: 8 slots }\n")]);
    let path = folder.path().join("top.yaml").display().to_string();
    let set =
        |key: &str, value: &str| scenarios::load(&path, &[(key.to_owned(), value.to_owned())], &|_| Ok(()));
    let scenario = set("machine.tiers.dram.capacity", "128 GiB").unwrap();
    assert_eq!(scenario.machine.tiers[1].capacity, Bytes(128 << 30));
    assert_eq!(set("machine", "{ base: rtx-4090, name: ours }").unwrap().machine.name, "ours");
    for key in ["base", "machine.base", "model.base"] {
        let wrong = set(key, "quickstart").map(|_| ()).unwrap_err();
        assert_eq!(wrong.all()[0].message, "`base` cannot be set", "{key}");
    }
}
