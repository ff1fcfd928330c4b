//! Copies kept between home and fast memory: in DRAM, of blocks whose home is a drive; in a peer's memory, of blocks whose home is
//! DRAM. They are copies and no more: the home copies are the truth, so whoever lends the memory may take it back at any time.
//!
//! What is worth keeping is what is fetched: a block that stays in fast memory needs no copy below. A copy's worth is how
//! often its block was fetched lately, times what a fetch from here saves over one from home, for each byte. A copy comes
//! in if there is room, or if what goes is worth less; so the tier holds what is fetched most, as LRFU does (Lee et al., IEEE
//! Transactions on Computers 50(12), 2001), weighed by cost and size as GDSF does (Cherkasova, HP Labs 1998).
//!
//! Other copies only pass through: see `guests`.

mod ahead;
mod carry;
mod guests;
mod legs;
mod level;

use crate::control::Context;
use crate::event::{EncodeAt, Form, Source};
use crate::format::FormatId;
use crate::id::{BlockId, TierId};
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::model::Model;
use crate::path::Paths;
use crate::score::Route;
use crate::units::Bytes;
use level::{Key, Level};

/// Steps after which a fetch counts half.
const HALF_LIFE: f64 = 256.0;
/// How much more a copy must be worth than one that goes for it, so that equals do not take turns.
const HYSTERESIS: f64 = 1.1;
/// Doublings of a new fetch's weight after which all weights are scaled down.
const DOUBLINGS: f64 = 500.0;

/// A copy to be made in a staging tier, and those that go for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placing {
    /// The copy.
    pub(crate) to: Form,
    /// Who goes.
    pub(crate) victims: Vec<(BlockId, Form)>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Staging {
    levels: Vec<Level>,
    paths: Paths,
    /// For each block, its fetches, later ones weighing more: all fade alike, so their order stands until the next fetch.
    fetches: Vec<f64>,
    /// Doublings that were taken out of all weights.
    scaled: f64,
}

impl Staging {
    /// Tiers that hold copies beside the home ones, in the order in which they are asked; `budgets` gives each tier of the machine
    /// the bytes that blocks may take.
    pub(crate) fn new(tiers: &[TierId], machine: &Machine, model: &Model, budgets: &[Bytes]) -> Staging {
        let level = |&tier: &TierId| Level::new(tier, budgets[tier.index()], model.layers.len());
        Staging {
            levels: tiers.iter().map(level).collect(),
            paths: Paths::new(machine),
            fetches: vec![0.0; if tiers.is_empty() { 0 } else { model.blocks.len() }],
            scaled: 0.0,
        }
    }

    /// Whether there is no such tier.
    pub(crate) fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// What a tier's copies may take when nobody else takes any; `None` for a tier that is not one of these.
    pub(crate) fn budget(&self, tier: TierId) -> Option<Bytes> {
        self.levels.iter().find(|level| level.tier == tier).map(|level| level.budget)
    }

    /// A block is fetched from below: its copies are worth more from here on. Returns whether one of them was read ahead.
    pub(crate) fn fetched(&mut self, context: &Context, block: BlockId) -> bool {
        let doublings = context.signals.step as f64 / HALF_LIFE;
        if doublings - self.scaled > DOUBLINGS {
            self.scale_down(context);
        }
        let before = self.fetches[block.index()];
        self.fetches[block.index()] = before + libm::exp2(doublings - self.scaled);
        let layer = context.model.block(block).layer;
        for level in 0..self.levels.len() {
            let tier = self.levels[level].tier;
            // A block may have copies in several formats here.
            for &format in &context.costs.formats {
                let form = Form { tier, format };
                let old = self.key(context, block, form, before);
                if self.levels[level].let_go(layer, old) {
                    let new = self.key(context, block, form, self.fetches[block.index()]);
                    self.levels[level].hold(layer, new);
                }
            }
        }
        self.was_used(context, block)
    }

    /// Where a copy of a block is worth making, of those tiers that bytes on their way from the tier `from` pass through, or of
    /// all: the first that has none of it and whose copies to go for it are worth less.
    pub(crate) fn place(
        &self,
        context: &Context,
        block: BlockId,
        from: Form,
        passing: Option<TierId>,
    ) -> Option<Placing> {
        let through = |tier: TierId| match passing {
            None => true,
            Some(to) => self.paths.between(from.tier, to).is_some_and(|path| {
                path.links.iter().skip(1).any(|&link| context.machine.link(link).from == tier)
            }),
        };
        // What lies in one of these tiers already is moved up only to one that is asked before it.
        let above = self.levels.iter().take_while(|level| level.tier != from.tier);
        above
            .filter(|level| through(level.tier))
            .find_map(|level| self.place_in(context, level, block, from.format))
    }

    fn place_in(
        &self,
        context: &Context,
        level: &Level,
        block: BlockId,
        format: FormatId,
    ) -> Option<Placing> {
        let ledger = &context.ledger;
        let to = Form { tier: level.tier, format };
        if ledger.has(block, to) {
            return None;
        }
        let worth = self.worth(context, block, to, self.fetches[block.index()]);
        let wanted = ledger.footprint(block, to);
        let mut free = ledger.free(level.tier);
        let mut victims = Vec::new();
        let mut candidates = level.held();
        while free < wanted {
            let &(bits, other, format) = candidates.next()?;
            if f64::from_bits(bits) * HYSTERESIS >= worth {
                return None;
            }
            let form = Form { tier: level.tier, format };
            if is_settled(ledger, other, form) {
                free += ledger.footprint(other, form);
                victims.push((other, form));
            }
        }
        (worth > 0.0).then_some(Placing { to, victims })
    }

    /// A copy is being made.
    pub(crate) fn took(&mut self, context: &Context, block: BlockId, form: Form) {
        if let Some(place) = self.levels.iter().position(|level| level.tier == form.tier) {
            let key = self.key(context, block, form, self.fetches[block.index()]);
            self.levels[place].hold(context.model.block(block).layer, key);
        }
    }

    /// A copy is gone, or was given up.
    pub(crate) fn left(&mut self, context: &Context, block: BlockId, form: Form) {
        if let Some(place) = self.levels.iter().position(|level| level.tier == form.tier) {
            let key = self.key(context, block, form, self.fetches[block.index()]);
            let level = &mut self.levels[place];
            if level.dismiss(block, form).is_none() {
                level.let_go(context.model.block(block).layer, key);
            }
        }
    }

    /// The copies of a tier, guests and those worth least first.
    pub(crate) fn held(&self, tier: TierId) -> impl Iterator<Item = (BlockId, Form)> + '_ {
        let level = self.levels.iter().find(|level| level.tier == tier);
        level.into_iter().flat_map(Level::copies)
    }

    /// The tiers.
    pub(crate) fn tiers(&self) -> impl Iterator<Item = TierId> + '_ {
        self.levels.iter().map(|level| level.tier)
    }

    /// The quickest way to bring a copy of a block, in the very format in which it is to be kept, to a staging tier.
    fn way(&self, ledger: &Ledger, block: BlockId, to: Form, crossing: Bytes) -> Option<Route> {
        let same = ledger.copies(block).filter(|from| from.format == to.format);
        let routes = same.filter_map(|from| {
            let path = self.paths.between(from.tier, to.tier)?;
            let (from, links) = (Source::Copy(from), path.set);
            let (time, occupies) = (path.transfer(crossing), path.busy(crossing));
            Some(Route { from, to, encode_at: EncodeAt::Source, links, crossing, time, occupies })
        });
        routes.min_by_key(|route| (route.time, route.from))
    }

    fn key(&self, context: &Context, block: BlockId, form: Form, fetches: f64) -> Key {
        (self.worth(context, block, form, fetches).to_bits(), block, form.format)
    }

    /// What a copy is worth: time saved by each fetch over what the home copy alone would take, times fetches, for each byte.
    fn worth(&self, context: &Context, block: BlockId, form: Form, fetches: f64) -> f64 {
        let bytes = context.ledger.footprint(block, form).0.max(1);
        fetches * self.saves(context, block, form) / bytes as f64
    }

    /// Nanoseconds that a fetch from a copy saves over what the home copy alone would take. Where the two ways have a link in common
    /// that is the difference of their times, h - t; where they have none they carry copies side by side, 1 / h + 1 / t in a second,
    /// which saves h² / (h + t) even if this one is the slower.
    fn saves(&self, context: &Context, block: BlockId, form: Form) -> f64 {
        let home = Form { tier: context.home.of(block), ..form };
        let way = |from: Form| context.costs.carried(block, from);
        let (Some(home), Some(here)) = (way(home), way(form)) else { return 0.0 };
        let [h, t] = [home, here].map(|route| route.time.0 as f64);
        if home.links.overlaps(here.links) { (h - t).max(0.0) } else { h * h / (h + t).max(1.0) }
    }

    fn scale_down(&mut self, context: &Context) {
        let by = context.signals.step as f64 / HALF_LIFE - self.scaled;
        self.scaled += by;
        self.fetches.iter_mut().for_each(|weight| *weight *= libm::exp2(-by));
        for level in 0..self.levels.len() {
            let tier = self.levels[level].tier;
            let before: Vec<Key> = self.levels[level].held().copied().collect();
            for key in before {
                let (_, block, format) = key;
                let layer = context.model.block(block).layer;
                self.levels[level].let_go(layer, key);
                let key = self.key(context, block, Form { tier, format }, self.fetches[block.index()]);
                self.levels[level].hold(layer, key);
            }
        }
    }
}

/// Whether a copy is there, and neither a move nor a processor beside it reads it, or makes it.
fn is_settled(ledger: &Ledger, block: BlockId, form: Form) -> bool {
    let in_use = ledger.flight_of(block).is_some_and(|(_, flight)| flight.touches(form));
    ledger.has(block, form) && !in_use && !ledger.read_in_place.contains(&(block, form))
}
