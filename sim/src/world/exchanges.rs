//! What accelerators send each other over links that blocks move on too: it flows there beside them.
//!
//! An exchange is first its latency and then its bytes, which share what they cross with copies. Alone it takes the time that
//! the machine's `peers` say. A batch that comes from another stage of a pipeline crosses the links towards the accelerator
//! that receives it: those that promotions take.

use super::{Tick, World, WorldError};
use crate::queue::Rank;
use policy::machine::Peers;
use policy::pipeline::Batch;
use policy::{Bytes, LinkSet, Nanos, Time};

/// What an exchange flows as.
const SUM: u64 = 0;
const TOKENS: u64 = 1;
const BATCH: u64 = 2;

/// A batch on its way from another stage.
#[derive(Debug)]
pub(super) struct Coming {
    pub(super) batch: Batch,
    /// What flows over links that blocks move on, before it is here.
    pub(super) crossing: Bytes,
}

impl World {
    /// The accelerators that it exchanges with, if that takes links that blocks move on.
    fn over_links(&self) -> Option<Peers> {
        self.machine.peers.filter(Peers::shares_links)
    }

    /// The time that the bytes of an exchange take alone.
    pub(super) fn exchange_alone(&self, bytes: Bytes) -> Nanos {
        self.over_links().map_or(Nanos::ZERO, |peers| peers.rate.time_for(bytes))
    }

    /// A kernel that has ended adds up what the accelerators have.
    pub(super) fn exchange_sums(&mut self, bytes: Bytes) {
        self.flow(SUM, |over| over, bytes);
    }

    /// Tokens that were elsewhere set out for here.
    pub(super) fn exchange_tokens(&mut self, bytes: Bytes) {
        self.share();
        self.flow(TOKENS, |over| over, bytes);
    }

    fn flow(&mut self, tag: u64, part: impl FnOnce(LinkSet) -> LinkSet, bytes: Bytes) {
        if let Some(Peers { over, rate, .. }) = self.over_links() {
            self.fabric.exchange(self.now, tag, part(over), bytes, rate);
        }
    }

    /// A part of an exchange that ran beside nothing else.
    pub(super) fn exchanged_alone(&mut self, bytes: Bytes, time: Nanos) {
        if let Some(Peers { over, .. }) = self.over_links().filter(|_| bytes > Bytes::ZERO) {
            self.fabric.exchanged(over, bytes, time);
        }
    }

    /// The bytes of an exchange have all arrived.
    pub(super) fn exchanged(&mut self, tag: u64) {
        let (rank, tick) = match tag {
            SUM => (Rank::Completion, Tick::Computed),
            TOKENS => (Rank::Completion, Tick::TokensBack),
            _ => (Rank::Transfer, Tick::Landed),
        };
        self.queue.push(self.now, rank, tick);
    }

    /// A batch is announced that another stage has sent: it is here at once, or when its bytes have crossed the links, one
    /// batch after the other.
    pub(super) fn announced(&mut self) {
        self.announced += 1;
        if self.announced == 1 {
            self.land();
        }
    }

    /// The first batch that was announced crosses the links.
    fn land(&mut self) {
        let crossing = self.coming.front().map_or(Bytes::ZERO, |coming| coming.crossing);
        if crossing == Bytes::ZERO {
            self.queue.push(self.now, Rank::Transfer, Tick::Landed);
            return;
        }
        self.share();
        let (machine, fast) = (self.machine.clone(), self.fast);
        let towards = |over: LinkSet| over.iter().filter(|&link| machine.link(link).to == fast).collect();
        self.flow(BATCH, towards, crossing);
    }

    /// The first batch that was announced is here.
    pub(super) fn landed(&mut self) -> Option<Batch> {
        let Coming { batch, .. } = self.coming.pop_front()?;
        self.announced -= 1;
        if self.announced > 0 {
            self.land();
        }
        Some(batch)
    }

    /// Tokens are back: the ranks meet once more.
    pub(super) fn tokens_back(&mut self) -> Result<(), WorldError> {
        let Some(held) = self.returning.take() else { return Ok(()) };
        self.waited += self.now.since(self.held_since);
        self.hold(held)
    }
}

/// How much of so many bytes has flowed at a rate since an instant.
pub(super) fn flowed(rate: policy::Bandwidth, since: Time, now: Time) -> Bytes {
    let bytes = u128::from(rate.0) * u128::from(now.since(since).0) / 1_000_000_000;
    Bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
}
