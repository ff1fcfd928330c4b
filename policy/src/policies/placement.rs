//! A chosen placement: members, each of which stays in fast memory in one format, and guests, that pass through the room
//! beside them.

use super::look_ahead::prefetch;
use super::per_layer::Ranking;
use crate::control::{Context, Proposal, Victim};
use crate::demand::Demands;
use crate::event::Form;
use crate::format::FormatId;
use crate::id::BlockId;
use crate::model::Model;
use crate::registry::{SimulateError, SimulateInput};
use crate::replay::ReplayError;

/// What stays, and in which order copies leave.
#[derive(Clone, Debug)]
pub(super) struct Placement {
    /// The format that each block stays in; `None` for a guest.
    kept: Vec<Option<FormatId>>,
    /// What each block is worth: of guests, and then of members, the least leaves first.
    worth: Vec<f64>,
    /// Members whose copies may be missing, the greatest worth last.
    wanted: Vec<BlockId>,
    guests: Ranking,
    members: Ranking,
}

impl Placement {
    /// A placement without members, all blocks being worth the same.
    pub(super) fn new(model: &Model) -> Placement {
        Placement {
            kept: vec![None; model.blocks.len()],
            worth: vec![0.0; model.blocks.len()],
            wanted: Vec::new(),
            guests: Ranking::new(model.layers.len()),
            members: Ranking::new(model.layers.len()),
        }
    }

    /// Chooses anew: the format that each member stays in, and what each block is worth.
    pub(super) fn choose(&mut self, kept: Vec<Option<FormatId>>, worth: Vec<f64>) {
        self.guests.forget_all();
        self.members.forget_all();
        self.wanted.clear();
        self.wanted.extend((0..kept.len() as u32).map(BlockId).filter(|block| kept[block.index()].is_some()));
        self.wanted.sort_by(|a, b| worth[a.index()].total_cmp(&worth[b.index()]).then(b.cmp(a)));
        (self.kept, self.worth) = (kept, worth);
    }

    /// The first `members` blocks of an order, in full precision; each block is worth more than those after it.
    pub(super) fn choose_first(&mut self, model: &Model, order: &[BlockId], members: usize) {
        let (mut kept, mut worth) = (vec![None; model.blocks.len()], vec![0.0; model.blocks.len()]);
        for (place, &block) in order.iter().enumerate() {
            worth[block.index()] = (order.len() - place) as f64;
            kept[block.index()] = (place < members).then_some(model.block(block).native);
        }
        self.choose(kept, worth);
    }

    /// Whether a block is a member.
    pub(super) fn is_member(&self, block: BlockId) -> bool {
        self.kept[block.index()].is_some()
    }

    /// Whether a guest could give its room up now.
    pub(super) fn has_guest(&mut self, context: &Context) -> bool {
        self.least_guest(context).is_some()
    }

    /// The guest that is worth least. Without guests, as where memory has shrunk, the member that is worth least.
    pub(super) fn victim(&mut self, context: &Context) -> Option<Victim> {
        if let Some((block, form)) = self.least_guest(context) {
            return Some(Victim { block, form, terms: None });
        }
        let Placement { worth, members, .. } = self;
        let (_, block) = members.least(context, |block| Some(worth[block.index()]), |_, worth| worth)?;
        let form = context.ledger.fast_copies(block).next()?;
        Some(Victim { block, form, terms: None })
    }

    fn least_guest(&mut self, context: &Context) -> Option<(BlockId, Form)> {
        let Placement { kept, worth, guests, .. } = self;
        // A copy in another format than a member stays in is a guest too.
        let guest = |block: BlockId| {
            let kept = kept[block.index()];
            context.ledger.fast_copies(block).find(|form| Some(form.format) != kept)
        };
        let worth = |block: BlockId| guest(block).map(|_| worth[block.index()]);
        let (_, block) = guests.least(context, worth, |_, worth| worth)?;
        guest(block).map(|form| (block, form))
    }

    /// Appends moves of members to where they are to stay, the greatest worth first, at most so many.
    pub(super) fn moves(&mut self, context: &Context, most: usize, proposals: &mut Vec<Proposal>) {
        let Placement { kept, wanted, .. } = self;
        let there = |block: BlockId| {
            let form = |format| Form { tier: context.costs.fast, format };
            kept[block.index()].is_none_or(|format| context.ledger.has(block, form(format)))
        };
        while wanted.last().is_some_and(|&block| there(block)) {
            wanted.pop();
        }
        let most = proposals.len() + most;
        for &block in wanted.iter().rev() {
            if proposals.len() == most {
                break;
            }
            let proposed = proposals.iter().any(|other| other.block == block);
            let format = kept[block.index()].filter(|_| !proposed);
            // What a copy adds to the drift is judged when a step reads it.
            proposals.extend(format.and_then(|format| prefetch(context, block, format, 0.0, 1.0)));
        }
    }
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

/// How likely each block is to be needed when its layer comes, by a trace: one never seen counts as seen half a time.
pub(super) fn popularity(model: &Model, fit: &Demands) -> Vec<f64> {
    let layer_of = |id: u32| model.block(BlockId(id)).layer.index();
    let mut visits = vec![0u64; model.layers.len()];
    let mut counts = vec![0u64; model.blocks.len()];
    let mut counted_in = vec![usize::MAX; counts.len()];
    for step in 0..fit.len() {
        for &id in fit.step(step).iter() {
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

/// The blocks by falling popularity, ties to the lowest id.
pub(super) fn by_popularity(popularity: &[f64]) -> Vec<BlockId> {
    let mut order: Vec<BlockId> = (0..popularity.len() as u32).map(BlockId).collect();
    order.sort_by(|a, b| popularity[b.index()].total_cmp(&popularity[a.index()]));
    order
}
