//! A timeline for tests: every link takes its chunks one after the other at a nanosecond a byte, every compute command
//! takes a microsecond.

use crate::world::HBM;
use policy::event::{Command, Event, EventKind, Part, Platform};
use policy::units::Nanos;
use policy::{MoveId, TierId, Time};
use std::collections::BTreeMap;
use std::convert::Infallible;

#[derive(Default)]
pub(crate) struct Timeline {
    now: Time,
    order: u64,
    pending: BTreeMap<(Time, u64), EventKind>,
    free_at: BTreeMap<Option<(TierId, TierId)>, Time>,
}

impl Timeline {
    fn schedule(&mut self, resource: Option<(TierId, TierId)>, takes: Nanos, kind: EventKind) {
        let at = self.free_at.get(&resource).copied().unwrap_or(self.now).max(self.now) + takes;
        self.free_at.insert(resource, at);
        self.order += 1;
        self.pending.insert((at, self.order), kind);
    }

    fn forget(&mut self, cancelled: MoveId) {
        self.pending.retain(|_, kind| !matches!(kind, EventKind::ChunkDone { id, .. } if *id == cancelled));
    }
}

impl Platform for Timeline {
    type Error = Infallible;

    fn next_event(&mut self) -> Result<Option<Event>, Infallible> {
        let Some(((at, _), kind)) = self.pending.pop_first() else { return Ok(None) };
        self.now = at;
        Ok(Some(Event { at, kind }))
    }

    fn submit(&mut self, command: Command) -> Result<(), Infallible> {
        match command {
            Command::Move(chunk) => {
                let done = EventKind::ChunkDone { id: chunk.id, queued: Nanos::ZERO };
                self.schedule(Some((chunk.from.tier(chunk.to), chunk.to.tier)), Nanos(chunk.len.0), done);
            }
            Command::Cancel { id } => self.forget(id),
            Command::Compute { layer, part, .. } => {
                let done = match part {
                    Part::Mixer => EventKind::LayerRouted { layer, routed: vec![] },
                    Part::Experts => EventKind::LayerDone { layer },
                    Part::Near(by) => EventKind::NearDone { layer, by },
                    Part::Head => EventKind::HeadDone,
                };
                self.schedule(None, Nanos(1000), done);
            }
            Command::MoveState(chunk) => {
                let done = EventKind::ChunkDone { id: chunk.id, queued: Nanos::ZERO };
                let [from, to] = [chunk.from, chunk.to].map(|end| end.form(HBM).tier);
                self.schedule(Some((from, to)), Nanos(chunk.len.0), done);
            }
            Command::Drop { .. }
            | Command::DropState { .. }
            | Command::HandOn(_)
            | Command::Wake { .. }
            | Command::Tell(_)
            | Command::Finish { .. } => {}
        }
        Ok(())
    }
}
