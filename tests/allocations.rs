//! Deciding allocates nothing once it is under way. A binary of its own, because the allocator is counted.

#[path = "../benches/decisions/layer_steps.rs"]
mod layer_steps;

use layer_steps::{JOINT, LayerSteps};

#[test]
fn a_layer_step_allocates_nothing_in_the_steady_state() {
    for predictor in [0.0, 1.0, 2.0, 3.0] {
        let params = [("predictor", predictor)];
        let full_precision = LayerSteps::new("gpt-oss-20b", 192, 300, &params, "");
        let joint = LayerSteps::new("mixtral-8x7b", 64, 300, &params, JOINT);
        for mut steps in [full_precision, joint] {
            (0..300 * steps.layers()).for_each(|_| steps.run());
            let counted = allocation_counter::measure(|| (0..100 * steps.layers()).for_each(|_| steps.run()));
            assert_eq!(counted.count_total, 0, "predictor {predictor}: {counted:?}");
        }
    }
}
