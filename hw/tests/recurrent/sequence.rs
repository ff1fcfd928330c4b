//! Mamba-2 over prompts and token by token.

use crate::{FP16, FP32, as_f64, begin, layer, shapes, worst_head, worst_output};
use half::f16;
use hw::recurrent::inputs::Owned;
use hw::recurrent::number::{Number, expanded, narrowed};
use hw::recurrent::reference;
use hw::recurrent::ring::Ring;
use hw::recurrent::shape::Shape;
use hw::recurrent::ssd::Ssd;
use hw::recurrent::step::Steps;
use proptest::prelude::*;

/// Places, and the states there.
type Kept = Vec<(usize, Vec<f32>)>;

/// The chunked run of a prompt: outputs, state, and the states at the boundaries of chunks.
fn prefill<T: Number>(
    shape: Shape,
    a: &[f32],
    chunk: usize,
    inputs: &Owned<T>,
) -> (Vec<f32>, Vec<f32>, Kept) {
    let (mut state, mut y) = (begin(shape), vec![T::default(); inputs.x.len()]);
    let mut kept = Vec::new();
    let ssd = Ssd::new(shape, a, chunk).unwrap();
    ssd.run(inputs.lend(), &mut state, &mut y, &mut |at, state| kept.push((at, state.to_vec()))).unwrap();
    (expanded(&y), state, kept)
}

/// Errors of the chunked run: of the outputs and of the state, the worst head's.
fn errors<T: Number>(shape: Shape, chunk: usize, tokens: usize, seed: u64) -> (f64, f64) {
    let (a, inputs) = layer::<T>(shape, tokens, seed);
    let (y, state, _) = prefill(shape, &a, chunk, &inputs);
    let mut exact = as_f64(&begin(shape));
    let exact_y = reference::ssd(shape, &a, inputs.lend(), &mut exact);
    (worst_output(shape, &y, &exact_y), worst_head(shape, &state, &exact))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn chunks_of_any_length_give_what_the_recurrence_does(
        shape in shapes(), chunk in 1usize..70, tokens in 1usize..200, seed: u64,
    ) {
        let (y, state) = errors::<f32>(shape, chunk, tokens, seed);
        prop_assert!(y <= FP32 && state <= FP32, "fp32: outputs {y:e}, state {state:e}");
        let (y, state) = errors::<f16>(shape, chunk, tokens, seed);
        prop_assert!(y <= FP16 && state <= FP32, "fp16: outputs {y:e}, state {state:e}");
    }

    #[test]
    fn a_prompt_goes_on_from_a_checkpoint_bit_for_bit(
        shape in shapes(), chunk in 1usize..40, before in 1usize..4, rest in 1usize..50, seed: u64,
    ) {
        let (a, inputs) = layer::<f32>(shape, before * chunk + rest, seed);
        let (y, state, kept) = prefill(shape, &a, chunk, &inputs);
        prop_assert_eq!(kept.len(), (before * chunk + rest).div_ceil(chunk) + 1);
        let (at, mut restored) = kept[before].clone();
        prop_assert_eq!(at, before * chunk);
        let rest = inputs.lend().of(shape, at..before * chunk + rest);
        let mut again = vec![0.0; rest.x.len()];
        Ssd::new(shape, &a, chunk).unwrap().run(rest, &mut restored, &mut again, &mut |_, _| ()).unwrap();
        prop_assert_eq!(&again[..], &y[at * shape.width()..]);
        prop_assert_eq!(restored, state);
    }

    #[test]
    fn steps_give_what_the_recurrence_does(shape in shapes(), tokens in 1usize..60, seed: u64) {
        let (a, inputs) = layer::<f16>(shape, tokens, seed);
        let steps = Steps::new(shape, &a).unwrap();
        let (mut exact, mut state) = (as_f64(&begin(shape)), begin(shape));
        for token in 0..tokens {
            let token = inputs.lend().of(shape, token..token + 1);
            let mut half: Vec<f16> = narrowed(&state);
            let mut half_exact = as_f64(&expanded(&half));
            let half_y_exact = reference::ssd(shape, &a, token, &mut half_exact);
            let exact_y = reference::ssd(shape, &a, token, &mut exact);
            let (mut y, mut half_y) = (vec![0.0; shape.width()], vec![0.0; shape.width()]);
            steps.step(token, &mut state, &mut y).unwrap();
            steps.step(token, &mut half, &mut half_y).unwrap();
            let near = |got: &[f32], exact: &[f64]| worst_output(shape, got, exact);
            prop_assert!(near(&y, &exact_y) <= FP32, "{:e}", near(&y, &exact_y));
            prop_assert!(near(&half_y, &half_y_exact) <= FP32, "{:e}", near(&half_y, &half_y_exact));
            let half = worst_head(shape, &expanded(&half), &half_exact);
            prop_assert!(half <= FP16, "a step in fp16: {half:e}");
        }
        let error = worst_head(shape, &state, &exact);
        prop_assert!(error <= FP32, "{error:e} after {tokens} steps");
    }

    #[test]
    fn a_ring_gives_back_every_state_bit_for_bit(shape in shapes(), tokens in 1usize..20, seed: u64) {
        let (a, inputs) = layer::<f16>(shape, 2 * tokens, seed);
        let steps = Steps::new(shape, &a).unwrap();
        let (mut state, mut y) = (vec![0.0f32; shape.state()], vec![0.0; shape.width()]);
        let mut step = |token, state: &mut Vec<f32>| {
            let token = inputs.lend().of(shape, token..token + 1);
            steps.step(token, state, &mut y).unwrap();
            token
        };
        (0..tokens).for_each(|token| _ = step(token, &mut state));
        let (begin, mut ring, mut seen) = (state.clone(), Ring::new(shape, tokens), vec![state.clone()]);
        for token in tokens..2 * tokens {
            ring.push(step(token, &mut state)).unwrap();
            seen.push(state.clone());
        }
        prop_assert!(ring.is_full() && ring.push(inputs.lend().of(shape, 0..1)).is_err());
        for (after, seen) in seen.iter().enumerate() {
            let mut replayed = begin.clone();
            ring.replay(&a, after, &mut replayed).unwrap();
            prop_assert_eq!(&replayed, seen);
        }
    }
}

#[test]
fn many_sequences_step_as_each_does() {
    let shape = Shape::new(4, 8, 48, 2).unwrap();
    let (a, inputs) = layer::<f16>(shape, 5, 3);
    let steps = Steps::new(shape, &a).unwrap();
    let (mut states, mut y) = (vec![0.5f32; 5 * shape.state()], vec![0.0; 5 * shape.width()]);
    steps.step(inputs.lend(), &mut states, &mut y).unwrap();
    for sequence in 0..5 {
        let (mut state, mut own) = (vec![0.5f32; shape.state()], vec![0.0; shape.width()]);
        steps.step(inputs.lend().of(shape, sequence..sequence + 1), &mut state, &mut own).unwrap();
        assert_eq!(state, states[sequence * shape.state()..][..shape.state()]);
        assert_eq!(own, y[sequence * shape.width()..][..shape.width()]);
    }
}

#[test]
fn buffers_of_another_size_are_refused() {
    let shape = Shape::new(2, 4, 8, 1).unwrap();
    let (a, inputs) = layer::<f32>(shape, 3, 1);
    let mut short = inputs.clone();
    short.b.pop();
    let ssd = Ssd::new(shape, &a, 2).unwrap();
    let (mut state, mut y) = (vec![0.0; shape.state()], vec![0.0; 3 * shape.width()]);
    let refused = ssd.run(short.lend(), &mut state, &mut y, &mut |_, _| ()).unwrap_err();
    assert_eq!(refused.to_string(), "b: 24 numbers are asked for, the buffer has 23");
    assert!(ssd.run(inputs.lend(), &mut state[1..], &mut y, &mut |_, _| ()).is_err());
    assert!(Ssd::new(shape, &a[1..], 2).is_err() && Ssd::new(shape, &a, 0).is_err());
}
