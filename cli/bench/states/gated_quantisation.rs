//! Gated state quantisation: the run of its seed, step by step.

use super::{Bench, Findings, Section};
use crate::failure::Failure;
use crate::output;
use hw::recurrent::gated::{Gated, Rule};
use hw::recurrent::inputs::Owned;
use hw::recurrent::made;
use hw::recurrent::reference::{relative_error, ssd};
use hw::recurrent::shape::Shape;
use serde::Serialize;

pub(super) const SECTION: Section = Section { name: "gated_quantisation", run };

/// The seed's run: 50 steps of a state of 16 numbers; the gate is closed below 0.3.
const STEPS: usize = 50;
const STATE: usize = 16;
const THRESHOLD: f32 = 0.3;
/// Tokens that the ring of inputs has room for.
const RING: usize = 16;

/// The gates that the seed printed, by step, and linear in between. It printed no more than step 31: from there on the gate opens as
/// far as it had been.
const GATES: [(usize, f32); 11] = [
    (0, 0.50),
    (5, 0.99),
    (10, 0.99),
    (15, 0.67),
    (17, 0.22),
    (20, 0.02),
    (25, 0.01),
    (30, 0.20),
    (31, 0.40),
    (36, 0.99),
    (49, 0.99),
];

/// How fast the state forgets where the gate is wide open: its numbers settle where the seed's did.
const RATE: f32 = -0.1;
const SEED: u64 = 1;

/// One step of the seed's run.
#[derive(Serialize)]
struct Step {
    step: usize,
    gate: f32,
    mode: &'static str,
    state_sum: f64,
    exact_sum: f64,
    state_error: f64,
}

#[derive(Serialize)]
struct Report {
    seed_run: Vec<Step>,
}

fn run(_: &Bench) -> Result<Findings, Failure> {
    let steps = seed_run()?;
    let text = step_table(&steps);
    Findings::new(text, &Report { seed_run: steps })
}

/// The gate is the step `dt`: a closed one neither decays the state nor adds to it.
fn seed_run() -> Result<Vec<Step>, Failure> {
    let shape = Shape::new(1, STATE, 1, 1).map_err(Failure::failed)?;
    let mut made = made::layer(shape, STEPS, SEED);
    made.inputs.dt = (0..STEPS).map(gate).collect();
    let (a, inputs): (_, Owned<_>) = ([RATE], made.inputs);
    let mut exact = vec![0.0f64; STATE];
    let mut gated = Gated::new(shape, &a, Rule { ring: RING, threshold: THRESHOLD }, &[0.0; STATE])
        .map_err(Failure::failed)?;
    let step = |step| {
        let token = inputs.lend().of(shape, step..step + 1);
        ssd(shape, &a, token, &mut exact);
        gated.step(token, token.dt, &mut [0.0; STATE])?;
        let state = gated.state()?;
        Ok(Step {
            step,
            gate: token.dt[0],
            mode: if gated.is_open(0) { "FLOAT16" } else { "INT8" },
            state_sum: state.iter().map(|number| f64::from(*number)).sum(),
            exact_sum: exact.iter().sum(),
            state_error: relative_error(&state, &exact),
        })
    };
    (0..STEPS).map(step).collect::<Result<_, hw::recurrent::RecurrentError>>().map_err(Failure::failed)
}

/// The gate at a step.
fn gate(step: usize) -> f32 {
    let after = GATES.partition_point(|(at, _)| *at <= step).clamp(1, GATES.len() - 1);
    let ((from, low), (to, high)) = (GATES[after - 1], GATES[after]);
    low + (high - low) * (step - from) as f32 / (to - from) as f32
}

/// The steps that the seed printed too: every fifth, and those at which the mode changes.
fn step_table(steps: &[Step]) -> String {
    let changes = |at: usize| at == 0 || steps[at - 1].mode != steps[at].mode;
    let rows =
        steps.iter().enumerate().filter(|(at, _)| at % 5 == 0 || changes(*at) || at + 1 == steps.len());
    let rows = rows.map(|(_, step)| {
        [
            step.step.to_string(),
            format!("{:.2}", step.gate),
            step.mode.to_owned(),
            format!("{:.4}", step.state_sum),
            format!("{:.4}", step.exact_sum),
            format!("{:.3} %", step.state_error * 100.0),
        ]
    });
    output::numbers(["step", "gate", "mode", "state sum", "exact", "error"].map(String::from), rows)
}
