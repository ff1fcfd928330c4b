//! Mamba-1.

use crate::{FP32, rounding, without_signs};
use hw::recurrent::made;
use hw::recurrent::reference::{self, Channels};
use hw::recurrent::scan::selective_scan;
use hw::recurrent::shape::Shape;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_scan_gives_what_the_recurrence_does(
        channels in 1usize..9, state_dim in 1usize..40, tokens in 1usize..150, seed: u64,
    ) {
        // Each channel a head of one row: its own steps, and rates 1 to state_dim as Mamba-1 begins.
        let shape = Shape::new(channels, 1, state_dim, 1).unwrap();
        let inputs = made::layer::<f32>(shape, tokens, seed).inputs;
        let rates: Vec<f32> = (0..channels * state_dim).map(|at| -((at % state_dim + 1) as f32)).collect();
        let given = Channels { x: &inputs.x, dt: &inputs.dt, b: &inputs.b, c: &inputs.c };
        let [x, b, c] = [&inputs.x, &inputs.b, &inputs.c].map(|of| without_signs(of));
        let positive = Channels { x: &x, b: &b, c: &c, ..given };
        let (mut state, mut exact, mut size) = (vec![0.0; rates.len()], vec![0.0; rates.len()], vec![0.0; rates.len()]);
        let y = selective_scan(state_dim, &rates, given, &mut state).unwrap();
        let exact_y = reference::selective_scan(state_dim, &rates, given, &mut exact);
        let size_y = reference::selective_scan(state_dim, &rates, positive, &mut size);
        for channel in 0..channels {
            let of_channel = |y: &[f64]| y.iter().skip(channel).step_by(channels).copied().collect::<Vec<_>>();
            let error = rounding(&y[channel * tokens..][..tokens], &of_channel(&exact_y), &of_channel(&size_y));
            prop_assert!(error <= FP32, "outputs {error:e}");
            let part = channel * state_dim..(channel + 1) * state_dim;
            let error = rounding(&state[part.clone()], &exact[part.clone()], &size[part]);
            prop_assert!(error <= FP32, "state {error:e}");
        }
    }
}

#[test]
fn lengths_that_do_not_agree_are_refused() {
    let given = Channels { x: &[1.0; 4], dt: &[0.1; 4], b: &[1.0; 6], c: &[1.0; 5] };
    let refused = selective_scan(3, &[-1.0; 6], given, &mut [0.0; 6]).unwrap_err();
    assert_eq!(refused.to_string(), "c: 6 numbers are asked for, the buffer has 5");
    assert!(selective_scan(0, &[], given, &mut []).is_err());
}
