//! The program's optimum, by a solver.

use super::super::program::{NEVER, Program};
use good_lp::{Expression, ProblemVariables, Solution, SolverModel, Variable, constraint, microlp, variable};

/// The least stall, in nanoseconds.
pub(super) fn stall(program: &Program) -> f64 {
    let steps = program.steps();
    let mut variables = ProblemVariables::new();
    let stalls: Vec<Variable> = (0..steps).map(|_| variables.add(variable().min(0.0))).collect();
    let mut memory = vec![Expression::default(); steps];
    let mut link = vec![Expression::default(); steps];
    let mut drift = vec![Expression::default(); program.rounds.len()];
    let mut served = Vec::new();
    for (index, used) in program.uses.iter().enumerate() {
        let round = program.rounds.iter().position(|&end| index < end).unwrap();
        let step = used.step as usize;
        let from = if used.previous == NEVER { 0 } else { used.previous as usize + 1 };
        let latest = if program.whole[step] { step } else { (step + 1).min(steps - 1) };
        let mut ways = Expression::default();
        for choice in program.choices(used) {
            // Kept, or loaded in each of the slots: `None` is kept.
            let kept = (used.previous != NEVER).then_some(None);
            for slot in kept.into_iter().chain((from..=latest).map(Some)) {
                let part = variables.add(variable().min(0.0));
                ways += part;
                (slot.unwrap_or(from)..step).for_each(|instant| memory[instant] += choice.held * part);
                if program.whole[step] {
                    memory[step] += choice.read * part;
                }
                if let Some(slot) = slot {
                    link[slot] += choice.load * part;
                }
                drift[round] += f64::from(used.weight) * choice.error * part;
            }
        }
        served.push(ways);
    }
    let total: Expression = stalls.iter().sum();
    let mut model = variables.minimise(&total).using(microlp);
    served.into_iter().for_each(|ways| drop(model.add_constraint(constraint!(ways == 1.0))));
    memory.into_iter().for_each(|used| drop(model.add_constraint(constraint!(used <= 1.0))));
    for ((used, free), stall) in link.into_iter().zip(&program.free).zip(stalls) {
        model.add_constraint(constraint!(used <= *free + stall));
    }
    drift.into_iter().for_each(|spent| drop(model.add_constraint(constraint!(spent <= program.drift))));
    model.solve().unwrap().eval(&total)
}
