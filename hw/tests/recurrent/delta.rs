//! Gated delta nets token by token.

use crate::{FP16, FP32, as_f64, begin, shapes, worst_head, worst_output};
use half::f16;
use hw::recurrent::number::{expanded, narrowed};
use hw::recurrent::{delta, made, reference};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn steps_give_what_the_recurrence_does(shape in shapes(), tokens in 1usize..60, seed: u64) {
        let (inputs, gates) = made::delta::<f16>(shape, tokens, seed);
        let (mut exact, mut state) = (as_f64(&begin(shape)), begin(shape));
        let (mut y, mut half_y) = (vec![0.0; shape.width()], vec![0.0; shape.width()]);
        for at in 0..tokens {
            let token = inputs.lend().of(shape, at..at + 1);
            let gates = &gates[at * shape.heads()..][..shape.heads()];
            let mut half: Vec<f16> = narrowed(&state);
            let mut half_exact = as_f64(&expanded(&half));
            let half_exact_y = reference::delta(shape, token, gates, &mut half_exact);
            let exact_y = reference::delta(shape, token, gates, &mut exact);
            delta::step(shape, token, gates, &mut state, &mut y).unwrap();
            delta::step(shape, token, gates, &mut half, &mut half_y).unwrap();
            let error = worst_output(shape, &y, &exact_y).max(worst_output(shape, &half_y, &half_exact_y));
            prop_assert!(error <= FP32, "outputs {error:e}");
            let half = worst_head(shape, &expanded(&half), &half_exact);
            prop_assert!(half <= FP16, "a step in fp16: {half:e}");
        }
        let error = worst_head(shape, &state, &exact);
        prop_assert!(error <= FP32, "{error:e} after {tokens} steps");
    }
}

/// A key that the state knows already, with `beta` one, gives the value back whatever was there, and leaves other keys alone.
#[test]
fn a_value_is_written_in_place_of_the_old_one() {
    let shape = hw::recurrent::shape::Shape::new(1, 2, 4, 1).unwrap();
    let mut state = vec![0.0f32; 8];
    let mut y = vec![0.0; 2];
    let mut write = |key: usize, value: [f32; 2]| {
        let mut k = vec![0.0f32; 4];
        k[key] = 1.0;
        let inputs = hw::recurrent::inputs::Owned { x: value.to_vec(), dt: vec![1.0], b: k.clone(), c: k };
        delta::step(shape, inputs.lend(), &[0.0], &mut state, &mut y).unwrap();
        y.clone()
    };
    assert_eq!(write(1, [3.0, 4.0]), [3.0, 4.0]);
    assert_eq!(write(2, [5.0, 6.0]), [5.0, 6.0]);
    assert_eq!(write(1, [-1.0, 7.0]), [-1.0, 7.0]);
    assert_eq!(state, [0.0, -1.0, 5.0, 0.0, 0.0, 7.0, 6.0, 0.0]);
    // Its state is as large as Qwen3-Next's is said to be.
    assert_eq!(delta::qwen3_next().unwrap().state() * 4, 2_097_152);
    assert!(delta::step(shape, made::delta::<f32>(shape, 1, 1).0.lend(), &[], &mut state, &mut y).is_err());
}
