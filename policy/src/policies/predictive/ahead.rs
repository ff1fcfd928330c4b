//! Moves ahead of demand: which blocks of coming layers are worth a look, and what having them in fast memory, or nearer to it, is
//! expected to save.

use super::fetches::Way;
use super::{LIKELY, MAX_SPECULATIONS, NOTHING, Predictive};
use crate::bits::ones;
use crate::control::{Context, Proposal};
use crate::event::MoveClass;
use crate::id::{BlockId, LayerId};
use crate::record::Action;
use crate::score::Terms;
use std::hint::select_unpredictable;

/// What idle link time there is goes to the likeliest, and of two alike to the one that is wanted sooner.
pub(super) fn likeliest_first(proposals: &mut [Proposal]) {
    let likeliest = |a: &Proposal, b: &Proposal| {
        let (of_a, of_b) = (a.terms, b.terms);
        let by_chance = of_b.probability.total_cmp(&of_a.probability);
        by_chance.then(of_a.next_use.total_cmp(&of_b.next_use)).then(a.block.cmp(&b.block))
    };
    proposals.sort_by(likeliest);
}

impl Predictive {
    /// Adds to `self.likeliest` the absent blocks of a layer that are likeliest to be asked for, `most` of them: of those that are
    /// far, or of the others.
    fn choose_likeliest(&mut self, context: &Context, layer: LayerId, most: usize, far: bool) {
        let first = context.model.layer(layer).first_block.0;
        let mut best = [(LIKELY, NOTHING.1); MAX_SPECULATIONS];
        let next = self.foresight.next_visit(&self.history, layer).chunks(u64::BITS as usize);
        let words = context.ledger.absent(layer).iter().zip((first..).step_by(u64::BITS as usize));
        for ((&absent, first), next) in words.zip(next) {
            let likely = next.iter().rev().fold(0, |word, &p| word << 1 | u64::from(p > LIKELY));
            let of_these = |index: &u32| context.costs.is_far(&context.ledger, BlockId(first + index)) == far;
            for index in ones(absent & likely).filter(of_these) {
                let mut moved = (next[index as usize], BlockId(first + index));
                let mut found = false;
                for place in &mut best {
                    found |= moved.0 > place.0;
                    let (above, below) = (moved, *place);
                    *place = select_unpredictable(found, above, below);
                    moved = select_unpredictable(found, below, above);
                }
            }
        }
        let best = best.into_iter().take(most);
        self.likeliest.extend(best.filter(|(_, block)| *block != NOTHING.1));
    }

    /// Fills `self.likeliest` with the likeliest blocks of coming layers, `most` of each: of what is far, or of the rest.
    pub(super) fn look_ahead(&mut self, context: &Context, most: usize, far: bool) {
        self.likeliest.clear();
        if most == 0 {
            return;
        }
        let layers = context.signals.layers;
        // What is certain is worth a look however far ahead: the nearest that is missing comes first.
        let certain = self.history.is_certain();
        let ahead = match self.settings.ahead {
            _ if certain => layers,
            0 => 0,
            ahead => ahead.max(self.foresight.depth()),
        };
        for ahead in 1..=ahead.min(layers - 1) {
            if certain && self.likeliest.len() >= most {
                break;
            }
            self.choose_likeliest(context, context.signals.coming(ahead), most, far);
        }
    }

    /// A move of a block that will be asked for with probability `p` when its layer comes.
    pub(super) fn speculation(&mut self, context: &Context, block: BlockId, p: f64) -> Option<Proposal> {
        let (way, saves) = (self.refetch(context, block)?, self.cost_absent(context, block));
        self.ahead_of_demand(context, block, p, (way, saves))
    }

    /// A full copy of a block whose copy will not be readable when its layer comes.
    pub(super) fn upgrade(&mut self, context: &Context, block: BlockId) -> Option<Proposal> {
        let native = context.model.block(block).native;
        let route = context.costs.fetch(&context.ledger, block, native)?;
        let saves = route.time.0 as f64;
        let way = Way { route, moving: saves, decode: 0.0, drift: 0.0 };
        self.ahead_of_demand(context, block, 1.0, (way, saves))
    }

    /// A move of a block in a way that saves so many nanoseconds if the block is asked for.
    fn ahead_of_demand(
        &self,
        context: &Context,
        block: BlockId,
        p: f64,
        (way, saves): (Way, f64),
    ) -> Option<Proposal> {
        let layer = context.model.block(block).layer;
        let Way { route, decode, drift, .. } = way;
        let (ahead, observations) =
            (f64::from(context.signals.layers_until(layer)), self.history.observations(layer));
        let idle = context.signals.idle_window.0 as f64 * ahead;
        let (in_time, moving) = if self.settings.inputs.pressure {
            (
                idle / route.time.0.max(1) as f64,
                self.interference.delay((context, context.signals.idle_window), &route, ahead),
            )
        } else {
            (1.0, 0.0)
        };
        let tokens = ahead / f64::from(context.signals.layers);
        let bytes = context.ledger.footprint(block, route.to).0 as f64;
        let likely = self.lower_bound(p, observations);
        let terms = Terms {
            probability: p,
            next_use: tokens,
            saved: likely * saves * in_time.min(1.0),
            moving,
            decode: likely * decode,
            drift: likely * drift,
            memory: (1.0 + self.settings.hysteresis) * self.prices.memory() * bytes * tokens,
            ..Terms::default()
        };
        let kind = (Action::Speculate, MoveClass::Speculation);
        let gate_squared = self.gates[block.index()];
        Some(Proposal { gate_squared, ..Proposal::ahead(block, kind, route, observations, terms) })
    }

    fn lower_bound(&self, p: f64, observations: u64) -> f64 {
        let error = libm::sqrt(p * (1.0 - p) / observations.max(1) as f64);
        (p - self.settings.confidence * error).max(0.0)
    }

    /// Reading a block nearer that will be asked for with probability `p` when its layer comes. It saves what the fetch then takes
    /// less; the links have all the time until then, but for the demands that come meanwhile.
    pub(super) fn reading(&mut self, context: &Context, block: BlockId, p: f64) -> Option<Proposal> {
        let layer = context.model.block(block).layer;
        let Way { route: from_far, .. } = self.refetch(context, block)?;
        let route = *context.costs.nearer(block, from_far.from.copy()?)?;
        let from_near = context.costs.made_of(block, route.to, from_far.to.format)?;
        let (ahead, observations) =
            (f64::from(context.signals.layers_until(layer)), self.history.observations(layer));
        let period = context.signals.layer_period;
        let (in_time, moving) = if self.settings.inputs.pressure {
            let time = period.0 as f64 * ahead;
            (time / route.time.0.max(1) as f64, self.far.delay((context, period), &route, ahead))
        } else {
            (1.0, 0.0)
        };
        let sooner = from_far.time.0.saturating_sub(from_near.time.0) as f64;
        let terms = Terms {
            probability: p,
            next_use: ahead / f64::from(context.signals.layers),
            saved: self.lower_bound(p, observations) * sooner * in_time.min(1.0),
            moving,
            ..Terms::default()
        };
        Some(Proposal::ahead(block, (Action::Stage, MoveClass::Speculation), route, observations, terms))
    }
}
