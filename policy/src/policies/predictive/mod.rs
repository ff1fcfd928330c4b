//! The design's own policy: a multiple-choice knapsack over (block, form), solved step by step by marginal value per
//! byte. A copy is worth the stall it is expected to save before its next use, less the price of the drift it causes
//! and of the memory it takes. Both prices move in closed loop: memory's with what has to be given up for it, drift's
//! with how much of the budget the last steps used. Moves ahead of demand are priced like everything else.

mod ahead;
mod fetches;
mod foresight;
mod holding;
mod interference;
mod params;
mod plan;
mod prices;
mod residency;
mod uses;

use self::ahead::likeliest_first;
use self::fetches::{Fetches, Way};
use self::foresight::Foresight;
use self::holding::{NextUse, RARE};
use self::interference::Interference;
use self::params::{PARAMS, Settings};
use self::plan::Plan;
use self::prices::PriceLoop;
use crate::control::{Context, Policy, Prices, Proposal, Rests, Victim};
use crate::event::{Form, MoveClass, Routed};
use crate::id::{BlockId, LayerId};
use crate::model::Layer;
use crate::predict::{History, Shape};
use crate::record::Action;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::score::Terms;
use std::ops::Range;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "predictive",
    about: "places each block, in each format, by expected stall saved per byte; prefetches what is worth its price",
    params: PARAMS,
    replay: Some(residency::replay),
    simulate: Some(simulate),
    ..Entry::ONLINE
};

/// Speculative moves under way at once: the room of a second one would be empty until the first has arrived (gpt-oss-20b on
/// PCIe 5 and on NVLink-C2C, 96 to 480 slots: with 2 the stall is up to 5 % higher, with 4 up to 9 %).
const MAX_SPECULATIONS: usize = 1;
/// Blocks less likely than this to be asked for are not worth a look.
const LIKELY: f32 = 0.02;
/// A step that spends its drift budget unevenly pays at most so many times the price, or so small a part of it.
const MOST_HASTE: f64 = 10.0;
/// For how many tokens more a copy is taken to be held when it is chosen which of a block's copies is worth least
/// (mixtral-8x7b: for one, the stall is 2 to 4 % higher without drift; for four, up to 5 % higher at a budget of 1 %).
const KEPT_ON: f64 = 2.0;
/// Prices of memory that differ by less than this share rank blocks alike.
const NEAR: f64 = 0.1;
/// Weight of the newest visit in a block's mean squared gate weight.
const GATE_SMOOTHING: f64 = 0.1;
/// What every fetch is taken to cost, in nanoseconds, where nobody looks at costs.
const FLAT_COST: f64 = 1e6;
/// Tokens until any layer comes, where nobody looks at when each does.
const ANY_TIME: f64 = 0.5;

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let settings = Settings::read(input.params).ok_or(SimulateError::Params)?;
    let model = input.model;
    let learned = |shape: Shape| settings.predictor.build(shape, settings.distances(shape.layers));
    let history = History::new(model, settings.inputs.router_history.then_some(learned));
    let history = history.ok_or(SimulateError::UnevenLayers)?;
    let selected = model.routed_layers().next().map_or(1, |layer| layer.selected);
    let layers = model.layers.len() as u32;
    let wait = |ahead| if settings.inputs.next_use { f64::from(ahead) / f64::from(layers) } else { ANY_TIME };
    Ok(Box::new(Predictive {
        plan: Plan::new(model, history.is_certain()),
        history,
        selected,
        interference: Interference::default(),
        far: Interference::default(),
        foresight: Foresight::new(model.layers.iter().map(blocks_of).collect()),
        settings,
        fetches: Fetches::new(model.blocks.len()),
        stakes: vec![None; model.blocks.len()],
        ranking: vec![Ranked::NEW; model.layers.len()],
        ranking_price: 0.0,
        waits: (0..=layers).map(wait).collect(),
        likeliest: Vec::new(),
        gates: vec![0.0; model.blocks.len()],
        chosen: Vec::new(),
        prices: PriceLoop::new(),
    }))
}

/// What giving up the copy of a block that is worth least would lose.
#[derive(Clone, Copy)]
struct Stake {
    /// The block's copies that this follows from.
    copies: u64,
    /// Whether there is only this one.
    only: bool,
    form: Form,
    /// Nanoseconds that a use of the copy saves, beside the block's other copies.
    saves: f64,
    bytes: f64,
    /// What a byte of it is worth to keep, but for the rent until the layer comes, as of a valuation of the layer.
    worth: f64,
    valuation: u64,
}

/// No block, and more than any is worth.
const NOTHING: (f64, BlockId) = (f64::INFINITY, BlockId(u32::MAX));

/// The block of a layer that is worth least per byte, with that worth.
#[derive(Clone, Copy)]
struct Ranked {
    /// Changes so far of what the layer's blocks are worth: of what is expected, or of the price of memory.
    valuation: u64,
    /// The ledger's version of the layer that `least` follows from, if it is known.
    version: Option<u64>,
    /// [`NOTHING`] where no block may be given up.
    least: (f64, BlockId),
}

impl Ranked {
    const NEW: Ranked = Ranked { valuation: 0, version: None, least: NOTHING };

    /// What the blocks are worth has changed.
    fn revalue(&mut self) {
        self.valuation += 1;
        self.version = None;
    }
}

struct Predictive {
    history: History,
    selected: u32,
    interference: Interference,
    /// The same of the links from what is far.
    far: Interference,
    foresight: Foresight,
    settings: Settings,
    fetches: Fetches,
    /// What each block stands to lose, as last worked out.
    stakes: Vec<Option<Stake>>,
    /// What each layer would give up first, if that is known, at a price of memory of `ranking_price`.
    ranking: Vec<Ranked>,
    ranking_price: f64,
    /// Tokens until a layer comes, by the layer steps until then.
    waits: Box<[f64]>,
    likeliest: Vec<(f32, BlockId)>,
    /// Running mean of each block's squared gate weight when chosen.
    gates: Vec<f64>,
    chosen: Vec<u32>,
    prices: PriceLoop,
    plan: Plan,
}

fn blocks_of(layer: &Layer) -> Range<usize> {
    let first = layer.first_block.index();
    first..first + layer.blocks as usize
}

/// The lesser of two blocks by worth, then by id.
#[inline(always)]
fn lesser(one: (f64, BlockId), other: (f64, BlockId)) -> (f64, BlockId) {
    if other < one { other } else { one }
}

impl Predictive {
    /// When a block will be needed, as far as the router's history says.
    fn next_use(&self, context: &Context, block: BlockId) -> NextUse {
        let layer = context.model.block(block).layer;
        self.next_uses(context, layer, self.wait(context, layer))(block)
    }

    /// Tokens until a layer comes; a token is as many layer steps as there are layers.
    #[inline]
    fn wait(&self, context: &Context, layer: LayerId) -> f64 {
        let ahead = context.signals.layers_until(layer);
        match self.waits.get(ahead as usize) {
            Some(&wait) => wait,
            // Only layers of other phases come later than all others.
            None => f64::from(ahead) / f64::from(context.signals.layers),
        }
    }

    /// When the blocks of a layer will be needed that comes in `wait` tokens.
    #[inline]
    fn next_uses(&self, context: &Context, layer: LayerId, wait: f64) -> impl Fn(BlockId) -> NextUse {
        let first = context.model.layer(layer).first_block.0;
        let later = self.history.later(layer);
        let next = if self.settings.inputs.next_use {
            self.foresight.next_visit(&self.history, layer)
        } else {
            later
        };
        move |block| {
            let expert = (block.0 - first) as usize;
            NextUse { p: f64::from(next[expert]), wait, rate: f64::from(later[expert]) + RARE }
        }
    }

    /// The copy of a block that is worth least beside the others it has, which is then to be valued.
    fn least_copy(&mut self, context: &Context, block: BlockId) -> Option<Stake> {
        let (absent, largest) = (self.cost_absent(context, block), self.largest_error(context, block));
        let ledger = &context.ledger;
        let copies = ledger.copies_word(block);
        let cheapest_but = |left_out: Option<Form>| {
            let others = ledger.fast_copies(block).filter(|&form| Some(form) != left_out);
            let costs = others.map(|form| self.cost_held(context, block, form.format, (absent, largest)));
            costs.fold(absent, f64::min)
        };
        let now = cheapest_but(None);
        let only = ledger.fast_copies(block).nth(1).is_none();
        let kept_on = NextUse { wait: KEPT_ON, ..self.next_use(context, block) };
        let stakes = ledger.fast_copies(block).map(|form| {
            let saves = (cheapest_but(Some(form)) - now).max(1.0);
            let bytes = ledger.footprint(block, form).0 as f64;
            let worth = kept_on.holding(saves, self.ranking_price, bytes, self.settings.horizon).worth();
            Stake { copies, only, form, saves, bytes, worth, valuation: u64::MAX }
        });
        stakes.min_by(|a, b| a.worth.total_cmp(&b.worth))
    }

    /// The block of a layer that is worth least per byte, of those that may be given up, with that worth but for the
    /// rent until the layer comes: a byte of any of its blocks pays the same.
    fn least_of(&mut self, context: &Context, layer: LayerId, valuation: u64) -> (f64, BlockId) {
        for block in context.ledger.idle(layer) {
            let copies = context.ledger.copies_word(block);
            // Which of several copies is worth least changes with what is expected.
            let holds = |stake: Stake| stake.copies == copies && (stake.only || stake.valuation == valuation);
            if !self.stakes[block.index()].is_some_and(holds) {
                self.stakes[block.index()] = self.least_copy(context, block);
            }
        }
        let mut stakes = std::mem::take(&mut self.stakes);
        let next_uses = self.next_uses(context, layer, 0.0);
        let (price, horizon) = (self.ranking_price, self.settings.horizon);
        let mut least = NOTHING;
        for block in context.ledger.idle(layer) {
            let Some(stake) = &mut stakes[block.index()] else { continue };
            if stake.valuation != valuation {
                let holding = next_uses(block).holding(stake.saves, price, stake.bytes, horizon);
                (stake.worth, stake.valuation) = (holding.worth() / stake.bytes, valuation);
            }
            least = lesser(least, (stake.worth, block));
        }
        drop(next_uses);
        self.stakes = stakes;
        least
    }

    /// The block that is worth least per byte, of those that may be given up. Layers are ranked anew when something in
    /// them has changed, and all of them when the price of memory has.
    fn least(&mut self, context: &Context) -> Option<BlockId> {
        if (self.prices.memory() - self.ranking_price).abs() > NEAR * self.ranking_price {
            self.ranking_price = self.prices.memory();
            self.ranking.iter_mut().for_each(Ranked::revalue);
        }
        let mut least = NOTHING;
        for layer in (0..self.ranking.len() as u16).map(LayerId) {
            let version = context.ledger.version(layer);
            let Ranked { valuation, version: known, .. } = self.ranking[layer.index()];
            if known != Some(version) {
                let least = self.least_of(context, layer, valuation);
                self.ranking[layer.index()] = Ranked { valuation, version: Some(version), least };
            }
            let (worth, block) = self.ranking[layer.index()].least;
            least = lesser(least, (worth - self.wait(context, layer) * self.ranking_price, block));
        }
        (least.1 != NOTHING.1).then_some(least.1)
    }
}

impl Policy for Predictive {
    fn foresee(&mut self, context: &Context, layer: LayerId, routed: &[Routed]) {
        let first = context.model.layer(layer).first_block;
        let places = routed.iter().map(|expert| expert.block.index() - first.index());
        self.foresight.foresee(layer, context.signals.layers_until(layer), places);
    }

    fn observe(&mut self, context: &Context, layer: LayerId, routed: &[Routed]) {
        if routed.is_empty() {
            return;
        }
        let first = context.model.layer(layer).first_block.0;
        self.chosen.clear();
        self.chosen.extend(routed.iter().map(|expert| expert.block.0 - first));
        let scale = f32::min(1.0, self.selected as f32 / routed.len() as f32);
        let ledger = &context.ledger;
        let comes = |block| ledger.is_fast(block) || ledger.is_moving(block);
        self.interference.observe(!routed.iter().all(|expert| comes(expert.block)));
        let waits = |block| !comes(block) && context.costs.is_far(ledger, block);
        self.far.observe(routed.iter().any(|expert| waits(expert.block)));
        self.foresight.observe(layer, &self.chosen);
        for changed in self.history.observe(layer, &self.chosen, scale) {
            self.ranking[changed.index()].revalue();
        }
        for foreseen in self.foresight.sharpen(&self.history) {
            self.ranking[foreseen.index()].revalue();
        }
        let tokens = f64::from(context.signals.step_tokens.max(1));
        for expert in routed {
            let mean = &mut self.gates[expert.block.index()];
            let sample = f64::from(expert.gate_squared) / tokens;
            *mean += GATE_SMOOTHING.max(if *mean == 0.0 { 1.0 } else { 0.0 }) * (sample - *mean);
        }
    }

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        let block = proposal.block;
        let route = proposal.route;
        let costs = self.settings.inputs.costs;
        let (format, action) = (route.to.format, proposal.action);
        let (drift, expand) = match action {
            Action::Skip => (self.price_of_skip(context, block)?, 0.0),
            _ => (self.price_of_drift(context, block, format)?, context.costs.expand(block, format).0 as f64),
        };
        let next = self.next_use(context, block);
        // What the copy is worth to later steps; a copy that is there already costs no more for being read.
        let stays = matches!(action, Action::Read | Action::InPlace | Action::Skip);
        let holding = (!stays).then(|| {
            let (absent, largest) = (self.cost_absent(context, block), self.largest_error(context, block));
            let saves = (absent - self.cost_held(context, block, format, (absent, largest))).max(0.0);
            let bytes = context.ledger.footprint(block, route.to).0 as f64;
            next.holding(saves, self.prices.memory(), bytes, self.settings.horizon)
        });
        let kept = holding.filter(|holding| holding.worth() > 0.0);
        let (saved, memory) = kept.map_or((0.0, 0.0), |holding| (holding.saved, holding.rent));
        let terms = Terms {
            probability: next.p,
            next_use: next.tokens(),
            saved,
            moving: if costs { proposal.wait().0 as f64 } else { FLAT_COST },
            decode: if costs { expand } else { 0.0 },
            drift: drift * proposal.gate_squared / context.guard.pace().clamp(1.0 / MOST_HASTE, MOST_HASTE),
            memory,
            total: 0.0,
        };
        Some(terms.sum())
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        let block = self.least(context)?;
        let stake = self.stakes[block.index()]?;
        let next = self.next_use(context, block);
        let holding = next.holding(stake.saves, self.prices.memory(), stake.bytes, self.settings.horizon);
        // A copy that another stands in for says nothing of what memory is worth.
        if self.settings.inputs.pressure && stake.only {
            self.prices.gave_up(holding.break_even);
        }
        let terms = Terms {
            probability: next.p,
            next_use: next.tokens(),
            saved: holding.saved,
            memory: holding.rent,
            ..Terms::default()
        };
        Some(Victim { block, form: stake.form, terms: Some(terms.sum()) })
    }

    fn rests(&self) -> Rests {
        Rests::AllResident
    }

    fn admitted(&mut self, _context: &Context, _block: BlockId) {}

    fn lost(&mut self, _context: &Context, _block: BlockId) {}

    fn speculate(&mut self, context: &Context, proposals: &mut Vec<Proposal>) {
        // What is read into staging tiers takes none of the room that they wait for.
        let background = context.ledger.flights().filter(|(_, flight)| match flight.class {
            MoveClass::Demand => false,
            MoveClass::Prefetch | MoveClass::Speculation => flight.to.tier == context.costs.fast,
            MoveClass::Spill => true,
        });
        let most = MAX_SPECULATIONS.saturating_sub(background.count());
        if most > 0
            && let Some(block) = self.first_not_readable(context)
        {
            return proposals.extend(self.upgrade(context, block));
        }
        self.look_ahead(context, most, false);
        for index in 0..self.likeliest.len() {
            let (p, block) = self.likeliest[index];
            proposals.extend(self.speculation(context, block, f64::from(p)));
        }
        likeliest_first(proposals);
        proposals.truncate(most);
    }

    fn read_ahead(&mut self, context: &Context, proposals: &mut Vec<Proposal>) {
        self.look_ahead(context, 1, true);
        for index in 0..self.likeliest.len() {
            let (p, block) = self.likeliest[index];
            proposals.extend(self.reading(context, block, f64::from(p)));
        }
        likeliest_first(proposals);
    }

    fn tokens_until(&self, context: &Context, block: BlockId) -> Option<f64> {
        Some(self.next_use(context, block).tokens())
    }

    fn prices(&self) -> Option<Prices> {
        Some(Prices { memory: self.prices.memory(), drift: self.prices.drift() })
    }

    fn step_done(&mut self, context: &Context, drift: f64) {
        let budget = context.guard.budget();
        if budget <= 0.0 {
            return;
        }
        let fetch = self.refetch(context, BlockId(0)).map_or(1.0, Way::cost);
        self.prices.step_done(drift, budget, self.settings.drift_gain, fetch);
    }
}
