//! Guests: copies that pass through a staging tier on their way to fast memory, read in for a demand or ahead of one.
//!
//! Whatever a copy is worth later, one that is about to be used is worth a place until then: the place is lent, and given on to the next
//! guest when this one was used. Who goes for a guest is who is wanted last (Belady, IBM Systems Journal 5(2), 1966), as far as is known: its
//! layer has yet to come, and then it is fetched as often as lately. A guest that turns out to be worth more than what the tier
//! holds stays.

use super::level::{Guest, Level};
use super::{HALF_LIFE, HYSTERESIS, Placing, Staging, is_settled};
use crate::control::{Context, Policy};
use crate::event::Form;
use crate::id::{BlockId, LayerId};

/// A place for a guest, and what lending it costs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lent {
    pub(crate) placing: Placing,
    /// Nanoseconds a token that those who go are worth.
    pub(crate) rent: f64,
}

/// A copy that may go for a guest.
struct Candidate {
    block: BlockId,
    form: Form,
    /// Tokens until it is expected to be fetched.
    next_use: f64,
}

/// The least rate that is told from none.
const RARELY: f64 = 1e-6;

impl Staging {
    /// Room for a copy that is to be used so many layer steps from now: what is free, else of copies that are wanted later than that, those
    /// that are expected to be wanted last first.
    pub(crate) fn room_for_guest(
        &self,
        context: &Context,
        policy: &dyn Policy,
        (block, to): (BlockId, Form),
        ahead: u32,
    ) -> Option<Lent> {
        let ledger = &context.ledger;
        let level = self.levels.iter().find(|level| level.tier == to.tier)?;
        let wanted = ledger.footprint(block, to);
        if ledger.has(block, to) || wanted > ledger.usage(to.tier).capacity {
            return None;
        }
        let mut free = ledger.free(to.tier);
        let (mut victims, mut rent) = (Vec::new(), 0.0);
        let mut candidates = match free < wanted {
            true => self.who_may_go(context, policy, level, ahead),
            false => Vec::new(),
        };
        candidates.sort_by(|a, b| b.next_use.total_cmp(&a.next_use).then(a.block.cmp(&b.block)));
        let mut candidates = candidates.into_iter();
        while free < wanted {
            let Candidate { block, form, next_use } = candidates.next()?;
            free += ledger.footprint(block, form);
            rent += self.saves(context, block, form) / next_use;
            victims.push((block, form));
        }
        Some(Lent { placing: Placing { to, victims }, rent })
    }

    /// Copies that may go for one to be used so many layer steps from now: guests that were used, and of each layer the one worth least.
    fn who_may_go(
        &self,
        context: &Context,
        policy: &dyn Policy,
        level: &Level,
        ahead: u32,
    ) -> Vec<Candidate> {
        let (ledger, signals, tier) = (&context.ledger, &context.signals, level.tier);
        let may_go =
            |(block, form): (BlockId, Form)| is_settled(ledger, block, form) && !ledger.is_pinned(block);
        let candidate = |(block, form): (BlockId, Form), until: u32| {
            let of_layer = f64::from(until) / f64::from(signals.layers);
            // Without a view: once its layer has come, it waits for as long as it takes between fetches.
            let next_use = policy.tokens_until(context, block);
            let next_use = next_use.unwrap_or_else(|| of_layer + 1.0 / self.rate(context, block) - 1.0);
            // What is in fast memory is read there next.
            Candidate { block, form, next_use: next_use + f64::from(u8::from(ledger.is_fast(block))) }
        };
        let used = level.guests().filter(|guest| !guest.awaited);
        let used = used.map(|guest| ((guest.block, guest.form), guest.layer));
        let layers = (0..context.model.layers.len() as u16).map(LayerId);
        let held = layers.filter_map(|layer| {
            let copies = level.held_of(layer).map(|&(_, block, format)| (block, Form { tier, format }));
            Some((copies.into_iter().find(|&copy| may_go(copy))?, layer))
        });
        let all = used.filter(|&(copy, _)| may_go(copy)).chain(held);
        let all = all.map(|(copy, layer)| (copy, signals.layers_until(layer)));
        all.filter(|&(_, until)| until > ahead).map(|(copy, until)| candidate(copy, until)).collect()
    }

    /// How often a block is fetched a token, as of lately: at most once.
    fn rate(&self, context: &Context, block: BlockId) -> f64 {
        let faded = libm::exp2(self.scaled - context.signals.step as f64 / HALF_LIFE);
        (self.fetches[block.index()] * faded * std::f64::consts::LN_2 / HALF_LIFE).clamp(RARELY, 1.0)
    }

    /// A guest is coming, `ahead` of demand or for one.
    pub(crate) fn welcome(&mut self, context: &Context, (block, form): (BlockId, Form), ahead: bool) {
        let layer = context.model.block(block).layer;
        let level = self.levels.iter_mut().find(|level| level.tier == form.tier);
        level.into_iter().for_each(|level| level.welcome(Guest { block, form, layer, awaited: true, ahead }));
    }

    /// Whether a copy is a guest that was used.
    pub(crate) fn is_spent(&self, block: BlockId, form: Form) -> bool {
        let mut guests = self.levels.iter().flat_map(Level::guests);
        guests.any(|guest| (guest.block, guest.form) == (block, form) && !guest.awaited)
    }

    /// A block is asked for whose copy is on its way to a staging tier: whether it was read ahead until now.
    pub(crate) fn overtake(&mut self, block: BlockId) -> bool {
        let mut guests = self.levels.iter_mut().flat_map(Level::guests_mut);
        let guest = guests.find(|guest| guest.block == block && guest.awaited);
        guest.is_some_and(|guest| std::mem::take(&mut guest.ahead))
    }

    /// A block was fetched: those of its copies that are guests have been of use, and stay if they are worth it. Returns whether one
    /// was read ahead.
    pub(super) fn was_used(&mut self, context: &Context, block: BlockId) -> bool {
        let is_ahead = |level: &Level| level.guests().any(|guest| guest.block == block && guest.ahead);
        let ahead = self.levels.iter().any(is_ahead);
        self.settle(context, |guest| guest.block == block);
        ahead
    }

    /// A layer has come: guests that it has not asked for will be of no use before it comes again.
    pub(crate) fn passed(&mut self, context: &Context, layer: LayerId) {
        self.settle(context, |guest| {
            guest.awaited && guest.layer == layer && !context.ledger.is_pinned(guest.block)
        });
    }

    fn settle(&mut self, context: &Context, which: impl Fn(&Guest) -> bool) {
        for place in 0..self.levels.len() {
            let settled: Vec<Guest> = self.levels[place].guests().copied().filter(&which).collect();
            for guest in settled {
                let key = self.key(context, guest.block, guest.form, self.fetches[guest.block.index()]);
                let least = self.levels[place].held().next().map_or(0.0, |&(bits, ..)| f64::from_bits(bits));
                let level = &mut self.levels[place];
                level.dismiss(guest.block, guest.form);
                match f64::from_bits(key.0) > least * HYSTERESIS {
                    true => level.hold(guest.layer, key),
                    false => level.welcome(Guest { awaited: false, ahead: false, ..guest }),
                }
            }
        }
    }
}
