//! Tuned static-joint: the precision and the place of every block, fitted together on a trace and never changed.
//!
//! Source: the nemesis in DynaByte's own replay (an unpublished draft in kexinchu/DynaQuant), where online exchange did not
//! clearly beat a tuned static joint plan (121.1 against 125.4 ms). The draft does not say how the plan is made. Here each block
//! takes one of these choices: to stay in one of the formats there are, or to be absent and fetched in one of them. A
//! multiple-choice knapsack (`knapsack.rs`) takes the set with the least expected stall that fits fast memory and, by the
//! errors the guard decides on, a share of the drift budget: the budget binds every step, and a plan is an average.
//!
//! The trace says how popular each block is. How a token's squared gate weights add up is measured in the first token
//! step, after which the plan is made and kept; blocks move as they are asked for. Slots for the largest demand are left free
//! for those that are absent, of which the one worth least by the same measure leaves first. Of larger batches the plan knows the
//! number of requests running then: a block is taken to be needed where any of so many independent tokens needs it. On
//! mixtral-8x7b-4090 at a budget of 1 %, drift shares of 0.6, 0.7, 0.9 and 1 gave 2.36, 2.56, 2.97 and 2.98 tokens a second, the
//! last with the guard refusing 1.7 times as often as the one before: the default is 0.9.

use super::full_precision::LAST_RESORT;
use super::knapsack::{Choice, solve};
use super::placement::{Placement, popularity, training};
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::{Form, Routed};
use crate::format::FormatId;
use crate::id::{BlockId, LayerId};
use crate::record::Action;
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "static_joint",
    about: "keeps the blocks and formats that a knapsack over the fitted trace chose under the drift budget",
    params: PARAMS,
    simulate: Some(simulate),
    fitted: true,
    ..Entry::ONLINE
};

const PARAMS: &[Param] = &[
    Param {
        name: "drift_share",
        about: "share of the drift budget that the plan may use on average",
        default: 0.9,
        min: 0.0,
        max: 1.0,
        scale: Scale::Linear,
    },
    Param {
        name: "free",
        about: "room left free for blocks that are absent, in demands of the largest layer step",
        default: 1.0,
        min: 0.0,
        max: 16.0,
        scale: Scale::Linear,
    },
];

/// The most squared drift that a planned use may add on average, in budgets of a layer: the guard lets a layer have its own and
/// what those before it left over, and would refuse most uses that want more.
const MOST_OF_A_USE: f64 = 4.0;

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let &[drift_share, free] = input.params else { return Err(SimulateError::Params) };
    let fit = training(input)?;
    Ok(Box::new(StaticJoint {
        popularity: popularity(input.model, fit),
        drift_share,
        free_slots: (free * input.largest_demand as f64) as u64,
        gates: (0.0, 0),
        placement: Placement::new(input.model),
        formats: None,
    }))
}

struct StaticJoint {
    popularity: Vec<f64>,
    drift_share: f64,
    free_slots: u64,
    /// Sum of a token's squared gate weights over the layer steps seen, and their number.
    gates: (f64, u32),
    placement: Placement,
    /// The format that each block is held or fetched in, once the plan is made.
    formats: Option<Vec<FormatId>>,
}

/// A choice and what it stands for.
struct Meaning {
    choice: Choice,
    format: FormatId,
    stays: bool,
}

impl StaticJoint {
    /// The ways to hold a block. `gates` is the sum of a token's squared gate weights.
    fn choices(&self, context: &Context, block: BlockId, gates: f64) -> Vec<Meaning> {
        let Context { costs, ledger, guard, model, .. } = context;
        let data = model.block(block);
        let popularity = self.popularity[block.index()];
        let selected = f64::from(model.layer(data.layer).selected.max(1));
        let tokens = f64::from(context.signals.concurrency.max(1));
        let needed = 1.0 - libm::pow(1.0 - popularity, tokens);
        let of_format = |&format: &FormatId| {
            let error = guard.error(block, format)?.upper;
            let of_a_use = gates / selected * error * error;
            let admitted = format.get().direct && of_a_use < MOST_OF_A_USE * guard.budget() * guard.budget();
            let usable = format.keeps(data.native) || admitted;
            let route = costs.fetch(ledger, block, format).filter(|_| usable)?;
            let expand = costs.expand(block, format).0 as f64;
            let drift = popularity * of_a_use;
            let bytes = ledger.footprint(block, Form { tier: costs.fast, format }).0;
            let stays = Choice { bytes, stall: needed * expand, drift };
            let fetched = Choice { bytes: 0, stall: needed * (expand + route.time.0 as f64), drift };
            Some([(stays, true), (fetched, false)].map(|(choice, stays)| Meaning { choice, format, stays }))
        };
        costs.formats.iter().filter_map(of_format).flatten().collect()
    }

    /// Fits the plan to the machine and the budget.
    fn plan(&mut self, context: &Context) {
        let Context { model, ledger, guard, costs, .. } = context;
        // Place after place within the layers, so that what drift there is comes to all layers alike.
        let mut blocks: Vec<BlockId> = (0..model.blocks.len() as u32).map(BlockId).collect();
        blocks.sort_by_key(|&block| model.block(block).index);
        let gates = self.gates.0 / f64::from(self.gates.1.max(1));
        let meanings: Vec<_> = blocks.iter().map(|&block| self.choices(context, block, gates)).collect();
        let choices: Vec<Vec<Choice>> =
            meanings.iter().map(|of| of.iter().map(|meaning| meaning.choice).collect()).collect();
        let slot = model.largest_block().round_up(context.machine.tier(costs.fast).granularity);
        let capacity = ledger.usage(costs.fast).capacity.0;
        let room = capacity.saturating_sub(self.free_slots.saturating_mul(slot.0));
        let budget = self.drift_share * guard.budget();
        let taken = solve(&choices, room, model.layers.len() as f64 * budget * budget);
        let mut formats: Vec<FormatId> = model.blocks.iter().map(|block| block.native).collect();
        let (mut kept, mut worth) = (vec![None; formats.len()], self.popularity.clone());
        for ((&block, of), place) in blocks.iter().zip(&meanings).zip(taken.into_iter().flatten()) {
            let Meaning { choice, format, stays } = &of[place];
            formats[block.index()] = *format;
            let absent = of.iter().filter(|other| !other.stays).map(|other| other.choice.stall);
            let bytes = ledger.footprint(block, Form { tier: costs.fast, format: *format }).0.max(1);
            let stays_at = if *stays { choice.stall } else { 0.0 };
            worth[block.index()] = (absent.fold(f64::INFINITY, f64::min) - stays_at) / bytes as f64;
            kept[block.index()] = stays.then_some(*format);
        }
        self.placement.choose(kept, worth);
        self.formats = Some(formats);
    }
}

impl Policy for StaticJoint {
    fn observe(&mut self, context: &Context, _layer: LayerId, routed: &[Routed]) {
        if self.formats.is_none() {
            let sum: f64 = routed.iter().map(|expert| f64::from(expert.gate_squared)).sum();
            self.gates.0 += sum / f64::from(context.signals.step_tokens.max(1));
            self.gates.1 += 1;
        }
    }

    /// By the quickest route to the planned format; anything else of full precision where the guard refuses that.
    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        if matches!(proposal.action, Action::InPlace | Action::Skip) {
            return None;
        }
        let (block, format) = (proposal.block, proposal.route.to.format);
        let native = context.model.block(block).native;
        let planned = self.formats.as_ref().map_or(native, |formats| formats[block.index()]);
        let named = format == planned || proposal.action == Action::Expand;
        (named || format.keeps(native)).then(|| {
            let decode = context.costs.expand(block, format).0 as f64;
            let memory = if named { 0.0 } else { LAST_RESORT };
            Terms { moving: proposal.wait().0 as f64, decode, memory, ..Terms::default() }.sum()
        })
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        self.placement.victim(context)
    }

    fn step_done(&mut self, context: &Context, _drift: f64) {
        if self.formats.is_none() {
            self.plan(context);
        }
    }
}
