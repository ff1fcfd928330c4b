//! One simulated run, from a resolved case to its outcome.

use crate::stages::StageShare;
use crate::tenants::TenantLoad;
use crate::workload::{Arrivals, Needs, Plan, Workload};
use crate::world::{Placement, World, WorldError};
use policy::checkpoints::CheckpointSpec;
use policy::drive::RunError;
use policy::event::{Command, Event, EventKind, Form, Platform};
use policy::guard::GuardSpec;
use policy::homes::Homes;
use policy::machine::Class;
use policy::orchestrator::{ControlError, Setup};
use policy::parallel::ExpertShare;
use policy::pipeline::Stage;
use policy::policies::script::{Script, ScriptError};
use policy::record::Decision;
use policy::registry::{Entry, SimulateError, SimulateInput, registry};
use policy::schedule::Pace;
use policy::serving::cache::CacheSpec;
use policy::tally::Objective;
use policy::{BlockId, Bytes, Demands, FormatId, Machine, Model, Orchestrator, TierId, Watch, run};
use scenarios::{Length, Pressure, RequestOrder, Slo};
use std::sync::Arc;
use thiserror::Error;
use traces::{BatchSource, RoutingTrace, TraceError};

/// Everything a run needs, names and units resolved.
#[derive(Clone, Debug)]
pub struct Case {
    /// The model.
    pub model: Arc<Model>,
    /// The machine.
    pub machine: Arc<Machine>,
    /// Bytes of each tier that managed blocks may take.
    pub budgets: Vec<Bytes>,
    /// Bytes of the fast tier that they may not take: resident weights and key-value caches.
    pub reserved: Bytes,
    /// What others take of memories and links, and when, in order of time.
    pub pressure: Vec<Pressure>,
    /// The tiers of the home copies.
    pub home: Homes,
    /// Tiers that hold copies beside the home ones.
    pub staging: Vec<TierId>,
    /// Formats kept there beside the native one.
    pub encoded: Vec<FormatId>,
    /// Formats that blocks may be coded into on their way.
    pub recode: Vec<FormatId>,
    /// Whether the host may compute blocks where they are.
    pub host_compute: bool,
    /// What the operator allows.
    pub guard: GuardSpec,
    /// How well routers are foreseen: for each number of layers ahead, the share of the blocks expected that are chosen.
    pub lookahead: Vec<f64>,
    /// Which accelerator it is of those that have experts of their own; model and memory are the first one's.
    pub share: ExpertShare,
    /// Which stage of a pipeline it is; model and memory are its own.
    pub stage: Stage,
    /// Layers of the stages before that have a router.
    pub routers_before: usize,
    /// The stages behind the first, if it is that.
    pub later: Vec<StageShare>,
    /// Batches that a pipeline computes side by side.
    pub micro_batches: u32,
    /// Fast memory set aside for key-value caches that are not in pages.
    pub caches: Bytes,
    /// Which blocks tokens need.
    pub load: Load,
    /// Whether traces that repeat themselves are served too.
    pub include_repetition: bool,
    /// In which order the requests of the routing come.
    pub order: RequestOrder,
    /// What fitted policies may learn from.
    pub fit: Option<Arc<RoutingTrace>>,
    /// What a scripted policy runs.
    pub script: Option<Arc<Script>>,
    /// When requests come in.
    pub arrivals: Arrivals,
    /// What is asked of further models on the machine.
    pub tenants: Vec<TenantLoad>,
    /// The key-value cache, where it is kept in pages.
    pub cache: Option<CacheSpec>,
    /// Checkpoints of recurrent states, where prefixes of a model that has them are kept.
    pub checkpoints: Option<CheckpointSpec>,
    /// Requests that run together, at most.
    pub max_batch: usize,
    /// Length of the prompts that are not recorded.
    pub prompt_tokens: Length,
    /// Length of the outputs; left out, requests are those of the routing, unless they are recorded.
    pub output_tokens: Option<Length>,
    /// The most requests.
    pub limit_requests: Option<u32>,
    /// The most tokens of one step, where prompts are computed.
    pub prefill_chunk: Option<u32>,
    /// The tier that weights are loaded from at the beginning, if they are not in place.
    pub load_from: Option<TierId>,
    /// How background moves are kept from crowding a link.
    pub pace: Pace,
    /// Tokens decoded over all requests, at most.
    pub limit_tokens: Option<u64>,
    /// The service objectives, if any.
    pub slo: Option<Slo>,
    /// The seed of everything drawn.
    pub seed: u64,
}

/// Which blocks the tokens of a run need.
#[derive(Clone, Debug)]
pub enum Load {
    /// The experts that a router chose.
    Routed(Arc<RoutingTrace>),
    /// All of them: this many requests of so many tokens.
    Dense {
        /// Requests.
        requests: u32,
        /// Tokens each puts out.
        tokens: u32,
    },
}

/// What to keep of a run beside its counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Every decision, handed to the caller as it is taken.
    pub decisions: bool,
    /// The timeline.
    pub timeline: bool,
    /// Latencies of each part of the run, for a [`crate::series::Series`] that looks on.
    pub recent: bool,
}

/// A finished run.
pub struct Outcome {
    /// The controller, with its tally and ledger.
    pub orchestrator: Orchestrator,
    /// The world, with its links and memory.
    pub world: World,
}

/// Why a run ended early or could not begin.
#[derive(Debug, Error)]
pub enum RunFailure {
    /// The trace has other dimensions than the model.
    #[error(
        "the routing has {trace_layers} layers of {trace_experts} experts, the model {model} has {model_layers} of {model_experts}"
    )]
    Shape {
        /// Layers of the trace.
        trace_layers: u32,
        /// Experts a layer of the trace.
        trace_experts: u32,
        /// The model's name.
        model: String,
        /// Layers of the model.
        model_layers: u32,
        /// Experts a layer of the model.
        model_experts: u32,
    },
    /// Prefixes are to be kept, but nobody says what prompts have in common.
    #[error(
        "kv.paged.prefixes: the requests do not say what their prompts begin with; a `mooncake_jsonl` trace does, and `conversations` do"
    )]
    NoPrefixes,
    /// Checkpoints are to be made within blocks of prompts.
    #[error(
        "checkpoints.every: {every} tokens, but prompts are numbered in blocks of {block}; take a multiple"
    )]
    CheckpointPlace {
        /// Tokens between checkpoints.
        every: u32,
        /// Tokens of a numbered block.
        block: u32,
    },
    /// A block of a prompt is no whole number of pages.
    #[error(
        "kv.paged.page: {page} tokens, but prompts are numbered in blocks of {block}; take a page that divides it"
    )]
    Pages {
        /// Tokens of a page.
        page: u32,
        /// Tokens of a numbered block.
        block: u32,
    },
    /// The routing cannot be served.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The routing cannot be generated.
    #[error("workload.routing.{routing}: {error}")]
    Generated {
        /// How.
        routing: &'static str,
        /// Why.
        error: TraceError,
    },
    /// The policy cannot be built.
    #[error("policy `{policy}`: {source}")]
    Policy {
        /// Its name.
        policy: &'static str,
        /// Why.
        source: SimulateError,
    },
    /// The policy learns from the routing of all experts, and each accelerator has some.
    #[error(
        "policy `{0}` is fitted on all experts of a layer, and `parallel.expert` shares them out; take another policy"
    )]
    Fitted(&'static str),
    /// The policy learns from the demands of all layers in order, and each accelerator has some of the layers.
    #[error(
        "policy `{0}` is fitted on the demands of all layers, or knows them ahead, and `parallel.pipeline` cuts the layers up; take another policy"
    )]
    Staged(&'static str),
    /// The policy's script cannot be read.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The controller could not go on.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The world could not go on.
    #[error(transparent)]
    World(#[from] WorldError),
}

impl From<RunError<WorldError>> for RunFailure {
    fn from(error: RunError<WorldError>) -> RunFailure {
        match error {
            RunError::Control(error) => RunFailure::Control(error),
            RunError::Platform(error) => RunFailure::World(error),
        }
    }
}

impl Case {
    /// What the router chose, if the model has one.
    pub fn routing(&self) -> Option<&Arc<RoutingTrace>> {
        match &self.load {
            Load::Routed(routing) => Some(routing),
            Load::Dense { .. } => None,
        }
    }

    /// Checks that the routing belongs to the model.
    ///
    /// # Errors
    /// [`RunFailure::Shape`] where it does not.
    pub fn check(&self) -> Result<(), RunFailure> {
        // What a later stage has of the routing was checked with the first.
        let Some(routing) = self.routing().filter(|_| self.stage.is_first()) else { return Ok(()) };
        let shape = routing.shape();
        let experts = self.models().find_map(|model| model.uniform_blocks()).unwrap_or(0);
        let layers = self.models().map(|model| model.routed_layers().count() as u32).sum();
        let experts = experts.saturating_mul(self.share.cut());
        if shape.layers == layers && shape.experts == experts {
            return Ok(());
        }
        Err(RunFailure::Shape {
            trace_layers: shape.layers,
            trace_experts: shape.experts,
            model: self.model.name.clone(),
            model_layers: layers,
            model_experts: experts,
        })
    }

    /// The world at time zero.
    ///
    /// # Errors
    /// The routing cannot be served, or the home copies do not fit.
    pub fn world(&self, timeline: bool) -> Result<World, RunFailure> {
        let (machine, model) = (self.machine.clone(), self.model.clone());
        let placement = Placement { home: &self.home, encoded: &self.encoded, load_from: self.load_from };
        let world = World::new(machine, model, placement, self.workload()?, timeline)?;
        let world = world.shared(self.share).staged(self.stage, self.routers_before);
        let world = if self.stage.is_first() { world.asked() } else { world };
        let pools = self.checkpoints.iter().flat_map(|spec| &spec.pools);
        Ok(world.pressed(&self.pressure).keeping(pools))
    }

    /// The requests, and what their tokens need.
    ///
    /// # Errors
    /// The routing cannot be served.
    pub fn workload(&self) -> Result<Workload, RunFailure> {
        self.check()?;
        let needs = match &self.load {
            Load::Routed(routing) => {
                let source = BatchSource::new(routing.clone(), self.include_repetition, self.seed)?;
                let ordered = match self.order {
                    RequestOrder::Recorded => source,
                    RequestOrder::Shuffled => source.shuffled(),
                };
                Needs::Routed(ordered.into())
            }
            &Load::Dense { requests, tokens } => Needs::Dense { requests, tokens },
        };
        let workload = Workload::new(needs, self.model.clone(), &self.plan(), self.seed);
        Ok(self.tenants.iter().fold(workload, TenantLoad::beside).foreseen(&self.lookahead))
    }

    fn plan(&self) -> Plan {
        Plan {
            arrivals: self.arrivals.clone(),
            prompt: self.prompt_tokens,
            output: self.output_tokens,
            limit: self.limit_requests,
            limit_tokens: self.limit_tokens,
        }
    }

    /// What requests follow: `own` where each is a trace of the routing, `stand_in` where each follows consecutive rows of
    /// the routing from a place drawn for it, `none` without a router.
    pub fn routing_followed(&self) -> &'static str {
        match &self.load {
            Load::Dense { .. } => "none",
            Load::Routed(_) if self.plan().stands_in() => "stand_in",
            Load::Routed(_) => "own",
        }
    }

    /// The copies before the run: of every block without a recipe, in its native format and in those encoded ahead.
    pub fn home_copies(&self) -> Vec<(BlockId, Form)> {
        let of_block = |(index, block): (usize, &policy::model::Block)| {
            let id = BlockId(index as u32);
            let tier = self.home.of(id);
            let copies = block.home_formats(&self.encoded).map(|format| (id, Form { tier, format }));
            copies.collect::<Vec<_>>()
        };
        self.model.blocks.iter().enumerate().flat_map(of_block).collect()
    }

    /// The controller at time zero.
    ///
    /// # Errors
    /// The policy cannot be built, or the home copies do not fit.
    pub fn orchestrator(
        &self,
        entry: &Entry,
        params: &[f64],
        record: bool,
    ) -> Result<Orchestrator, RunFailure> {
        self.controller(entry, params, Keep { decisions: record, ..Keep::default() })
    }

    /// The controller and the world at time zero; where other accelerators have experts or layers too, with a controller and a
    /// world of each.
    fn start(&self, entry: &Entry, params: &[f64], keep: Keep) -> Result<(Orchestrator, World), RunFailure> {
        if self.share.is_part() && entry.fitted {
            return Err(RunFailure::Fitted(entry.name));
        }
        if self.stage.is_part() && (entry.fitted || entry.clairvoyant) {
            return Err(RunFailure::Staged(entry.name));
        }
        let mut world = self.world(keep.timeline)?;
        for share in (1..self.share.of).map(|rank| self.share.with_rank(rank)) {
            let other = Case { share, model: Arc::new(share.of_model(&self.model)), ..self.clone() };
            world.lead(other.orchestrator(entry, params, false)?, other.world(false)?);
        }
        for later in self.each_stage().skip(1) {
            world.lead(later.orchestrator(entry, params, false)?, later.world(false)?);
        }
        Ok((self.controller(entry, params, keep)?, world))
    }

    fn controller(&self, entry: &Entry, params: &[f64], keep: Keep) -> Result<Orchestrator, RunFailure> {
        let future = if entry.clairvoyant { Some(self.future(entry)?) } else { None };
        let fit = self.fit.as_ref().filter(|_| entry.fitted).map(|fit| fit.demands(false));
        let input = SimulateInput {
            model: &self.model,
            capacity: self.capacity(),
            largest_demand: self.largest_demand(),
            fit: fit.as_ref(),
            future: future.as_ref(),
            script: self.script.as_ref(),
            params,
        };
        let failed = |source| RunFailure::Policy { policy: entry.name, source };
        let policy = entry.build(&input).map_err(failed)?;
        let setup = Setup {
            model: self.model.clone(),
            machine: self.machine.clone(),
            budgets: self.budgets.clone(),
            home: self.home.clone(),
            staging: self.staging.clone(),
            encoded: self.encoded.clone(),
            recode: self.recode.clone(),
            host_compute: self.host_compute,
            guard: self.guard.clone(),
            cache: self.cache,
            checkpoints: self.checkpoints.clone(),
            stage: self.stage,
            micro_batches: self.micro_batches,
            share: self.share,
            caches: self.caches,
            max_batch: self.max_batch,
            prefill_chunk: self.prefill_chunk,
            loading: self.load_from.is_some(),
            pace: self.pace,
            record: keep.decisions,
            objective: self
                .slo
                .map_or_else(Objective::default, |Slo { ttft, tpot, .. }| Objective { ttft, tpot }),
            recent: keep.recent,
        };
        Ok(Orchestrator::new(setup, policy)?)
    }

    /// Runs a policy to the end; `each` sees every decision, if they are kept.
    ///
    /// # Errors
    /// See [`RunFailure`].
    pub fn run(
        &self,
        entry: &Entry,
        params: &[f64],
        keep: Keep,
        each: impl FnMut(Decision),
    ) -> Result<Outcome, RunFailure> {
        let (mut orchestrator, mut world) = self.start(entry, params, keep)?;
        run(&mut orchestrator, &mut world, each)?;
        Ok(Outcome { orchestrator, world })
    }

    /// Runs a policy to the end, with somebody looking on.
    ///
    /// # Errors
    /// See [`RunFailure`].
    pub fn watch(
        &self,
        entry: &Entry,
        params: &[f64],
        keep: Keep,
        watcher: &mut impl Watch<World>,
    ) -> Result<Outcome, RunFailure> {
        let (mut orchestrator, mut world) = self.start(entry, params, keep)?;
        policy::watch(&mut orchestrator, &mut world, watcher)?;
        Ok(Outcome { orchestrator, world })
    }

    /// Full-precision blocks that fit the fast tier together.
    pub fn capacity(&self) -> usize {
        let Some(fast) = self.machine.tiers_of(Class::Fast).next() else { return 0 };
        let slot = self.model.largest_block().round_up(self.machine.tier(fast).granularity);
        self.budgets[fast.index()].0.checked_div(slot.0).unwrap_or(0) as usize
    }

    /// Tokens of one step at most.
    pub fn step_tokens(&self) -> u32 {
        let micro_batch = self.max_batch.div_ceil(self.micro_batches.max(1) as usize);
        u32::try_from(micro_batch).unwrap_or(u32::MAX).max(self.prefill_chunk.unwrap_or(0))
    }

    /// Blocks that one layer step can demand at most.
    pub fn largest_demand(&self) -> usize {
        let tokens = self.step_tokens() as usize;
        let of = |layer: &policy::model::Layer| {
            (layer.selected as usize).saturating_mul(tokens).min(layer.blocks as usize)
        };
        self.model.layers.iter().map(of).max().unwrap_or(0)
    }

    /// Every demand of the run, for a policy that knows the future: recorded in a run of its own, under a rule that does
    /// not. It exists only where requests do not depend on time, and then it does not depend on the rule.
    fn future(&self, entry: &Entry) -> Result<Demands, RunFailure> {
        let reactive = |other: &&Entry| {
            other.simulate.is_some() && other.params.is_empty() && !other.clairvoyant && !other.fitted
        };
        // Which requests run together depends on time where they wait for pages.
        let closed = self.is_closed() && self.cache.is_none();
        let Some(scouted) = registry().iter().find(reactive).filter(|_| closed) else {
            return Err(RunFailure::Policy { policy: entry.name, source: SimulateError::NoFuture });
        };
        let demands = Demands::new(self.model.blocks.len() as u32);
        let mut scout = Scout { world: self.world(false)?, demands };
        let mut orchestrator = self.orchestrator(scouted, &[], false)?;
        run(&mut orchestrator, &mut scout, |_| {})?;
        Ok(scout.demands)
    }
}

/// A world that writes the demands down.
struct Scout {
    world: World,
    demands: Demands,
}

impl Platform for Scout {
    type Error = WorldError;

    fn next_event(&mut self) -> Result<Option<Event>, WorldError> {
        let event = self.world.next_event()?;
        if let Some(Event { kind: EventKind::LayerRouted { routed, .. }, .. }) = &event {
            self.demands.push_step(routed.iter().map(|expert| expert.block.0));
        }
        Ok(event)
    }

    fn submit(&mut self, command: Command) -> Result<(), WorldError> {
        self.world.submit(command.layer_by_layer())
    }
}
