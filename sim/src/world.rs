//! The simulator as a platform: commands become events at the time physics gives them.

mod error;
mod exchanges;
mod kernels;
mod moves;
mod near;
mod notes;
mod passing;
mod pressure;
mod ranks;
mod requests;
mod stages;
pub mod states;
mod tick;

pub use self::error::WorldError;
use self::exchanges::Coming;
use self::kernels::{Mixers, Running};
use self::moves::Moving;
use self::near::Near;
pub use self::near::NearCount;
use self::passing::Passing;
use self::ranks::{Held, Rank as Other};
use self::stages::Sent;
use self::states::States;
use self::tick::{Passed, Tick};
use crate::fabric::{Delivered, Fabric, Flow, LinkCount};
use crate::memory::Memory;
use crate::operators::Operators;
use crate::provenance::Provenance;
use crate::queue::{Queue, Rank};
use crate::timeline::{self, Timeline};
use crate::workload::Workload;
use policy::checkpoints::PoolSpec;
use policy::directory::Note;
use policy::event::{Command, Event, EventKind, Form, Platform, Routed};
use policy::homes::Homes;
use policy::machine::Class;
use policy::parallel::ExpertShare;
use policy::pipeline::Stage;
use policy::replicas::Balance;
use policy::sizes::Sizes;
use policy::under_way::UnderWay;
use policy::{
    BlockId, Bytes, FormatId, LayerId, LinkId, Machine, Model, MoveId, Nanos, Paths, ProcessorId, TierId,
    Time,
};
use scenarios::Pressure;
use std::collections::VecDeque;
use std::sync::Arc;

/// The last instant a run may reach, 292 years from its beginning: beyond twice that, sums of times stop growing.
const LATEST: Time = Time(u64::MAX / 2);

/// What kernels of the accelerator flow as, and those of the first processor beside other memories; further ones follow.
const ACCELERATOR: u64 = 0;
const NEAR: u64 = 1;

/// What weights move as at the beginning of a run: no move of the controller's has this number.
const WEIGHTS: MoveId = MoveId(u64::MAX);

/// Where blocks are when a run begins.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// The tiers of the home copies.
    pub home: &'a Homes,
    /// Formats kept there beside the native one.
    pub encoded: &'a [FormatId],
    /// The tier that home copies and resident weights are loaded from first, if they are not in place.
    pub load_from: Option<TierId>,
}

/// See the module.
pub struct World {
    machine: Arc<Machine>,
    paths: Paths,
    model: Arc<Model>,
    sizes: Sizes,
    operators: Operators,
    provenance: Provenance,
    /// The memory that the accelerator reads.
    fast: TierId,
    now: Time,
    queue: Queue<Tick>,
    fabric: Fabric,
    memory: Memory,
    /// When the accelerator's coder and the host's are free.
    coders: [Time; 2],
    /// Moves with bytes handed over.
    moves: UnderWay<Moving>,
    /// Checkpoints of recurrent states, and their moves.
    states: States,
    workload: Workload,
    /// For each tenant, the first request that is not in the queue yet.
    next_request: Vec<usize>,
    mixers: Mixers,
    running: Option<Running>,
    /// The processors beside other memories.
    near: Vec<Near>,
    /// Events that are due now, before whatever the queue holds.
    due: VecDeque<EventKind>,
    /// Loads that have not arrived, and when the last one had.
    loading: u32,
    /// What others will take, the next last; its event is in the queue.
    pressure: Vec<Pressure>,
    /// The tiers that have failed.
    lost: Vec<TierId>,
    loaded: Time,
    delivered: Vec<Delivered>,
    compute_time: Nanos,
    /// Which share of the experts it has, and the accelerators that have the others, if this one leads them.
    share: ExpertShare,
    others: Vec<Other>,
    /// Whether another one leads it.
    led: bool,
    /// What the leader's routers have given this one, in order.
    handed: VecDeque<Vec<Routed>>,
    /// What its controller has to say to the directory, if another one leads it.
    said: Vec<Note>,
    /// What waits for the others, since when, and how long all have waited.
    held: Option<Held>,
    /// What goes on when all have met.
    released: Option<Held>,
    held_since: Time,
    waited: Nanos,
    /// The layer whose tokens are at other accelerators, and how many are where the most are.
    away: Option<(LayerId, u64)>,
    /// Which layers it has, where there is a pipeline; until when it sends what it has computed, what it has sent since it was
    /// asked last, and what comes to it, in order.
    stage: Stage,
    wire_free: Time,
    sent: Option<Sent>,
    coming: VecDeque<Coming>,
    /// How many of these have been announced: the first crosses the links.
    announced: u32,
    /// What begins once tokens are back.
    returning: Option<Held>,
    /// Bytes of tokens that cross links that blocks move on before what is held begins.
    leaving: Bytes,
    passing: Passing,
    ticks: u64,
    timeline: Option<Timeline>,
}

impl World {
    /// A world at time zero: home copies in place, in the native format and in those encoded ahead.
    ///
    /// # Errors
    /// The home copies do not fit their tier.
    pub fn new(
        machine: Arc<Machine>,
        model: Arc<Model>,
        placement: Placement<'_>,
        workload: Workload,
        record_timeline: bool,
    ) -> Result<World, WorldError> {
        let Placement { home, encoded, load_from } = placement;
        let mut memory = Memory::new(machine.clone(), &model);
        for (index, block) in model.blocks.iter().enumerate() {
            for format in block.home_formats(encoded) {
                let block = BlockId(index as u32);
                let form = Form { tier: home.of(block), format };
                memory.reserve(block, form)?;
                memory.publish(block, form);
            }
        }
        let mut timeline =
            record_timeline.then(|| Timeline::new(machine.clone(), model.clone(), timeline::ROOM));
        if let Some(timeline) = &mut timeline {
            for &tier in home.tiers() {
                timeline.level(tier, Time(0), memory.used(tier));
            }
        }
        let fast = machine.tiers_of(Class::Fast).next().unwrap_or_default();
        let next_request = workload.tenants().iter().map(|requests| requests.start).collect();
        let near = vec![Near::default(); machine.near.len()];
        let mut world = World {
            fabric: Fabric::new(&machine),
            sizes: Sizes::new(&model),
            operators: Operators::new(machine.clone(), model.clone()),
            provenance: Provenance::default(),
            paths: Paths::new(&machine),
            mixers: Mixers::new(&model),
            fast,
            machine,
            model,
            now: Time(0),
            queue: Queue::default(),
            memory,
            coders: [Time(0); 2],
            moves: UnderWay::default(),
            states: States::default(),
            workload,
            next_request,
            running: None,
            near,
            due: VecDeque::new(),
            loading: 0,
            pressure: Vec::new(),
            lost: Vec::new(),
            loaded: Time(0),
            delivered: Vec::new(),
            compute_time: Nanos::ZERO,
            share: ExpertShare::default(),
            others: Vec::new(),
            led: false,
            handed: VecDeque::new(),
            said: Vec::new(),
            held: None,
            released: None,
            held_since: Time(0),
            waited: Nanos::ZERO,
            away: None,
            stage: Stage::default(),
            wire_free: Time(0),
            sent: None,
            coming: VecDeque::new(),
            announced: 0,
            returning: None,
            leaving: Bytes::ZERO,
            passing: Passing::default(),
            ticks: 0,
            timeline,
        };
        if let Some(from) = load_from {
            world.load(from, home)?;
        }
        Ok(world)
    }

    /// The same, with checkpoints of recurrent states in these pools.
    pub fn keeping<'a>(mut self, pools: impl IntoIterator<Item = &'a PoolSpec>) -> World {
        self.states = States::new(pools);
        self
    }

    /// Whether nothing is left that could happen but that others take memory.
    fn is_over(&self) -> bool {
        !self.pressure.is_empty() && self.queue.len() == 1 && self.fabric.is_idle()
    }

    /// Begins to load resident weights and, where they live elsewhere, home copies.
    fn load(&mut self, from: TierId, home: &Homes) -> Result<(), WorldError> {
        let homes = home.tiers().iter().map(|&tier| (tier, self.memory.used(tier)));
        let loads: Vec<_> = std::iter::once((self.fast, self.model.resident_bytes())).chain(homes).collect();
        for (to, bytes) in loads {
            if to != from {
                self.fabric.submit(Time(0), WEIGHTS, from, to, bytes)?;
                self.loading += 1;
            }
        }
        Ok(())
    }

    /// The present.
    pub fn now(&self) -> Time {
        self.now
    }

    /// What each link direction has carried.
    pub fn links(&self) -> impl Iterator<Item = (&policy::machine::Link, LinkCount)> {
        let ids = (0u8..).map(LinkId);
        self.machine.links.iter().zip(ids).map(|(link, id)| (link, self.fabric.count(self.now, id)))
    }

    /// When weights were in place: zero where they were from the beginning.
    pub fn loaded(&self) -> Time {
        self.loaded
    }

    /// What memory has seen.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Time the accelerator computed.
    pub fn compute_time(&self) -> Nanos {
        self.compute_time
    }

    /// Where that time, and the host's, came from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Events of the queue so far.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// How evenly tokens went to the accelerators that have experts of their own.
    pub fn balance(&self) -> Balance {
        self.workload.balance()
    }

    /// The timeline, if it was recorded.
    pub fn timeline(&self) -> Option<&Timeline> {
        self.timeline.as_ref()
    }

    fn tick(&mut self, tick: Tick) -> Result<Option<EventKind>, WorldError> {
        Ok(match tick {
            Tick::Encoded { id, bytes } => {
                self.encoded(id, bytes)?;
                None
            }
            Tick::Arrived { id, bytes, queued } if self.states.moves(id) => {
                self.state_arrived(id, bytes).map(|()| EventKind::ChunkDone { id, queued })
            }
            Tick::Arrived { id, bytes, queued } => self.arrived(id, bytes, queued),
            Tick::Computed => self.computed()?,
            Tick::Met => self.met()?,
            Tick::HandedOn => {
                self.announced();
                None
            }
            Tick::Landed => self.landed().map(EventKind::HandedOn),
            Tick::Sums => {
                self.sum_up();
                None
            }
            Tick::TokensBack => {
                self.tokens_back()?;
                None
            }
            Tick::Wake => Some(EventKind::Woken),
            Tick::NearComputed(by) => self.near_computed(by),
            Tick::Loaded => {
                self.loaded = self.now;
                Some(EventKind::Loaded)
            }
            Tick::Pressure => self.take(),
            Tick::Request(request) => {
                self.expect_request(usize::from(self.workload.requests()[request.index()].tenant));
                Some(self.workload.arrival(request))
            }
        })
    }

    /// One instant: what leaves the links then, or the next of the queue.
    fn instant(&mut self) -> Result<Passed, WorldError> {
        if let Some(kind) = self.due.pop_front() {
            return Ok(Passed::Event(Event { at: self.now, kind }));
        }
        if let Some(passed) = self.go_on()? {
            return Ok(passed);
        }
        if self.is_over() {
            return self.finish_others().map(|()| Passed::Over);
        }
        // What leaves a link now only queues what follows from it, so it goes first.
        let left = self.fabric.next_due();
        let at = match (left, self.queue.next_time()) {
            (None, None) => return self.finish_others().map(|()| Passed::Over),
            (Some(due), Some(next)) => due.min(next),
            (due, next) => due.or(next).unwrap_or(LATEST),
        };
        if at > LATEST {
            return Err(WorldError::TooLate);
        }
        self.now = at;
        self.memory.advance(at);
        self.ticks += 1;
        if left == Some(at) {
            self.collect();
            return Ok(Passed::Inside);
        }
        let Some((_, tick)) = self.queue.pop() else { return Ok(Passed::Inside) };
        Ok(self.tick(tick)?.map_or(Passed::Inside, |kind| Passed::Event(Event { at, kind })))
    }

    /// Takes whatever has left the links and memories by now.
    fn collect(&mut self) {
        let mut delivered = std::mem::take(&mut self.delivered);
        self.fabric.collect(self.now, &mut delivered);
        for delivered in delivered.drain(..) {
            match delivered.flow {
                Flow::Read { tag: ACCELERATOR, .. } => self.kernel_read(),
                Flow::Read { tag, .. } => self.near_read(ProcessorId((tag - NEAR) as u8)),
                Flow::Exchange { tag, .. } => self.exchanged(tag),
                Flow::Copy { id: WEIGHTS, from, to } => {
                    self.loading -= 1;
                    if self.loading == 0 {
                        self.queue.push(self.now + self.latency(from, to), Rank::Transfer, Tick::Loaded);
                    }
                }
                Flow::Copy { id, .. } if self.states.moves(id) => self.state_left(id, &delivered),
                Flow::Copy { id, from, to } => self.left(id, (from, to), &delivered),
            }
        }
        self.delivered = delivered;
    }

    fn note_level(&mut self, tier: TierId) {
        if let Some(timeline) = &mut self.timeline {
            timeline.level(tier, self.now, self.memory.used(tier));
        }
    }
}

impl Platform for World {
    type Error = WorldError;

    fn next_event(&mut self) -> Result<Option<Event>, WorldError> {
        loop {
            if self.stage.is_part() {
                self.bring_stages()?;
            }
            match self.instant()? {
                Passed::Event(event) => return Ok(Some(event)),
                Passed::Inside => {}
                Passed::Over => return Ok(None),
            }
        }
    }

    fn submit(&mut self, command: Command) -> Result<(), WorldError> {
        match command {
            Command::Move(chunk) => self.begin_chunk(chunk)?,
            Command::Drop { block, form } => {
                self.memory.free(block, form)?;
                self.note_level(form.tier);
            }
            Command::Cancel { id } => self.cancel(id)?,
            Command::Compute { mixers, layer, part, batch, reads, through } => {
                self.passing.leave = through;
                self.begin_compute(mixers, (layer, part), batch, reads)?
            }
            Command::HandOn(batch) => self.hand_on(batch),
            Command::MoveState(chunk) => self.begin_state(chunk)?,
            Command::DropState { checkpoint, tier } => self.states.free(checkpoint, tier)?,
            Command::Tell(note) => self.tell(note),
            Command::Wake { at } => drop(self.queue.push(at.max(self.now), Rank::Transfer, Tick::Wake)),
            Command::Finish { request } => self.finish(request),
        }
        Ok(())
    }
}
