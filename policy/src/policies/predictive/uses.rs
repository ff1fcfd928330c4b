//! What a use of a block costs as things stand: with a copy in one format or another, and without any.

use super::fetches::Way;
use super::params::Settings;
use super::{FLAT_COST, Predictive};
use crate::control::Context;
use crate::format::FormatId;
use crate::guard::ErrorBound;
use crate::id::BlockId;

/// A block's squared gate weights are taken to be spread evenly from 0 to so many times their mean.
const SPREAD: f64 = 2.0;

impl Predictive {
    /// The cheapest way to have a block again if its copy is gone.
    #[inline]
    pub(super) fn refetch(&mut self, context: &Context, block: BlockId) -> Option<Way> {
        // Where there is a plan, it says which formats come; else the price of drift does.
        let largest = self.largest_error(context, block);
        let price = self.drift_price() * self.gates[block.index()];
        let settings = &self.settings;
        let cheapest = || cheapest_way(settings, context, block, (price, largest));
        // What drift costs changes all the time.
        if context.guard.budget() > 0.0 { cheapest() } else { self.fetches.of(context, block, cheapest) }
    }

    /// Nanoseconds that a use of a block costs without a copy: it is fetched, computed where it is, or left out.
    pub(super) fn cost_absent(&mut self, context: &Context, block: BlockId) -> f64 {
        let fetched = self.refetch(context, block).map_or(0.0, Way::cost);
        let in_place = context.costs.in_place(&context.ledger, block, 1).map(|route| route.time.0 as f64);
        let served = in_place.fold(fetched, f64::min);
        if context.guard.budget() == 0.0 || !self.settings.inputs.sensitivity {
            return served;
        }
        let skipped = context.guard.skip(block);
        skipped.map_or(served, |error| self.cost_lossy(context, block, error, 0.0, served).min(served))
    }

    /// The largest error that a copy of a block may have; any, where there is no plan.
    pub(super) fn largest_error(&self, context: &Context, block: BlockId) -> f64 {
        let plans = self.plan.is_made() && context.guard.stated_budget() > 0.0;
        if plans { self.plan.largest_error(context, block) } else { f64::INFINITY }
    }

    /// Nanoseconds that a use of a copy in a format costs; where the guard does not let it be read, or it has an error of more than
    /// `largest`, what it costs to do without.
    pub(super) fn cost_held(
        &self,
        context: &Context,
        block: BlockId,
        format: FormatId,
        (absent, largest): (f64, f64),
    ) -> f64 {
        let error = usable(&self.settings, context, block, format);
        let Some(error) = error.filter(|error| error.upper <= largest) else { return absent };
        let expand = context.costs.expand(block, format).0 as f64;
        if error.upper == 0.0 { expand } else { self.cost_lossy(context, block, error, expand, absent) }
    }

    /// The cost of uses with an error: those that the guard lets through cost `read` and their drift, the others `refused`.
    fn cost_lossy(
        &self,
        context: &Context,
        block: BlockId,
        error: ErrorBound,
        read: f64,
        refused: f64,
    ) -> f64 {
        if self.plan.is_made() {
            return read;
        }
        let squared = self.gates[block.index()] * error.upper * error.upper;
        let let_through = (context.guard.most_of_a_layer() / (SPREAD * squared)).min(1.0);
        let_through * (read + self.prices.drift() * squared) + (1.0 - let_through) * refused
    }

    /// The price of reading a block in a format, for each unit of its squared gate weight; `None` for a format that may
    /// not be used.
    #[inline]
    pub(super) fn price_of_drift(&self, context: &Context, block: BlockId, format: FormatId) -> Option<f64> {
        let error = usable(&self.settings, context, block, format)?.upper;
        (error <= self.largest_error(context, block)).then(|| self.drift_price() * error * error)
    }

    /// Where there is a plan, drift costs nothing as far as the plan goes.
    fn drift_price(&self) -> f64 {
        if self.plan.is_made() { 0.0 } else { self.prices.drift() }
    }

    /// The same for leaving a block out; `None` where it may not be.
    pub(super) fn price_of_skip(&self, context: &Context, block: BlockId) -> Option<f64> {
        let error = context.guard.skip(block).filter(|_| self.settings.inputs.sensitivity)?.upper;
        Some(self.prices.drift() * error * error)
    }
}

/// The cheapest way to have a block again, with drift at `price` a unit of squared error, in a format with an error of `largest` at most.
fn cheapest_way(
    settings: &Settings,
    context: &Context,
    block: BlockId,
    (price, largest): (f64, f64),
) -> Option<Way> {
    let ways = context.costs.formats.iter().filter_map(|&format| {
        let error =
            Some(usable(settings, context, block, format)?.upper).filter(|&error| error <= largest)?;
        let route = context.costs.fetch(&context.ledger, block, format)?;
        let costs = settings.inputs.costs;
        let (moving, decode) = if costs {
            (route.time.0 as f64, context.costs.expand(block, format).0 as f64)
        } else {
            (FLAT_COST, 0.0)
        };
        Some(Way { route, moving, decode, drift: price * error * error })
    });
    ways.min_by(|a, b| a.cost().total_cmp(&b.cost()))
}

/// The error of a format, if the guard and the budget leave it any use.
fn usable(settings: &Settings, context: &Context, block: BlockId, format: FormatId) -> Option<ErrorBound> {
    let error = context.guard.error(block, format)?;
    let lossy = settings.inputs.sensitivity && context.guard.budget() > 0.0;
    (error.upper == 0.0 || lossy).then_some(error)
}
