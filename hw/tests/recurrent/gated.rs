//! Gated state quantisation.

use crate::{layer, shapes, worst_head, worst_output};
use half::f16;
use hw::recurrent::gated::{Gated, Rule, Taken};
use hw::recurrent::number::narrowed;
use hw::recurrent::reference;
use hw::recurrent::shape::Shape;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the gates do, the outputs are those of the state that is kept, and the state follows the exact one.
    #[test]
    fn outputs_are_those_of_the_state(
        shape in shapes(), ring in 1usize..9, gates in prop::collection::vec(0.0f32..1.0, 30), seed: u64,
    ) {
        let (a, inputs) = layer::<f16>(shape, gates.len(), seed);
        let rule = Rule { ring, threshold: 0.6 };
        let mut gated = Gated::new(shape, &a, rule, &vec![0.0; shape.state()]).unwrap();
        let mut exact = vec![0.0; shape.state()];
        for (token, gate) in gates.iter().enumerate() {
            let token = inputs.lend().of(shape, token..token + 1);
            let mut held: Vec<f64> = gated.state().unwrap().into_iter().map(f64::from).collect();
            let mut y = vec![0.0; shape.width()];
            let taken = gated.step(token, &vec![*gate; shape.heads()], &mut y).unwrap();
            prop_assert_eq!(taken.open, if *gate > 0.6 { shape.heads() } else { 0 });
            let y_exact = reference::ssd(shape, &a, token, &mut held);
            // Where a gate has just moved, the state was rounded in between.
            prop_assert!(worst_output(shape, &y, &y_exact) < 0.1);
            reference::ssd(shape, &a, token, &mut exact);
        }
        let error = worst_head(shape, &gated.state().unwrap(), &exact);
        prop_assert!(error < 0.1, "{error}");
    }

    #[test]
    fn a_closed_gate_folds_the_decay_and_adds_the_ring(shape in shapes(), tokens in 1usize..9, seed: u64) {
        let (a, inputs) = layer::<f16>(shape, 40 + tokens, seed);
        let mut state = vec![0.0; shape.state()];
        reference::ssd(shape, &a, inputs.lend().of(shape, 0..40), &mut state);
        let begin: Vec<f32> = state.iter().map(|number| *number as f32).collect();
        let rule = Rule { ring: 9, threshold: f32::MAX };
        let mut gated = Gated::new(shape, &a, rule, &begin).unwrap();
        // From the codes as they are, nothing is lost but f32's roundings.
        let mut exact: Vec<f64> = gated.state().unwrap().into_iter().map(f64::from).collect();
        let closed = vec![0.0; shape.heads()];
        for token in 40..40 + tokens.min(8) {
            let token = inputs.lend().of(shape, token..token + 1);
            let mut y = vec![0.0; shape.width()];
            let taken = gated.step(token, &closed, &mut y).unwrap();
            prop_assert_eq!((taken.open, taken.flushed), (0, 0));
            let exact_y = reference::ssd(shape, &a, token, &mut exact);
            prop_assert!(worst_output(shape, &y, &exact_y) < 1e-4, "{:e}", worst_output(shape, &y, &exact_y));
        }
        let error = worst_head(shape, &gated.state().unwrap(), &exact);
        prop_assert!(error < 1e-5, "{error:e}");
    }
}

#[test]
fn bytes_are_a_third_of_fp16_read_and_written() {
    for shape in [Shape::NEMOTRON_H, Shape::MAMBA2_2_7B] {
        let (a, inputs) = layer::<f16>(shape, 16, 2);
        let rule = Rule { ring: 16, threshold: f32::MAX };
        let mut gated = Gated::new(shape, &a, rule, &vec![0.1; shape.state()]).unwrap();
        let mut y = vec![0.0; shape.width()];
        let mut total = Taken::default();
        for token in 0..16 {
            let token = inputs.lend().of(shape, token..token + 1);
            total = total.and(gated.step(token, &vec![0.0; shape.heads()], &mut y).unwrap());
        }
        assert_eq!(total.flushed, shape.heads());
        // Codes, scales of groups and of columns; read at each token, written at the last.
        let codes = shape.state() + shape.state() / 16 + 2 * shape.heads() * shape.state_dim();
        let ring = shape.ring_bytes();
        assert_eq!(
            (total.read, total.written),
            (16 * codes + (0..16).sum::<usize>() * ring, codes + 15 * ring)
        );
        let fp16 = 2 * 2 * shape.state();
        assert!(3 * (total.read + total.written) <= 16 * fp16, "{total:?} against {fp16}");
    }
}

#[test]
fn a_state_that_nothing_changes_is_kept_bit_for_bit() {
    let shape = Shape::new(2, 4, 32, 1).unwrap();
    let (a, mut inputs) = layer::<f16>(shape, 8, 4);
    inputs.dt.fill(0.0);
    inputs.x = narrowed(&vec![0.0; inputs.x.len()]);
    let state: Vec<f32> = (0..shape.state()).map(|at| (at as f32).sin()).collect();
    let mut gated = Gated::new(shape, &a, Rule { ring: 100, threshold: 0.3 }, &state).unwrap();
    let before = gated.state().unwrap();
    for token in 0..8 {
        gated.step(inputs.lend().of(shape, token..token + 1), &[0.0; 2], &mut [0.0; 8]).unwrap();
    }
    assert_eq!(gated.state().unwrap(), before);
}
