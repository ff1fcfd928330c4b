//! The generator does what its parameters say, and the shipped sample is its output.

use traces::generate::{Params, SAMPLE, generate};
use traces::hrt::{self, GateWidth};
use traces::{Problem, info};

const PLAIN: Params = Params {
    layers: 4,
    experts: 32,
    top_k: 1,
    traces: 4,
    tokens_per_trace: 5_000,
    skew: 1.0,
    stickiness: 0.0,
    coupling: 0.0,
    kinds: 1,
    specialisation: 0.0,
    favourites: 0.0,
    gates: false,
    seed: 1,
    draws: 0,
};

/// The share of the most popular tenth, quarter and half of ranks under weights r^-skew.
fn zipf_shares(experts: u32, skew: f64) -> [f64; 3] {
    let weight = |rank: u32| libm::pow(rank as f64, -skew);
    let total: f64 = (1..=experts).map(weight).sum();
    [experts.div_ceil(10), experts / 4, experts / 2].map(|top| (1..=top).map(weight).sum::<f64>() / total)
}

#[test]
fn single_choices_follow_the_zipf_law() {
    for skew in [0.0, 0.5, 1.0, 1.5] {
        let params = Params { skew, tokens_per_trace: 50_000, ..PLAIN };
        let info = info(&generate(&params).unwrap(), true).unwrap();
        let [_, quarter, half] = zipf_shares(32, skew);
        // 800,000 draws. Ranks are by the counts themselves: noise passes for skew, 0.014 at skew 0.
        assert!((info.popularity.top_25_percent - quarter).abs() < 0.01, "skew {skew}: {info:?}");
        assert!((info.popularity.top_50_percent - half).abs() < 0.01, "skew {skew}: {info:?}");
        assert!((info.zipf_exponent - skew).abs() < 0.03, "skew {skew}: {info:?}");
    }
}

#[test]
fn stickiness_is_the_overlap_where_chance_repeats_nothing() {
    // One choice among 32 equal ones repeats by chance once in 32 draws.
    for stickiness in [0.0, 0.4, 0.9] {
        let trace = generate(&Params { skew: 0.0, stickiness, ..PLAIN }).unwrap();
        let overlap = info(&trace, true).unwrap().overlap_with_previous_token.unwrap();
        let expected = stickiness + (1.0 - stickiness) / 32.0;
        assert!((overlap - expected).abs() < 0.01, "{overlap} for {expected}");
    }
}

#[test]
fn full_coupling_makes_each_layer_a_fixed_image_of_the_one_before() {
    let trace = generate(&Params { coupling: 1.0, ..PLAIN }).unwrap();
    for layer in 1..4 {
        let mut image = [None; 32];
        for row in 0..trace.tokens() {
            let (from, to) = (trace.selection(row, layer - 1)[0], trace.selection(row, layer)[0]);
            assert_eq!(*image[from as usize].get_or_insert(to), to);
        }
    }
    let independent = info(&generate(&PLAIN).unwrap(), true).unwrap();
    let coupled = info(&trace, true).unwrap();
    // The image of a popular expert is as popular: coupling leaves the popularity alone.
    assert!((independent.popularity.top_25_percent - coupled.popularity.top_25_percent).abs() < 0.02);
}

/// Parameters found by a search for the statistics that `trace info` measures on the recorded routing of gpt-oss-20b
/// (mmlu_validation), in its shape.
const LIKE_RECORDED: Params = Params {
    layers: 24,
    top_k: 4,
    traces: 60,
    tokens_per_trace: 214,
    skew: 0.77,
    stickiness: 0.09,
    kinds: 8,
    specialisation: 3.1,
    favourites: 2.9,
    ..PLAIN
};

#[test]
fn kinds_and_favourites_make_routing_like_the_recorded() {
    let seeds =
        [20, 21, 22].map(|seed| info(&generate(&Params { seed, ..LIKE_RECORDED }).unwrap(), true).unwrap());
    let mean = |of: &dyn Fn(&traces::Info) -> f64| seeds.iter().map(of).sum::<f64>() / seeds.len() as f64;
    let blocks = |tokens: usize| {
        mean(&|info| {
            let window = info.working_set.iter().find(|window| window.tokens == tokens);
            window.and_then(|window| window.blocks).unwrap()
        })
    };
    let foretold = |layers: usize| {
        mean(&|info| {
            let known = info.predictability.as_ref().unwrap();
            known.by_layers_ahead.iter().find(|ahead| ahead.layers == layers).unwrap().recall
        })
    };
    let near = |name: &str, made: f64, recorded: f64, share: f64| {
        println!("{name}: {made:.3}, recorded {recorded}");
        assert!((made / recorded - 1.0).abs() < share, "{name}: {made} for {recorded}");
    };
    near("Zipf exponent", mean(&|info| info.zipf_exponent), 0.671, 0.1);
    near("same as before", mean(&|info| info.overlap_with_previous_token.unwrap()), 0.439, 0.1);
    near("blocks in 16 tokens", blocks(16), 395.5, 0.1);
    near("blocks in 64 tokens", blocks(64), 534.1, 0.1);
    near("foretold a layer ahead", foretold(1), 0.614, 0.1);
    near("foretold four layers ahead", foretold(4), 0.554, 0.1);
}

#[test]
fn experts_that_specialise_foretell_each_other_and_favourites_keep_requests_together() {
    let measured = |specialisation, favourites| {
        let params = Params { specialisation, favourites, ..LIKE_RECORDED };
        let info = info(&generate(&params).unwrap(), true).unwrap();
        let ahead = info.predictability.unwrap().by_layers_ahead[0].recall;
        (ahead, info.working_set.iter().find(|window| window.tokens == 64).unwrap().blocks.unwrap())
    };
    let (plain, special, both) = (measured(0.0, 0.0), measured(3.0, 0.0), measured(3.0, 3.0));
    assert!(special.0 > plain.0 + 0.1, "{plain:?} {special:?}");
    assert!(both.1 < 0.9 * special.1, "{special:?} {both:?}");
}

#[test]
fn a_seed_and_a_trace_index_fix_a_trace() {
    let params = Params { top_k: 4, stickiness: 0.3, coupling: 0.3, tokens_per_trace: 50, ..PLAIN };
    let trace = generate(&params).unwrap();
    assert_eq!(trace, generate(&params).unwrap());
    assert_ne!(trace, generate(&Params { seed: 2, ..params.clone() }).unwrap());
    let fewer = generate(&Params { traces: 2, ..params }).unwrap();
    assert!(trace.raw_selections().starts_with(fewer.raw_selections()));
}

#[test]
fn every_expert_can_be_asked_for_at_any_skew() {
    let all = Params { experts: 300, top_k: 300, skew: 10.0, tokens_per_trace: 3, stickiness: 0.5, ..PLAIN };
    let info = info(&generate(&all).unwrap(), true).unwrap();
    assert_eq!(info.distinct_blocks, 4 * 300);
}

#[test]
fn impossible_parameters_are_refused() {
    for params in [
        Params { skew: f64::NAN, ..PLAIN },
        Params { skew: -1.0, ..PLAIN },
        Params { stickiness: 1.1, ..PLAIN },
        Params { coupling: -0.1, ..PLAIN },
        Params { favourites: f64::INFINITY, ..PLAIN },
        Params { traces: 0, ..PLAIN },
        Params { tokens_per_trace: 0, ..PLAIN },
    ] {
        let error = generate(&params).unwrap_err();
        assert!(matches!(*error.problem, Problem::Parameter { .. }), "{error}");
    }
    let error = generate(&Params { top_k: 33, ..PLAIN }).unwrap_err();
    assert!(matches!(*error.problem, Problem::Dimensions { .. }), "{error}");
    let error = generate(&Params { traces: u32::MAX, tokens_per_trace: u32::MAX, ..PLAIN }).unwrap_err();
    assert!(matches!(*error.problem, Problem::TooLarge { .. }), "{error}");
}

#[test]
fn the_shipped_sample_is_what_the_generator_makes() {
    let shipped = include_bytes!("../sample.hrt");
    let made = hrt::encode(&generate(&SAMPLE).unwrap(), GateWidth::F16).unwrap();
    assert!(made.as_slice() == shipped, "run the example `sample` if the generator was meant to change");
    assert!(shipped.len() < 200_000);
}
