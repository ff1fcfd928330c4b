//! Pipeline parallelism: several accelerators with layers of their own, each a world with a controller of its own, that hand
//! batches on to each other.
//!
//! The first one leads: before anything happens in its world, whatever comes earlier in the others' does. So all worlds go
//! through one time together, and where several have something to do at one instant the earlier stage is first. What is on its
//! way from a stage leaves one after the other, so that no batch passes another.

use super::ranks::Rank as Other;
use super::{Passed, Tick, World, WorldError};
use crate::queue::Rank;
use policy::pipeline::{Batch, Stage};
use policy::{Bytes, LayerId, Time};

/// Bytes of a token as it is put out: its number.
const TOKEN: u64 = 4;

/// A batch on its way to another stage, and when it arrives.
#[derive(Debug)]
pub(super) struct Sent {
    at: Time,
    batch: Batch,
}

impl World {
    /// The same for a stage of a pipeline; so many layers of the stages before have a router.
    pub(crate) fn staged(self, stage: Stage, routers_before: usize) -> World {
        World { workload: self.workload.staged(routers_before), stage, ..self }
    }

    /// Sends what this stage has computed of a batch to the next one: the activations of its tokens, or behind the last layer
    /// the tokens that it gives.
    pub(super) fn hand_on(&mut self, batch: Batch) {
        let bytes = match self.stage.is_last() {
            true => Bytes(TOKEN * u64::from(batch.emitting)),
            false => {
                let tokens: u64 = batch.slices.iter().map(|slice| u64::from(slice.tokens)).sum();
                let last = LayerId(self.model.layers.len().saturating_sub(1) as u16);
                Bytes(self.model.layer(last).activations.0.saturating_mul(tokens))
            }
        };
        let (latency, time, booked) = self.operators.send(bytes);
        self.provenance.add(&booked, 1);
        self.wire_free = self.now.max(self.wire_free) + time;
        let sent = Sent { at: self.wire_free + latency, batch };
        match self.others.first_mut() {
            Some(next) => next.world.receive(sent),
            None => self.sent = Some(sent),
        }
    }

    fn receive(&mut self, sent: Sent) {
        self.queue.push(sent.at, Rank::Transfer, Tick::HandedOn);
        self.coming.push_back(sent.batch);
    }

    /// Whatever happens in the worlds of later stages before the next thing does here.
    pub(super) fn bring_stages(&mut self) -> Result<(), WorldError> {
        loop {
            let due = |(place, other): (usize, &mut Other)| Some((other.world.next_due()?, place));
            let Some((at, place)) = self.others.iter_mut().enumerate().filter_map(due).min() else {
                return Ok(());
            };
            if self.next_due().is_some_and(|own| own <= at) {
                return Ok(());
            }
            self.others[place].once()?;
            if let Some(sent) = self.others[place].world.sent.take() {
                match self.others.get_mut(place + 1) {
                    Some(next) => next.world.receive(sent),
                    None => self.receive(sent),
                }
            }
        }
    }

    /// When the next thing happens in this world; `None` where nothing is left to.
    fn next_due(&mut self) -> Option<Time> {
        if !self.due.is_empty() {
            return Some(self.now);
        }
        if self.is_over() {
            return None;
        }
        match (self.fabric.next_due(), self.queue.next_time()) {
            (Some(left), Some(next)) => Some(left.min(next)),
            (left, next) => left.or(next),
        }
    }
}

impl Other {
    /// One instant of its world, and what its controller does then.
    fn once(&mut self) -> Result<(), WorldError> {
        match self.world.instant()? {
            Passed::Event(event) => self.handle(event),
            Passed::Inside | Passed::Over => Ok(()),
        }
    }
}
