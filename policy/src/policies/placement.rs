//! A set of blocks that is chosen once and stays in fast memory, and guests that pass through the room beside it.

use super::per_layer::Ranking;
use crate::control::{Context, Victim};
use crate::demand::Demands;
use crate::event::{Form, Routed};
use crate::format::FormatId;
use crate::id::BlockId;
use crate::registry::{SimulateError, SimulateInput};
use crate::replay::ReplayError;

/// What stays and when each block was last needed.
#[derive(Clone, Debug)]
pub(super) struct FixedSet {
    /// The format in which a member stays, and what a byte of it is worth.
    members: Vec<Option<(FormatId, f64)>>,
    /// The layer step in which a block was last needed.
    needed: Vec<u64>,
    guests: Ranking,
    last: Ranking,
}

impl FixedSet {
    /// A set without members, of so many blocks in so many layers.
    pub(super) fn new(blocks: usize, layers: usize) -> FixedSet {
        FixedSet {
            members: vec![None; blocks],
            needed: vec![0; blocks],
            guests: Ranking::new(layers),
            last: Ranking::new(layers),
        }
    }

    /// Chooses the members: for each block the format in which it stays, with what a byte of it is worth.
    pub(super) fn choose(&mut self, members: Vec<Option<(FormatId, f64)>>) {
        self.members = members;
        self.guests.forget_all();
        self.last.forget_all();
    }

    /// Whether a block is a member.
    pub(super) fn is_member(&self, block: BlockId) -> bool {
        self.members[block.index()].is_some()
    }

    /// Notes what the running layer step needs.
    pub(super) fn observe(&mut self, context: &Context, routed: &[Routed]) {
        for expert in routed {
            self.needed[expert.block.index()] = context.signals.layer_step;
        }
    }

    /// The guest that was needed longest ago. Without guests, as where memory has shrunk, the member that is worth
    /// least.
    pub(super) fn victim(&mut self, context: &Context) -> Option<Victim> {
        let FixedSet { members, needed, guests, last } = self;
        let guest = |block: BlockId| guest_copy(context, members, block);
        let age = |block: BlockId| guest(block).map(|_| needed[block.index()] as f64);
        if let Some(block) = guests.least(context, age, |_, age| age) {
            return guest(block).map(|form| Victim { block, form, terms: None });
        }
        let worth = |block: BlockId| members[block.index()].map(|(_, worth)| worth);
        let block = last.least(context, worth, |_, worth| worth)?;
        let form = context.ledger.fast_copies(block).next()?;
        Some(Victim { block, form, terms: None })
    }
}

/// A fast copy that is not the one a member stays in.
fn guest_copy(context: &Context, members: &[Option<(FormatId, f64)>], block: BlockId) -> Option<Form> {
    let kept = members[block.index()].map(|(format, _)| format);
    context.ledger.fast_copies(block).find(|form| Some(form.format) != kept)
}

/// The trace that a fitted policy learns from.
///
/// # Errors
/// There is none, or it is of another model.
pub(super) fn training<'a>(input: &SimulateInput<'a>) -> Result<&'a Demands, SimulateError> {
    let (universe, fit) = (input.model.blocks.len() as u32, input.fit.ok_or(ReplayError::NoFit)?);
    if fit.universe() != universe {
        return Err(ReplayError::FitUniverse { fit: fit.universe(), demands: universe }.into());
    }
    Ok(fit)
}

/// How likely each block is to be needed when its layer comes, by a trace: of a block never seen, as if it had been seen
/// half a time.
pub(super) fn popularity(input: &SimulateInput, fit: &Demands) -> Vec<f64> {
    let layer_of = |id: u32| input.model.block(BlockId(id)).layer.index();
    let mut visits = vec![0u64; input.model.layers.len()];
    let mut counts = vec![0u64; input.model.blocks.len()];
    let mut counted_in = vec![usize::MAX; counts.len()];
    for step in 0..fit.len() {
        for &id in fit.step(step) {
            let before = std::mem::replace(&mut counted_in[id as usize], step);
            counts[id as usize] += u64::from(before != step);
        }
        if let Some(&id) = fit.step(step).first() {
            visits[layer_of(id)] += 1;
        }
    }
    let share =
        |(id, &count): (usize, &u64)| (count as f64 + 0.5) / (visits[layer_of(id as u32)] as f64 + 1.0);
    counts.iter().enumerate().map(share).collect()
}
