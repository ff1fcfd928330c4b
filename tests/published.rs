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
