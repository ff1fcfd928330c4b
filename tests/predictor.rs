//! What is promised of the predictor and of the eviction it drives, on recorded routing of gpt-oss-20b.

use crate::data;
use policy::predict::{Distances, Kind, Shape};
use policy::registry::lookup;
use policy::replay::{Order, ReplayInput, ReplayResult, Reset};
use policy::{Demands, LayerId};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use traces::RoutingTrace;

pub(crate) const SHAPE: Shape = Shape { layers: 24, experts: 32, selected: 4 };

/// Recall of the true experts among as many predicted, by layers ahead, of a logistic model of the transitions of two
/// layers and one token, learned online: what has to be beaten.
const RECALL: [(usize, f64); 9] = [
    (1, 0.755),
    (2, 0.736),
    (3, 0.719),
    (4, 0.705),
    (6, 0.686),
    (8, 0.667),
    (12, 0.647),
    (18, 0.604),
    (24, 0.573),
];
/// The same at one layer ahead, among twice as many.
const RECALL_OF_EIGHT: f64 = 0.921;

/// Slots, and the least hit rate at each.
const HIT_RATES: [(usize, f64); 4] = [(115, 0.560), (192, 0.725), (288, 0.855), (384, 0.931)];

pub(crate) fn demands(data: &Path, files: &[&str]) -> Demands {
    let file = |name: &&str| data.join("moe_routing/gpt-oss-20b").join(name).with_extension("npz");
    let parts = files.iter().map(|name| traces::open(file(name)).unwrap()).collect();
    RoutingTrace::concat(parts).unwrap().demands(false)
}

fn replay(demands: &Demands, capacity: usize) -> ReplayResult {
    let entry = lookup("predictive").unwrap();
    let params = entry.resolve(&BTreeMap::new()).unwrap();
    let (order, reset) = (Order::Atomic, Reset::Never);
    entry.run(&ReplayInput { demands, fit: None, capacity, order, reset, params: &params }).unwrap()
}

/// The experts of a step, without their layer.
pub(crate) fn experts(demands: &Demands, step: usize) -> Vec<u32> {
    demands.step(step).iter().map(|id| id % SHAPE.experts as u32).collect()
}

/// How many of `chosen` are among the `most` likeliest.
pub(crate) fn found(likely: &[f32], chosen: &[u32], most: usize) -> usize {
    let rank = |expert: u32| {
        let p = likely[expert as usize];
        let before = |(other, q): (usize, &f32)| *q > p || (*q == p && (other as u32) < expert);
        likely.iter().enumerate().filter(|&one| before(one)).count()
    };
    chosen.iter().filter(|&&expert| rank(expert) < most).count()
}

#[test]
fn experts_are_foreseen_at_every_distance() {
    let Some(data) = data() else { return };
    let demands = demands(&data, &["mmlu_test_a", "mmlu_test_b"]);
    assert_eq!(demands.len(), 39_590 * SHAPE.layers);
    let mut predictor = Kind::Ensemble.build(SHAPE, Distances::spread(SHAPE.layers));
    let (mut seen, mut right, mut right_of_eight) = (0, [0; RECALL.len()], 0);
    for step in 0..demands.len() - SHAPE.layers {
        predictor.observe(LayerId((step % SHAPE.layers) as u16), &experts(&demands, step), 1.0);
        // The figures to beat leave out the first quarter.
        if step < demands.len() / 4 {
            continue;
        }
        for (right, (ahead, _)) in right.iter_mut().zip(RECALL) {
            let likely = predictor.next_visit(LayerId(((step + ahead) % SHAPE.layers) as u16));
            let chosen = experts(&demands, step + ahead);
            *right += found(likely, &chosen, SHAPE.selected);
            if ahead == 1 {
                right_of_eight += found(likely, &chosen, 2 * SHAPE.selected);
            }
        }
        seen += SHAPE.selected;
    }
    let share = |right: usize| right as f64 / seen as f64;
    for (right, (ahead, least)) in right.into_iter().zip(RECALL) {
        println!("{ahead} layers ahead: recall {:.4}", share(right));
        assert!(share(right) > least, "{ahead} layers ahead: {} is not above {least}", share(right));
    }
    println!("one layer ahead, in the first eight: {:.4}", share(right_of_eight));
    assert!(share(right_of_eight) > RECALL_OF_EIGHT);
}

#[test]
fn the_eviction_it_drives_hits_as_often_as_promised() {
    let Some(data) = data() else { return };
    let demands = demands(&data, &["mmlu_test_a", "mmlu_test_b"]);
    HIT_RATES.par_iter().for_each(|&(capacity, least)| {
        let rate = replay(&demands, capacity).hit_rate();
        println!("{capacity} slots: hit rate {rate:.4}");
        assert!(rate >= least, "{capacity} slots: {rate} is below {least}");
    });
}

/// The first tokens of a trace, with every expert in another's place from `shift` on.
fn shifted(demands: &Demands, tokens: usize, shift: usize) -> Demands {
    let mut shifted = Demands::new(demands.universe());
    for step in 0..tokens * SHAPE.layers {
        let (experts, layer) = (SHAPE.experts as u32, (step % SHAPE.layers) as u32);
        // Eleven has no divisor in common with the number of experts: no two land in the same place.
        let moved = |id: u32| layer * experts + (id % experts * 11 + 7 * layer) % experts;
        let after = step >= shift * SHAPE.layers;
        shifted.push_step(demands.step(step).iter().map(|&id| if after { moved(id) } else { id }));
    }
    shifted
}

#[test]
fn a_shift_of_the_routing_is_survived() {
    let Some(data) = data() else { return };
    let demands = demands(&data, &["mmlu_dev"]);
    let (shift, within, window) = (8_000, 500, 2_000);
    let ends = [shift - window, shift, shift + within, shift + within + window];
    let hits: Vec<_> = ends.par_iter().map(|&end| replay(&shifted(&demands, end, shift), 192).hits).collect();
    let rate = |from: usize| {
        let tokens = ends[from + 1] - ends[from];
        (hits[from + 1] - hits[from]) as f64 / (tokens * SHAPE.layers * SHAPE.selected) as f64
    };
    let (steady, recovering, recovered) = (rate(0), rate(1), rate(2));
    println!("hit rate before {steady:.4}, within {within} tokens {recovering:.4}, after {recovered:.4}");
    assert!(recovered > steady - 0.05, "{recovered} after, {steady} before");
}
