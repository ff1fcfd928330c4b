//! Phase four: the order of moves on each link.
//!
//! Links are class-blind, as copy engines are. What is urgent comes first only because of what is kept outstanding: a
//! demand is handed over whole and at once; everything else goes one chunk at a time, and only while no demand is
//! outstanding on its links. So a demand never waits behind more than one chunk. What has a share of a link less than
//! the whole rests after every chunk, in proportion to the time the chunk took, and asks to be woken when it may go on. Where
//! accelerators exchange over the same links, a background chunk does not begin that would still be there when the next
//! exchange is due.
//! Moves of blocks and of checkpoints are ordered alike; what is moved is known to their books. A demand from memory that its owner may
//! take back goes in half chunks, two at a time, so that the owner never waits for more than one chunk and the link never for the next.

use crate::backlog::Backlog;
use crate::checkpoints::Checkpoints;
use crate::event::{Command, EncodeAt, MoveChunk, MoveClass};
use crate::exchange::Exchange;
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

/// A chunk that a book hands over.
#[derive(Clone, Debug)]
pub struct HandedOver {
    /// What the platform is told.
    pub command: Command,
    /// Its bytes.
    pub len: Bytes,
    /// Why it is moved.
    pub class: MoveClass,
    /// Whether nothing of the move is left.
    pub last: bool,
}

/// Where moves are booked.
pub trait Book {
    /// Why a move is made; `None` if it is not under way.
    fn class(&self, id: MoveId) -> Option<MoveClass>;

    /// Hands over at most `most` bytes of a move.
    ///
    /// # Errors
    /// The move is not under way.
    fn hand_over(&mut self, id: MoveId, encode_at: EncodeAt, most: Bytes) -> Result<HandedOver, Refused>;
}

impl Book for Ledger {
    fn class(&self, id: MoveId) -> Option<MoveClass> {
        self.flight(id).map(|flight| flight.class)
    }

    fn hand_over(&mut self, id: MoveId, encode_at: EncodeAt, most: Bytes) -> Result<HandedOver, Refused> {
        let (flight, len) = self.send(id, most)?;
        let last = flight.sent + len == flight.total;
        let command = Command::Move(MoveChunk {
            id,
            block: flight.block,
            from: flight.from,
            to: flight.to,
            keep: flight.keep,
            encode_at,
            class: flight.class,
            deadline: flight.deadline,
            offset: flight.sent,
            len,
            last,
        });
        Ok(HandedOver { command, len, class: flight.class, last })
    }
}

/// The books of a run: of blocks, and of checkpoints where there are any.
pub(crate) struct Books<'a> {
    pub(crate) blocks: &'a mut Ledger,
    pub(crate) states: Option<&'a mut Checkpoints>,
}

impl Book for Books<'_> {
    fn class(&self, id: MoveId) -> Option<MoveClass> {
        match &self.states {
            Some(states) if Checkpoints::owns(id) => states.class(id),
            _ => self.blocks.class(id),
        }
    }

    fn hand_over(&mut self, id: MoveId, encode_at: EncodeAt, most: Bytes) -> Result<HandedOver, Refused> {
        match &mut self.states {
            Some(states) if Checkpoints::owns(id) => states.hand_over(id, encode_at, most),
            _ => self.blocks.hand_over(id, encode_at, most),
        }
    }
}

/// What is said of a move when it is added.
#[derive(Clone, Copy, Debug)]
pub struct Added {
    /// The links it crosses.
    pub links: LinkSet,
    /// On which side of them its format changes.
    pub encode_at: EncodeAt,
    /// Why it is made.
    pub class: MoveClass,
    /// What crosses the links in all; how long that takes, and occupies them, on an idle machine. Nothing where nobody asks how
    /// long they are busy with it.
    pub whole: (Bytes, Nanos, Nanos),
    /// When it must start to be in time, if that is known.
    pub latest_start: Option<Time>,
    /// Whether its source may be taken back by its owner.
    pub transient: bool,
    /// Whether, as a demand, it waits until those before it have arrived: several at once would share a link that takes many, and
    /// all arrive last.
    pub in_turn: bool,
}

impl Added {
    /// A move over these links of which no more is known.
    pub fn over(links: LinkSet, class: MoveClass) -> Added {
        let whole = (Bytes::ZERO, Nanos::ZERO, Nanos::ZERO);
        Added {
            links,
            encode_at: EncodeAt::Source,
            class,
            whole,
            latest_start: None,
            transient: false,
            in_turn: false,
        }
    }

    /// A move by this route.
    pub fn by(route: &Route, class: MoveClass) -> Added {
        let &Route { links, encode_at, crossing, time, occupies, .. } = route;
        Added { encode_at, whole: (crossing, time, occupies), ..Added::over(links, class) }
    }
}

/// A move that still has bytes to hand over.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: MoveId,
    links: LinkSet,
    as_added: Added,
    /// Where all of it was put behind what is on the links when it was added: whether nothing was.
    first: Option<bool>,
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
    /// When the platform will wake it, if that is still to come.
    wake: Option<Time>,
    backlog: Backlog,
    /// The exchange that is due, and since when background moves have been kept off its links, if none has gone since.
    exchange: Option<Exchange>,
    held_since: Option<Time>,
}

impl Schedule {
    /// A schedule of no moves.
    pub fn new(pace: Pace) -> Schedule {
        let pace = Pace { chunk: Bytes(pace.chunk.0.max(1)), ..pace };
        let (waiting, sent, resting) = (Vec::new(), VecDeque::new(), Vec::new());
        let (backlog, exchange) = (Backlog::default(), None);
        Schedule { pace, waiting, sent, resting, wake: None, backlog, exchange, held_since: None }
    }

    /// From here on an exchange is due, or none.
    pub fn mind(&mut self, exchange: Option<Exchange>) {
        self.exchange = exchange;
    }

    /// Takes a move that its book has begun.
    pub fn add(&mut self, id: MoveId, added: Added, now: Time) {
        let Added { links, class, whole: (.., occupies), .. } = added;
        let first = (class == MoveClass::Demand).then(|| self.backlog.send(links, occupies, now));
        self.waiting.push(Waiting { id, links, as_added: added, first });
    }

    /// How long a move that is begun now is expected to take, behind what is on its links already and beside what others have there.
    pub fn arrival(&self, route: &Route, now: Time) -> Nanos {
        self.backlog.arrival(route.links, route.time, now)
    }

    /// The same for a copy that is read into one memory and from there, when all of it is there, into another.
    pub fn arrival_by(&self, first: &Route, second: &Route, now: Time) -> Nanos {
        let waits = self.backlog.wait(second.links, now);
        self.arrival(first, now).max(waits) + self.backlog.slowed(second.links, second.time)
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
    /// A move that is not booked.
    pub fn dispatch(
        &mut self,
        now: Time,
        book: &mut impl Book,
        commands: &mut Vec<Command>,
    ) -> Result<(), Refused> {
        self.resting.retain(|rest| rest.until > now);
        let mut left = 0;
        for place in 0..self.waiting.len() {
            let waiting = self.waiting[place];
            let at_once = book.class(waiting.id) == Some(MoveClass::Demand) || waiting.links.is_empty();
            let gone = match at_once {
                true if waiting.as_added.in_turn && self.is_demanded(waiting.links) => false,
                true if waiting.as_added.transient => self.send_halves(now, waiting, book, commands)?,
                true => self.send(now, waiting, Bytes(u64::MAX), book, commands)?,
                false => false,
            };
            if !gone {
                self.waiting[left] = waiting;
                left += 1;
            }
        }
        self.waiting.truncate(left);
        while let Some(place) = self.next_background(now, book) {
            self.held_since = None;
            if self.send(now, self.waiting[place], self.pace.chunk, book, commands)? {
                self.waiting.remove(place);
            }
        }
        let held = |waiting: &Waiting| self.held_until(now, waiting).is_some();
        if self.held_since.is_none() && self.waiting.iter().any(held) {
            self.held_since = Some(now);
        }
        self.ask_to_be_woken(now, book, commands);
        Ok(())
    }

    /// Hands over half chunks of a demand as long as no more than a chunk is under way on its links; returns whether that was all.
    fn send_halves(
        &mut self,
        now: Time,
        waiting: Waiting,
        book: &mut impl Book,
        commands: &mut Vec<Command>,
    ) -> Result<bool, Refused> {
        let half = Bytes(self.pace.chunk.0.div_ceil(2));
        let under_way = |sent: &VecDeque<Sent>| -> Bytes {
            sent.iter().filter(|sent| sent.links.overlaps(waiting.links)).map(|sent| sent.len).sum()
        };
        while under_way(&self.sent) <= half {
            if self.send(now, waiting, half, book, commands)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Has the platform wake it when the first of the moves that only rest, or are held back, may go on.
    fn ask_to_be_woken(&mut self, now: Time, book: &impl Book, commands: &mut Vec<Command>) {
        let rested = |waiting: &Waiting| {
            let class = book.class(waiting.id)?;
            let rests = self.resting_until(class, waiting.links);
            rests.max(self.held_until(now, waiting)).filter(|_| self.is_free(waiting))
        };
        let Some(at) = self.waiting.iter().filter_map(rested).min() else { return };
        if self.wake.is_none_or(|wake| wake <= now || at < wake) {
            self.wake = Some(at);
            commands.push(Command::Wake { at });
        }
    }

    /// Whether a demand is outstanding on some of these links.
    fn is_demanded(&self, links: LinkSet) -> bool {
        self.sent.iter().any(|sent| sent.class == MoveClass::Demand && sent.links.overlaps(links))
    }

    /// Whether nothing is outstanding on a move's links.
    fn is_free(&self, waiting: &Waiting) -> bool {
        self.sent.iter().all(|sent| !sent.links.overlaps(waiting.links))
    }

    /// Until when moves of a class leave these links alone, if they do.
    fn resting_until(&self, class: MoveClass, links: LinkSet) -> Option<Time> {
        let theirs = self.resting.iter().filter(|rest| rest.class == class && rest.links.overlaps(links));
        theirs.map(|rest| rest.until).max()
    }

    /// Until when a move is held back at most because its next chunk would be on a link when an exchange is due there; `None`
    /// if it is not.
    fn held_until(&self, now: Time, waiting: &Waiting) -> Option<Time> {
        let Exchange { links, begins, patience } = self.exchange?;
        let (crossing, time, _) = waiting.as_added.whole;
        let chunk = u128::from(self.pace.chunk.min(crossing).0) * u128::from(time.0);
        let takes = Nanos(u64::try_from(chunk / u128::from(crossing.0.max(1))).unwrap_or(u64::MAX));
        let until = self.held_since.unwrap_or(now) + patience;
        let in_the_way = waiting.links.overlaps(links) && now + takes > begins;
        (in_the_way && until > now).then_some(until)
    }

    /// The place of the best background move on a link with nothing outstanding.
    fn next_background(&self, now: Time, book: &impl Book) -> Option<usize> {
        let key = |waiting: &Waiting| {
            let class = book.class(waiting.id).filter(|&class| class != MoveClass::Demand)?;
            let rests = self.resting_until(class, waiting.links).or(self.held_until(now, waiting)).is_some();
            let latest_start = waiting.as_added.latest_start.unwrap_or(Time(u64::MAX));
            (!rests).then_some((class, latest_start, waiting.id))
        };
        let places = self.waiting.iter().enumerate().filter(|(_, waiting)| self.is_free(waiting));
        places.filter_map(|(place, waiting)| Some((key(waiting)?, place))).min().map(|(_, place)| place)
    }

    /// Hands over at most `most` bytes of a waiting move; returns whether that was all.
    fn send(
        &mut self,
        now: Time,
        waiting: Waiting,
        most: Bytes,
        book: &mut impl Book,
        commands: &mut Vec<Command>,
    ) -> Result<bool, Refused> {
        let Waiting { id, links, as_added, first } = waiting;
        let Added { encode_at, whole: (crossing, time, occupies), .. } = as_added;
        let HandedOver { command, len, class, last } = book.hand_over(id, encode_at, most)?;
        let part = |time: Nanos| {
            let part = u128::from(time.0) * u128::from(len.0) / u128::from(crossing.0.max(1));
            Nanos(u64::try_from(part).unwrap_or(u64::MAX))
        };
        let first = first.unwrap_or_else(|| self.backlog.send(links, part(occupies), now));
        // A part of a copy pays the latency of the whole.
        let idle = (first && time > Nanos::ZERO && len == crossing).then_some(time);
        self.sent.push_back(Sent { id, links, len, class, at: now, idle });
        commands.push(command);
        Ok(last)
    }
}
