//! The shipped machines: every number says where it comes from, and the derived ones give back what was measured.

use policy::machine::{Class, Link};
use policy::path::Paths;
use policy::{Bandwidth, Bytes, Machine, Nanos, TierId};
use std::path::Path;

const NAMES: [&str; 16] = [
    "a100-80g",
    "b200",
    "cxl-host",
    "cxl-pnm",
    "cxl-pool",
    "epyc-2core-vm",
    "gh200",
    "h100-nodes",
    "h100-pcie",
    "h100-sxm-pair",
    "h100-sxm",
    "h100-two-nodes",
    "h200",
    "rtx-4090",
    "rtx-5090",
    "rtx-pro-6000",
];
const KINDS: [&str; 4] = ["measured", "spec", "derived", "choice"];

fn shipped(name: &str) -> Machine {
    scenarios::machine(name).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// The direction of a link that `between` writes first.
fn forward<'m>(machine: &'m Machine, name: &str) -> &'m Link {
    machine.links.iter().find(|link| link.name == name).unwrap()
}

fn tier(machine: &Machine, name: &str) -> TierId {
    TierId(machine.tiers.iter().position(|tier| tier.name == name).unwrap() as u8)
}

/// What a copy takes on an idle link.
fn alone(link: &Link, bytes: u64) -> Nanos {
    link.latency + link.submit + link.rate.time_for(Bytes(bytes))
}

fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found / expected - 1.0).abs() <= tolerance, "{found} for {expected}");
}

#[test]
fn all_machines_load_under_their_names() {
    let machines = scenarios::machines().unwrap_or_else(|wrong| panic!("{wrong}"));
    let names: Vec<_> = machines.iter().map(|machine| machine.name.as_str()).collect();
    assert_eq!(names, NAMES);
    for machine in &machines {
        assert_eq!(machine.tiers_of(Class::Fast).count(), 1);
        let fast = machine.tiers_of(Class::Fast).next().unwrap();
        assert!(machine.tier(fast).read >= machine.accelerator.read, "{}", machine.name);
        let paths = Paths::new(machine);
        for (index, link) in machine.links.iter().enumerate() {
            let other = machine.link(link.opposite.unwrap());
            assert_eq!((other.from, other.to, &other.name), (link.to, link.from, &link.name));
            assert_eq!(other.opposite.unwrap().index(), index);
            assert!(link.duplex <= link.rate.peak());
            // A link faster than the memories at its ends would never be seen to be.
            let ends = machine.tier(link.from).read.min(machine.tier(link.to).write);
            assert!(link.rate.peak() <= ends, "{}: {}", machine.name, link.name);
        }
        for tier in (0..machine.tiers.len() as u8).map(TierId).filter(|&tier| tier != fast) {
            assert!(paths.between(tier, fast).is_some() && paths.between(fast, tier).is_some());
        }
    }
}

/// Whether a comment names a kind: `# measured: ...`, `# derived from ...`.
fn names_a_kind(line: &str) -> bool {
    let comment = line.split_once('#').map_or("", |(_, comment)| comment.trim());
    KINDS.iter().any(|kind| comment.starts_with(kind))
}

/// Lines with a number whose kind neither they say, nor the key they stand under, nor a comment above them at their depth.
fn unsourced(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    // What has been said so far at each depth; deeper entries end where a line stands further out.
    let mut said: Vec<(usize, bool)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let depth = line.len() - line.trim_start().len();
        said.retain(|&(other, _)| other <= depth);
        let covered = said.iter().any(|&(_, kind)| kind);
        if line.trim_start().starts_with('#') {
            said.push((depth, names_a_kind(line)));
            continue;
        }
        let data = line.split_once('#').map_or(line, |(data, _)| data);
        let value = data.split_once(": ").map_or("", |(_, value)| value);
        let number = value.trim_start().starts_with(|first: char| first.is_ascii_digit() || first == '{');
        if number && !covered && !names_a_kind(line) {
            wrong.push(line.to_owned());
        }
        if data.trim_end().ends_with(':') {
            said.retain(|&(other, _)| other < depth);
            said.push((depth, names_a_kind(line)));
        }
    }
    wrong
}

#[test]
fn every_number_of_a_machine_says_what_it_is() {
    for name in NAMES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("machines/{name}.yaml"));
        let wrong = unsourced(&std::fs::read_to_string(path).unwrap());
        assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    }
    // The check itself sees what is not said.
    let text = "a:  # measured: x\n  b: 1 GB\nc:\n  d: 2 GB  # choice\n  e: 3 GB\nf: { g: 1 }\n";
    assert_eq!(unsourced(text), ["  e: 3 GB", "f: { g: 1 }"]);
}

#[test]
fn storage_gives_back_the_three_figures_it_was_derived_from() {
    // SPDK: 82.6 us for one 4 KiB read, 555 K of them a second and 5.86 GiB/s at 144 KiB with 128 under way.
    for name in ["h100-sxm", "h100-pcie", "h200", "b200", "a100-80g", "rtx-5090", "gh200"] {
        let machine = shipped(name);
        let disk = forward(&machine, "disk");
        close(alone(disk, 4096).0 as f64, 82_600.0, 0.001);
        let most = |bytes: u64| {
            let shared = 1.0 / disk.rate.time_for(Bytes(bytes)).as_secs_f64();
            shared.min(f64::from(disk.engines) / alone(disk, bytes).as_secs_f64())
        };
        assert_eq!(disk.engines, 128);
        close(most(4096), 555_000.0, 0.005);
        close(most(144 << 10) * f64::from(144 << 10), 5.86 * f64::from(1 << 30), 0.005);
    }
}

/// Bytes of copies, and the microseconds each took.
type Timed = &'static [(u64, f64)];

#[test]
fn links_give_back_the_copies_that_were_timed() {
    // Pinned copies: bytes and microseconds of the size sweeps, and the reads of five drives straight to the GPU.
    let timed: [(&str, &str, Timed); 3] = [
        ("rtx-4090", "pcie", &[(1 << 20, 46.58), (4 << 20, 177.95), (16 << 20, 703.45)]),
        ("rtx-5090", "pcie", &[(884_736, 27.3)]),
        (
            "rtx-pro-6000",
            "gds",
            &[(512_000_000, 10_200.0), (1_237_000_000, 24_700.0), (2_048_000_000, 40_700.0)],
        ),
    ];
    for (machine, link, points) in timed {
        let machine = shipped(machine);
        for &(bytes, microseconds) in points {
            close(alone(forward(&machine, link), bytes).0 as f64 / 1000.0, microseconds, 0.025);
        }
    }
}

#[test]
fn the_expander_reaches_the_gpu_through_the_host() {
    let machine = shipped("cxl-host");
    let (hbm, cxl) = (tier(&machine, "hbm"), tier(&machine, "cxl"));
    let paths = Paths::new(&machine);
    let path = paths.between(cxl, hbm).unwrap();
    let slowest = machine.tier(cxl).read;
    assert_eq!(slowest, Bandwidth(17_800_000_000));
    close(path.transfer(Bytes(1 << 30)).0 as f64, slowest.time_for(Bytes(1 << 30)).0 as f64, 0.001);
}

#[test]
fn every_model_has_a_scenario_on_a_machine_that_holds_it() {
    let machines = scenarios::machines().unwrap();
    for model in scenarios::models().unwrap() {
        let routing =
            if model.selected == model.blocks_per_layer { "{ dense: {} }" } else { "{ zipf_markov: {} }" };
        let mut tried = Vec::new();
        let fits = machines.iter().any(|machine| {
            let text = format!(
                "name: check\nmachine: {}\nmodel: {}\nmemory: {{ hbm: {} slots }}\nkv: 1 GiB\n\
                 workload: {{ routing: {routing} }}\npolicy: lru\n",
                machine.name,
                model.name,
                2 * model.selected,
            );
            let loaded = scenarios::load_text("check.yaml", &text, &[], &|_| Ok(()));
            tried.extend(loaded.as_ref().err().map(|wrong| wrong.to_string()));
            loaded.is_ok_and(|scenario| scenario.fast_budget() >= scenario.slot(scenario.fast()))
        });
        assert!(fits, "{}:\n{}", model.name, tried.join("\n"));
    }
}
