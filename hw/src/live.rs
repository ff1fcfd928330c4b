//! A device that runs live: real times feed the controller. Which requests come and what their tokens need is the load's
//! affair; when things happen is the device's.

use crate::device::{Device, Finished, stream_of};
use crate::lane::now;
use crate::refusal::DeviceError;
use policy::event::{Command, Event, EventKind, Part, Platform, Routed, Slice};
use policy::units::Nanos;
use policy::{LayerId, MoveId, RequestId, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it comes in; `None` if it waits for another to finish.
    pub at: Option<Time>,
    /// Tokens of its prompt.
    pub context: u32,
    /// Tokens to put out.
    pub tokens: u32,
}

/// What is served.
pub trait Load {
    /// The request with this number, in order of arrival; `None` after the last.
    fn request(&self, number: usize) -> Option<Arrival>;

    /// What the tokens of a step need at a layer.
    fn route(&mut self, batch: &[Slice], layer: LayerId) -> Vec<Routed>;

    /// What routers say ahead of time, as events of the coming layers.
    fn foresee(&mut self, batch: &[Slice], layer: LayerId) -> Vec<EventKind>;
}

/// A compute command under way.
struct Computing {
    layer: LayerId,
    part: Part,
    batch: Arc<[Slice]>,
}

/// See the module.
pub struct Live<L> {
    device: Device,
    load: L,
    start: Instant,
    next_request: usize,
    /// Events that are due now.
    due: VecDeque<EventKind>,
    computing: Vec<VecDeque<Computing>>,
    /// When the chunks of each move were submitted.
    chunks: BTreeMap<MoveId, VecDeque<Instant>>,
    /// Requests that may come because others have finished.
    freed: usize,
    /// When the controller is to be woken.
    wakes: BTreeSet<Time>,
}

impl<L: Load> Live<L> {
    /// Time begins now.
    pub fn new(device: Device, load: L) -> Live<L> {
        let computing = device.streams().map(|_| VecDeque::new()).collect();
        Live {
            device,
            load,
            start: now(),
            next_request: 0,
            due: VecDeque::new(),
            computing,
            chunks: BTreeMap::new(),
            freed: 0,
            wakes: BTreeSet::new(),
        }
    }

    /// The device.
    pub fn device(&mut self) -> &mut Device {
        &mut self.device
    }

    fn present(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// When the next request comes in, if it waits for nobody.
    fn next_arrival(&self) -> Option<Instant> {
        match self.load.request(self.next_request)?.at {
            Some(at) => self.instant(at),
            None if self.freed > 0 => Some(self.start),
            None => None,
        }
    }

    fn instant(&self, at: Time) -> Option<Instant> {
        self.start.checked_add(Duration::from_nanos(at.0))
    }

    /// When the controller is to be woken next.
    fn next_wake(&self) -> Option<Instant> {
        self.instant(*self.wakes.first()?)
    }

    fn arrive(&mut self) -> Option<EventKind> {
        let Arrival { at, context, tokens } = self.load.request(self.next_request)?;
        if at.is_none() {
            self.freed -= 1;
        }
        let request = RequestId(self.next_request as u32);
        self.next_request += 1;
        Some(EventKind::RequestArrived {
            request,
            context_tokens: context,
            output_tokens: tokens,
            priority: 0,
            prefix: Default::default(),
            tenant: 0,
        })
    }

    fn see(&mut self, finished: Finished) -> Result<Option<EventKind>, DeviceError> {
        match finished {
            Finished::Chunk(id) => {
                let took = self.device.wait(id)?.took;
                let submitted = self.submitted(id);
                let passed = submitted.map_or(Duration::ZERO, |submitted| now().duration_since(submitted));
                let passed = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
                Ok(Some(EventKind::ChunkDone { id, queued: Nanos(passed.saturating_sub(took.0)) }))
            }
            Finished::Compute(part) => {
                self.device.wait_compute(part)?;
                let Some(done) = self.computing[stream_of(part)].pop_front() else { return Ok(None) };
                Ok(self.computed(&done))
            }
        }
    }

    /// When the oldest chunk of a move that was under way had been submitted.
    fn submitted(&mut self, id: MoveId) -> Option<Instant> {
        let chunks = self.chunks.get_mut(&id)?;
        let oldest = chunks.pop_front();
        if chunks.is_empty() {
            self.chunks.remove(&id);
        }
        oldest
    }

    fn computed(&mut self, Computing { layer, part, batch }: &Computing) -> Option<EventKind> {
        let layer = *layer;
        match part {
            Part::Mixer => {
                self.due.extend(self.load.foresee(batch, layer));
                self.due.push_back(EventKind::LayerRouted { layer, routed: self.load.route(batch, layer) });
                None
            }
            Part::Experts => Some(EventKind::LayerDone { layer }),
            Part::Near(by) => Some(EventKind::NearDone { layer, by: *by }),
            Part::Head => Some(EventKind::HeadDone),
        }
    }
}

impl<L: Load> Platform for Live<L> {
    type Error = DeviceError;

    fn next_event(&mut self) -> Result<Option<Event>, DeviceError> {
        loop {
            let (arrival, wake) = (self.next_arrival(), self.next_wake());
            let due = arrival.into_iter().chain(wake).min();
            let kind = if let Some(due) = self.due.pop_front() {
                Some(due)
            } else if arrival.is_some_and(|arrival| arrival <= now()) {
                self.arrive()
            } else if wake.is_some_and(|wake| wake <= now()) {
                self.wakes.pop_first();
                Some(EventKind::Woken)
            } else if let Some(finished) = self.device.next(due)? {
                self.see(finished)?
            } else if let Some(due) = due {
                // Nothing is under way, so the device did not wait.
                std::thread::sleep(due.saturating_duration_since(now()));
                None
            } else {
                return Ok(None);
            };
            if let Some(kind) = kind {
                return Ok(Some(Event { at: self.present(), kind }));
            }
        }
    }

    fn submit(&mut self, command: Command) -> Result<(), DeviceError> {
        self.device.submit(&command)?;
        match command {
            Command::Move(chunk) => self.chunks.entry(chunk.id).or_default().push_back(now()),
            Command::Cancel { id } => drop(self.chunks.remove(&id)),
            Command::Compute { layer, part, batch, .. } => {
                self.computing[stream_of(part)].push_back(Computing { layer, part, batch });
            }
            Command::Finish { .. } => self.freed += 1,
            Command::MoveState(chunk) => self.chunks.entry(chunk.id).or_default().push_back(now()),
            Command::Wake { at } => drop(self.wakes.insert(at)),
            Command::Drop { .. } | Command::DropState { .. } | Command::HandOn(_) | Command::Tell(_) => {}
        }
        Ok(())
    }
}
