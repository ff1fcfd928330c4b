//! `--set` and paths: what is overridden, and what is said of what cannot be.

use scenarios::{Diagnostics, Scenario};
use snapbox::{assert_data_eq, str};

const GOOD: &str = "\
name: a model on a machine
machine: h100-sxm
model: mixtral-8x7b
workload: { routing: { zipf_markov: { skew: 0.8 } } }
policy: lru
";

fn load(text: &str, overrides: &[(&str, &str)]) -> Result<Scenario, Diagnostics> {
    let overrides: Vec<_> =
        overrides.iter().map(|(path, value)| (path.to_string(), value.to_string())).collect();
    scenarios::load_text("good.yaml", text, &overrides, &|_| Ok(()))
}

/// The first error: its message and its hint.
fn told(overrides: &[(&str, &str)]) -> String {
    let wrong = load(GOOD, overrides).map(|scenario| panic!("loads: {scenario:?}")).unwrap_err();
    format!("{} ({})", wrong.all()[0].message, wrong.all()[0].hint.as_deref().unwrap_or_default())
}

/// The one error of the good scenario with an override.
fn set(path: &str, value: &str) -> String {
    let wrong = load(GOOD, &[(path, value)]).map(|scenario| panic!("loads: {scenario:?}")).unwrap_err();
    let [one] = wrong.all() else { panic!("{wrong}") };
    format!("{}:{}:{} {}: {}", one.file, one.line, one.column, one.path, one.message)
}

#[test]
fn a_tilde_takes_a_key_away_that_is_there() {
    let model =
        |value: &str| load(&format!("{GOOD}seed: 5\n"), &[("seed", value)]).map(|scenario| scenario.seed);
    assert_eq!((model("7").unwrap(), model("~").unwrap()), (7, load(GOOD, &[]).unwrap().seed));
    assert_eq!(set("kv", "~"), "--set kv:1:4 kv: no value where a single value is expected");
    assert_eq!(set("policy", "~"), "good.yaml:1:1 : `policy` is missing");
    let tiers = |set: &[(&str, &str)]| load(GOOD, set).unwrap().machine.tiers.len();
    let gone = [("machine.tiers.nvme", "~"), ("machine.links.disk", "~")];
    assert_eq!(tiers(&gone), tiers(&[]) - 1);
}

#[test]
fn overrides_are_located_on_the_command_line() {
    let wrong = load(GOOD, &[("memory.hbm", "lots")]).map(|_| ()).unwrap_err();
    let expected = str![[r#"
error: memory.hbm: `lots` does not start with a decimal number
 --> --set memory.hbm:1:12
  |
1 | memory.hbm=lots
  |            ^^^^
  |
  = help: a size with its unit, such as `6 GiB`
"#]];
    assert_data_eq!(wrong.to_string(), expected);
    assert_eq!(set("mem.hbm", "6 GiB"), "--set mem.hbm:1:1 mem: unknown key `mem`");
    assert_eq!(set("seed", ""), "--set seed:1:6 seed: no value where a single value is expected");
    assert_eq!(
        set("policy.predictive.horizon", "3"),
        "--set policy.predictive.horizon:1:1 policy: it is `lru`, which has no `predictive`"
    );
    assert_eq!(set("memory..hbm", "3"), "--set memory..hbm:1:1 memory..hbm: an empty key");
    assert!(set("policy", "{ lru: ").starts_with("--set policy:1:8 : not YAML"));
    assert!(
        set("machine.tiers.hbm.capacity", "80")
            .starts_with("--set machine.tiers.hbm.capacity:1:28 tiers.hbm.capacity: `80` has no unit")
    );
    assert!(set("model.num_hidden_layers", "0").contains("num_hidden_layers: zero"));
    let both =
        [("policy", "predictive"), ("policy.predictive.horizon", "8"), ("workload.limit_tokens", "10")];
    let scenario = load(GOOD, &both).unwrap();
    assert_eq!((scenario.policy.params["horizon"], scenario.workload.limit_tokens), (8.0, Some(10)));
}

#[test]
fn an_item_of_a_list_can_be_set() {
    let ends = |path: &str, value: &str| {
        load(GOOD, &[("machine.links.disk.between", "[dram, nvme]"), (path, value)])
    };
    let swapped = ends("machine.links.disk.between[0]", "hbm").unwrap();
    let disk = swapped.machine.links.iter().find(|link| link.name == "disk").unwrap();
    assert_eq!(swapped.machine.tier(disk.from).name, "hbm");
    let wrong = |path: &str| {
        let wrong = ends(path, "hbm").map(|scenario| panic!("loads: {scenario:?}")).unwrap_err();
        format!("{}:{} {}", wrong.all()[0].line, wrong.all()[0].column, wrong.all()[0].message)
    };
    assert_eq!(wrong("machine.links.disk.between[2]"), "1:1 its items are 0 to 1: there is no item 2");
    assert_eq!(wrong("machine.links[0]"), "1:1 it is a map, which has no item 0");
    assert_eq!(wrong("encoded[0]"), "1:1 it is empty, and has no item 0");
    for path in [
        "encoded[]",
        "encoded[0",
        "encoded[x]",
        "encoded[-1]",
        "encoded[0]x",
        "encoded[99999999999999999999]",
    ] {
        assert!(wrong(path).contains("is no item of a list"), "{path}: {}", wrong(path));
    }
    let deep = vec!["a"; 60_000].join(".");
    assert!(wrong(&deep).ends_with("a path of more than 32 steps"));
    // One value that stands for a list is its only item.
    assert!(load(GOOD, &[("encoded", "int9"), ("encoded[0]", "int8")]).is_ok());
    assert_eq!(
        set("workload.routing", "{ trace: a.npz }"),
        "--set workload.routing:1:27 workload.routing.trace: no file at a.npz"
    );
}

#[test]
fn paths_may_have_variables() {
    let trace = |path: &str| set("workload.routing", &format!("{{ trace: '{path}' }}"));
    let unset = trace("${HOTSET_NO_SUCH_VARIABLE}/a.npz");
    assert!(unset.contains("HOTSET_NO_SUCH_VARIABLE is not set in the environment"), "{unset}");
    assert!(trace("data/${HOTSET_NO_SUCH_VARIABLE}.npz").contains("is not set in the environment"));
    assert!(trace("${HOTSET_DATA/a.npz").contains("a `${` without its `}`"));
    for name in ["", "1", "A B", "A-B", "\u{e9}"] {
        let path = format!("a/${{{name}}}/b.npz");
        assert!(trace(&path).contains("names no variable"), "{}", trace(&path));
    }
    // One that every test run has.
    let manifest = load(GOOD, &[("workload.fit", "'${CARGO_MANIFEST_DIR}/Cargo.toml'")]).unwrap();
    assert_eq!(manifest.workload.fit, [std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")]);
    let missing = told(&[("workload.routing", "{ trace: '${HOTSET_DATA}/no-such.npz' }")]);
    assert!(missing.contains("no file at") && missing.contains("set HOTSET_DATA to the folder"), "{missing}");
    let hint = told(&[("machine", "'${HOTSET_NO_SUCH_VARIABLE}'")]);
    assert!(hint.contains("set it: `export HOTSET_NO_SUCH_VARIABLE=/a/folder`"), "{hint}");
}
