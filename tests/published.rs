//! Runs that others published, from their bytes, rates and routing statistics.

use crate::ROOT;
use sim::{Case, Keep, Summary, resolve::resolve_policy};
use std::path::Path;

/// MER's two runs: slots, read rate, hit rate, stall and total in seconds.
const MER: [(&str, &str, f64, f64, f64); 2] =
    [("1536 slots", "368.4 MB/s", 0.719, 231.9, 292.1), ("768 slots", "332.2 MB/s", 0.5304, 430.0, 486.9)];

#[test]
fn mer_s_runs_take_as_long_as_published() {
    let path = Path::new(ROOT).join("scenarios/mer-qwen3-coder-30b.yaml");
    for (slots, rate, hit_rate, stall, total) in MER {
        let overrides =
            [("memory.ram", slots), ("machine.tiers.ssd.read", rate), ("machine.links.disk.forward", rate)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let scenario = scenarios::load(&path.display().to_string(), &overrides, &sim::resolve::check_policy);
        let scenario = scenario.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)));
        let case = Case::from_scenario(&scenario).unwrap();
        assert_eq!((case.model.blocks.len(), case.model.largest_block().0), (6144, 5_013_504));
        let (entry, params) = resolve_policy(&scenario.policy.name, &scenario.policy.params).unwrap();
        let outcome = case.run(entry, &params, Keep::default(), |_| {}).unwrap();
        let summary = Summary::new(&case, &outcome, entry.name, 0.0);
        assert_eq!(outcome.orchestrator.tally().demanded, 60_672);
        println!(
            "{slots}: hits {:.2} % ({:.2}), stall {:.1} s ({stall}), total {:.1} s ({total})",
            summary.hit_rate * 100.0,
            hit_rate * 100.0,
            summary.stall_s(),
            summary.simulated_s
        );
        let off = |ours: f64, theirs: f64| (ours / theirs - 1.0).abs();
        assert!(off(summary.hit_rate, hit_rate) < 0.01);
        assert!(off(summary.stall_s(), stall) < 0.05 && off(summary.simulated_s, total) < 0.05);
    }
}

/// A GPU of mixtral-offloading's table: its name, its memory's and its link's rate in GB/s, slots, the launch fitted to the first
/// column, and tokens a second: with everything, without loading ahead, without caches, naively.
type Offloading = (&'static str, u32, f64, u32, &'static str, [f64; 4]);

/// arXiv 2312.17238, table 2.
const MIXTRAL_OFFLOADING: [Offloading; 3] = [
    ("T4", 269, 11.9, 132, "6.6 ms", [2.09, 1.57, 1.17, 0.66]),
    ("RTX 3060", 302, 24.8, 68, "6.1 ms", [2.28, 2.05, 1.55, 0.92]),
    ("RTX 3080 Mobile", 376, 24.8, 132, "5.4 ms", [2.66, 2.23, 1.76, 1.06]),
];

/// What each column leaves out, beside what the column before does.
const COLUMNS: [&[(&str, &str)]; 4] = [
    &[],
    &[("policy.mixtral_offloading.speculate", "0")],
    &[("policy.mixtral_offloading.speculate", "0"), ("memory.gpu", "4 slots")],
    &[
        ("policy.mixtral_offloading.speculate", "0"),
        ("memory.gpu", "8 slots"),
        ("model.num_experts_per_tok", "8"),
    ],
];

#[test]
fn mixtral_offloading_gains_what_it_published() {
    let path = Path::new(ROOT).join("scenarios/mixtral-offloading.yaml");
    for (gpu, memory, link, slots, launch, theirs) in MIXTRAL_OFFLOADING {
        let (memory, link) = (format!("{memory} GB/s"), format!("{link} GB/s"));
        let slots = format!("{slots} slots");
        let machine = [
            ("machine.tiers.gpu.read", memory.as_str()),
            ("machine.accelerator.read", &memory),
            ("machine.links.pcie.forward", &link),
            ("machine.accelerator.launch", launch),
            ("memory.gpu", &slots),
        ];
        let ours = COLUMNS.map(|column| {
            let set =
                machine.iter().chain(column).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let set: Vec<_> = set.collect();
            let scenario = scenarios::load(&path.display().to_string(), &set, &sim::resolve::check_policy);
            let scenario = scenario.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)));
            let case = Case::from_scenario(&scenario).unwrap();
            let (entry, params) = resolve_policy(&scenario.policy.name, &scenario.policy.params).unwrap();
            let outcome = case.run(entry, &params, Keep::default(), |_| {}).unwrap();
            Summary::new(&case, &outcome, entry.name, 0.0).output_throughput_tok_s
        });
        println!("{gpu}: {ours:.2?} ({theirs:.2?})");
        assert!(ours.is_sorted_by(|more, less| more > less), "{gpu}");
        for (simulated, published) in ours.iter().zip(theirs) {
            let (simulated, published) = (simulated / ours[0], published / theirs[0]);
            assert!(
                (simulated / published - 1.0).abs() < 0.2,
                "{gpu}: {simulated:.3} of all, {published:.3}"
            );
        }
    }
}
