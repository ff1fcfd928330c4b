//! Guests: copies that pass through a staging tier on their way to fast memory, read in for a demand or ahead of one.
//!
//! Whatever a copy is worth later, one that is about to be used is worth a place until then: the place is lent, and given on to the next
//! guest when this one was used. So reading ahead takes from the tier as many copies as are awaited at once, and no more. A guest that turns
//! out to be worth more than what the tier holds stays.

use super::level::{Guest, Level};
use super::{HALF_LIFE, HYSTERESIS, Placing, Staging, is_settled};
use crate::control::Context;
use crate::event::Form;
use crate::id::{BlockId, LayerId};
use crate::units::Bytes;

/// A place for a guest, and what lending it costs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lent {
    pub(crate) placing: Placing,
    /// Nanoseconds a token that those who go are worth.
    pub(crate) rent: f64,
}

impl Staging {
    /// Room for a copy that is to be used so many layer steps from now: what is free, else of guests that were used, else of copies
    /// whose layers come later than that, those that come last first.
    pub(crate) fn room_for_guest(&self, context: &Context, block: BlockId, to: Form, ahead: u32) -> Option<Lent> {
        let ledger = &context.ledger;
        let level = self.levels.iter().find(|level| level.tier == to.tier)?;
        let wanted = ledger.footprint(block, to);
        if ledger.has(block, to) || wanted > ledger.usage(to.tier).capacity {
            return None;
        }
        let mut free = ledger.free(to.tier);
        let (mut victims, mut rent) = (Vec::new(), 0.0);
        let mut candidates = self.who_may_go(context, level, ahead);
        while free < wanted {
            let (other, form, worth) = candidates.next()?;
            let bytes = ledger.footprint(other, form);
            free += bytes;
            rent += self.rate(context, worth, bytes);
            victims.push((other, form));
        }
        Some(Lent { placing: Placing { to, victims }, rent })
    }

    /// Copies that may go for a guest to be used so many layer steps from now, with the worth of each byte.
    fn who_may_go<'a>(
        &'a self,
        context: &'a Context,
        level: &'a Level,
        ahead: u32,
    ) -> impl Iterator<Item = (BlockId, Form, f64)> + 'a {
        let (ledger, signals, tier) = (&context.ledger, &context.signals, level.tier);
        let used = level.guests().filter(|guest| !guest.awaited).map(|guest| (guest.block, guest.form, 0.0));
        let later = (1..=signals.layers).rev().map(|place| signals.coming(place));
        let later = later.take_while(move |&layer| signals.layers_until(layer) > ahead);
        let held = later.flat_map(|layer| level.held_of(layer));
        let held = held.map(move |&(bits, block, format)| (block, Form { tier, format }, f64::from_bits(bits)));
        let may_go = |&(block, form, _): &(BlockId, Form, f64)| {
            is_settled(ledger, block, form) && !ledger.is_pinned(block)
        };
        used.chain(held).filter(may_go)
    }

    /// Nanoseconds a token that a copy saves, as often as its block was fetched lately.
    fn rate(&self, context: &Context, worth: f64, bytes: Bytes) -> f64 {
        let faded = libm::exp2(self.scaled - context.signals.step as f64 / HALF_LIFE);
        worth * bytes.0 as f64 * faded * std::f64::consts::LN_2 / HALF_LIFE
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
        self.settle(context, |guest| guest.awaited && guest.layer == layer && !context.ledger.is_pinned(guest.block));
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
