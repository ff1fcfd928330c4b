//! States in fewer bits.

use crate::layer;
use hw::recurrent::quantised::{Bits, Tile};
use hw::recurrent::reference::{self, relative_error};
use hw::recurrent::shape::Shape;
use hw::recurrent::step::Steps;
use proptest::prelude::*;

/// The state of a layer after some tokens, and its numbers in f32.
fn state_after(shape: Shape, tokens: usize, seed: u64) -> (Vec<f32>, Vec<f64>) {
    let (a, inputs) = layer::<f32>(shape, tokens, seed);
    let mut state = vec![0.0; shape.state()];
    reference::ssd(shape, &a, inputs.lend(), &mut state);
    (state.iter().map(|number| *number as f32).collect(), state)
}

#[test]
fn states_keep_what_their_bits_promise() {
    let shape = Shape::new(3, 64, 128, 1).unwrap();
    let (state, exact) = state_after(shape, 200, 7);
    for (bits, most, bytes) in [(Bits::Eight, 0.01, 8192 + 512 + 256), (Bits::Four, 0.12, 4096 + 512 + 256)] {
        for (state, exact) in state.chunks(shape.tile()).zip(exact.chunks(shape.tile())) {
            let tile = Tile::quantise(shape, bits, state).unwrap();
            assert_eq!((tile.bytes(), bits.tile_bytes(shape)), (bytes, bytes));
            let mut back = vec![0.0; shape.tile()];
            tile.dequantise(shape, &mut back).unwrap();
            let error = relative_error(&back, exact);
            assert!((most / 30.0..most).contains(&error), "{bits:?}: {error}");
        }
    }
}

#[test]
fn states_that_no_bits_hold_are_refused() {
    let shape = Shape::new(1, 2, 3, 1).unwrap();
    let refused = Tile::quantise(shape, Bits::Eight, &[1.0, f32::NAN, 0.0, 1.0, 1.0, 1.0]);
    assert!(refused.is_err(), "{refused:?}");
    assert!(Tile::quantise(shape, Bits::Four, &[0.0; 5]).is_err());
    let zeros = Tile::quantise(shape, Bits::Four, &[0.0; 6]).unwrap();
    let mut back = [1.0; 6];
    zeros.dequantise(shape, &mut back).unwrap();
    assert_eq!(back, [0.0; 6]);
}

#[test]
fn coding_at_every_token_costs_what_coding_once_does_not() {
    let shape = Shape::new(1, 16, 64, 1).unwrap();
    let (a, inputs) = layer::<f32>(shape, 400, 5);
    let (mut exact, mut state) = (vec![0.0; shape.state()], vec![0.0f32; shape.state()]);
    let mut tiles = [Tile::quantise(shape, Bits::Eight, &state).unwrap()];
    let steps = Steps::new(shape, &a).unwrap();
    let mut y = vec![0.0; shape.width()];
    for token in 0..400 {
        let token = inputs.lend().of(shape, token..token + 1);
        reference::ssd(shape, &a, token, &mut exact);
        steps.step(token, &mut state, &mut y).unwrap();
        steps.step_coded(token, &mut tiles, &mut y).unwrap();
    }
    let error = |tile: &Tile| {
        let mut back = vec![0.0; shape.tile()];
        tile.dequantise(shape, &mut back).unwrap();
        relative_error(&back, &exact)
    };
    let (always, once) = (error(&tiles[0]), error(&Tile::quantise(shape, Bits::Eight, &state).unwrap()));
    assert!(always > 3.0 * once, "always {always}, once {once}");
}

proptest! {
    #[test]
    fn any_state_comes_back_within_a_step_of_its_group(
        rows in 1usize..9, columns in 1usize..80, numbers in prop::collection::vec(-100.0f32..100.0, 720),
    ) {
        let shape = Shape::new(1, rows, columns, 1).unwrap();
        let state = &numbers[..shape.tile()];
        let largest = state.iter().fold(0.0f32, |most, number| most.max(number.abs()));
        let mut back = vec![0.0; shape.tile()];
        Tile::quantise(shape, Bits::Eight, state).unwrap().dequantise(shape, &mut back).unwrap();
        // A number over its column's scale is at most the root of the rows; half a step of 127, and f16's roundings of both scales.
        let most = (rows as f32).sqrt() * largest * (0.5 / 127.0 + 2e-3);
        for (number, back) in state.iter().zip(&back) {
            prop_assert!((number - back).abs() <= most, "{number} came back as {back}");
        }
    }
}
