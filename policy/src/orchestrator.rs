//! The controller: events in, commands out. It owns the layer sequence, admission and the batch, and runs the five
//! phases (observe, score, veto, schedule, execute) at every layer step.

pub mod group;
mod mixers;
mod passing;
mod room;

use self::group::Group;
use crate::checkpoints::{CheckpointSpec, Checkpoints};
use crate::control::{Context, Policy, Prices, Proposal};
use crate::directory::Herald;
use crate::event::{Command, Event, EventKind, MoveClass, Part};
use crate::format::FormatId;
use crate::guard::{Guard, GuardSpec};
use crate::homes::Homes;
use crate::id::{BlockId, LayerId, MoveId, TierId};
use crate::layer_step::{LayerStep, Member};
use crate::ledger::Ledger;
use crate::machine::{Class, Machine};
use crate::model::Model;
use crate::observe::Signals;
use crate::parallel::ExpertShare;
use crate::pipeline::Stage;
use crate::record::Decision;
use crate::refused::Refused;
use crate::schedule::{Added, Books, Pace, Schedule};
use crate::score::Costs;
use crate::serving::cache::{Cache, CacheSpec};
use crate::serving::{Arrival, Serving};
use crate::staging::Staging;
use crate::tally::{CacheUse, Objective, Recent, RequestTimes, Tally, TenantUse};
use crate::units::{Bytes, Nanos, Time};
use std::sync::Arc;
use thiserror::Error;

/// Why a run cannot go on.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Requests wait for room in the key-value cache that nobody will give up.
    #[error("the key-value cache has no room for any request, and blocks cannot give up more fast memory")]
    CacheStuck,
    /// Not even one block of a demand can be placed.
    #[error("block {} of layer {} cannot be brought into fast memory, even alone", .block.0, .layer.0)]
    DoesNotFit {
        /// The layer.
        layer: LayerId,
        /// The block.
        block: BlockId,
    },
    /// The machine has no fast tier.
    #[error("the machine has no tier of class fast")]
    NoFastTier,
    /// A change that the ledger refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The policy gave up.
    #[error("{0}")]
    Policy(String),
    /// An event that does not belong to what is being run.
    #[error("the platform reported {0}, which nothing was waiting for")]
    Unexpected(&'static str),
}

/// What a run is made of.
#[derive(Debug)]
pub struct Setup {
    /// The model.
    pub model: Arc<Model>,
    /// The machine.
    pub machine: Arc<Machine>,
    /// Bytes of each tier that managed blocks may take, in the machine's order.
    pub budgets: Vec<Bytes>,
    /// The tiers of the home copies.
    pub home: Homes,
    /// Tiers that hold copies beside the home ones, in the order in which they are asked.
    pub staging: Vec<TierId>,
    /// Formats kept in the home tier beside the native one.
    pub encoded: Vec<FormatId>,
    /// Formats that blocks may be coded into on their way, none of which is kept there.
    pub recode: Vec<FormatId>,
    /// Whether the host's processor may compute blocks where they are, if the machine has one that can; those of memories may.
    pub host_compute: bool,
    /// What the operator allows.
    pub guard: GuardSpec,
    /// The key-value cache, where it is kept in pages and takes fast memory from blocks; else there is room for every request.
    pub cache: Option<CacheSpec>,
    /// Checkpoints of recurrent states, where the cache keeps prefixes of a model that has them.
    pub checkpoints: Option<CheckpointSpec>,
    /// Which of the stages of a pipeline it controls, and the micro-batches that the first one forms.
    pub stage: Stage,
    /// See `stage`; one where there is no pipeline.
    pub micro_batches: u32,
    /// Which of the accelerators that have experts of their own it controls.
    pub share: ExpertShare,
    /// What was set aside of fast memory for caches that are not in pages.
    pub caches: Bytes,
    /// Requests that run together, at most.
    pub max_batch: usize,
    /// The most tokens of one step, where prompts are computed.
    pub prefill_chunk: Option<u32>,
    /// Whether requests wait for [`EventKind::Loaded`].
    pub loading: bool,
    /// How background moves are kept from crowding a link.
    pub pace: Pace,
    /// Whether every decision is kept for [`Orchestrator::take_decisions`].
    pub record: bool,
    /// What requests must keep to, to count as good.
    pub objective: Objective,
    /// Whether latencies are kept for [`Orchestrator::take_recent`].
    pub recent: bool,
}

/// See the module.
pub struct Orchestrator {
    pub(crate) context: Context,
    pub(crate) policy: Box<dyn Policy>,
    pub(crate) schedule: Schedule,
    pub(crate) staging: Staging,
    pub(crate) tally: Tally,
    pub(crate) commands: Vec<Command>,
    pub(crate) abandoned: Vec<MoveId>,
    pub(crate) log: Option<Vec<Decision>>,
    pub(crate) decisions: u64,
    pub(crate) running: Option<LayerStep>,
    /// Empty between uses; kept for their memory.
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) members: Vec<Member>,
    serving: Serving,
    /// Which layers of the model there are here.
    stage: Stage,
    group: Group,
    /// What blocks and the cache share of fast memory.
    shared: Bytes,
    /// What others have taken of that.
    pressed: Bytes,
    loading: bool,
    stepping: bool,
    step_began: Time,
}

impl Orchestrator {
    /// A controller at the start of a run: home copies in place, fast memory empty.
    ///
    /// # Errors
    /// The home copies do not fit, or the machine has no fast tier.
    pub fn new(setup: Setup, policy: Box<dyn Policy>) -> Result<Orchestrator, ControlError> {
        let Setup {
            model,
            machine,
            budgets,
            home,
            staging,
            encoded,
            recode,
            host_compute,
            guard,
            cache,
            checkpoints,
            stage,
            micro_batches,
            share,
            caches,
            max_batch,
            prefill_chunk,
            loading,
            pace,
            record,
            objective,
            recent,
        } = setup;
        let fast = machine.tiers_of(Class::Fast).next().ok_or(ControlError::NoFastTier)?;
        let mut formats: Vec<FormatId> = model.blocks.iter().map(|block| block.native).collect();
        formats.dedup();
        formats.extend(
            encoded
                .iter()
                .chain(&recode)
                .copied()
                .filter(|format| !formats.contains(format))
                .collect::<Vec<_>>(),
        );
        let mut ledger = Ledger::new(model.clone(), &machine, &formats, &budgets, &home, &encoded)?;
        let speaks = share.is_common();
        let herald = speaks.then(|| Herald::new(share.rank, &mut ledger, model.blocks.len()));
        let block = cache.and_then(|spec| spec.prefix_block);
        let chunk = prefill_chunk.unwrap_or(1);
        let checkpoints = block
            .zip(checkpoints)
            .map(|(block, spec)| Checkpoints::new(&model, machine.clone(), spec, &guard, (block, chunk)));
        let cache = cache.map(|spec| Cache::new(&model, spec));
        let costs = Costs::new(model.clone(), machine.clone(), fast, formats).with_staging(&staging);
        let staging = Staging::new(&staging, &machine, &model, &budgets);
        let context = Context {
            ledger,
            home,
            signals: Signals::new(model.layers.len() as u32, &model.phases),
            guard: Guard::new(guard, &model),
            costs: if host_compute { costs.with_host() } else { costs },
            model,
            machine,
            pace,
        };
        let several = context.model.tenants();
        let tenants = if several > 1 { vec![TenantUse::default(); several] } else { vec![] };
        let serving = Serving::new(max_batch, prefill_chunk, cache)
            .with_checkpoints(checkpoints)
            .staged(stage, micro_batches)
            .attended(share)
            .with_phases(context.model.phases.clone());
        Ok(Orchestrator {
            context,
            policy,
            schedule: Schedule::new(pace),
            staging,
            tally: Tally { objective, recent: recent.then(Box::default), tenants, ..Tally::default() },
            commands: Vec::new(),
            abandoned: Vec::new(),
            log: record.then(Vec::new),
            decisions: 0,
            running: None,
            proposals: Vec::new(),
            members: Vec::new(),
            serving,
            stage,
            group: Group::new(share, herald, max_batch, caches),
            shared: budgets[fast.index()],
            pressed: Bytes::ZERO,
            loading,
            stepping: false,
            step_began: Time(0),
        })
    }

    /// Takes one event and appends what is to be done to `commands`.
    ///
    /// # Errors
    /// See [`ControlError`]; the run cannot go on after one.
    pub fn handle(&mut self, event: Event, commands: &mut Vec<Command>) -> Result<(), ControlError> {
        if let EventKind::Passed(passed) = event.kind {
            return self.passed(&passed);
        }
        self.context.signals.observe(&event);
        self.context.ledger.advance(event.at);
        self.tally.events += 1;
        match event.kind {
            EventKind::RequestArrived {
                request,
                context_tokens,
                output_tokens,
                priority,
                prefix,
                tenant,
            } => {
                let (context, tokens) = (context_tokens, output_tokens);
                let arrival = Arrival { request, context, tokens, priority, prefix, tenant };
                self.tally.arrived += 1;
                if !self.serving.arrive(arrival, event.at) {
                    let (arrived, refused) = (event.at, true);
                    let times = RequestTimes {
                        request,
                        arrived,
                        context,
                        priority,
                        refused,
                        tenant,
                        ..RequestTimes::default()
                    };
                    self.tally.left.push(times);
                    self.commands.push(Command::Finish { request });
                }
                self.start_step()?;
            }
            EventKind::Loaded => {
                self.loading = false;
                self.start_step()?;
            }
            // The last mixer of a step that gives nobody a token, in a layer without blocks.
            EventKind::LayerRouted { layer, .. } if self.context.model.layer(layer).blocks == 0 => {
                self.end_step(event.at)?;
            }
            EventKind::LayerRouted { layer, routed } => self.layer_routed(layer, routed)?,
            EventKind::ChunkDone { id, .. } if Checkpoints::owns(id) => self.state_chunk_done(id)?,
            EventKind::ChunkDone { id, .. } => self.chunk_done(id)?,
            EventKind::ChunkFailed { id } => self.chunk_failed(id)?,
            EventKind::Woken | EventKind::Passed(_) => {}
            EventKind::Foreseen { layer, routed } => self.policy.foresee(&self.context, layer, &routed),
            EventKind::NearDone { layer, .. } => {
                if self.near_done()? {
                    self.next_layer(layer, event.at)?;
                }
            }
            EventKind::LayerDone { layer } => {
                if self.wave_done()? {
                    self.next_layer(layer, event.at)?;
                }
            }
            EventKind::HeadDone => self.end_step(event.at)?,
            EventKind::HandedOn(batch) => {
                match self.stage.is_first() {
                    true => self.batch_done(event.at),
                    false => self.serving.hand(batch),
                }
                self.start_step()?;
            }
            EventKind::TierLost { tier } => self.lose(tier)?,
            EventKind::AcceleratorsLost { lost } => self.accelerators_lost(lost)?,
            EventKind::MemoryPressure { tier, reserved } if tier != self.context.costs.fast => {
                self.reclaim(tier, reserved)?;
            }
            EventKind::MemoryPressure { reserved, .. } => {
                self.pressed = reserved;
                self.keep_to_room()?;
                self.resume_starved()?;
            }
        }
        if let Some(failure) = self.policy.failure() {
            return Err(ControlError::Policy(failure));
        }
        self.begin_state_moves();
        self.tell();
        let exchange = self.exchange_due();
        let mut books = Books { blocks: &mut self.context.ledger, states: self.serving.checkpoints_mut() };
        self.schedule.mind(exchange);
        self.schedule.dispatch(event.at, &mut books, &mut self.commands)?;
        commands.append(&mut self.commands);
        Ok(())
    }

    /// Takes what was decided of checkpoints: copies go at once, moves when the schedule lets them.
    fn begin_state_moves(&mut self) {
        let Some(checkpoints) = self.serving.checkpoints_mut() else { return };
        checkpoints.take_vetoed().into_iter().for_each(|reason| self.tally.veto(reason));
        let dropped = checkpoints.take_dropped().into_iter();
        self.commands.extend(dropped.map(|(checkpoint, tier)| Command::DropState { checkpoint, tier }));
        for (id, links) in checkpoints.take_begun() {
            self.schedule.add(id, Added::over(links, MoveClass::Spill), self.context.signals.now);
        }
    }

    fn state_chunk_done(&mut self, id: MoveId) -> Result<(), ControlError> {
        let now = self.context.signals.now;
        let len = self.schedule.landed(id, now).ok_or(Refused::NoSuchMove(id))?;
        let restored = self.serving.state_landed(id, len, now)?;
        // The cache may have waited for a checkpoint that no longer moves.
        if restored || !self.serving.moves_states() { self.start_step() } else { Ok(()) }
    }

    fn chunk_done(&mut self, id: MoveId) -> Result<(), ControlError> {
        if self.is_severed(id) {
            return self.chunk_failed(id);
        }
        let flight = self.context.ledger.flight(id);
        let is_demand = flight.is_some_and(|flight| flight.class == MoveClass::Demand);
        let is_staged = flight.is_some_and(|flight| self.staging.budget(flight.to.tier).is_some());
        let ended = self.landed(id)?;
        self.shed_staged()?;
        if let Some(block) = ended {
            self.move_ended(block)?;
        }
        self.resume_starved()?;
        if ended.is_some() && is_staged && self.stepping {
            self.read_ahead()?;
        }
        // The link that a move ahead of demand leaves is idle until something is demanded.
        if ended.is_some() && !is_demand && self.serving.is_running() && self.waits_for_no_move() {
            self.speculate();
        }
        // The cache may have waited for room that a move was still writing to.
        self.start_step()
    }

    fn chunk_failed(&mut self, id: MoveId) -> Result<(), ControlError> {
        let block = self.failed(id)?;
        self.shed_staged()?;
        self.move_ended(block)?;
        self.resume_starved()?;
        self.start_step()
    }

    /// Begins the next step, unless one is running or there is nothing to compute.
    pub(crate) fn start_step(&mut self) -> Result<(), ControlError> {
        if self.loading || self.stepping || !(self.serving.is_running() || self.serving.is_waiting()) {
            return Ok(());
        }
        let now = self.context.signals.now;
        let mut serving = std::mem::take(&mut self.serving);
        if let Some(taken) = serving.cache_bytes() {
            self.context.ledger.set_capacity(self.context.costs.fast, self.room().saturating_sub(taken));
        }
        let formed = serving.form_step(now, &mut |wanted| self.grant(wanted));
        self.serving = serving;
        if formed? {
            self.stepping = true;
            self.step_began = now;
            self.context.signals.concurrency = self.serving.batch_len() as u32;
            self.context.signals.step_tokens = self.serving.step_tokens();
            let first = self.begin_phase();
            self.run_mixers(first, now)?;
        } else if !self.serving.is_under_way()
            && self.context.ledger.flights().next().is_none()
            && !self.serving.moves_states()
        {
            return Err(ControlError::CacheStuck);
        }
        Ok(())
    }

    /// Whether a step is running.
    pub(crate) fn is_stepping(&self) -> bool {
        self.stepping
    }

    fn end_step(&mut self, now: Time) -> Result<(), ControlError> {
        self.stepping = false;
        self.tally.stepped(now.since(self.step_began), self.serving.batch_len(), self.serving.waiting());
        self.context.signals.step += u64::from(!self.serving.computes_tokens());
        let drift = self.context.guard.end_step();
        self.policy.step_done(&self.context, drift);
        if self.stage.is_part() {
            // Whoever has no head learns of no tokens by it.
            self.context.signals.step += u64::from(!self.stage.is_last() && self.serving.emits());
            self.commands.push(Command::HandOn(self.serving.hand_on()));
        } else if self.take_spoilt() {
            self.serving.spoil();
        } else {
            self.batch_done(now);
        }
        self.regroup()?;
        self.start_step()
    }

    /// All layers and the head are computed for the batch that was formed first of those under way.
    fn batch_done(&mut self, now: Time) {
        for request in self.serving.step_done(now, &mut self.tally) {
            self.policy.request_done(&self.context, request);
            self.commands.push(Command::Finish { request });
        }
    }

    pub(crate) fn compute(&mut self, layer: LayerId, part: Part, reads: Vec<crate::event::Read>) {
        let batch = self.serving.batch();
        let (mixers, through) = (0..0, None);
        self.commands.push(Command::Compute { mixers, layer, part, batch, reads, through });
    }

    /// The decisions since the last call, if they are recorded.
    pub fn take_decisions(&mut self) -> Vec<Decision> {
        self.log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The requests that have left since the last call, in the order in which they did.
    pub fn take_left(&mut self) -> Vec<RequestTimes> {
        std::mem::take(&mut self.tally.left)
    }

    /// The latencies since the last call, if they are kept.
    pub fn take_recent(&mut self) -> Recent {
        self.tally.recent.as_deref_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Time in steps, the part of the running one included that is behind it.
    pub fn step_time_so_far(&self) -> Nanos {
        let now = self.context.signals.now;
        self.tally.step_time + if self.stepping { now.since(self.step_began) } else { Nanos::ZERO }
    }

    /// Requests, the batch and the queue.
    pub fn serving(&self) -> &Serving {
        &self.serving
    }

    /// What the key-value cache was used for, where it is kept in pages.
    pub fn cache_use(&self) -> Option<CacheUse> {
        self.serving.cache_use()
    }

    /// What the run has counted.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What the policy pays for memory and drift, if it has prices for them.
    pub fn prices(&self) -> Option<Prices> {
        self.policy.prices()
    }

    /// Copies, signals, guard and costs.
    pub fn context(&self) -> &Context {
        &self.context
    }
}
