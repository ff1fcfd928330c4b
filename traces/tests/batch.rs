//! Gate weights and merged batches.

use crate::real::recorded;
use crate::round_trip::any_trace;
use policy::BlockId;
use proptest::prelude::*;
use std::sync::Arc;
use traces::generate::{SAMPLE, generate};
use traces::{BatchSource, GateOrigin, gates, info, open};

fn draws(count: u64, k: usize) -> Vec<Vec<f32>> {
    let draw = |row| {
        let mut weights = vec![0.0; k];
        gates::synthetic(3, row, 5, &mut weights);
        weights
    };
    (0..count).map(draw).collect()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

#[test]
fn drawn_weights_descend_and_sum_to_one() {
    for k in [1, 2, 4, 8, 64] {
        for weights in draws(1_000, k) {
            assert!(weights.is_sorted_by(|a, b| a >= b) && weights.iter().all(|&weight| weight > 0.0));
            assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn draws_of_neighbouring_rows_and_layers_are_independent() {
    let first: Vec<f64> = draws(20_000, 4).iter().map(|weights| weights[0] as f64).collect();
    let mut below = vec![0.0; 4];
    let next_layer: Vec<f64> = (0..20_000)
        .map(|row| {
            gates::synthetic(3, row, 6, &mut below);
            below[0] as f64
        })
        .collect();
    let centre = mean(first.iter().copied());
    let covariance = |pairs: &mut dyn ExactSizeIterator<Item = (&f64, &f64)>| {
        mean(pairs.map(|(a, b)| (a - centre) * (b - centre)))
    };
    let variance = covariance(&mut first.iter().zip(&first));
    // The standard error of a correlation over 20,000 pairs is 0.007.
    assert!((covariance(&mut first.iter().zip(&first[1..])) / variance).abs() < 0.03);
    assert!((covariance(&mut first.iter().zip(&next_layer)) / variance).abs() < 0.03);
}

#[test]
fn drawn_weights_are_like_the_recorded_ones() {
    let mut real = [0.0; 4];
    let mut real_squares = 0.0;
    for file in ["sample_mmlu_pro_test_0.csv", "sample_mmlu_pro_test_1.csv"] {
        let Some(path) = recorded(file) else { return };
        let trace = open(path).unwrap();
        let sorted = info(&trace, true).unwrap().mean_sorted_gates.unwrap();
        real.iter_mut().zip(&sorted).for_each(|(sum, weight)| *sum += weight / 2.0);
        let squares = trace.raw_gates().unwrap().chunks(4).map(sum_of_squares);
        real_squares += mean(squares) / 2.0;
    }
    let drawn = draws(24_528, 4);
    for (place, &real) in real.iter().enumerate() {
        let drawn = mean(drawn.iter().map(|weights| weights[place] as f64));
        assert!((drawn - real).abs() < 0.003, "place {place}: drawn {drawn:.4}, recorded {real:.4}");
    }
    let squares = mean(drawn.iter().map(|weights| sum_of_squares(weights)));
    println!("sum of squares: drawn {squares:.4}, recorded {real_squares:.4}");
    assert!((squares - real_squares).abs() < 0.003, "drawn {squares:.4}, recorded {real_squares:.4}");
}

fn sum_of_squares(weights: &[f32]) -> f64 {
    let sum: f64 = weights.iter().map(|&weight| weight as f64).sum();
    weights.iter().map(|&weight| (weight as f64 / sum).powi(2)).sum()
}

proptest! {
    #[test]
    fn a_merged_batch_is_the_sum_of_its_members(trace in any_trace(), seed: u64, picks: Vec<(usize, usize)>) {
        let layers = trace.shape().layers as usize;
        let experts = trace.shape().experts;
        let mut source = BatchSource::new(Arc::new(trace), true, seed).unwrap();
        let requests = source.requests();
        let members: Vec<(usize, usize)> = picks
            .iter()
            .map(|&(request, token)| (request % requests, token % source.tokens(request % requests)))
            .collect();
        for layer in 0..layers {
            let rows: Vec<_> = members.iter().map(|&(request, token)| source.row(request, token)).collect();
            source.step(rows.into_iter().map(|row| row..row + 1));
            let merged = source.demand(layer, layer as u32 * experts);
            let mut expected: Vec<(BlockId, u32, f32)> = Vec::new();
            for &(request, token) in &members {
                let ids = source.selection(request, token, layer).to_vec();
                for (id, gate) in ids.into_iter().zip(source.gates(request, token, layer)) {
                    let block = BlockId(layer as u32 * experts + id as u32);
                    match expected.iter_mut().find(|(known, ..)| *known == block) {
                        Some((_, tokens, squared)) => {
                            *tokens += 1;
                            *squared += gate * gate;
                        }
                        None => expected.push((block, 1, gate * gate)),
                    }
                }
            }
            let got: Vec<_> = merged.iter().map(|routed| (routed.block, routed.tokens, routed.gate_squared)).collect();
            prop_assert_eq!(got, expected);
        }
    }
}

proptest! {
    #[test]
    fn a_long_run_demands_what_its_rows_do(
        (tokens, ends) in (1u32..400).prop_flat_map(|tokens| (Just(tokens), [0..tokens as usize, 0..tokens as usize])),
        gates: bool, seed: u64,
    ) {
        let params = traces::generate::Params { tokens_per_trace: tokens, traces: 1, gates, ..SAMPLE };
        let mut source = BatchSource::new(generate(&params).unwrap().into(), true, seed).unwrap();
        let (start, end) = (ends[0].min(ends[1]), ends[0].max(ends[1]) + 1);
        for layer in [0, 3, 0] {
            source.step([start..end, start..start + 1]);
            let mut whole = source.demand(layer, 0);
            source.step((start..end).chain([start]).map(|row| row..row + 1));
            let mut rows = source.demand(layer, 0);
            whole.sort_by_key(|routed| routed.block);
            rows.sort_by_key(|routed| routed.block);
            prop_assert_eq!(whole.len(), rows.len());
            for (whole, row) in whole.iter().zip(&rows) {
                prop_assert_eq!((whole.block, whole.tokens), (row.block, row.tokens));
                prop_assert!((whole.gate_squared - row.gate_squared).abs() <= 1e-5 * row.gate_squared.max(1.0));
            }
        }
    }
}

#[test]
fn requests_are_the_traces_that_are_kept() {
    let params = traces::generate::Params { tokens_per_trace: 2, traces: 3, ..SAMPLE };
    let trace = generate(&params).unwrap();
    let mut infos = trace.traces().to_vec();
    infos[0].repetition = true;
    let shape = trace.shape();
    let marked = traces::RoutingTrace::new(shape, trace.raw_selections().to_vec(), None, infos).unwrap();
    let marked = Arc::new(marked);
    let source = BatchSource::new(marked.clone(), false, 9).unwrap();
    assert_eq!((source.requests(), source.request(0).rows.clone()), (2, 2..4));
    assert_eq!(source.selection(0, 1, 7), marked.selection(3, 7));
    assert_eq!(source.gate_origin(), GateOrigin::Synthetic);
    assert_eq!(BatchSource::new(marked, true, 9).unwrap().requests(), 3);
}

#[test]
fn shuffled_requests_are_the_same_ones_in_an_order_of_the_seed() {
    let trace =
        Arc::new(generate(&traces::generate::Params { tokens_per_trace: 1, traces: 40, ..SAMPLE }).unwrap());
    let rows = |seed| {
        let source = BatchSource::new(trace.clone(), false, seed).unwrap().shuffled();
        (0..source.requests()).map(|request| source.row(request, 0)).collect::<Vec<_>>()
    };
    let (first, again, other) = (rows(1), rows(1), rows(2));
    assert_eq!(first, again);
    assert_ne!(first, other);
    let recorded: Vec<usize> = (0..40).collect();
    for mut shuffled in [first, other] {
        assert_ne!(shuffled, recorded);
        shuffled.sort_unstable();
        assert_eq!(shuffled, recorded);
    }
}

#[test]
fn drawn_weights_do_not_depend_on_the_traces_left_out() {
    let params = traces::generate::Params { tokens_per_trace: 2, traces: 3, gates: false, ..SAMPLE };
    let trace = generate(&params).unwrap();
    let mut infos = trace.traces().to_vec();
    infos[0].repetition = true;
    let marked =
        traces::RoutingTrace::new(trace.shape(), trace.raw_selections().to_vec(), None, infos).unwrap();
    let mut all = BatchSource::new(Arc::new(trace), true, 9).unwrap();
    let mut kept = BatchSource::new(Arc::new(marked), false, 9).unwrap();
    assert_eq!(all.gates(1, 1, 3), kept.gates(0, 1, 3));
}

#[test]
fn a_prompt_is_merged_from_its_rows() {
    let text =
        r#"{"prompt_routed_experts":[[[-1,-1]],[[0,1]],[[1,2]]],"choices":[{"routed_experts":[[[3,1]]]}]}"#;
    let trace =
        traces::parse(text.as_bytes(), traces::Format::Responses, None, &traces::Options::default()).unwrap();
    let mut source = BatchSource::new(trace.into(), false, 7).unwrap();
    assert_eq!((source.prompt_rows(0), source.tokens(0), source.row(0, 0)), (0..2, 1, 2));
    assert_eq!(source.request(0).prompt_tokens, Some(3));
    source.step([source.prompt_rows(0)]);
    let chunk = source.demand(0, 0);
    let found: Vec<_> = chunk.iter().map(|routed| (routed.block.0, routed.tokens)).collect();
    assert_eq!(found, [(0, 1), (1, 2), (2, 1)]);
    // A chunk beside a token of a running request.
    source.step([0..1, 2..3]);
    let both = source.demand(0, 0);
    let found: Vec<_> = both.iter().map(|routed| (routed.block.0, routed.tokens)).collect();
    assert_eq!(found, [(0, 1), (1, 2), (3, 1)]);
    source.step(std::iter::once(2..3));
    let decoded = source.demand(0, 0);
    assert_eq!(decoded.iter().map(|routed| routed.block.0).collect::<Vec<_>>(), [3, 1]);
}
