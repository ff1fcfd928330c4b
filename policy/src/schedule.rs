//! Phase four: the order of moves on each link.
//!
//! Links are class-blind, as copy engines are. What is urgent comes first only because of what is kept outstanding: a
//! demand is handed over whole and at once; everything else goes one chunk at a time, and only while no demand is
//! outstanding on its link. So a demand never waits behind more than one chunk.

use crate::event::{Command, EncodeAt, MoveChunk, MoveClass};
use crate::id::{LinkId, MoveId};
use crate::ledger::Ledger;
use crate::refused::Refused;
use crate::units::{Bytes, Time};

/// A move that still has bytes to hand over.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: MoveId,
    link: Option<LinkId>,
    encode_at: EncodeAt,
    /// When it must start to be in time, if that is known.
    latest_start: Option<Time>,
}

/// A chunk handed over and not yet arrived.
#[derive(Clone, Copy, Debug)]
struct Sent {
    id: MoveId,
    link: Option<LinkId>,
    len: Bytes,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Schedule {
    chunk: Bytes,
    waiting: Vec<Waiting>,
    sent: Vec<Sent>,
}

impl Schedule {
    /// A schedule that cuts everything but demands into chunks of this size.
    pub fn new(chunk: Bytes) -> Schedule {
        Schedule { chunk: Bytes(chunk.0.max(1)), waiting: Vec::new(), sent: Vec::new() }
    }

    /// Takes a move that the ledger has begun.
    pub fn add(&mut self, id: MoveId, link: Option<LinkId>, encode_at: EncodeAt, latest_start: Option<Time>) {
        self.waiting.push(Waiting { id, link, encode_at, latest_start });
    }

    /// Forgets a move that will not be finished. Returns whether a chunk of it is still on its link, which then has to
    /// land before the room is free.
    pub fn forget(&mut self, id: MoveId) -> bool {
        self.waiting.retain(|waiting| waiting.id != id);
        self.has_outstanding(id)
    }

    /// Whether a chunk of a move is on its link.
    pub fn has_outstanding(&self, id: MoveId) -> bool {
        self.sent.iter().any(|sent| sent.id == id)
    }

    /// Notes that the oldest chunk of a move has arrived; returns its bytes.
    pub fn landed(&mut self, id: MoveId) -> Option<Bytes> {
        let place = self.sent.iter().position(|sent| sent.id == id)?;
        Some(self.sent.remove(place).len)
    }

    /// Hands over whatever may go now.
    ///
    /// # Errors
    /// A move the ledger does not know.
    pub fn dispatch(&mut self, ledger: &mut Ledger, commands: &mut Vec<Command>) -> Result<(), Refused> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let urgent = |ledger: &Ledger, id| ledger.flight(id).is_some_and(|f| f.class == MoveClass::Demand);
        for index in 0..self.waiting.len() {
            let waiting = self.waiting[index];
            if urgent(ledger, waiting.id) || waiting.link.is_none() {
                self.send(waiting, Bytes(u64::MAX), ledger, commands)?;
            }
        }
        self.waiting.retain(|waiting| ledger.flight(waiting.id).is_some_and(|f| f.sent < f.total));
        while let Some(waiting) = self.next_background(ledger) {
            self.send(waiting, self.chunk, ledger, commands)?;
            self.waiting.retain(|waiting| ledger.flight(waiting.id).is_some_and(|f| f.sent < f.total));
        }
        Ok(())
    }

    /// The best background move on a link with nothing outstanding.
    fn next_background(&self, ledger: &Ledger) -> Option<Waiting> {
        self.waiting
            .iter()
            .filter(|waiting| self.sent.iter().all(|sent| sent.link != waiting.link))
            .filter_map(|waiting| ledger.flight(waiting.id).map(|flight| (flight.class, waiting)))
            .min_by_key(|(class, waiting)| {
                (*class, waiting.latest_start.unwrap_or(Time(u64::MAX)), waiting.id)
            })
            .map(|(_, waiting)| *waiting)
    }

    fn send(
        &mut self,
        waiting: Waiting,
        most: Bytes,
        ledger: &mut Ledger,
        commands: &mut Vec<Command>,
    ) -> Result<(), Refused> {
        let flight = *ledger.flight(waiting.id).ok_or(Refused::NoSuchMove(waiting.id))?;
        let len = flight.total.saturating_sub(flight.sent).min(most);
        ledger.send(waiting.id, len)?;
        self.sent.push(Sent { id: waiting.id, link: waiting.link, len });
        commands.push(Command::Move(MoveChunk {
            id: waiting.id,
            block: flight.block,
            from: flight.from,
            to: flight.to,
            encode_at: waiting.encode_at,
            class: flight.class,
            deadline: flight.deadline,
            offset: flight.sent,
            len,
            last: flight.sent + len == flight.total,
        }));
        Ok(())
    }
}
