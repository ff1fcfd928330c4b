//! Statistics against traces whose answers are known by hand, and recorded ones.

use crate::real::recorded;
use traces::{Format, Options, RoutingTrace, info, open, parse};

fn read(text: &str, experts: u32) -> RoutingTrace {
    let options = Options { experts: Some(experts), ..Options::default() };
    parse(text.as_bytes(), Format::Csv, None, &options).unwrap()
}

#[test]
fn a_small_trace_measures_as_counted_by_hand() {
    // One layer of four experts; 0 is used four times, 1 twice, 2 twice, 3 never.
    let trace = read("token,layer,e0,e1,p0,p1\n0,0,0,1,3,1\n1,0,0,2,1,1\n2,0,2,0,1,3\n3,0,0,1,3,1\n", 4);
    let info = info(&trace, false).unwrap();
    assert_eq!((info.tokens, info.accesses, info.distinct_blocks), (4, 8, 3));
    assert_eq!(info.popularity.top_10_percent, 0.5);
    assert_eq!(info.popularity.top_50_percent, 0.75);
    // Shared with the token before: {0}, {2, 0}, {0} of two each.
    assert!((info.overlap_with_previous_token.unwrap() - 2.0 / 3.0).abs() < 1e-12);
    let blocks: Vec<_> = info.working_set.iter().map(|set| set.blocks).collect();
    assert_eq!(blocks, [Some(2.0), Some(3.0), None, None, None, None]);
    // Independent tokens choose 0 always, 1 and 2 every other time.
    let independent = 1.0 + 2.0 * (1.0 - 0.5_f64.powi(4));
    assert!((info.working_set[1].independent_blocks - independent).abs() < 1e-12);
    // 0 comes back after one token, three times; 1 after three and 2 after one; three uses are the first.
    assert_eq!((info.reuse.first_uses, info.reuse.p50_tokens, info.reuse.p75_tokens), (0.375, Some(1), None));
    // Two slots, the step's own, serve four of the eight; three keep everything, and five is the most there is.
    let half = info.slots_for[0];
    assert_eq!((half.hit_rate, half.lru, half.bound), (0.5, Some(2), Some(2)));
    assert_eq!((info.slots_for[1].lru, info.slots_for[1].bound), (None, None));
    assert_eq!(info.mean_sorted_gates.unwrap(), [0.6875, 0.3125]);
}

#[test]
fn recorded_routing_uses_every_block_and_repeats_two_in_five() {
    let Some(path) = recorded("mmlu_validation.npz") else { return };
    let info = info(&open(path).unwrap(), false).unwrap();
    assert_eq!((info.traces, info.repetition_traces, info.tokens), (145, 47, 30_968));
    assert_eq!((info.accesses, info.distinct_blocks, info.blocks_per_token), (2_972_928, 768, 96.0));
    let overlap = info.overlap_with_previous_token.unwrap();
    assert!((0.4..0.5).contains(&overlap), "{overlap}");
    assert_eq!(info.gates, None);
}

/// Two layers of eight experts, one each. Layer 0 goes round; layer 1 repeats layer 0, three later.
fn clockwork(tokens: usize) -> RoutingTrace {
    let rows = (0..tokens).map(|token| format!("{token},0,{}\n{token},1,{}\n", token % 8, (token + 3) % 8));
    read(&format!("token,layer,e0\n{}", rows.collect::<String>()), 8)
}

#[test]
fn a_clockwork_is_foreseen_and_its_popularity_says_nothing() {
    let known = info(&clockwork(4_000), false).unwrap().predictability.unwrap();
    assert!((known.by_popularity - 0.125).abs() < 0.001, "{known:?}");
    let layers: Vec<_> = known.by_layers_ahead.iter().map(|ahead| (ahead.layers, ahead.recall)).collect();
    assert_eq!(layers, [(1, 1.0), (2, 1.0)]);
    // One token leaves nothing to test on.
    assert_eq!(
        info(&clockwork(1), false).unwrap().predictability.map(|known| known.by_layers_ahead.len()),
        None
    );
}

#[test]
fn choices_without_a_memory_are_not_foreseen() {
    let params = traces::generate::Params {
        tokens_per_trace: 2_000,
        stickiness: 0.0,
        coupling: 0.0,
        ..traces::generate::SAMPLE
    };
    let info = info(&traces::generate(&params).unwrap(), false).unwrap();
    let known = info.predictability.unwrap();
    for ahead in &known.by_layers_ahead {
        assert!((ahead.recall - known.by_popularity).abs() < 0.03, "{known:?}");
    }
    for window in info.working_set.iter().filter(|window| window.windows > 50) {
        let share = window.blocks.unwrap() / window.independent_blocks;
        assert!((share - 1.0).abs() < 0.02, "{window:?}");
    }
    assert!(info.reading.iter().any(|sentence| sentence.contains("little to go by")), "{:?}", info.reading);
    assert!(info.reading.iter().any(|sentence| sentence.contains("no favourites")), "{:?}", info.reading);
}

#[test]
fn recorded_routing_is_foreseen_and_has_favourites() {
    let Some(path) = recorded("mmlu_test_a.npz") else { return };
    let info = info(&open(path).unwrap(), false).unwrap();
    let known = info.predictability.unwrap();
    // An online model that sees more reaches .755 one layer ahead and .573 one token ahead on this split.
    let recalls: Vec<f64> = known.by_layers_ahead.iter().map(|ahead| ahead.recall).collect();
    assert!(recalls.is_sorted_by(|a, b| a > b), "{known:?}");
    assert!((0.55..0.755).contains(&recalls[0]) && (0.4..0.573).contains(&recalls[4]), "{known:?}");
    assert!(known.by_popularity < 0.35, "{known:?}");
    let words = info.reading.join(" ");
    for text in ["within 2 tokens", "something to go by", "a request has favourites", "weak guide"] {
        assert!(words.contains(text), "`{text}` is not in: {words}");
    }
}
