//! Two worlds as one: a timeline, the simulator in practice, says when everything happens; a device carries the same
//! commands out in reality. An event of the timeline is passed on once the device has really done what it reports. So
//! the controller decides exactly as in simulation, and every copy it reads is a real one.

use crate::device::{Device, Span, Totals, stream_of};
use crate::drift::Drift;
use crate::lane::{now, since};
use crate::refusal::DeviceError;
use crate::times::{Component, Pair, Times};
use policy::event::{
    Command, Event, EventKind, Form, MoveChunk, Part, Platform, StateChunk, StateEnd, StateForm,
};
use policy::units::{Bytes, Nanos};
use policy::{BlockId, CheckpointId, MoveId, TierId, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error as StdError;
use thiserror::Error;

/// Which of the two worlds failed, or how they came apart.
#[derive(Debug, Error)]
pub enum LockstepError<E: StdError + 'static> {
    /// The timeline.
    #[error("timeline: {0}")]
    Timeline(#[source] E),
    /// The device.
    #[error("device: {0}")]
    Device(#[from] DeviceError),
    /// The timeline reports the end of a compute command that was not the oldest under way.
    #[error("the timeline reports that {reported} is done; the oldest compute under way is {oldest}")]
    OutOfOrder {
        /// What the timeline says.
        reported: String,
        /// What should have come first.
        oldest: String,
    },
    /// The copies on the device are not those that the commands imply.
    #[error("copies differ from the commands: missing {missing:?}, too many {extra:?}")]
    Diverged {
        /// Copies that should be there.
        missing: Vec<(BlockId, Form)>,
        /// Copies that should not.
        extra: Vec<(BlockId, Form)>,
    },
    /// The checkpoints on the device are not those that the commands imply.
    #[error("checkpoints differ from the commands: missing {missing:?}, too many {extra:?}")]
    Checkpoints {
        /// Copies that should be there.
        missing: Vec<(CheckpointId, StateForm)>,
        /// Copies that should not.
        extra: Vec<(CheckpointId, StateForm)>,
    },
}

/// What a run in lockstep did on the device.
#[derive(Debug)]
pub struct LockstepReport {
    /// Moves, bytes, computes, drops, checks, real times.
    pub totals: Totals,
    /// Real time spent waiting for the device at events of the timeline.
    pub lockstep_wait: Nanos,
    /// Copies at the end; each is on the device, and its bytes are right.
    pub live_copies: u64,
    /// Copies of checkpoints at the end, likewise.
    pub live_checkpoints: u64,
    /// The most bytes that checkpoints took of each tier that keeps them.
    pub checkpoint_peaks: BTreeMap<TierId, Bytes>,
    /// Predicted against measured.
    pub times: Times,
    /// What was read in which format.
    pub drift: Drift,
    /// Time of copies from one tier to another on the device, and how much of it the accelerator waited with nothing to do.
    pub transfer: (Nanos, Nanos),
    /// What the lanes did, if it was kept.
    pub spans: Vec<Span>,
}

/// What the commands say of a move.
struct Promise {
    made: Made,
    way: (TierId, TierId),
    /// Chunks submitted and not reported: when, by the timeline.
    outstanding: VecDeque<Time>,
    complete: bool,
}

/// What a move makes.
#[derive(Clone, Copy)]
enum Made {
    /// A copy of a block, and the one that is kept in passing.
    Block(BlockId, Form, Option<Form>),
    Checkpoint(CheckpointId, StateForm),
    /// The states of a request, which are nobody's copy.
    Request,
}

/// A compute command that has not been answered.
struct Computing {
    layer: u16,
    part: Part,
    /// When it was submitted, by the timeline.
    since: Time,
}

/// A [`Platform`] whose time is `P`'s and whose memory is a device's.
pub struct Lockstep<P> {
    timeline: P,
    device: Device,
    /// The copies there must be, from commands and events alone.
    copies: BTreeSet<(BlockId, Form)>,
    /// The checkpoints there must be, likewise.
    checkpoints: BTreeSet<(CheckpointId, StateForm)>,
    moves: BTreeMap<MoveId, Promise>,
    /// Moves of which a chunk failed and that nobody has given up yet.
    failed: BTreeSet<MoveId>,
    /// Compute commands not answered, in order: the accelerator's, and those of each processor beside other memories.
    computes: Vec<VecDeque<Computing>>,
    lockstep_wait: Nanos,
    /// The present of the timeline.
    now: Time,
    /// When the running step began, by the timeline and by the device.
    step: Option<(Time, Nanos)>,
    times: Times,
    drift: Drift,
    /// Tokens of the running step.
    tokens: u32,
}

impl<P: Platform> Lockstep<P> {
    /// Puts a device under a timeline. Nothing may have been submitted to either.
    pub fn new(timeline: P, device: Device) -> Lockstep<P> {
        let copies = device.published().collect();
        let moves = BTreeMap::new();
        let computes = device.streams().map(|_| VecDeque::new()).collect();
        Lockstep {
            timeline,
            device,
            copies,
            checkpoints: BTreeSet::new(),
            moves,
            failed: BTreeSet::new(),
            computes,
            lockstep_wait: Nanos::ZERO,
            now: Time(0),
            step: None,
            times: Times::default(),
            drift: Drift::default(),
            tokens: 0,
        }
    }

    /// The device, for what it alone knows.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Keeps what the lanes do, for the report.
    pub fn keep_spans(&mut self) {
        self.device.keep_spans();
    }

    /// The timeline, for what it alone knows.
    pub fn timeline(&self) -> &P {
        &self.timeline
    }

    /// Waits for the device, checks every copy on it once more, and compares them with what the commands imply.
    pub fn finish(mut self) -> Result<LockstepReport, LockstepError<P::Error>> {
        let found = self.device.audit()?;
        if found != self.copies {
            let missing = self.copies.difference(&found).copied().collect();
            let extra = found.difference(&self.copies).copied().collect();
            return Err(LockstepError::Diverged { missing, extra });
        }
        let kept = self.device.checkpoints();
        if kept != self.checkpoints {
            let missing = self.checkpoints.difference(&kept).copied().collect();
            let extra = kept.difference(&self.checkpoints).copied().collect();
            return Err(LockstepError::Checkpoints { missing, extra });
        }
        Ok(LockstepReport {
            totals: self.device.totals().clone(),
            lockstep_wait: self.lockstep_wait,
            live_copies: found.len() as u64,
            live_checkpoints: kept.len() as u64,
            checkpoint_peaks: self.device.checkpoint_peaks().clone(),
            times: self.times,
            drift: self.drift,
            transfer: self.device.transfer_time(),
            spans: self.device.take_spans(),
        })
    }

    fn promise(&mut self, command: &Command) {
        match command {
            Command::Move(MoveChunk { id, block, from, to, keep, last, .. }) => {
                let made = Made::Block(*block, *to, *keep);
                self.expect(*id, made, (from.tier(*to), to.tier), *last);
            }
            Command::MoveState(chunk) => self.expect_state(chunk),
            Command::DropState { checkpoint, tier } => self.forget_checkpoint(*checkpoint, *tier),
            Command::Drop { block, form } => {
                self.copies.remove(&(*block, *form));
            }
            Command::Cancel { id } => {
                self.moves.remove(id);
            }
            Command::Compute { layer, part, batch, reads, .. } => {
                match part {
                    Part::Mixer => self.tokens = batch.iter().map(|slice| slice.tokens).sum(),
                    Part::Experts | Part::Near(_) => {
                        self.drift.computed(self.device.contents().model(), reads)
                    }
                    Part::Head => self.drift.end_step(),
                }
                let computing = Computing { layer: layer.0, part: *part, since: self.now };
                self.computes[stream_of(*part)].push_back(computing);
                if self.step.is_none() {
                    self.step = Some((self.now, self.device.elapsed()));
                }
            }
            Command::HandOn(_) | Command::Wake { .. } | Command::Tell(_) | Command::Finish { .. } => {}
        }
    }

    /// A chunk of a move has been submitted.
    fn expect(&mut self, id: MoveId, made: Made, way: (TierId, TierId), last: bool) {
        let promise = Promise { made, way, outstanding: VecDeque::new(), complete: false };
        let promise = self.moves.entry(id).or_insert(promise);
        promise.outstanding.push_back(self.now);
        promise.complete = last;
    }

    fn expect_state(&mut self, chunk: &StateChunk) {
        let fast = self.device.fast();
        let way = (chunk.from.form(fast).tier, chunk.to.form(fast).tier);
        let made = match chunk.to {
            StateEnd::Request => Made::Request,
            StateEnd::Kept(form) => Made::Checkpoint(chunk.checkpoint, form),
        };
        // A change of format puts the new copy in the old one's place.
        if let (StateEnd::Kept(from), StateEnd::Kept(to)) = (chunk.from, chunk.to)
            && from.tier == to.tier
        {
            self.forget_checkpoint(chunk.checkpoint, from.tier);
        }
        self.expect(chunk.id, made, way, chunk.last);
    }

    fn forget_checkpoint(&mut self, checkpoint: CheckpointId, tier: TierId) {
        self.checkpoints.retain(|(id, form)| (*id, form.tier) != (checkpoint, tier));
    }

    /// A chunk has arrived in both worlds.
    fn follow_chunk(&mut self, id: MoveId, queued: Nanos) -> Result<(), LockstepError<P::Error>> {
        let took = self.device.wait(id)?.took;
        let Some(promise) = self.moves.get_mut(&id) else { return Ok(()) };
        if let Some(since) = promise.outstanding.pop_front() {
            let predicted = Nanos(self.now.since(since).0.saturating_sub(queued.0));
            let component = Component::Copy(promise.way.0, promise.way.1);
            self.times.jobs.entry(component).or_default().push(Pair { predicted, measured: took });
        }
        if promise.complete && promise.outstanding.is_empty() {
            match promise.made {
                Made::Block(block, form, kept) => {
                    self.copies.insert((block, form));
                    self.copies.extend(kept.map(|form| (block, form)));
                }
                Made::Checkpoint(checkpoint, form) => drop(self.checkpoints.insert((checkpoint, form))),
                Made::Request => {}
            }
            self.moves.remove(&id);
        }
        Ok(())
    }

    /// Waits until the device has done what the event says.
    fn follow(&mut self, event: &Event) -> Result<(), LockstepError<P::Error>> {
        let start = now();
        let before = std::mem::replace(&mut self.now, event.at);
        match &event.kind {
            EventKind::ChunkDone { id, queued } => self.follow_chunk(*id, *queued)?,
            EventKind::LayerRouted { layer, routed } => {
                self.follow_compute(Some(layer.0), Part::Mixer)?;
                self.drift.routed(routed, self.tokens);
            }
            EventKind::LayerDone { layer } => self.follow_compute(Some(layer.0), Part::Experts)?,
            EventKind::NearDone { layer, by } => self.follow_compute(Some(layer.0), Part::Near(*by))?,
            EventKind::HeadDone => {
                self.follow_compute(None, Part::Head)?;
                self.end_step();
            }
            EventKind::RequestArrived { .. } | EventKind::Loaded => {
                if self.step.is_none() {
                    self.device.idle(event.at.since(before));
                }
            }
            EventKind::ChunkFailed { id } => {
                self.device.fail(*id)?;
                self.failed.insert(*id);
            }
            // No leave was given.
            EventKind::Passed(_) => {
                let reported = "layers that it went through by itself".into();
                return Err(LockstepError::OutOfOrder { reported, oldest: "one layer's".into() });
            }
            EventKind::Foreseen { .. }
            | EventKind::Woken
            | EventKind::HandedOn(_)
            | EventKind::MemoryPressure { .. }
            | EventKind::TierLost { .. }
            | EventKind::AcceleratorsLost { .. } => {}
        }
        self.lockstep_wait += since(start);
        Ok(())
    }

    fn end_step(&mut self) {
        if let Some((since, began)) = self.step.take() {
            let measured = Nanos(self.device.elapsed().0.saturating_sub(began.0));
            self.times.steps.push(Pair { predicted: self.now.since(since), measured });
        }
    }

    fn follow_compute(&mut self, layer: Option<u16>, part: Part) -> Result<(), LockstepError<P::Error>> {
        let oldest = self.computes[stream_of(part)].pop_front();
        let awaited =
            |oldest: &Computing| oldest.part == part && layer.is_none_or(|layer| layer == oldest.layer);
        let Some(Computing { since, .. }) = oldest.as_ref().filter(|oldest| awaited(oldest)) else {
            let reported = layer.map_or("the head".into(), |layer| format!("{part:?} of layer {layer}"));
            let name = |oldest: Computing| format!("{:?} of layer {}", oldest.part, oldest.layer);
            let oldest = oldest.map_or("none".into(), name);
            return Err(LockstepError::OutOfOrder { reported, oldest });
        };
        let measured = self.device.wait_compute(part)?.took;
        let pair = Pair { predicted: self.now.since(*since), measured };
        self.times.jobs.entry(Component::Compute(part)).or_default().push(pair);
        Ok(())
    }
}

impl<P: Platform> Platform for Lockstep<P> {
    type Error = LockstepError<P::Error>;

    fn next_event(&mut self) -> Result<Option<Event>, Self::Error> {
        let event = self.timeline.next_event().map_err(LockstepError::Timeline)?;
        if let Some(event) = &event {
            self.follow(event)?;
        }
        Ok(event)
    }

    fn submit(&mut self, command: Command) -> Result<(), Self::Error> {
        // A move whose chunk failed is given up on the device already.
        let over = matches!(&command, Command::Cancel { id } if self.failed.remove(id));
        if !over {
            self.device.submit(&command)?;
        }
        self.promise(&command);
        self.timeline.submit(command.layer_by_layer()).map_err(LockstepError::Timeline)
    }
}
