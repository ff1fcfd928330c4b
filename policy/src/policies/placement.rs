//! A chosen placement: members, each of which stays in fast memory in one format, and guests, that pass through the room
//! beside them.

use super::look_ahead::prefetch;
use super::per_layer::Ranking;
use crate::control::{Context, Proposal, Victim};
use crate::demand::Demands;
use crate::event::{Form, Routed};
use crate::format::FormatId;
use crate::id::BlockId;
use crate::model::Model;
use crate::registry::{SimulateError, SimulateInput};
use crate::replay::ReplayError;

/// A block that stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Member {
    /// The format it stays in.
    pub(super) format: FormatId,
    /// What it is worth: where even members have to leave, the least leaves first.
    pub(super) worth: f64,
}

/// What stays, and when each block was last needed.
#[derive(Clone, Debug)]
pub(super) struct Placement {
    members: Vec<Option<Member>>,
    /// Members whose copies may be missing, the greatest worth last.
    wanted: Vec<BlockId>,
    /// The layer step in which a block was last needed.
    needed: Vec<u64>,
    guests: Ranking,
    last: Ranking,
}

impl Placement {
    /// A placement without members.
    pub(super) fn new(model: &Model) -> Placement {
        Placement {
            members: vec![None; model.blocks.len()],
            wanted: Vec::new(),
            needed: vec![0; model.blocks.len()],
            guests: Ranking::new(model.layers.len()),
            last: Ranking::new(model.layers.len()),
        }
    }

    /// Chooses the members anew.
    pub(super) fn choose(&mut self, members: Vec<Option<Member>>) {
        self.members = members;
        self.guests.forget_all();
        self.last.forget_all();
        let worth = |block: &BlockId| self.members[block.index()].map_or(0.0, |member| member.worth);
        let blocks = (0..self.members.len() as u32).map(BlockId);
        self.wanted = blocks.filter(|block| self.members[block.index()].is_some()).collect();
        self.wanted.sort_by(|a, b| worth(a).total_cmp(&worth(b)).then(b.cmp(a)));
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

    /// Whether a guest could give its room up now.
    pub(super) fn has_guest(&mut self, context: &Context) -> bool {
        self.oldest_guest(context).is_some()
    }

    fn oldest_guest(&mut self, context: &Context) -> Option<(BlockId, Form)> {
        let Placement { members, needed, guests, .. } = self;
        let guest = |block: BlockId| guest_copy(context, members[block.index()], block);
        let age = |block: BlockId| guest(block).map(|_| needed[block.index()] as f64);
        let block = guests.least(context, age, |_, age| age)?;
        guest(block).map(|form| (block, form))
    }

    /// The guest that was needed longest ago. Without guests, as where memory has shrunk, the member that is worth
    /// least.
    pub(super) fn victim(&mut self, context: &Context) -> Option<Victim> {
        if let Some((block, form)) = self.oldest_guest(context) {
            return Some(Victim { block, form, terms: None });
        }
        let Placement { members, last, .. } = self;
        let worth = |block: BlockId| members[block.index()].map(|member| member.worth);
        let block = last.least(context, worth, |_, worth| worth)?;
        let form = context.ledger.fast_copies(block).next()?;
        Some(Victim { block, form, terms: None })
    }

    /// Appends moves of members to where they are to stay, the greatest worth first, at most so many.
    pub(super) fn moves(&mut self, context: &Context, most: usize, proposals: &mut Vec<Proposal>) {
        let Placement { members, wanted, .. } = self;
        let format = |block: BlockId| members[block.index()].map(|member| member.format);
        let there = |block: BlockId| {
            let form = |format| Form { tier: context.costs.fast, format };
            format(block).is_none_or(|format| context.ledger.has(block, form(format)))
        };
        while wanted.last().is_some_and(|&block| there(block)) {
            wanted.pop();
        }
        let missing = wanted.iter().rev().filter(|&&block| !there(block));
        // What a copy adds to the drift is judged when a step reads it.
        let moves = missing.filter_map(|&block| prefetch(context, block, format(block)?, 0.0, 1.0));
        proposals.extend(moves.take(most));
    }
}

/// A fast copy that is not the one a member stays in.
fn guest_copy(context: &Context, member: Option<Member>, block: BlockId) -> Option<Form> {
    let kept = member.map(|member| member.format);
    context.ledger.fast_copies(block).find(|form| Some(form.format) != kept)
}

/// The first `members` blocks of an order, in full precision, the first being worth most.
pub(super) fn first_of(model: &Model, order: &[BlockId], members: usize) -> Vec<Option<Member>> {
    let mut chosen = vec![None; model.blocks.len()];
    for (place, &block) in order.iter().take(members).enumerate() {
        let worth = (members - place) as f64;
        chosen[block.index()] = Some(Member { format: model.block(block).native, worth });
    }
    chosen
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

/// The blocks by falling popularity, ties to the lowest id.
pub(super) fn by_popularity(popularity: &[f64]) -> Vec<BlockId> {
    let mut order: Vec<BlockId> = (0..popularity.len() as u32).map(BlockId).collect();
    order.sort_by(|a, b| popularity[b.index()].total_cmp(&popularity[a.index()]));
    order
}
