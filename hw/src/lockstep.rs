//! Two worlds as one: a timeline, the simulator in practice, says when everything happens; a device carries the same
//! commands out in reality. An event of the timeline is passed on once the device has really done what it reports. So
//! the controller decides exactly as in simulation, and every copy it reads is a real one.

use crate::device::{Device, Totals, stream_of};
use crate::lane::{now, since};
use crate::refusal::DeviceError;
use policy::event::{Command, Event, EventKind, Form, MoveChunk, Part, Platform};
use policy::units::Nanos;
use policy::{BlockId, MoveId};
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
}

/// What a run in lockstep did on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockstepReport {
    /// Moves, bytes, computes, drops, checks, real times.
    pub totals: Totals,
    /// Real time spent waiting for the device at events of the timeline.
    pub lockstep_wait: Nanos,
    /// Copies at the end; each is on the device, and its bytes are right.
    pub live_copies: u64,
}

/// What the commands say of a move.
struct Promise {
    copy: (BlockId, Form),
    /// Chunks submitted and not reported.
    outstanding: u64,
    complete: bool,
}

/// A [`Platform`] whose time is `P`'s and whose memory is a device's.
pub struct Lockstep<P> {
    timeline: P,
    device: Device,
    /// The copies there must be, from commands and events alone.
    copies: BTreeSet<(BlockId, Form)>,
    moves: BTreeMap<MoveId, Promise>,
    /// Compute commands not answered, in order: the accelerator's, and the host's.
    computes: [VecDeque<(u16, Part)>; 2],
    lockstep_wait: Nanos,
}

impl<P: Platform> Lockstep<P> {
    /// Puts a device under a timeline. Nothing may have been submitted to either.
    pub fn new(timeline: P, device: Device) -> Lockstep<P> {
        let copies = device.published().collect();
        let (moves, computes) = (BTreeMap::new(), Default::default());
        Lockstep { timeline, device, copies, moves, computes, lockstep_wait: Nanos::ZERO }
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
        Ok(LockstepReport {
            totals: self.device.totals().clone(),
            lockstep_wait: self.lockstep_wait,
            live_copies: found.len() as u64,
        })
    }

    /// What the device has done so far.
    pub fn totals(&self) -> &Totals {
        self.device.totals()
    }

    fn promise(&mut self, command: &Command) {
        match command {
            Command::Move(MoveChunk { id, block, to, last, .. }) => {
                let promise = Promise { copy: (*block, *to), outstanding: 0, complete: false };
                let promise = self.moves.entry(*id).or_insert(promise);
                promise.outstanding += 1;
                promise.complete = *last;
            }
            Command::Drop { block, form } => {
                self.copies.remove(&(*block, *form));
            }
            Command::Cancel { id } => {
                self.moves.remove(id);
            }
            Command::Compute { layer, part, .. } => {
                self.computes[stream_of(*part)].push_back((layer.0, *part))
            }
            Command::Finish { .. } => {}
        }
    }

    fn keep(&mut self, id: MoveId) {
        let Some(promise) = self.moves.get_mut(&id) else { return };
        promise.outstanding -= 1;
        if promise.complete && promise.outstanding == 0 {
            self.copies.insert(promise.copy);
            self.moves.remove(&id);
        }
    }

    /// Waits until the device has done what the event says.
    fn follow(&mut self, event: &Event) -> Result<(), LockstepError<P::Error>> {
        let start = now();
        match &event.kind {
            EventKind::ChunkDone { id, .. } => {
                self.device.wait(*id)?;
                self.keep(*id);
            }
            EventKind::LayerRouted { layer, .. } => self.follow_compute(Some(layer.0), Part::Mixer)?,
            EventKind::LayerDone { layer } => self.follow_compute(Some(layer.0), Part::Experts)?,
            EventKind::HostDone { layer } => self.follow_compute(Some(layer.0), Part::Host)?,
            EventKind::HeadDone => self.follow_compute(None, Part::Head)?,
            EventKind::RequestArrived { .. }
            | EventKind::Foreseen { .. }
            | EventKind::Loaded
            | EventKind::MemoryPressure { .. } => {
                return Ok(());
            }
        }
        self.lockstep_wait += since(start);
        Ok(())
    }

    fn follow_compute(&mut self, layer: Option<u16>, part: Part) -> Result<(), LockstepError<P::Error>> {
        let oldest = self.computes[stream_of(part)].pop_front();
        if !oldest.is_some_and(|oldest| oldest.1 == part && layer.is_none_or(|layer| layer == oldest.0)) {
            let reported = layer.map_or("the head".into(), |layer| format!("{part:?} of layer {layer}"));
            let name = |(layer, part)| format!("{part:?} of layer {layer}");
            let oldest = oldest.map_or("none".into(), name);
            return Err(LockstepError::OutOfOrder { reported, oldest });
        }
        self.device.wait_compute(part)?;
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
        self.device.submit(&command)?;
        self.promise(&command);
        self.timeline.submit(command).map_err(LockstepError::Timeline)
    }
}
