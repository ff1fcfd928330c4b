//! The program's optimum, by a solver. Each block is a unit of flow through its uses; the nodes of a use are what the block
//! has after it.

use super::super::program::{NEVER, Program, Use};
use good_lp::{Expression, ProblemVariables, Solution, SolverModel, Variable, constraint, microlp, variable};

/// What the parts of all blocks use of what there is.
struct Taken {
    memory: Vec<Expression>,
    link: Vec<Expression>,
    drift: Vec<Expression>,
}

/// The least stall, in nanoseconds.
pub(super) fn stall(program: &Program) -> f64 {
    let steps = program.steps();
    let mut variables = ProblemVariables::new();
    let mut positive = || variables.add(variable().min(0.0));
    let stalls: Vec<Variable> = (0..steps).map(|_| positive()).collect();
    let nothing = |len| vec![Expression::default(); len];
    let mut taken =
        Taken { memory: nothing(steps), link: nothing(steps), drift: nothing(program.rounds.len()) };
    let mut flows = Vec::new();
    // What has flowed to each node of a block's last use.
    let mut latest: Vec<Vec<Expression>> = vec![Vec::new(); program.kind.len()];
    for (index, used) in program.uses.iter().enumerate() {
        let round = program.rounds.iter().position(|&end| index < end).unwrap();
        let choices = program.choices(used).len();
        let before = std::mem::take(&mut latest[used.block as usize]);
        let mut left = vec![Expression::default(); before.len().max(1)];
        let mut after = vec![Expression::default(); choices];
        for (has, arrived) in after.iter_mut().enumerate() {
            let reads = if has == 0 { 0..choices } else { has..has + 1 };
            for (had, read) in (0..left.len()).flat_map(|had| reads.clone().map(move |read| (had, read))) {
                for slot in ways(program, used, had, has) {
                    let part = positive();
                    left[had] += part;
                    *arrived += part;
                    taken.add(program, used, round, (has, read), slot, part);
                }
            }
        }
        match used.previous {
            NEVER => flows.push((Expression::from(1.0), left.remove(0))),
            _ => flows.extend(before.into_iter().zip(left)),
        }
        latest[used.block as usize] = after;
    }
    let total: Expression = stalls.iter().sum();
    let Taken { memory, link, drift } = taken;
    let flows = flows.into_iter().map(|(come, gone)| constraint!(come == gone));
    let memory = memory.into_iter().map(|used| constraint!(used <= 1.0));
    let slots = link.into_iter().zip(&program.free).zip(stalls);
    let link = slots.map(|((used, free), stall)| constraint!(used <= *free + stall));
    let drift = drift.into_iter().map(|spent| constraint!(spent <= program.drift));
    let mut model = variables.minimise(&total).using(microlp);
    for constraint in flows.chain(memory).chain(link).chain(drift) {
        model.add_constraint(constraint);
    }
    model.solve().unwrap().eval(&total)
}

/// How a block that had one thing can have another at a use: a slot to load it in, or `None` where it is kept.
fn ways(program: &Program, used: &Use, had: usize, has: usize) -> Vec<Option<usize>> {
    let step = used.step as usize;
    let latest = if program.whole[step] { step } else { (step + 1).min(program.steps() - 1) };
    let first = used.previous == NEVER;
    let from = if first { 0 } else { used.previous as usize + 1 };
    let kept = (!first && (had == 0 || had == has)).then_some(None);
    kept.into_iter().chain((from..=latest).map(Some)).collect()
}

impl Taken {
    fn add(
        &mut self,
        program: &Program,
        used: &Use,
        round: usize,
        (has, read): (usize, usize),
        slot: Option<usize>,
        part: Variable,
    ) {
        let step = used.step as usize;
        let (copy, read) = (program.choices(used)[has], program.choices(used)[read]);
        let from = slot.unwrap_or_else(|| used.previous as usize + 1);
        (from..step).for_each(|instant| self.memory[instant] += copy.held * part);
        if program.whole[step] {
            self.memory[step] += read.read * part;
        }
        if let Some(slot) = slot {
            self.link[slot] += copy.load * part;
        }
        self.drift[round] += f64::from(used.weight) * read.error * part;
    }
}
