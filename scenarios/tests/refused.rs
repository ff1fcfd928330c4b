//! Bad input: every error at once, each with its place, its path and what would be right.

use proptest::prelude::*;
use scenarios::{Diagnostics, PolicyChoice, PolicyComplaint, Scenario};
use snapbox::{assert_data_eq, str};
use std::time::Duration;

const GOOD: &str = "\
name: a model on a machine
machine: h100-sxm
model: mixtral-8x7b
workload: { routing: { zipf_markov: { skew: 0.8 } } }
policy: lru
";

fn registry(choice: &PolicyChoice) -> Result<(), PolicyComplaint> {
    let PolicyChoice { name, params, .. } = choice;
    let complaint = |key: Option<&str>, message: String, hint: &str| {
        Err(PolicyComplaint { key: key.map(str::to_owned), message, hint: Some(hint.to_owned()) })
    };
    match name.as_str() {
        "lru" | "predictive" => match params.keys().find(|key| *key != "horizon") {
            Some(key) => complaint(Some(key), format!("{name} has no `{key}`"), "did you mean `horizon`?"),
            None => Ok(()),
        },
        other => complaint(None, format!("no policy `{other}`"), "one of: lru, predictive"),
    }
}

fn load(text: &str, overrides: &[(&str, &str)]) -> Result<Scenario, Diagnostics> {
    let overrides: Vec<_> =
        overrides.iter().map(|(path, value)| (path.to_string(), value.to_string())).collect();
    scenarios::load_text("bad.yaml", text, &overrides, &registry)
}

/// `line:column path: message (hint)` for each error.
fn told(result: Result<Scenario, Diagnostics>) -> Vec<String> {
    let wrong = result.map(|scenario| panic!("loads: {scenario:?}")).unwrap_err();
    let hint = |hint: &Option<String>| hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
    let line = |one: &scenarios::Diagnostic| {
        format!("{}:{} {}: {}{}", one.line, one.column, one.path, one.message, hint(&one.hint))
    };
    wrong.all().iter().map(line).collect()
}

/// The one error of the good scenario with `extra` appended.
fn with(extra: &str) -> String {
    let mut told = told(load(&format!("{GOOD}{extra}"), &[]));
    assert_eq!(told.len(), 1, "{told:#?}");
    told.remove(0)
}

#[test]
fn all_errors_of_a_scenario_are_reported_at_once() {
    let text = "\
name: broken
machine: h100-smx
model: gpt-oss-20b
memroy: { hbm: 6 GiB }
memory: { hbm: -6 GiB, dram: 64 }
workload:
  routing: { trace: nowhere.npz }
  requests: { poisson: { rate: 4, batch: 0 } }
  limit_tokens: 100
  limit_tokens: 200
policy: { predictive: { horizon: soon } }
guard: { drift_budget: 3, floors: { experts: int4_g32, attention: bf61 } }
slo: { ttft: 2, percentile: 100 }
encoded: [int9]
seed: -7
";
    let expected = str![[r#"
2:10 machine: no machine called `h100-smx`, and no such file (did you mean `h100-sxm`?)
4:1 memroy: unknown key `memroy` (did you mean `memory`?)
5:16 memory.hbm: `-6 GiB` is negative (a size with its unit, such as `6 GiB`)
5:30 memory.dram: `64` has no unit (a size with its unit, such as `6 GiB`)
7:21 workload.routing.trace: no file at nowhere.npz (a path is relative to the file it is written in)
8:32 workload.requests.poisson.rate: `4` has no unit (an arrival rate with its unit, such as `4 /s`)
8:42 workload.requests.poisson.batch: zero (at least 1)
10:3 workload.limit_tokens: `limit_tokens` is given twice (line 9 gives it first: keep one)
11:34 policy.predictive.horizon: `soon` is no plain number (a number without a unit, such as 0.8)
12:24 guard.drift_budget: 3 is not between 0 and 1 (a fraction from 0 to 1 such as 0.02, or a percentage such as `2 %`)
12:37 guard.floors.experts: `experts` is no kind of block (did you mean `expert`?)
12:67 guard.floors.attention: `bf61` is no format (did you mean `bf16`?)
13:14 slo.ttft: `2` has no unit (a time with its unit, such as `1.4 us`)
13:29 slo.percentile: 100 is no percentile (more than 0 and less than 100, such as 99)
14:11 encoded[0]: `int9` is no format (did you mean `int8`?)
15:7 seed: -7 is negative (a whole number, 0 or more)
"#]];
    assert_data_eq!(told(load(text, &[])).join("\n"), expected);
}

#[test]
fn a_terminal_sees_the_line_and_the_hint() {
    let wrong = load(&GOOD.replace("h100-sxm", "h100-smx"), &[]).map(|_| ()).unwrap_err();
    let expected = str![[r#"
error: machine: no machine called `h100-smx`, and no such file
 --> bad.yaml:2:10
  |
2 | machine: h100-smx
  |          ^^^^^^^^
  |
  = help: did you mean `h100-sxm`?
"#]];
    assert_data_eq!(wrong.to_string(), expected);
    assert!(wrong.render(true).contains("\u{1b}["));
}

#[test]
fn a_line_that_no_terminal_shows_is_named_and_not_printed() {
    let keys: Vec<String> = (0..2_000).map(|n| format!("k{n}: bf61")).collect();
    let text = format!("{GOOD}guard: {{ floors: {{ {} }} }}\n", keys.join(", "));
    let wrong = load(&text, &[]).map(|_| ()).unwrap_err();
    let told = wrong.to_string();
    assert!(
        told.starts_with("error: bad.yaml:6:20: guard.floors.k0: `k0` is no kind of block\n"),
        "{}",
        &told[..200]
    );
    assert!(told.ends_with("more errors left out") && told.len() < 50_000, "{}", told.len());
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(
        told(load("name: x\n", &[])),
        [
            "1:1 : `machine` is missing (add `machine: h100-sxm`)",
            "1:1 : `model` is missing (add `model: gpt-oss-20b`)",
            "1:1 : `workload` is missing (add `workload: { routing: { trace: my-trace.npz } }`)",
            "1:1 : `policy` is missing (add `policy: predictive`)",
        ]
    );
    let no_routing = told(load(&GOOD.replace("{ routing: { zipf_markov: { skew: 0.8 } } }", "{}"), &[]));
    assert_eq!(no_routing.len(), 1);
    assert!(no_routing[0].starts_with("4:1 workload: `routing` is missing"), "{no_routing:?}");
    for empty in ["", "# only a comment\n", "\n\n"] {
        let told = told(load(empty, &[]));
        assert_eq!(told, ["0:0 : nothing in it (the quickstart scenario shows what to write)"]);
    }
    assert!(told(load("just words", &[]))[0].starts_with("1:1 : a map is expected"));
}

#[test]
fn yaml_that_cannot_be_read_is_located() {
    assert!(told(load("name: [x\n", &[]))[0].contains("not YAML"));
    assert!(with("---\nname: y\n").contains("a second document"));
    assert!(with("...\nname: y\n").contains("a second document"));
    assert!(with("seed: !!int 7\n").contains("a YAML tag"));
    assert!(with("? [a, b]\n: 1\n").contains("a key that is not a word"));
    assert!(with("slo: &loop [*loop]\n").contains("an alias of a node that contains it"));
    assert!(with("home: *nowhere\n").contains("not YAML"));
    assert!(with("seed: \0\n").contains("not YAML"));
    let merged = with("memory: { <<: { hbm: 6 GiB } }\n");
    assert!(merged.starts_with("6:11 memory: YAML's merge key is not part of the language"), "{merged}");
    let bare = with("fit: [${HOTSET_DATA}/a.npz]\n");
    assert!(bare.contains("between brackets a path with a variable is quoted"), "{bare}");
}

#[test]
fn a_tab_is_located_where_it_stands() {
    for (text, place) in [
        ("name: x\nmemory:\n\thbm: 6 GiB\n", "3:1 memory: not YAML: tabs"),
        ("name: x\n\tmachine: y\n", "2:1 name: not YAML: while scanning a plain scalar, found a tab"),
        ("memory:\n  hbm: 6 GiB\n  \tdram: 3 GiB\n", "3:3 memory.hbm: not YAML"),
    ] {
        let told = told(load(text, &[])).remove(0);
        assert!(told.starts_with(place) && told.contains("indent with spaces"), "{told}");
    }
    let apart = GOOD.replace("policy: lru", "policy:\tlru\t# a tab between words is a blank");
    assert!(load(&apart, &[]).is_ok());
}

#[test]
fn nesting_has_an_end() {
    for (open, close) in [("[", "]"), ("{ a: ", " }")] {
        let deep = format!("slo: {}{}\n", open.repeat(200), close.repeat(200));
        assert!(with(&deep).contains("nested more than 32 levels deep"));
        let unclosed = with(&format!("slo: {}\n", open.repeat(100_000)));
        assert!(unclosed.starts_with("6:"), "{unclosed}");
    }
    assert!(
        with(&format!("slo:\n  {}x\n", "- ".repeat(100_000))).contains("nested more than 32 levels deep")
    );
}

#[test]
fn a_text_may_come_from_any_editor() {
    let good = load(GOOD, &[]).unwrap();
    for text in
        [format!("\u{feff}{GOOD}"), GOOD.replace('\n', "\r\n"), format!("%YAML 1.2\n---\n{GOOD}...\n")]
    {
        assert_eq!(load(&text, &[]).unwrap().policy, good.policy);
    }
    let mac = told(load(&GOOD.replace("lru", "lur").replace('\n', "\r"), &[]));
    assert_eq!(mac, ["5:9 policy: no policy `lur` (one of: lru, predictive)"]);
    let windows = format!("\u{feff}{}", GOOD.replace("h100-sxm", "h100-smx").replace("lru", "lur"))
        .replace('\n', "\r\n");
    assert_eq!(
        told(load(&windows, &[])),
        [
            "2:10 machine: no machine called `h100-smx`, and no such file (did you mean `h100-sxm`?)",
            "5:9 policy: no policy `lur` (one of: lru, predictive)"
        ]
    );
}

#[test]
fn every_item_of_a_list_and_every_key_of_a_map_is_checked() {
    assert_eq!(
        told(load(
            &format!(
                "{GOOD}encoded: [int9, int8, bf16, int8]\nmemory: {{ hbm: 6, hbm: 7 GiB, vram: 0 B }}\n"
            ),
            &[]
        )),
        [
            "6:11 encoded[0]: `int9` is no format (did you mean `int8`?)",
            "6:23 encoded[2]: bf16 is the native format (home copies are in it anyway: leave it out)",
            "6:29 encoded[3]: listed twice (each format once)",
            "7:16 memory.hbm: `6` has no unit (a size with its unit, such as `6 GiB`)",
            "7:19 memory.hbm: `hbm` is given twice (line 7 gives it first: keep one)",
            "7:31 memory.vram: the machine has no tier `vram` (did you mean `dram`?)",
            "7:37 memory.vram: a size of zero (more than zero, such as `6 GiB`)",
        ]
    );
    // Links are checked though the tiers they join are not known.
    let broken = [("machine.tiers.hbm.capacity", "80"), ("machine.links.pcie.engines", "0")];
    assert_eq!(told(load(GOOD, &broken)).len(), 2);
}

#[test]
fn an_alias_bomb_is_refused_before_it_expands() {
    let mut bomb = String::from("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n");
    for (inner, outer) in ('a'..'j').zip('b'..='j') {
        bomb += &format!("{outer}: &{outer} [{}]\n", vec![format!("*{inner}"); 9].join(", "));
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(told(load(&bomb, &[]))));
    let told = receiver.recv_timeout(Duration::from_secs(10)).expect("refused within seconds");
    assert!(told[0].contains("more than 50000 values once aliases are expanded"), "{told:?}");
}

#[test]
fn an_alias_within_the_budget_is_a_value() {
    let text = GOOD.replace("machine: h100-sxm", "machine: &m h100-sxm");
    assert_eq!(load(&text, &[]).unwrap().machine.name, "h100-sxm");
    let seeds = format!("{GOOD}seed: &s 7\nguard: {{ window: *s }}\n");
    assert_eq!(load(&seeds, &[]).unwrap().guard.window, 7);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let refused = |path: &str| told(scenarios::load(path, &[], &registry)).remove(0);
    assert!(refused(&at("none.yaml")).contains("and no such file"));
    assert!(refused(&folder.path().display().to_string()).contains("is not a file"));
    assert!(refused("quickstrat").contains("did you mean `quickstart`?"));
    std::fs::write(at("latin1.yaml"), b"name: x\nmodel: \xe9\n").unwrap();
    assert!(refused(&at("latin1.yaml")).starts_with("2:8 : "), "{}", refused(&at("latin1.yaml")));
    std::fs::write(at("long.yaml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(refused(&at("long.yaml")).contains("is longer than 1048576 bytes"));
}

#[test]
fn policies_are_checked_by_their_registry() {
    let policy = |choice: &str| told(load(&GOOD.replace("policy: lru", &format!("policy: {choice}")), &[]));
    assert_eq!(policy("lur"), ["5:9 policy: no policy `lur` (one of: lru, predictive)"]);
    assert_eq!(
        policy("{ predictive: { horizn: 3 } }"),
        ["5:25 policy.predictive.horizn: predictive has no `horizn` (did you mean `horizon`?)"]
    );
    let two = policy("{ lru: {}, predictive: {} }");
    assert!(two[0].starts_with("5:20 policy: 2 given where one is chosen"), "{two:?}");
    let good = GOOD.replace("policy: lru", "policy: { predictive: { horizon: 32 } }");
    assert_eq!(load(&good, &[]).unwrap().policy.params["horizon"], 32.0);
}

#[test]
fn what_does_not_fit_says_how_much_is_missing() {
    assert_eq!(
        with("memory: { hbm: 3 GiB }\nkv: 0 B\n"),
        "6:16 memory.hbm: 3.00 GiB cannot hold one block of 336.00 MiB beside 2.99 GiB of resident weights and 0 B of \
         key-value cache: 326.51 MiB missing (more fast memory, a smaller `kv`, or a smaller batch)"
    );
    assert!(load(&format!("{GOOD}memory: {{ hbm: 1 slots }}\n"), &[]).is_ok());
    assert!(with("memory: { hbm: 300 slots }\n").contains("hbm has 80.00 GiB (at most 233 slots)"));
    assert!(with("memory: { hbm: 81 GiB }\n").contains("81.00 GiB is more than the 80.00 GiB that hbm has"));
    assert!(
        with("memory: { vram: 8 GiB }\n").starts_with("6:11 memory.vram: the machine has no tier `vram`")
    );
    assert_eq!(
        with("memory: { dram: 90 GiB }\nhome: dram\nencoded: [int8]\n").split(" (").next().unwrap(),
        "8:1 encoded: the home copies take 126.02 GiB: 36.02 GiB more than dram has"
    );
    let nowhere = with("memory: { dram: 1 GiB, nvme: 80 GiB }\n");
    assert!(
        nowhere.contains("holds the home copies: they take 84.00 GiB, 4.00 GiB more than nvme has"),
        "{nowhere}"
    );
    assert!(with("home: hbm\n").contains("the fast tier is no home"));
    let cold = load(&format!("{GOOD}memory: {{ dram: 8 GiB }}\n"), &[]).unwrap();
    assert_eq!(cold.machine.tier(cold.home.first()).name, "nvme");
}

#[test]
fn formats_kept_ahead_must_make_sense() {
    assert!(with("encoded: [bf16]\n").contains("bf16 is the native format"));
    assert!(with("encoded: [fp32]\n").contains("fp32 is no smaller than the native bf16"));
    assert!(with("encoded: [int8, int8]\n").contains("listed twice"));
    let packed = told(load(&GOOD.replace("mixtral-8x7b", "gpt-oss-20b"), &[("encoded", "[bf16_packed]")]));
    assert!(packed[0].contains("bf16_packed codes bf16, the blocks are mxfp4"), "{packed:?}");
    let table = "sensitivity: { int8: { error: 2 %, upper: 1 %, source: guess } }\n";
    assert!(with(table).starts_with("6:43 sensitivity.int8.upper: below `error`"), "{}", with(table));
    let unknown = "sensitivity: { int8: { error: 1 %, upper: 1 %, source: guess } }\nencoded: int4_g32\n";
    assert!(with(unknown).contains("the error of int4_g32 is unknown, so no drift budget can hold"));
}

#[test]
fn an_inline_machine_is_checked_like_a_file() {
    let tier = "{ class: staged, backing: pinned, capacity: 200 GiB, read: 100 GB/s, write: 100 GB/s }";
    let machine = |hbm: &str, ends: &str| {
        let link = format!(
            "between: {ends}, forward: 50 GB/s, backward: 50 GB/s, latency: 1 us, submit: 1 us, half_size: 0 B, \
             engines: 1, duplex: {{ forward: 60 GB/s, backward: 25 GB/s }}"
        );
        let inline = format!(
            "{{ name: mine, tiers: {{ hbm: {}, dram: {tier} }}, links: {{ pcie: {{ {link} }} }}, \
             accelerator: {{ flops: 1 PFLOP/s, read: 100 GB/s, launch: 1 us }} }}",
            tier.replace("staged", hbm)
        );
        GOOD.replace("h100-sxm", &inline)
    };
    let fast = told(load(&machine("fast", "[dram, hbm]"), &[]));
    assert!(
        fast[0].contains("machine.links.pcie.duplex.forward: faster than the 50.0 GB/s it has alone"),
        "{fast:?}"
    );
    let fixed = [("machine.links.pcie.duplex.forward", "25 GB/s")];
    assert_eq!(load(&machine("fast", "[dram, hbm]"), &fixed).unwrap().machine.name, "mine");
    let slow = told(load(&machine("cold", "[dram, hbm]"), &fixed));
    assert!(slow[0].contains("machine.tiers: no fast tier"), "{slow:?}");
    let looped = told(load(&machine("fast", "[dram, dram]"), &fixed));
    assert!(looped[0].contains("a link has two different ends"), "{looped:?}");
    let peer = |set: &[(&str, &str)]| {
        let set: Vec<_> =
            [fixed[0], ("machine.tiers.dram.backing", "device")].iter().chain(set).copied().collect();
        load(&machine("fast", "[dram, hbm]"), &set)
    };
    let held = peer(&[("machine.tiers.dram.device", "1")]).unwrap().machine;
    assert_eq!(held.tiers.iter().map(|tier| tier.device).collect::<Vec<_>>(), [None, Some(1)]);
    let on_host = told(peer(&[("machine.tiers.hbm.device", "1")]));
    assert!(
        on_host[0].contains("tiers.hbm.device: only memory of backing `device` is an accelerator's"),
        "{on_host:?}"
    );
    let computes = told(peer(&[("machine.tiers.hbm.backing", "device"), ("machine.tiers.hbm.device", "1")]));
    assert!(computes[0].contains("tiers.hbm.device: the fast tier is the memory of"), "{computes:?}");
    let many = told(peer(&[("machine.tiers.dram.device", "256")]));
    assert!(many[0].contains("256 is too large (at most 255, more than a machine has)"), "{many:?}");
    let typo = told(load(&machine("fast", "[drum, hbm]"), &fixed));
    assert!(typo[0].contains("the machine has no tier `drum` (did you mean `dram`?)"), "{typo:?}");
    let greedy = told(load(GOOD, &[("machine.accelerator.read", "2.9 TB/s")]));
    assert_eq!(
        greedy,
        [
            "1:26 accelerator.read: kernels read 2900.0 GB/s, more than the 2810.0 GB/s that hbm gives (at most \
          `tiers.hbm.read`: kernels and copies share it)"
        ]
    );
    let alone = told(load(GOOD, &[("machine.links", "{}")]));
    assert!(alone[0].contains("nothing links dram, nvme to hbm"), "{alone:?}");
}

#[test]
fn a_processor_of_a_memory_computes_from_memory_that_others_do_not_and_no_faster_than_it_gives() {
    let near = |tier: &str, read: &str| {
        let text = format!("{{ flops: 2 TFLOP/s, read: {read}, launch: 14 us }}");
        load(GOOD, &[(&format!("machine.tiers.{tier}.compute"), &text)])
    };
    let machine = near("nvme", "6 GB/s").unwrap().machine;
    assert_eq!(machine.near.iter().map(|near| near.name.as_str()).collect::<Vec<_>>(), ["host", "nvme"]);
    let wrong = |tier: &str, read: &str| told(near(tier, read)).join("\n");
    assert_data_eq!(
        wrong("hbm", "2 TB/s"),
        str![
            "[..]tiers.hbm.compute: the accelerator computes from the fast tier (leave it out: that is what `accelerator` says)"
        ]
    );
    assert_data_eq!(
        wrong("dram", "2 TB/s"),
        str![
            "[..]tiers.dram.compute.read: it reads 2000.0 GB/s, more than the [..] that dram gives (at most `tiers.dram.read`, which is what the memory gives inside: what leaves it is what its links carry)"
        ]
    );
    let typo = told(load(GOOD, &[("machine.tiers.dram.compute", "{ flops: 2 TFLOP/s, reads: 9 GB/s }")]));
    assert_eq!(typo.len(), 3, "{typo:?}");
    // What has a processor of its own is no longer the host's.
    let host = "{ compute: { flops: 1 TFLOP/s, read: 90 GB/s, launch: 9 us } }";
    let own = "{ flops: 2 TFLOP/s, read: 90 GB/s, launch: 14 us }";
    let tiers = |set: &[(&str, &str)]| {
        let machine = load(GOOD, set).unwrap().machine;
        machine.near.into_iter().map(|near| (near.name, near.tiers.len())).collect::<Vec<_>>()
    };
    assert_eq!(tiers(&[("machine.host", host)]), [("host".to_owned(), 1)]);
    let both = tiers(&[("machine.host", host), ("machine.tiers.dram.compute", own)]);
    assert_eq!(both, [("host".to_owned(), 0), ("dram".to_owned(), 1)]);
    let idle = told(load(
        GOOD,
        &[("machine.host", host), ("machine.tiers.dram.compute", own), ("host_compute", "true")],
    ));
    assert!(idle[0].contains("host_compute: h100-sxm has no staged memory for its host"), "{idle:?}");
    // Of several alike, each has its part of every block.
    let striped = |stripes: &str| {
        let set = [
            ("machine.tiers.nvme.stripes", stripes),
            (
                "machine.tiers.nvme.compute",
                "{ flops: 1 TFLOP/s, read: 6 GB/s, launch: 14 us, kernels: { int8: { 1: 5 GB/s } } }",
            ),
        ];
        let near = load(GOOD, &set).unwrap().machine.near.remove(1);
        (near.processor.flops.0, near.processor.read.0, near.kernels[0].points()[0].1.0)
    };
    let (one, four) = (striped("1"), striped("4"));
    assert_eq!(four, (4 * one.0, 4 * one.1, 4 * one.2));
}

proptest! {
    /// Any slip in a good scenario either still loads or is reported, and every report can be printed.
    #[test]
    fn no_edit_brings_the_loader_down(start in 0..GOOD.len(), length in 0..12usize, insert in "[ -~\t\n\u{e9}]{0,8}") {
        let end = (start + length).min(GOOD.len());
        let text = format!("{}{insert}{}", &GOOD[..start], &GOOD[end..]);
        if let Err(wrong) = load(&text, &[]) {
            prop_assert!(!wrong.all().is_empty());
            prop_assert!(!wrong.to_string().is_empty());
        }
    }
}

#[test]
fn phases_are_checked_matrix_by_matrix() {
    let model = "{ model_type: pipeline, torch_dtype: bfloat16, phases: {
  a: { tokens: { pixels: 8 }, layers: { blocks: { rows: 0, columns: 4 } } },
  b: { stpes: 2, tokens: 0, layers: { blocks: { rows: 4, columns: 4, kind: expert } } } } }";
    let text = GOOD.replace("mixtral-8x7b", model).replace("{ zipf_markov: { skew: 0.8 } }", "{ dense: {} }");
    assert_eq!(
        told(load(&text, &[])),
        [
            "4:16 model.phases.a.tokens: the model does not say how large its images are (add `image: { width: 1024, height: 1024 }`)",
            "4:57 model.phases.a.layers.blocks.rows: 0 is out of range (1 to 1048576)",
            "5:8 model.phases.b.stpes: unknown key `stpes` (did you mean `steps`?)",
            "5:26 model.phases.b.tokens: a sequence of zero tokens (at least 1)",
        ]
    );
}

#[test]
fn images_have_no_tokens_and_tenants_no_routers() {
    let images =
        GOOD.replace("mixtral-8x7b", "flux.1-dev").replace("{ zipf_markov: { skew: 0.8 } }", "{ dense: {} }");
    let one = |text: &str, extra: &str| {
        let told = told(load(&format!("{text}{extra}"), &[]));
        assert_eq!(told.len(), 1, "{told:#?}");
        told[0].clone()
    };
    let prompts = images.replace("{ dense: {} }", "{ dense: {} }, prompt_tokens: 9");
    assert!(one(&prompts, "").contains("workload.prompt_tokens: the model puts out no tokens"));
    let several = images.replace("{ dense: {} }", "{ dense: { tokens: 2 } }");
    assert!(
        one(&several, "")
            .contains("workload.routing.dense.tokens: each request of this model puts out one thing")
    );
    assert!(
        one(&images, "resident: { dense: true }\n").contains("a model with phases cannot be kept as a whole")
    );
    assert!(
        one(&images, "parallel: { tensor: 2 }\n")
            .contains("a model with phases on accelerators that work together")
    );
    let tenant =
        "tenants: { name: experts, model: mixtral-8x7b, workload: { routing: { zipf_markov: {} } } }\n";
    assert!(one(&images, tenant).contains("tenants.workload: a tenant with routed experts"));
}

#[test]
fn a_pipeline_without_phases_says_so() {
    let said = told(load(&GOOD.replace("mixtral-8x7b", "{ model_type: pipeline, phases: ~ }"), &[]));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("3:8 model: `phases` is missing"), "{said:?}");
}
