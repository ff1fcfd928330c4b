//! The simulator as a platform: commands become events at the time physics gives them.

use crate::compute;
use crate::link::{Delivered, LinkSim};
use crate::memory::{Memory, MemoryError};
use crate::queue::{Queue, Rank};
use crate::timeline::{self, Chunk, Timeline};
use crate::workload::Workload;
use policy::event::{Command, Event, EventKind, Form, MoveChunk, MoveClass, Part, Platform, Read};
use policy::score::coding_time;
use policy::sizes::Sizes;
use policy::{
    BlockId, Bytes, FormatId, LayerId, LinkId, Machine, Model, MoveId, Nanos, RequestId, TierId, Time,
};
use std::sync::Arc;
use thiserror::Error;

/// The last instant a run may reach, 292 years from its beginning: beyond twice that, sums of times stop growing.
const LATEST: Time = Time(u64::MAX / 2);

/// Why the world cannot go on. But for [`WorldError::TooLate`], the controller is wrong and not the input.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WorldError {
    /// Memory refuses.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Two tiers have no link between them.
    #[error("no link leads from {from:?} to {to:?}")]
    NoLink {
        /// The copy read.
        from: Form,
        /// The copy made.
        to: Form,
    },
    /// Times so long that they can no longer be added up.
    #[error(
        "the run goes on for more than 292 years of simulated time: a latency is too long, or a rate too low"
    )]
    TooLate,
    /// A move is cancelled that is not under way.
    #[error("move {0:?} is not under way")]
    NoSuchMove(MoveId),
    /// A chunk does not follow on the one before.
    #[error("move {id:?} goes on at byte {offset} after {sent} bytes")]
    OutOfOrder {
        /// The move.
        id: MoveId,
        /// Where the chunk begins.
        offset: Bytes,
        /// Where it should.
        sent: Bytes,
    },
}

/// What the queue holds.
#[derive(Clone, Copy, Debug)]
enum Tick {
    Link(LinkId),
    Arrived { id: MoveId, bytes: Bytes, queued: Nanos },
    Computed { layer: LayerId, part: Part },
    Request(RequestId),
}

#[derive(Clone, Copy, Debug)]
struct Moving {
    block: BlockId,
    from: Form,
    to: Form,
    class: MoveClass,
    sent: Bytes,
    arrived: Bytes,
    whole: Option<Bytes>,
}

/// See the module.
pub struct World {
    machine: Arc<Machine>,
    model: Arc<Model>,
    sizes: Sizes,
    now: Time,
    queue: Queue<Tick>,
    links: Vec<LinkSim>,
    memory: Memory,
    coder_free: Time,
    /// Moves with bytes handed over, by id: a handful at any time.
    moves: Vec<(MoveId, Moving)>,
    workload: Workload,
    progress: Vec<u32>,
    /// The first request that is not in the queue yet.
    next_request: usize,
    batch: Vec<(RequestId, u32)>,
    contexts: Vec<u32>,
    delivered: Vec<Delivered>,
    compute_time: Nanos,
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
        home: TierId,
        encoded: &[FormatId],
        workload: Workload,
        record_timeline: bool,
    ) -> Result<World, WorldError> {
        let mut memory = Memory::new(machine.clone(), &model);
        for (index, block) in model.blocks.iter().enumerate() {
            let formats =
                std::iter::once(block.native).chain(encoded.iter().copied().filter(|&f| f != block.native));
            for format in formats {
                let (block, form) = (BlockId(index as u32), Form { tier: home, format });
                memory.reserve(block, form)?;
                memory.publish(block, form);
            }
        }
        let mut timeline =
            record_timeline.then(|| Timeline::new(machine.clone(), model.clone(), timeline::ROOM));
        if let Some(timeline) = &mut timeline {
            timeline.level(home, Time(0), memory.used(home));
        }
        let mut world = World {
            links: machine.links.iter().cloned().map(LinkSim::new).collect(),
            progress: vec![0; workload.requests().len()],
            sizes: Sizes::new(&model),
            machine,
            model,
            now: Time(0),
            queue: Queue::default(),
            memory,
            coder_free: Time(0),
            moves: Vec::new(),
            workload,
            next_request: 0,
            batch: Vec::new(),
            contexts: Vec::new(),
            delivered: Vec::new(),
            compute_time: Nanos::ZERO,
            ticks: 0,
            timeline,
        };
        world.expect_request();
        Ok(world)
    }

    /// The present.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The link directions.
    pub fn links(&self) -> &[LinkSim] {
        &self.links
    }

    /// What memory has seen.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Time the accelerator computed.
    pub fn compute_time(&self) -> Nanos {
        self.compute_time
    }

    /// Events of the queue so far.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Where the gate weights come from.
    pub fn gates(&self) -> &'static str {
        self.workload.gates()
    }

    /// The timeline, if it was recorded.
    pub fn timeline(&self) -> Option<&Timeline> {
        self.timeline.as_ref()
    }

    fn tick(&mut self, tick: Tick) -> Option<EventKind> {
        match tick {
            Tick::Link(link) => {
                self.collect(link);
                None
            }
            Tick::Arrived { id, bytes, queued } => {
                let place = self.place(id).ok()?;
                let moving = &mut self.moves[place].1;
                moving.arrived += bytes;
                if moving.whole == Some(moving.arrived) {
                    let (_, Moving { block, to, .. }) = self.moves.remove(place);
                    self.memory.publish(block, to);
                }
                Some(EventKind::ChunkDone { id, queued })
            }
            Tick::Computed { layer, part } => Some(self.computed(layer, part)),
            Tick::Request(request) => {
                self.expect_request();
                let data = self.workload.requests()[request.index()];
                Some(EventKind::RequestArrived {
                    request,
                    context_tokens: data.context,
                    output_tokens: data.tokens,
                })
            }
        }
    }

    fn computed(&mut self, layer: LayerId, part: Part) -> EventKind {
        match part {
            Part::Mixer => EventKind::LayerRouted { layer, routed: self.workload.route(&self.batch, layer) },
            Part::Experts => EventKind::LayerDone { layer },
            Part::Head => {
                for &(request, _) in &self.batch {
                    self.progress[request.index()] += 1;
                }
                EventKind::HeadDone
            }
        }
    }

    /// Takes finished copies off a link and lets the rest go on.
    fn collect(&mut self, link: LinkId) {
        let mut delivered = std::mem::take(&mut self.delivered);
        self.links[link.index()].collect(self.now, &mut delivered);
        let latency = self.links[link.index()].spec().latency;
        for copy in delivered.drain(..) {
            let Ok(place) = self.place(copy.id) else { continue };
            let moving = self.moves[place].1;
            if let Some(timeline) = &mut self.timeline {
                let Moving { block, from, to, class, .. } = moving;
                let Delivered { id, bytes, queued, taken_up } = copy;
                let chunk = Chunk { id, block, from, to, class, bytes, queued };
                timeline.carried(link, chunk, taken_up, self.now);
            }
            self.memory.carried(moving.from.tier, moving.to.tier, copy.bytes);
            let last = moving.whole == Some(moving.sent);
            let coding = if last { self.coding(&moving) } else { Nanos::ZERO };
            let tick = Tick::Arrived { id: copy.id, bytes: copy.bytes, queued: copy.queued };
            self.queue.push(self.now + latency + coding, Rank::Transfer, tick);
        }
        self.delivered = delivered;
        self.reschedule(link);
    }

    fn coding(&self, moving: &Moving) -> Nanos {
        let native = self.sizes.bytes(moving.block, self.model.block(moving.block).native);
        coding_time(&self.machine, native, moving.from.format, moving.to.format)
    }

    fn place(&self, id: MoveId) -> Result<usize, usize> {
        self.moves.binary_search_by_key(&id, |(id, _)| *id)
    }

    fn reschedule(&mut self, link: LinkId) {
        let busy = self.links[link.index()].is_busy();
        let opposite = self.links[link.index()].spec().opposite;
        if let Some(opposite) = opposite {
            self.links[opposite.index()].set_opposite_busy(self.now, busy);
            self.expect_link(opposite);
        }
        self.expect_link(link);
    }

    fn expect_link(&mut self, link: LinkId) {
        if let Some(at) = self.links[link.index()].announce() {
            self.queue.push(at, Rank::Transfer, Tick::Link(link));
        }
    }

    /// Puts the next request with a time of its own into the queue: they come in order.
    fn expect_request(&mut self) {
        let next = self.next_request;
        if let Some(at) = self.workload.requests().get(next).and_then(|request| request.at) {
            self.next_request += 1;
            self.queue.push(at, Rank::Admission, Tick::Request(RequestId(next as u32)));
        }
    }

    fn begin_chunk(&mut self, chunk: MoveChunk) -> Result<(), WorldError> {
        let MoveChunk { id, block, from, to, class, .. } = chunk;
        let place = match self.place(id) {
            Ok(place) => place,
            Err(place) => {
                self.memory.expect(block, from)?;
                self.memory.reserve(block, to)?;
                self.note_level(to.tier);
                let new =
                    Moving { block, from, to, class, sent: Bytes::ZERO, arrived: Bytes::ZERO, whole: None };
                self.moves.insert(place, (id, new));
                place
            }
        };
        let moving = &mut self.moves[place].1;
        if moving.sent != chunk.offset {
            return Err(WorldError::OutOfOrder { id, offset: chunk.offset, sent: moving.sent });
        }
        moving.sent += chunk.len;
        moving.whole = chunk.last.then_some(moving.sent);
        let moving = *moving;
        if from.tier == to.tier {
            let start = self.coder_free.max(self.now);
            let queued = start.since(self.now);
            let coding = self.coding(&moving);
            self.coder_free = start + coding;
            if let Some(timeline) = &mut self.timeline {
                timeline.coding(block, from, to, start, coding);
            }
            let tick = Tick::Arrived { id, bytes: chunk.len, queued };
            self.queue.push(self.coder_free, Rank::Transfer, tick);
            return Ok(());
        }
        let link = self.machine.link_between(from.tier, to.tier).ok_or(WorldError::NoLink { from, to })?;
        self.links[link.index()].submit(self.now, id, chunk.len);
        self.reschedule(link);
        Ok(())
    }

    fn begin_compute(
        &mut self,
        layer: LayerId,
        part: Part,
        batch: &[RequestId],
        reads: &[Read],
    ) -> Result<(), WorldError> {
        for read in reads {
            self.memory.expect(read.block, read.form)?;
            self.memory.compute_reads(read.block, read.form);
        }
        self.batch.clear();
        self.contexts.clear();
        for &request in batch {
            let done = self.progress[request.index()];
            self.batch.push((request, done));
            self.contexts.push(self.workload.requests()[request.index()].context + done);
        }
        let time = compute::time(&self.machine, &self.model, &self.sizes, layer, part, &self.contexts, reads);
        self.compute_time += time;
        if let Some(timeline) = &mut self.timeline {
            timeline.compute(layer, part, self.now, time);
        }
        self.queue.push(self.now + time, Rank::Completion, Tick::Computed { layer, part });
        Ok(())
    }

    fn note_level(&mut self, tier: TierId) {
        if let Some(timeline) = &mut self.timeline {
            timeline.level(tier, self.now, self.memory.used(tier));
        }
    }

    /// A closed client sends its next request when one is finished.
    fn finish(&mut self) {
        let next = self.next_request;
        if self.workload.requests().get(next).is_some_and(|request| request.at.is_none()) {
            self.next_request += 1;
            self.queue.push(self.now, Rank::Admission, Tick::Request(RequestId(next as u32)));
        }
    }
}

impl Platform for World {
    type Error = WorldError;

    fn next_event(&mut self) -> Result<Option<Event>, WorldError> {
        while let Some((at, tick)) = self.queue.pop() {
            self.ticks += 1;
            // An announcement that was taken back is no event: time does not run on to it.
            if matches!(tick, Tick::Link(link) if !self.links[link.index()].is_due(at)) {
                continue;
            }
            if at > LATEST {
                return Err(WorldError::TooLate);
            }
            self.now = at;
            self.memory.advance(at);
            if let Some(kind) = self.tick(tick) {
                return Ok(Some(Event { at, kind }));
            }
        }
        Ok(None)
    }

    fn submit(&mut self, command: Command) -> Result<(), WorldError> {
        match command {
            Command::Move(chunk) => self.begin_chunk(chunk)?,
            Command::Drop { block, form } => {
                self.memory.free(block, form)?;
                self.note_level(form.tier);
            }
            Command::Cancel { id } => {
                let place = self.place(id).map_err(|_| WorldError::NoSuchMove(id))?;
                let (_, moving) = self.moves.remove(place);
                self.memory.abandon(moving.block, moving.to);
                self.note_level(moving.to.tier);
            }
            Command::Compute { layer, part, batch, reads } => {
                self.begin_compute(layer, part, &batch, &reads)?
            }
            Command::Finish { .. } => self.finish(),
        }
        Ok(())
    }
}
