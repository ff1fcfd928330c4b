//! A policy written as a script, to try an idea without compiling: it says what a copy is worth, what serving a block costs
//! and what is worth fetching ahead. Guard, schedule and books are those of every policy.

mod language;
mod signals;

pub use language::{FUNCTIONS, Script, ScriptError};
pub use signals::{BLOCK_SIGNALS, WAY_SIGNALS};

use self::signals::{BlockView, WayView};
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::{MoveClass, Routed};
use crate::id::{BlockId, LayerId};
use crate::predict::{Distances, History, Kind, Shape};
use crate::record::Action;
use crate::registry::{Entry, SimulateError, SimulateInput};
use crate::score::Terms;
use rhai::Dynamic;
use std::sync::Arc;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "script",
    about: "a script of yours says what a copy is worth: `policy: { script: my.rhai }`",
    params: &[],
    simulate: Some(simulate),
    scripted: true,
    ..Entry::ONLINE
};

/// Layers ahead that a script is asked about.
const AHEAD: u32 = 2;
/// Background moves under way at once.
const MAX_AHEAD: usize = 2;
/// Layer steps since the last use of a block that had none.
const NEVER: f64 = 1e18;
/// Keeps a block never seen from waiting for ever: a thousandth of a visit a token.
const RARE: f64 = 1e-3;

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let script = input.script.cloned().ok_or(SimulateError::NoScript)?;
    let learned = |shape: Shape| Kind::Ensemble.build(shape, Distances::until(AHEAD as usize, shape.layers));
    let history = History::new(input.model, Some(learned)).ok_or(SimulateError::UnevenLayers)?;
    Ok(Box::new(Scripted {
        script,
        history,
        used: vec![(0, 0); input.model.blocks.len()],
        gates: vec![0.0; input.model.blocks.len()],
        chosen: Vec::new(),
        failure: None,
    }))
}

struct Scripted {
    script: Arc<Script>,
    history: History,
    /// For each block, the layer steps that demanded it and the last of them, counted from 1.
    used: Vec<(u64, u64)>,
    /// Mean squared gate weight of each block when chosen.
    gates: Vec<f64>,
    chosen: Vec<u32>,
    failure: Option<ScriptError>,
}

impl Scripted {
    fn view(&self, context: &Context, block: BlockId) -> BlockView {
        let data = context.model.block(block);
        let layers = context.signals.layers;
        let layers_ahead = f64::from(context.signals.layers_until(data.layer));
        let place = (block.0 - context.model.layer(data.layer).first_block.0) as usize;
        let probability = f64::from(self.history.next_visit(data.layer)[place]);
        let popularity = f64::from(self.history.later(data.layer)[place]);
        let (uses, last) = self.used[block.index()];
        let held =
            context.ledger.fast_copies(block).map(|form| context.ledger.footprint(block, form).0).sum();
        let refetch = context.costs.fetch(&context.ledger, block, data.native);
        BlockView {
            probability,
            popularity,
            next_use: layers_ahead / f64::from(layers) + (1.0 - probability) / (popularity + RARE),
            layers_ahead,
            last_use: if uses == 0 { NEVER } else { (context.signals.layer_step - last) as f64 },
            uses: uses as f64,
            gate: self.gates[block.index()],
            bytes: if held > 0 { held } else { data.bytes(data.native).0 } as f64,
            refetch: refetch.map_or(0.0, |route| route.time.0 as f64),
        }
    }

    /// Calls the script; after its first error it is not asked again, and the run ends.
    fn ask(&mut self, function: &str, argument: Dynamic) -> Option<f64> {
        if self.failure.is_some() {
            return None;
        }
        self.script.call(function, argument).unwrap_or_else(|error| {
            self.failure = Some(error);
            None
        })
    }

    fn absent_ahead(context: &Context) -> impl Iterator<Item = BlockId> + '_ {
        let layers = context.signals.layers;
        (1..=AHEAD.min(layers.saturating_sub(1))).flat_map(move |ahead| {
            let layer =
                context.model.layer(LayerId(((u32::from(context.signals.layer.0) + ahead) % layers) as u16));
            let blocks = (layer.first_block.0..layer.first_block.0 + layer.blocks).map(BlockId);
            blocks.filter(|&block| !context.ledger.is_fast(block) && !context.ledger.is_moving(block))
        })
    }
}

impl Policy for Scripted {
    fn observe(&mut self, context: &Context, layer: LayerId, routed: &[Routed]) {
        let first = context.model.layer(layer).first_block.0;
        self.chosen.clear();
        self.chosen.extend(routed.iter().map(|expert| expert.block.0 - first));
        let tokens = context.signals.step_tokens.max(1);
        drop(self.history.observe(layer, &self.chosen, 1.0 / tokens as f32));
        for expert in routed {
            let (uses, last) = &mut self.used[expert.block.index()];
            *uses += 1;
            *last = context.signals.layer_step;
            let gate = f64::from(expert.gate_squared) / f64::from(expert.tokens.max(1));
            let mean = &mut self.gates[expert.block.index()];
            *mean += (gate - *mean) / *uses as f64;
        }
    }

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        let Proposal { block, route, action, .. } = *proposal;
        let native = route.to.format == context.model.block(block).native;
        let moving = proposal.wait().0 as f64;
        if !self.script.defines("cost") {
            let plain = native && !matches!(action, Action::InPlace | Action::Skip);
            return plain.then(|| Terms { moving, ..Terms::default() }.sum());
        }
        let error = crate::veto::error_of(proposal, context)?.upper;
        let way = WayView {
            block: self.view(context, block),
            action: action.name().into(),
            format: route.to.format.name().into(),
            native,
            moving,
            decode: context.costs.expand(block, route.to.format).0 as f64,
            drift: proposal.gate_squared * error * error,
            bytes: context.ledger.footprint(block, route.to).0 as f64,
            tokens: f64::from(proposal.tokens),
        };
        // Whatever a script refuses, its run can go on: a full-precision copy is left as the last resort.
        let last_resort = (native && !matches!(action, Action::InPlace | Action::Skip)).then_some(f64::MAX);
        let total = self.ask("cost", Dynamic::from(way)).or(last_resort)?;
        Some(Terms { moving, total, ..Terms::default() })
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        let mut least: Option<(f64, BlockId)> = None;
        for layer in (0..context.model.layers.len() as u16).map(LayerId) {
            for block in context.ledger.idle(layer) {
                let worth = self.ask("keep", Dynamic::from(self.view(context, block))).unwrap_or(0.0);
                least = least.filter(|least| least.0 <= worth).or(Some((worth, block)));
            }
        }
        let (worth, block) = least?;
        // The least precise copy goes first: what is left serves on.
        let form = context.ledger.fast_copies(block).max_by(|a, b| {
            let error = |form: &crate::event::Form| {
                context.guard.error(block, form.format).map_or(f64::MAX, |error| error.upper)
            };
            error(a).total_cmp(&error(b)).then(b.cmp(a))
        })?;
        let terms = Terms { saved: worth, ..Terms::default() }.sum();
        Some(Victim { block, form, terms: Some(terms) })
    }

    fn speculate(&mut self, context: &Context, proposals: &mut Vec<Proposal>) {
        if !self.script.defines("prefetch") {
            return;
        }
        let under_way =
            context.ledger.flights().filter(|(_, flight)| flight.class != MoveClass::Demand).count();
        for block in Scripted::absent_ahead(context) {
            let view = Dynamic::from(self.view(context, block));
            let Some(worth) = self.ask("prefetch", view).filter(|&worth| worth > 0.0) else { continue };
            let data = context.model.block(block);
            let Some(route) = context.costs.fetch(&context.ledger, block, data.native) else { continue };
            let (kind, terms) =
                ((Action::Speculate, MoveClass::Speculation), Terms { saved: worth, ..Terms::default() });
            let observations = self.history.observations(data.layer);
            proposals.push(Proposal::ahead(block, kind, route, observations, terms));
        }
        proposals.sort_by(|a, b| a.terms.total.total_cmp(&b.terms.total).then(a.block.cmp(&b.block)));
        proposals.truncate(MAX_AHEAD.saturating_sub(under_way));
    }

    fn failure(&self) -> Option<String> {
        self.failure.as_ref().map(ScriptError::to_string)
    }
}
