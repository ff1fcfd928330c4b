//! Phase four: the order of moves on each link.
//!
//! Links are class-blind, as copy engines are. What is urgent comes first only because of what is kept outstanding: a
//! demand is handed over whole and at once; everything else goes one chunk at a time, and only while no demand is
//! outstanding on its links. So a demand never waits behind more than one chunk. What has a share of a link less than
//! the whole rests after every chunk, in proportion to the time the chunk took. A demand from memory that its owner may take back
//! goes in half chunks, two at a time, so that the owner never waits for more than one chunk and the link never for the next.

use crate::backlog::Backlog;
use crate::event::{Command, EncodeAt, MoveChunk, MoveClass};
use crate::id::MoveId;
use crate::ledger::Ledger;
use crate::path::LinkSet;
use crate::refused::Refused;
use crate::score::Route;
use crate::units::{Bytes, Nanos, Time};
use std::collections::VecDeque;

/// How background moves are kept from crowding a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Everything but demands is cut into chunks of this size.
    pub chunk: Bytes,
    /// The largest share of a link's time that moves ahead of demand may take, more than 0 and at most 1.
    pub background_share: f64,
    /// The same for spills.
    pub spill_share: f64,
}

impl Pace {
    /// The rest that a class owes its link after a chunk that took so long.
    fn rest(&self, class: MoveClass, took: Nanos) -> Nanos {
        let share = match class {
            MoveClass::Demand => return Nanos::ZERO,
            MoveClass::Prefetch | MoveClass::Speculation => self.background_share,
            MoveClass::Spill => self.spill_share,
        };
        Nanos((took.0 as f64 * (1.0 / share.clamp(1e-6, 1.0) - 1.0)) as u64)
    }
}

/// A move that still has bytes to hand over.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: MoveId,
    links: LinkSet,
    encode_at: EncodeAt,
    /// When it must start to be in time, if that is known.
    latest_start: Option<Time>,
    /// Whether its source may be taken back by its owner.
    transient: bool,
    /// What crosses the links in all; how long that takes, and occupies them, on an idle machine.
    whole: (Bytes, Nanos, Nanos),
    /// Where all of it was put behind what is on the links when it was added: whether nothing was.
    first: Option<bool>,
}

/// What is said of a move when it is added.
#[derive(Clone, Copy, Debug)]
pub struct Added {
    /// Why it is made.
    pub class: MoveClass,
    /// When it must start to be in time, if that is known.
    pub latest_start: Option<Time>,
    /// Whether its source may be taken back by its owner.
    pub transient: bool,
    /// The present.
    pub now: Time,
}

/// A chunk handed over and not yet arrived.
#[derive(Clone, Copy, Debug)]
struct Sent {
    id: MoveId,
    links: LinkSet,
    len: Bytes,
    class: MoveClass,
    at: Time,
    /// What it takes on an idle machine, if nothing was before it.
    idle: Option<Nanos>,
}

/// Links that a class of moves has to leave alone for a while.
#[derive(Clone, Copy, Debug)]
struct Rest {
    links: LinkSet,
    class: MoveClass,
    until: Time,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Schedule {
    pace: Pace,
    waiting: Vec<Waiting>,
    sent: VecDeque<Sent>,
    resting: Vec<Rest>,
    backlog: Backlog,
}

impl Schedule {
    /// A schedule of no moves.
    pub fn new(pace: Pace) -> Schedule {
        let pace = Pace { chunk: Bytes(pace.chunk.0.max(1)), ..pace };
        let (waiting, sent, resting) = (Vec::new(), VecDeque::new(), Vec::new());
        Schedule { pace, waiting, sent, resting, backlog: Backlog::default() }
    }

    /// Takes a move that the ledger has begun.
    pub fn add(&mut self, id: MoveId, route: &Route, added: Added) {
        let &Route { links, encode_at, crossing, time, occupies, .. } = route;
        let Added { class, latest_start, transient, now } = added;
        let whole = (crossing, time, occupies);
        let first = (class == MoveClass::Demand).then(|| self.backlog.send(links, occupies, now));
        self.waiting.push(Waiting { id, links, encode_at, latest_start, transient, whole, first });
    }

    /// How long a move that is begun now is expected to take, behind what is on its links already and beside what others have there.
    pub fn arrival(&self, route: &Route, now: Time) -> Nanos {
        self.backlog.arrival(route.links, route.time, now)
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
    pub fn landed(&mut self, id: MoveId, now: Time) -> Option<Bytes> {
        let place = self.sent.iter().position(|sent| sent.id == id)?;
        let Sent { links, len, class, at, idle, .. } = self.sent.remove(place)?;
        if let Some(idle) = idle {
            self.backlog.measured(links, now.since(at), idle);
        }
        let rest = self.pace.rest(class, now.since(at));
        if rest > Nanos::ZERO {
            self.resting.push(Rest { links, class, until: now + rest });
        }
        Some(len)
    }

    /// Hands over whatever may go now.
    ///
    /// # Errors
    /// A move the ledger does not know.
    pub fn dispatch(
        &mut self,
        now: Time,
        ledger: &mut Ledger,
        commands: &mut Vec<Command>,
    ) -> Result<(), Refused> {
        self.resting.retain(|rest| rest.until > now);
        let mut left = 0;
        for place in 0..self.waiting.len() {
            let waiting = self.waiting[place];
            let class = ledger.flight(waiting.id).map(|flight| flight.class);
            let at_once = class == Some(MoveClass::Demand) || waiting.links.is_empty();
            let gone = match at_once {
                true if waiting.transient => self.send_halves(now, waiting, ledger, commands)?,
                true => self.send(now, waiting, Bytes(u64::MAX), ledger, commands)?,
                false => false,
            };
            if !gone {
                self.waiting[left] = waiting;
                left += 1;
            }
        }
        self.waiting.truncate(left);
        while let Some(place) = self.next_background(ledger) {
            if self.send(now, self.waiting[place], self.pace.chunk, ledger, commands)? {
                self.waiting.remove(place);
            }
        }
        Ok(())
    }

    /// Hands over half chunks of a demand until two are under way; returns whether that was all.
    fn send_halves(
        &mut self,
        now: Time,
        waiting: Waiting,
        ledger: &mut Ledger,
        commands: &mut Vec<Command>,
    ) -> Result<bool, Refused> {
        let half = Bytes(self.pace.chunk.0.div_ceil(2));
        while self.sent.iter().filter(|sent| sent.id == waiting.id).count() < 2 {
            if self.send(now, waiting, half, ledger, commands)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The place of the best background move on a link with nothing outstanding.
    fn next_background(&self, ledger: &Ledger) -> Option<usize> {
        let free = |waiting: &Waiting| self.sent.iter().all(|sent| !sent.links.overlaps(waiting.links));
        let key = |waiting: &Waiting| {
            let class = ledger.flight(waiting.id)?.class;
            if class == MoveClass::Demand {
                return None;
            }
            if self.resting.iter().any(|rest| rest.class == class && rest.links.overlaps(waiting.links)) {
                return None;
            }
            Some((class, waiting.latest_start.unwrap_or(Time(u64::MAX)), waiting.id))
        };
        let places = self.waiting.iter().enumerate().filter(|(_, waiting)| free(waiting));
        places.filter_map(|(place, waiting)| Some((key(waiting)?, place))).min().map(|(_, place)| place)
    }

    /// Hands over at most `most` bytes of a waiting move; returns whether that was all.
    fn send(
        &mut self,
        now: Time,
        waiting: Waiting,
        most: Bytes,
        ledger: &mut Ledger,
        commands: &mut Vec<Command>,
    ) -> Result<bool, Refused> {
        let (flight, len) = ledger.send(waiting.id, most)?;
        let last = flight.sent + len == flight.total;
        let Waiting { id, links, whole: (crossing, time, occupies), first, .. } = waiting;
        let class = flight.class;
        let part = |time: Nanos| {
            let part = u128::from(time.0) * u128::from(len.0) / u128::from(crossing.0.max(1));
            Nanos(u64::try_from(part).unwrap_or(u64::MAX))
        };
        let first = first.unwrap_or_else(|| self.backlog.send(links, part(occupies), now));
        let idle = (first && (last || class != MoveClass::Demand)).then(|| part(time));
        self.sent.push_back(Sent { id, links, len, class, at: now, idle });
        commands.push(Command::Move(MoveChunk {
            id: waiting.id,
            block: flight.block,
            from: flight.from,
            to: flight.to,
            keep: flight.keep,
            encode_at: waiting.encode_at,
            class: flight.class,
            deadline: flight.deadline,
            offset: flight.sent,
            len,
            last,
        }));
        Ok(last)
    }
}
