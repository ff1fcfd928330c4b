//! One layer step after another through a policy and a real ledger, with moves that arrive at once: what deciding costs,
//! without a world to decide for.

use policy::control::{Context, Policy, Proposal, StepWork};
use policy::event::{Form, MoveClass, Routed};
use policy::guard::Guard;
use policy::ledger::Ledger;
use policy::observe::Signals;
use policy::registry::SimulateInput;
use policy::score::{Costs, Route, Terms};
use policy::{Demands, LayerId, Nanos};
use sim::resolve::{check_policy, resolve_policy};
use sim::simulate::Case;
use std::collections::BTreeMap;

/// The running mean of the time between two layers' demands; what it is matters to no cost of deciding.
const IDLE_WINDOW: Nanos = Nanos(50_000);

/// A policy in the middle of a run.
pub(crate) struct LayerSteps {
    context: Context,
    policy: Box<dyn Policy>,
    demands: Demands,
    /// The layers that have a router.
    routed_layers: Vec<LayerId>,
    step: usize,
    /// How each block is fetched from its home copy.
    routes: Vec<Route>,
    routed: Vec<Routed>,
    proposals: Vec<Proposal>,
}

impl LayerSteps {
    /// `predictive`, with the given parameters, on a model of the catalogue with generated routing of `tokens` tokens and
    /// fast memory for a quarter of its experts.
    pub(crate) fn new(model: &str, slots: u32, tokens: u32, params: &[(&str, f64)]) -> LayerSteps {
        let text = format!(
            "name: decisions
machine: {{ base: h100-sxm, tiers: {{ hbm: {{ capacity: 1 TiB }}, dram: {{ capacity: 2 TiB }} }} }}
model: {model}
memory: {{ hbm: {slots} slots }}
workload: {{ routing: {{ zipf_markov: {{ skew: 0.8, stickiness: 0.3, coupling: 0.2, traces: 1, tokens: {tokens} }} }} }}
policy: lru
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
            if !self.context.ledger.is_fast(self.routed[index].block) {
                self.fetch(self.routed[index]);
            }
        }
        for expert in &self.routed {
            self.context.ledger.unpin(expert.block);
        }
        self.policy.speculate(&self.context, &mut self.proposals);
        self.proposals.clear();
        self.step = (self.step + 1) % self.demands.len();
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

    /// Weighs and makes a demand's move; it arrives at once.
    fn fetch(&mut self, expert: Routed) {
        let block = expert.block;
        let route = self.routes[block.index()];
        let proposal = Proposal {
            block,
            action: policy::record::Action::Fetch,
            route,
            work: StepWork::default(),
            tokens: 1,
            class: MoveClass::Demand,
            gate_squared: 0.25,
            layer_drift: 0.0,
            observations: 0,
            terms: Terms::default(),
        };
        self.policy.weigh(&self.context, &proposal).expect("a form that the policy uses");
        self.make_room(block, route.to);
        let ledger = &mut self.context.ledger;
        let bytes = ledger.footprint(block, route.to);
        let id = ledger.begin(block, route.from, route.to, MoveClass::Demand, bytes, None).expect("room");
        ledger.arrive(id, bytes).expect("the move under way");
        self.policy.admitted(&self.context, block);
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
    let native = model.blocks[0].native;
    let fast = machine.tiers_of(policy::machine::Class::Fast).next().expect("a fast tier");
    let ledger = Ledger::new(model.clone(), &machine, &[native], &case.budgets, case.home, &[]);
    let mut signals = Signals::new(model.layers.len() as u32);
    (signals.idle_window, signals.step_tokens, signals.concurrency) = (IDLE_WINDOW, 1, 1);
    Context {
        ledger: ledger.expect("room for the home copies"),
        signals,
        guard: Guard::new(case.guard.clone(), &model),
        costs: Costs::new(model.clone(), machine.clone(), fast, vec![native]),
        pace: case.pace,
        model,
        machine,
    }
}

fn routes(context: &Context) -> Vec<Route> {
    let blocks = (0..context.model.blocks.len() as u32).map(policy::BlockId);
    let route = |block| context.costs.fetch(&context.ledger, block, context.model.block(block).native);
    blocks.map(|block| route(block).expect("a way from the home copy")).collect()
}
