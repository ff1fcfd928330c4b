//! Traces like a recorded one, and traces of batches.

use crate::real::recorded;
use proptest::prelude::*;
use std::collections::BTreeSet;
use traces::generate::{Params, SAMPLE};
use traces::{Fitted, RoutingTrace, generate, info, likeness, open};

fn small(seed: u64, traces: u32, tokens: u32) -> RoutingTrace {
    let params = Params {
        layers: 3,
        experts: 8,
        top_k: 2,
        traces,
        tokens_per_trace: tokens,
        seed,
        stickiness: 0.5,
        ..SAMPLE
    };
    generate(&params).unwrap()
}

#[test]
fn a_fitted_router_keeps_popularity_and_repetition() {
    let recorded = small(1, 20, 100);
    let fitted = Fitted::new(&recorded, false).unwrap();
    let made = fitted.generate(&[100; 60], true, 5).unwrap();
    let [before, after] = [&recorded, &made].map(|trace| info(trace, false).unwrap());
    assert_eq!((after.tokens, after.traces, made.shape()), (6_000, 60, recorded.shape()));
    let close = |a: f64, b: f64, within: f64| assert!((a - b).abs() < within, "{a} {b}");
    close(before.zipf_exponent, after.zipf_exponent, 0.06);
    close(before.overlap_with_previous_token.unwrap(), after.overlap_with_previous_token.unwrap(), 0.03);
    close(before.popularity.top_25_percent, after.popularity.top_25_percent, 0.03);
    assert!(made.gate_origin().is_some());
    assert_eq!(fitted.generate(&[100; 60], true, 5).unwrap(), made);
    assert_ne!(fitted.generate(&[100; 60], true, 6).unwrap(), made);
}

#[test]
fn lengths_are_as_asked_or_as_recorded() {
    let fitted = Fitted::new(&small(1, 3, 10), false).unwrap();
    assert_eq!(fitted.lengths_for(None, None).unwrap(), [10, 10, 10]);
    assert_eq!(fitted.lengths_for(Some(5), Some(7)).unwrap(), [7; 5]);
    assert_eq!(fitted.lengths_for(Some(4), None).unwrap(), [10; 4]);
    for (traces, tokens) in [(Some(0), None), (None, Some(0)), (Some(u32::MAX), None)] {
        assert!(fitted.lengths_for(traces, tokens).unwrap_err().to_string().contains("expected 1 to"));
    }
    let much = fitted.lengths_for(Some(3), Some(u32::MAX)).unwrap();
    assert!(fitted.generate(&much, false, 0).unwrap_err().to_string().contains("selected experts"));
}

#[test]
fn pairs_of_too_many_experts_are_not_counted() {
    let wide = Params { layers: 1, experts: 5_000, top_k: 1, traces: 1, tokens_per_trace: 2, ..SAMPLE };
    let wide = generate(&wide).unwrap();
    assert!(Fitted::new(&wide, false).err().unwrap().to_string().contains("25000000 pairs of experts"));
    assert_eq!(info(&wide, false).unwrap().predictability, None);
}

#[test]
fn a_cache_can_hardly_tell_the_fitted_trace_from_the_recorded_one() {
    let Some(path) = recorded("mmlu_validation.npz") else { return };
    let trace = open(path).unwrap();
    let fitted = Fitted::new(&trace, false).unwrap();
    let made = fitted.generate(fitted.lengths(), false, 1).unwrap();
    for point in likeness(&trace, &made, false).unwrap() {
        // What decides who stays by who stayed makes chaos of small differences, as SIEVE's hand does.
        let most = match point.policy {
            "sieve" | "moe_infinity_released" | "w_tiny_lfu" => 20.0,
            "gdsf" | "lfu_decayed" | "least_stale" => 5.0,
            // It finds more in the recorded trace than the fit keeps of it.
            "predictive" => 5.0,
            _ => 2.0,
        };
        assert!(point.points().abs() <= most, "{point:?}");
    }
}

proptest! {
    #[test]
    fn a_batch_demands_what_its_requests_demand(
        seed in 0_u64..100, traces in 1_u32..6, tokens in 1_u32..8, batch in 1_u32..8,
    ) {
        let trace = small(seed, traces, tokens);
        let batched = trace.in_batches(batch).unwrap();
        // Every request has the same length: whole batches, and one of what is left.
        let steps = traces.div_ceil(batch) * tokens;
        prop_assert_eq!(batched.tokens(), steps as usize);
        for row in 0..batched.tokens() {
            let first = row / tokens as usize * batch as usize;
            let members = (first..(first + batch as usize).min(traces as usize))
                .map(|index| trace.trace(index).rows.start + row % tokens as usize);
            let members: Vec<usize> = members.collect();
            for layer in 0..3 {
                let all: BTreeSet<u16> =
                    members.iter().flat_map(|&row| trace.selection(row, layer)).copied().collect();
                let merged: BTreeSet<u16> = batched.selection(row, layer).iter().copied().collect();
                prop_assert_eq!(merged.len(), batched.selection(row, layer).len());
                prop_assert_eq!(merged, all);
            }
        }
    }
}

#[test]
fn a_place_in_the_batch_goes_to_the_next_request() {
    // Requests of 1, 3 and 2 tokens, each with its own expert, two at a time.
    let line = |request: u32, token: u32| {
        format!("{{\"layer\":0,\"token\":{token},\"topk_ids\":[{request}],\"req_id\":{request}}}\n")
    };
    let text: String = [(0, 1), (1, 3), (2, 2)]
        .iter()
        .flat_map(|&(request, tokens)| (0..tokens).map(move |token| line(request, token)))
        .collect();
    let read = |text: &str| {
        traces::parse(text.as_bytes(), traces::Format::Jsonl, None, &traces::Options::default()).unwrap()
    };
    let batched = read(&text).in_batches(2).unwrap();
    let steps: Vec<_> = (0..batched.tokens()).map(|row| batched.selection(row, 0).to_vec()).collect();
    assert_eq!(steps, [[0, 1], [2, 1], [2, 1]]);
    // A loop marked as repetition stays among its kind, and is left out of replays as before.
    let marked = text.replacen("\"req_id\":1}", "\"req_id\":1,\"repetition\":true}", 1);
    let batched = read(&marked).in_batches(2).unwrap();
    assert_eq!(batched.demands(false).ids()[..], [0, 2, 2]);
    assert_eq!(batched.demands(true).ids()[..], [0, 2, 2, 1, 1, 1]);
    assert!(read(&text).in_batches(0).is_err());
}
