//! One layer step after another through a policy and a real ledger, with moves that arrive at once: what deciding costs,
//! without a world to decide for.

use policy::control::{Context, Policy, Proposal, StepWork};
use policy::event::{Form, MoveClass, Routed};
use policy::flight::Flight;
use policy::guard::Guard;
use policy::ledger::Ledger;
use policy::observe::Signals;
use policy::record::Action;
use policy::registry::SimulateInput;
use policy::score::{Costs, Route, Terms};
use policy::veto::{Verdict, check};
use policy::{Demands, LayerId, Nanos};
use sim::resolve::{check_policy, resolve_policy};
use sim::simulate::Case;
use std::collections::BTreeMap;

/// The running mean of the time between two layers' demands; what it is matters to no cost of deciding.
const IDLE_WINDOW: Nanos = Nanos(50_000);

/// Two formats beside full precision, and how much drift there may be.
pub(crate) const JOINT: &str = "encoded: [int8, int4_g32]\nguard: { drift_budget: 1 % }";

/// A policy in the middle of a run.
pub(crate) struct LayerSteps {
    context: Context,
    policy: Box<dyn Policy>,
    demands: Demands,
    /// The layers that have a router.
    routed_layers: Vec<LayerId>,
    step: usize,
    /// How each block is fetched from its home copies, in each format.
    routes: Vec<Vec<Route>>,
    /// Squared drift of the running layer, at the mean and at the upper bound.
    drift: (f64, f64),
    routed: Vec<Routed>,
    proposals: Vec<Proposal>,
}

impl LayerSteps {
    /// `predictive`, with the given parameters, on a model of the catalogue with generated routing of `tokens` tokens and
    /// fast memory for `slots` of its experts. `joint` is what a scenario says of formats and of drift.
    pub(crate) fn new(
        model: &str,
        slots: u32,
        tokens: u32,
        params: &[(&str, f64)],
        joint: &str,
    ) -> LayerSteps {
        let text = format!(
            "name: decisions
machine: {{ base: h100-sxm, tiers: {{ hbm: {{ capacity: 1 TiB }}, dram: {{ capacity: 2 TiB }} }} }}
model: {model}
memory: {{ hbm: {slots} slots }}
workload: {{ routing: {{ zipf_markov: {{ skew: 0.8, stickiness: 0.3, coupling: 0.2, traces: 1, tokens: {tokens} }} }} }}
policy: lru
{joint}
seed: 20
"
        );
        let scenario = scenarios::load_text("decisions.yaml", &text, &[], &check_policy)
            .unwrap_or_else(|errors| panic!("{}", errors.render(false)));
        let case = Case::from_scenario(&scenario).expect("a case");
        let params: BTreeMap<String, f64> =
            params.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        let (entry, params) = resolve_policy("predictive", &params).expect("its parameters");
        let input = SimulateInput {
            model: &case.model,
            capacity: case.capacity(),
            largest_demand: case.largest_demand(),
            fit: None,
            future: None,
            script: None,
            params: &params,
        };
        let context = context(&case);
        LayerSteps {
            policy: entry.build(&input).expect("a policy"),
            demands: case.routing().expect("a model with routers").demands(false),
            routed_layers: routed_layers(&case.model),
            routes: routes(&context),
            context,
            drift: (0.0, 0.0),
            step: 0,
            routed: Vec::new(),
            proposals: Vec::new(),
        }
    }

    /// Layer steps of a token.
    pub(crate) fn layers(&self) -> usize {
        self.routed_layers.len()
    }

    /// Decides for one layer step: what to expect now, how to serve the blocks that are missing, what makes room for
    /// them, and what the links could do meanwhile.
    pub(crate) fn run(&mut self) {
        let layer = self.routed_layers[self.step % self.routed_layers.len()];
        self.begin(layer);
        self.policy.observe(&self.context, layer, &self.routed);
        for expert in &self.routed {
            self.context.ledger.pin(expert.block);
        }
        for index in 0..self.routed.len() {
            if self.context.ledger.full_copy(self.routed[index].block).is_none() {
                self.serve(self.routed[index]);
            }
        }
        for expert in &self.routed {
            self.context.ledger.unpin(expert.block);
        }
        self.policy.speculate(&self.context, &mut self.proposals);
        self.proposals.clear();
        self.step = (self.step + 1) % self.demands.len();
        let (mean, upper) = std::mem::take(&mut self.drift);
        self.context.guard.spend_layer(mean, upper);
        if layer == self.routed_layers[self.routed_layers.len() - 1] {
            let drift = self.context.guard.end_step();
            self.policy.step_done(&self.context, drift);
        }
    }

    fn begin(&mut self, layer: LayerId) {
        let first = self.context.model.layer(layer).first_block.0;
        let experts = self.context.model.layer(layer).blocks;
        let expert = |&id: &u32| Routed {
            block: policy::BlockId(first + id % experts),
            tokens: 1,
            gate_squared: 0.25,
        };
        self.routed.clear();
        self.routed.extend(self.demands.step(self.step).iter().map(expert));
        self.context.signals.layer = layer;
        self.context.signals.layer_step += 1;
    }

    /// Weighs the ways to serve a block and takes the best that the guard lets pass; a move arrives at once.
    fn serve(&mut self, expert: Routed) {
        let best = self.best_way(expert);
        let error = self.context.guard.error(best.block, best.route.to.format).expect("a format in use");
        self.drift.0 += best.gate_squared * error.mean * error.mean;
        self.drift.1 += best.gate_squared * error.upper * error.upper;
        if best.action == Action::Read {
            return;
        }
        let Proposal { block, route, .. } = best;
        self.make_room(block, route.to);
        let ledger = &mut self.context.ledger;
        let bytes = ledger.footprint(block, route.to);
        let flight = Flight::new(block, route.from, route.to, MoveClass::Demand, bytes);
        let id = ledger.begin(flight).expect("room");
        ledger.arrive(id, bytes).expect("the move under way");
        self.policy.admitted(&self.context, block);
    }

    /// The copies there are may be read, and one made in any other format.
    fn best_way(&mut self, expert: Routed) -> Proposal {
        let LayerSteps { context, policy, routes, drift, .. } = self;
        let block = expert.block;
        let ledger = &context.ledger;
        let propose = |action, route| Proposal {
            block,
            action,
            route,
            work: StepWork::default(),
            tokens: 1,
            class: MoveClass::Demand,
            gate_squared: f64::from(expert.gate_squared),
            layer_drift: drift.1,
            observations: 0,
            terms: Terms::default(),
        };
        let reads = ledger.fast_copies(block).map(|copy| propose(Action::Read, Costs::stay(copy)));
        let make = if ledger.is_fast(block) { Action::Upgrade } else { Action::Fetch };
        let absent = routes[block.index()].iter().filter(|route| !ledger.has(block, route.to));
        let ways = reads.chain(absent.map(|&route| propose(make, route)));
        let weighed = ways.filter_map(|way| Some(Proposal { terms: policy.weigh(context, &way)?, ..way }));
        let passed = weighed.filter(|way| check(way, context) == Verdict::Pass);
        passed
            .min_by(|a, b| a.terms.total.total_cmp(&b.terms.total))
            .expect("full precision, if nothing else")
    }

    fn make_room(&mut self, block: policy::BlockId, form: Form) {
        while self.context.ledger.free(form.tier) < self.context.ledger.footprint(block, form) {
            let victim = self.policy.victim(&self.context).expect("something to give up");
            self.context.ledger.drop_copy(victim.block, victim.form).expect("an idle copy");
        }
    }
}

fn routed_layers(model: &policy::Model) -> Vec<LayerId> {
    let layers = (0u16..).map(LayerId).zip(&model.layers);
    layers.filter(|(_, layer)| model.is_routed(layer)).map(|(id, _)| id).collect()
}

fn context(case: &Case) -> Context {
    let (model, machine) = (case.model.clone(), case.machine.clone());
    let formats = [&[model.blocks[0].native], case.encoded.as_slice()].concat();
    let fast = machine.tiers_of(policy::machine::Class::Fast).next().expect("a fast tier");
    let ledger = Ledger::new(model.clone(), &machine, &formats, &case.budgets, &case.home, &case.encoded);
    let mut signals = Signals::new(model.layers.len() as u32, &model.phases);
    (signals.idle_window, signals.step_tokens, signals.concurrency) = (IDLE_WINDOW, 1, 1);
    Context {
        ledger: ledger.expect("room for the home copies"),
        home: case.home.clone(),
        signals,
        guard: Guard::new(case.guard.clone(), &model),
        costs: Costs::new(model.clone(), machine.clone(), fast, formats),
        pace: case.pace,
        model,
        machine,
    }
}

fn routes(context: &Context) -> Vec<Vec<Route>> {
    let blocks = (0..context.model.blocks.len() as u32).map(policy::BlockId);
    let route = |block, &format| context.costs.fetch(&context.ledger, block, format).expect("a home copy");
    blocks.map(|block| context.costs.formats.iter().map(|format| route(block, format)).collect()).collect()
}
