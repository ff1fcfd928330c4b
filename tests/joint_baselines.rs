//! Published policies of precision, of host compute and of sized caches behave as published.

use crate::ROOT;
use crate::small::Small;
use policy::record::Action;
use policy::registry::lookup;
use policy::state::State;
use policy::tally::Tally;
use scenarios::Length;
use sim::{Case, Keep};
use std::collections::BTreeMap;
use std::path::Path;

/// What a policy's run of a case has counted.
fn counted(case: &Case, name: &str, given: &[(&str, f64)]) -> Tally {
    let entry = lookup(name).unwrap();
    let given: BTreeMap<String, f64> = given.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    let params = entry.resolve(&given).unwrap();
    case.run(entry, &params, Keep::default(), |_| {}).unwrap().orchestrator.tally().clone()
}

fn stall(case: &Case, name: &str) -> f64 {
    counted(case, name, &[]).stall_total().as_secs_f64()
}

fn hit_rate(tally: &Tally) -> f64 {
    tally.hits() as f64 / tally.demanded as f64
}

/// A model with a few popular experts.
fn skewed() -> Small {
    Small { experts: 16, layers: 6, slots: 30, skew: 1.2, tokens: 300, ..Small::default() }
}

/// The mixtral scenario at a drift budget.
fn mixtral(budget: &str) -> Case {
    let path = Path::new(ROOT).join("scenarios/mixtral-8x7b-4090.yaml");
    let set = [("workload.limit_tokens", "300"), ("guard.drift_budget", budget)];
    let set = set.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let scenario = scenarios::load(&path.display().to_string(), &set, &sim::resolve::check_policy);
    Case::from_scenario(&scenario.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)))).unwrap()
}

/// Formats chosen together with places beat places alone, the more the budget allows.
#[test]
fn a_joint_plan_beats_a_fixed_set() {
    let stalls = ["0 %", "1 %", "3 %"].map(|budget| {
        let case = mixtral(budget);
        let tally = counted(&case, "static_joint", &[]);
        println!("{budget}: {} s of {} s", tally.stall_total().as_secs_f64(), stall(&case, "static"));
        tally.stall_total().as_secs_f64() / stall(&case, "static")
    });
    assert!(stalls[0] < 1.0 && stalls[1] < 0.8 * stalls[0] && stalls[2] < 0.8 * stalls[1], "{stalls:?}");
}

/// Where all low copies fit, steps hardly wait, and the hottest are read in high precision.
#[test]
fn dyna_exq_keeps_everything_at_hand_and_the_hottest_in_full() {
    let small = Small { slots: 26, encoded: &["int8"], drift_budget: 60.0, skew: 1.2, ..Small::default() };
    let tally = counted(&Small { tokens: 600, ..small }.case(), "dyna_exq", &[]);
    let full = tally.hits_by_state[State::Full as usize] as f64 / tally.demanded as f64;
    println!("{} at hand, {full} in full precision", hit_rate(&tally));
    // Two of eight experts a layer are in high precision: hot ones, if they serve much more than a quarter.
    assert!(hit_rate(&tally) > 0.95 && full > 0.4);
}

/// With memory for all in low precision the ledger goes to precision; without a low precision, to residency.
#[test]
fn dyna_byte_spends_its_bytes_where_they_save() {
    let small = Small { slots: 26, encoded: &["int8"], drift_budget: 60.0, skew: 1.2, ..Small::default() };
    let tally = counted(&Small { tokens: 600, ..small }.case(), "dyna_byte", &[]);
    println!("{} at hand", hit_rate(&tally));
    assert!(hit_rate(&tally) > 0.95);
    // Less than one token's blocks: least recently used keeps nothing until it is asked for again.
    let case = Small { slots: 11, ..skewed() }.case();
    let (ledger, lru) = (stall(&case, "dyna_byte"), stall(&case, "lru"));
    println!("{ledger} s in full precision, LRU {lru} s");
    assert!(ledger < 0.9 * lru);
}

/// A miss goes where it is done first: to the host where the link is slow, over the link where that is fast.
#[test]
fn fiddler_sends_misses_where_they_are_done_first() {
    let hosted = |link| {
        let tally = counted(&Small { host: true, link, ..skewed() }.case(), "fiddler", &[]);
        tally.hosted as f64 / (tally.demanded - tally.hits()) as f64
    };
    let (slow, fast) = (hosted(0.5), hosted(50.0));
    println!("{slow} of the misses on the host with a slow link, {fast} with a fast one");
    // On the slow link too a member's first demand is a copy.
    assert!(slow > 0.9 && fast == 0.0);
}

/// The order of the source's table: frequency before the others; an update after a prompt makes up for a bad placement.
#[test]
fn ktransformers_places_by_frequency_best() {
    let case = Small { host: true, ..skewed() }.case();
    let rates = [0.0, 1.0, 2.0, 3.0].map(|placement| {
        let tally = counted(&case, "ktransformers", &[("placement", placement)]);
        // Every miss but a member's first is computed by the host.
        assert!(tally.hosted + tally.hits() + u64::from(skewed().slots) >= tally.demanded);
        hit_rate(&tally)
    });
    println!("uniform, frequency, front-loading, random: {rates:?}");
    assert!([0, 2, 3].iter().all(|&other| rates[1] > 1.2 * rates[other]), "{rates:?}");
    let mut prompts = case;
    (prompts.prompt_tokens, prompts.prefill_chunk) = (Length::Fixed(600), Some(600));
    let updated =
        |on| hit_rate(&counted(&prompts, "ktransformers", &[("placement", 0.0), ("dynamic_update", on)]));
    println!("uniform {} and updated {}", updated(0.0), updated(1.0));
    assert!(updated(1.0) > 1.2 * updated(0.0));
}

/// Link and host of one rate take half of the misses each.
#[test]
fn free_token_splits_misses_by_rate() {
    let small = Small { slots: 9, experts: 16, selected: 4, hidden: 256, ..Small::default() };
    let case = |host| Small { width: 512, link: 4.0, host, ..small.clone() }.case();
    let tally = counted(&case(true), "free_token", &[]);
    let share = tally.hosted as f64 / (tally.demanded - tally.hits()) as f64;
    let (split, lru) = (tally.stall_total().as_secs_f64(), stall(&case(false), "lru"));
    println!("{share} of the misses on the host; {split} s, LRU {lru} s");
    assert!((0.4..0.6).contains(&share) && split < 0.7 * lru);
    let (alone, lru) = (counted(&case(false), "free_token", &[]), counted(&case(false), "lru", &[]));
    assert_eq!(alone, lru, "without the host it is LRU");
}

/// Where everything misses, half of the second experts are left out: the quarter that its authors report.
#[test]
fn adap_moe_leaves_a_quarter_out() {
    let case = Small { slots: 2, drift_budget: 100.0, tokens: 400, ..Small::default() }.case();
    let tally = counted(&case, "adap_moe", &[]);
    let share = tally.skipped as f64 / (tally.demanded - tally.hits()) as f64;
    println!("{share} of the misses left out");
    assert!((0.22..0.28).contains(&share));
    assert_eq!(counted(&Small::default().case(), "adap_moe", &[]).skipped, 0, "no budget, nothing left out");
}

/// Loading two experts ahead helps on a slack link; as released nothing is loaded ahead.
#[test]
fn mixtral_offloading_loads_ahead_as_published_and_not_as_released() {
    let small = Small { experts: 16, layers: 6, slots: 70, hidden: 256, width: 512, ..Small::default() };
    let case = Small { link: 200.0, chunk: 1 << 20, tokens: 400, lookahead: &[100], ..small }.case();
    let (published, released) = (
        counted(&case, "mixtral_offloading", &[]),
        counted(&case, "mixtral_offloading", &[("speculate", 0.0)]),
    );
    println!("{:?} as published, {:?} as released", published.stall_total(), released.stall_total());
    assert!(published.speculations_used > 0 && released.speculations == 0);
    assert!(published.stall_total().0 * 10 < released.stall_total().0 * 6);
}

/// Layers have one share each, and lend what they do not use: the one furthest above its share gives first.
#[test]
fn a_layer_above_its_share_gives_first() {
    let case = Small { layers: 4, slots: 12, tokens: 200, ..Small::default() }.case();
    let entry = lookup("mixtral_offloading").unwrap();
    let keep = Keep { decisions: true, ..Keep::default() };
    let (mut held, mut given) = ([0i32; 4], 0);
    case.run(entry, &[0.0], keep, |decision| {
        let layer = case.model.block(decision.block).layer.index();
        match decision.action {
            Action::Fetch => held[layer] += 1,
            Action::Evict => {
                // Two for each layer and four beside them; the layer that gives has the most.
                let most = held.iter().max().unwrap();
                assert!(held[layer] >= most - 1, "{held:?}, given by {layer}");
                held[layer] -= 1;
                given += 1;
            }
            _ => {}
        }
    })
    .unwrap();
    assert!(given > 100);
}
