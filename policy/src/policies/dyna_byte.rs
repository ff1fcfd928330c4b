//! DynaByte: one ledger of bytes for precision, residency and look-ahead.
//!
//! Source: an unpublished draft in kexinchu/DynaQuant.
//!
//! - *Ledger*: each interval, every byte of fast memory goes where it would have saved most: to a block's low copy, its high
//!   copy, or look-ahead. What a copy saves is the stall that the blocks' uses would have had without it; what its move costs
//!   is taken off, more by a margin, so that near equals stay where they are.
//! - *Look-ahead* reaches a number of layers; it grows or shrinks by one, and only when two intervals agree.
//! - *Admission* by try-reserve: look-ahead takes free bytes and those of copies outside the ledger, never a member's.
//!
//! Unspecified and chosen: bytes are shared out as in `static_joint`, by marginal value, with measured uses for fitted ones.
//! A use of a block that is absent costs a low copy's load, or where the guard would have refused to read that, a high copy's, as
//! does such a use of a low copy. Uses and refusals are running means over intervals of 16 token steps, the newest weighing a
//! fifth; a move's cost is spread over as many tokens as such a mean remembers, plus a margin of a tenth. Look-ahead shrinks
//! where less than half of what it loaded was used, and grows where a quarter of that came late; it begins with one layer
//! and has room for its layers' demands in low copies. High is the native format; for low see [`low_format`].
//!
//! Differences: the draft pins host memory from slack; here host memory is no managed cache. In a batch a use is a layer
//! step's. Fast memory is empty when a run begins. As with `dyna_exq`, a step waits for a copy under way to a block it needs,
//! and a background move ends when its layer comes round without asking for it.

use super::knapsack::{Choice, solve};
use super::look_ahead::{Expected, PREFETCHES, gate_squared, prefetch, room_for};
use super::placement::Placement;
use super::two_precisions::{by_wait, low_format};
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::{Form, Routed};
use crate::format::FormatId;
use crate::id::{BlockId, LayerId};
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "dyna_byte",
    about: "exchanges bytes between precision, residency and look-ahead by what each would have saved (draft, DynaQuant)",
    params: &[
        Param {
            name: "interval",
            about: "token steps between exchanges",
            default: 16.0,
            min: 1.0,
            max: 100_000.0,
            scale: Scale::Linear,
        },
        Param {
            name: "newest",
            about: "weight of the newest interval",
            default: 0.2,
            min: 0.001,
            max: 1.0,
            scale: Scale::Linear,
        },
        Param {
            name: "margin",
            about: "what a move must save beyond its cost, as a share of that",
            default: 0.1,
            min: 0.0,
            max: 10.0,
            scale: Scale::Linear,
        },
        Param {
            name: "ahead",
            about: "layers that look-ahead may reach",
            default: 4.0,
            min: 0.0,
            max: 64.0,
            scale: Scale::Linear,
        },
        PREFETCHES,
    ],
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let &[interval, newest, margin, ahead, prefetches] = input.params else {
        return Err(SimulateError::Params);
    };
    let blocks = input.model.blocks.len();
    Ok(Box::new(DynaByte {
        interval: interval as u32,
        newest,
        margin,
        prefetches: prefetches as usize,
        free_slots: input.largest_demand as u64,
        steps: 0,
        counted: vec![Uses::default(); blocks],
        means: vec![Uses::default(); blocks],
        placement: Placement::new(input.model),
        expected: Expected::new(input.model.layers.len()),
        horizon: Horizon::new(ahead as u32),
        foresees: false,
        low: None,
    }))
}

/// Uses of a block, and those of them in which the guard would have refused a low copy.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    all: f64,
    refused: f64,
}

/// How far look-ahead reaches, and how it has done since the last exchange.
#[derive(Clone, Debug)]
struct Horizon {
    layers: u32,
    most: u32,
    /// What the last interval asked for.
    asked: i32,
    /// Blocks loaded ahead whose layer has not come.
    loaded: Vec<BlockId>,
    came: u32,
    used: u32,
    late: u32,
}

impl Horizon {
    fn new(most: u32) -> Horizon {
        Horizon { layers: most.min(1), most, asked: 0, loaded: Vec::new(), came: 0, used: 0, late: 0 }
    }

    /// A layer has come: what was loaded for it was used, came late, or was for nothing.
    fn observe(&mut self, context: &Context, layer: LayerId, routed: &[Routed]) {
        let Horizon { loaded, came, used, late, .. } = self;
        loaded.retain(|&block| {
            if context.model.block(block).layer != layer {
                return true;
            }
            *came += 1;
            if routed.iter().any(|expert| expert.block == block) {
                *used += 1;
                *late += u32::from(context.ledger.is_moving(block));
            }
            false
        });
    }

    /// Ends an interval: one layer more or less, where two in a row ask for it.
    fn adapt(&mut self) {
        let asks = if 2 * self.used < self.came {
            -1
        } else if 4 * self.late > self.used {
            1
        } else {
            0
        };
        if asks == self.asked {
            // One layer is kept, so that look-ahead is seen to do better.
            self.layers = self.layers.saturating_add_signed(asks).clamp(self.most.min(1), self.most);
        }
        self.asked = asks;
        (self.came, self.used, self.late) = (0, 0, 0);
    }
}

struct DynaByte {
    interval: u32,
    newest: f64,
    margin: f64,
    prefetches: usize,
    free_slots: u64,
    /// Token steps of the running interval.
    steps: u32,
    /// Uses in the running interval.
    counted: Vec<Uses>,
    /// Uses a token step, as running means.
    means: Vec<Uses>,
    placement: Placement,
    expected: Expected,
    horizon: Horizon,
    /// Whether the platform looks ahead.
    foresees: bool,
    /// The lower precision, once it is chosen; it may be that there is none.
    low: Option<Option<FormatId>>,
}

impl DynaByte {
    fn low(&mut self, context: &Context) -> Option<FormatId> {
        *self.low.get_or_insert_with(|| low_format(context, BlockId(0)))
    }

    /// Whether the guard would refuse a low copy of a block with so much of the gates.
    fn refuses(context: &Context, expert: &Routed, low: Option<FormatId>) -> bool {
        let error = low.and_then(|low| context.guard.error(expert.block, low));
        error.is_none_or(|error| {
            gate_squared(context, expert) * error.upper * error.upper > context.guard.allowance()
        })
    }

    /// The ways to hold a block: absent, low where that is allowed, and high, with their stall a token.
    fn choices(
        &self,
        context: &Context,
        block: BlockId,
        low: Option<FormatId>,
    ) -> Vec<(Choice, Option<FormatId>)> {
        let Context { costs, ledger, model, .. } = context;
        let native = model.block(block).native;
        let Uses { all, refused } = self.means[block.index()];
        let fetch = |format| costs.fetch(ledger, block, format).map_or(0.0, |route| route.time.0 as f64);
        let high = fetch(native);
        let tokens_spread = f64::from(self.interval) / self.newest;
        let held = |format, stall: f64| {
            let form = Form { tier: costs.fast, format };
            let moved = if ledger.has(block, form) { 0.0 } else { (1.0 + self.margin) * fetch(format) };
            let choice = Choice {
                bytes: ledger.footprint(block, form).0,
                stall: stall + moved / tokens_spread,
                drift: 0.0,
            };
            (choice, Some(format))
        };
        let miss = low.map_or(high, fetch);
        let absent = Choice { bytes: 0, stall: (all - refused) * miss + refused * high, drift: 0.0 };
        let reduced = low.map(|low| held(low, refused * high));
        std::iter::once((absent, None)).chain(reduced).chain([held(native, 0.0)]).collect()
    }

    /// Shares the bytes out anew.
    fn exchange(&mut self, context: &Context) {
        for (mean, counted) in self.means.iter_mut().zip(&mut self.counted) {
            let blend =
                |mean: f64, count: f64| mean + self.newest * (count / f64::from(self.interval) - mean);
            *mean = Uses { all: blend(mean.all, counted.all), refused: blend(mean.refused, counted.refused) };
            *counted = Uses::default();
        }
        self.horizon.adapt();
        let low = self.low(context);
        let (model, ledger, fast) = (&context.model, &context.ledger, context.costs.fast);
        let blocks = (0..model.blocks.len() as u32).map(BlockId);
        let meanings: Vec<_> = blocks.map(|block| self.choices(context, block, low)).collect();
        let choices: Vec<Vec<Choice>> =
            meanings.iter().map(|of| of.iter().map(|(choice, _)| *choice).collect()).collect();
        let slot = model.largest_block().round_up(context.machine.tier(fast).granularity).0;
        let ahead = low.map_or(slot, |low| ledger.footprint(BlockId(0), Form { tier: fast, format: low }).0);
        let selected = model.layers.iter().map(|layer| u64::from(layer.selected)).max().unwrap_or(0);
        let reach = if self.foresees { u64::from(self.horizon.layers) } else { 0 };
        let taken =
            self.free_slots.saturating_mul(slot).saturating_add(reach.saturating_mul(selected * ahead));
        let room = ledger.usage(fast).capacity.0.saturating_sub(taken);
        let Some(taken) = solve(&choices, room, 0.0) else { return };
        let worth = |(of, &place): (&Vec<(Choice, Option<FormatId>)>, &usize)| {
            // A guest is taken to be in full precision, the last of the choices.
            let (choice, _) = if place == 0 { of[of.len() - 1] } else { of[place] };
            (of[0].0.stall - choice.stall) / choice.bytes.max(1) as f64
        };
        let worth = meanings.iter().zip(&taken).map(worth).collect();
        let kept = meanings.iter().zip(&taken).map(|(of, &place)| of[place].1).collect();
        self.placement.choose(kept, worth);
    }

    /// Appends what look-ahead expects and fast memory lacks, nearest layers first, as far as bytes can be had.
    fn look_ahead(&mut self, context: &Context, most: usize, proposals: &mut Vec<Proposal>) {
        let low = self.low(context);
        let fast = context.costs.fast;
        for (_, routed) in self.expected.coming(context.signals.layer, self.horizon.layers) {
            for expert in routed.iter().filter(|expert| !context.ledger.is_fast(expert.block)) {
                let native = context.model.block(expert.block).native;
                let format = low.filter(|_| !Self::refuses(context, expert, low)).unwrap_or(native);
                let bytes = context.ledger.footprint(expert.block, Form { tier: fast, format });
                let room = bytes <= context.ledger.free(fast) || self.placement.has_guest(context);
                if proposals.len() == most || !room {
                    return;
                }
                let moved = prefetch(context, expert.block, format, gate_squared(context, expert), 1.0);
                self.horizon.loaded.extend(moved.iter().map(|moved| moved.block));
                proposals.extend(moved);
            }
        }
    }
}

impl Policy for DynaByte {
    fn foresee(&mut self, _context: &Context, layer: LayerId, routed: &[Routed]) {
        self.foresees = true;
        self.expected.foresee(layer, routed);
    }

    fn observe(&mut self, context: &Context, layer: LayerId, routed: &[Routed]) {
        self.expected.passed(layer);
        self.horizon.observe(context, layer, routed);
        let low = self.low(context);
        for expert in routed {
            let Uses { all, refused } = &mut self.counted[expert.block.index()];
            *all += 1.0;
            *refused += f64::from(Self::refuses(context, expert, low));
        }
    }

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        let low = self.low(context);
        by_wait(context, proposal, low)
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        self.placement.victim(context)
    }

    fn speculate(&mut self, context: &Context, proposals: &mut Vec<Proposal>) {
        let room = room_for(context, self.prefetches);
        self.look_ahead(context, room, proposals);
        self.placement.moves(context, room - proposals.len().min(room), proposals);
    }

    fn step_done(&mut self, context: &Context, _drift: f64) {
        self.steps += 1;
        if self.steps >= self.interval {
            self.steps = 0;
            self.exchange(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(horizon: &mut Horizon, came: u32, used: u32, late: u32) -> u32 {
        (horizon.came, horizon.used, horizon.late) = (came, used, late);
        horizon.adapt();
        horizon.layers
    }

    #[test]
    fn look_ahead_changes_by_one_layer_where_two_intervals_agree() {
        let mut horizon = Horizon::new(3);
        assert_eq!(horizon.layers, 1);
        let reach =
            [(9, 9, 9), (9, 9, 9), (9, 9, 9), (9, 9, 9)].map(|(c, u, l)| interval(&mut horizon, c, u, l));
        assert_eq!(reach, [1, 2, 3, 3]);
        // One bad interval between good ones changes nothing; two in a row do.
        assert_eq!(
            [(9, 1, 0), (9, 9, 0), (9, 1, 0), (9, 1, 0)].map(|(c, u, l)| interval(&mut horizon, c, u, l)),
            [3, 3, 3, 2]
        );
        assert_eq!(interval(&mut Horizon::new(0), 0, 0, 0), 0);
    }
}
